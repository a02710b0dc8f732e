"""A running vLLM: start, readiness, end. Nothing of it outlives this process (see supervisor.py)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from llmbench import assets, workspace
from llmbench.engine import loading, log, proof, remote, store, warmup
from llmbench.engine.address import Address, Place, accepts, client
from llmbench.engine.admission import Adapter
from llmbench.engine.command import BASE, capacity, command, onnx_command
from llmbench.engine.interpreter import Device, inspect
from llmbench.engine.key_guard import KEY
from llmbench.engine.parsers import parsers
from llmbench.errors import EngineError
from llmbench.parity import Parity
from llmbench.recipe import MAX_STOPS, ServeRecipe

__all__ = ["Engine", "Progress"]

_NAMES = {"vllm": "vLLM", "onnx": "The ONNX server"}
_FIRST = {"onnx": ("loading the graph",)}
_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_GRACE = 5.0
_POLL = 0.2
_RECOVERY = 15.0
_BINDING_PAYS_FROM = 9
"""From this many cores on vLLM's own binding of threads to cores is worth its slower start."""

_SMALL_BYTES = 200_000_000
"""Weights below this are computed by one thread: with two, on two busy cores, they wait for each other (31 for 64 tokens/s)."""

_KEEP_ALIVE = "600"
"""Seconds for which vLLM keeps an idle connection: far longer than its clients here, so that none asks one that is closing."""

_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to ask, not where to listen

_DROPPED = (
    KEY,  # would guard some paths behind our back
    "VLLM_CPU_KVCACHE_SPACE",  # would win over the recipe
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING",
    "VLLM_SERVER_DEV_MODE",
)


@dataclass(frozen=True)
class Progress:
    """How far a start is: seconds since it began, and what vLLM is doing."""

    seconds: float
    phase: str


class Engine:
    """vLLM with a base and its adapters on a Unix socket in a folder that only this user can enter, or on a port.

    Use it as a context manager: entering starts the process and returns at once, `wait` blocks until it answers.

    Args:
        recipe: the serving document.
        adapters: what its variants name -> the admitted adapter.
        listen: the port, for a gateway elsewhere; None is the socket.
    """

    def __init__(self, recipe: ServeRecipe, adapters: Mapping[str, Adapter], *, listen: Address | None = None) -> None:
        self._recipe = recipe
        self._listen = listen
        self._name = _NAMES[recipe.engine.backend]
        self.capacity = capacity(recipe, adapters)
        """How many adapters fit, and of which rank."""
        self.adapters = {adapter.id: adapter for adapter in adapters.values()}
        """What it has, by id."""
        self._hold = store.Hold()
        """Of their stored copies, which nobody removes meanwhile."""
        self._lost = 0
        """Slots of adapters that were unloaded without freeing them."""
        self._stuck: set[str] = set()
        """Adapters that could not be unloaded: vLLM may have them still."""
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._stopping = threading.Lock()
        self._started = 0.0
        self.notes: list[str] = []
        """What did not go as it should while it started, a line each."""
        self.log = Path()
        self.socket = Path()
        self.context = 0
        """Tokens that the base takes, once it answers."""
        self.device: Device = "cpu"
        """What it computes on, once it was started."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)  # its folder may be there already
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        self._hold.release_all()

    def start(self) -> None:
        """Starts the process and returns at once.

        Raises:
            MissingPackage, EngineError: there is no vLLM, it is too old, or it cannot do what the recipe asks.
        """
        interpreter = inspect(self._recipe.engine.python) if self._recipe.engine.backend == "vllm" else None
        if self._recipe.model.device == "cuda" and (interpreter is None or interpreter.device == "cpu"):
            if interpreter is None:
                raise EngineError("model.device is cuda, but the ONNX server runs on the CPU. Set model.device=auto")
            raise EngineError(
                f"model.device is cuda, but vLLM {interpreter.version} runs on the CPU. Install its CUDA build, or set "
                f"model.device=auto"
            )
        self.device = interpreter.device if interpreter else "cpu"
        self._folder = Path(tempfile.mkdtemp(prefix="llmbench-"))  # mode 0700: nobody else reaches the socket
        self.socket = self._folder / "vllm.sock"
        self.log = workspace.new_log("engine", "vLLM's")
        at = self._listen or self.socket
        argv = onnx_command(self._recipe, at) if interpreter is None else command(
            self._recipe, self.adapters, at,
            python=interpreter.python, device=interpreter.device, room=self.capacity, parsers=parsers(self._recipe),
        )  # fmt: skip
        env = _environment(self._recipe, self._folder, self.device)
        if self._listen is not None and self._listen.key is not None:
            env[KEY] = self._listen.key
        if self.capacity.adapters:
            env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"  # on the private socket, or behind key_guard.py
        watch = [sys.executable, "-I", "-S", str(_SUPERVISOR), str(self._folder), str(_GRACE)]
        for adapter in self.adapters.values():
            self._hold.take(adapter.folder)
        self._started = time.monotonic()
        with self.log.open("wb") as file:
            self._process = subprocess.Popen(
                watch + argv,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,  # Ctrl-C in the terminal is for llmbench, which then ends vLLM in order
            )

    def wait(self, progress: Callable[[Progress], None] | None = None) -> None:
        """Blocks until vLLM answers; `progress` is called about five times a second and may raise to give up.

        Raises:
            EngineError: vLLM ended, or was not ready within `engine.start_timeout`.
        """
        tail = log.Tail(self.log, *_FIRST.get(self._recipe.engine.backend, ()))
        with client(self.at, 2.0) as http:
            while True:
                seconds, phase = time.monotonic() - self._started, tail.read()
                if progress is not None:
                    progress(Progress(seconds, phase))
                self.check(phase)
                with contextlib.suppress(httpx.HTTPError):
                    if accepts(self.at) and http.get("/health").is_success:
                        models = http.get("/v1/models").json()["data"]
                        self.context = int(models[0]["max_model_len"])
                        break
                if seconds > self._recipe.engine.start_timeout:
                    raise EngineError(
                        f"{self._name} was not ready after {seconds:.0f} s (it was {phase}). Its log: {self.log}. "
                        "Raise engine.start_timeout"
                    )
                time.sleep(_POLL)
        if self._recipe.engine.backend == "vllm":  # the ONNX server compiles nothing
            self._warm_up(progress)

    def _warm_up(self, progress: Callable[[Progress], None] | None) -> None:
        """Asks what is slow the first time, so that nobody else waits for it; what fails is a note, not an error."""
        left = self._recipe.engine.start_timeout - (time.monotonic() - self._started)
        with ThreadPoolExecutor(1) as thread:
            for phase, body in warmup.REQUESTS.items():
                asked = thread.submit(warmup.ask, self.at, {"model": BASE} | body, max(left, 1.0))
                while not asked.done():
                    if progress is not None:
                        progress(Progress(time.monotonic() - self._started, phase))
                    self.check(phase)
                    wait([asked], _POLL)
                if (problem := asked.result()) is not None:
                    self._outlived(phase)
                    self.notes.append(f"vLLM was not warmed up ({phase}: {problem}). The first such request will take longer")

    def _outlived(self, phase: str) -> None:
        """Returns once vLLM is known to be well after a request that failed: its engine may have died of it, and only then ends
        the process that answers.

        Raises:
            EngineError: it ended, or is not well within a quarter of a minute.
        """
        end = time.monotonic() + _RECOVERY
        with client(self.at, 2.0) as http:
            while time.monotonic() < end:
                self.check(phase)
                with contextlib.suppress(httpx.HTTPError):
                    if accepts(self.at) and http.get("/health").is_success:
                        return
                time.sleep(_POLL)
        raise EngineError(f"{self._name} no longer answers after {phase}. Its log: {self.log}")

    def token_ids(self, text: str) -> list[int]:
        """The tokens of a text, as the served tokenizer makes them, without those that it puts at the beginning.

        Raises:
            EngineError: the engine does not say.
        """
        return remote.token_ids(self.at, text)

    def refuse(self, adapter: Adapter) -> None:
        """Raises EngineError where an adapter can never be loaded into this engine, whatever is unloaded before."""
        if adapter.id not in self.adapters:
            loading.refuse_misfit(adapter, self.capacity)

    def load(self, adapter: Adapter) -> None:
        """Loads an adapter; one that it has already is left as it is.

        Raises:
            EngineError: there is no room for it, or vLLM does not take it; it has what it had before then.
        """
        self.refuse(adapter)
        if adapter.id in self.adapters:
            return
        if adapter.id in self._stuck:
            with contextlib.suppress(EngineError):
                loading.unload(self.at, adapter.id)
            self._stuck.discard(adapter.id)
        loading.refuse_without_slot(adapter, self.capacity, len(self.adapters) + self._lost + len(self._stuck))
        self._hold.take(adapter.folder)
        loading.load(self.at, adapter)
        self.adapters[adapter.id] = adapter

    def unload(self, id: str) -> None:
        """Unloads an adapter that no request uses any more.

        Raises:
            EngineError: vLLM does not do it; a new start gives it the adapter no more.
        """
        adapter = self.adapters.pop(id)
        try:
            if loading.unload(self.at, id):
                self._hold.release(adapter.folder)
            else:
                self._lost += 1
        except EngineError:
            self._stuck.add(id)
            raise

    def prove(self, adapter: Adapter) -> Parity | None:
        """The verdict on an adapter that it has; None where it has no certificate.

        Raises:
            EngineError: vLLM does not answer the probes.
        """
        return proof.prove(self.at, [adapter]).get(adapter.id)

    @property
    def at(self) -> Place:
        """Where this machine reaches it."""
        if self._listen is None:
            return self.socket
        return replace(self._listen, host=_ANY.get(self._listen.host, self._listen.host))

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self._started

    @property
    def problem(self) -> str | None:
        """Why it does not run, in one line; None while it runs."""
        process = self._process
        if process is None:
            return f"{self._name} was not started"
        code = process.poll()
        return None if code is None else f"{self._name} ended (exit code {code}): {log.cause(self.log, code)}"

    def check(self, phase: str = "serving") -> None:
        """Raises EngineError with the cause and the last lines of the log if vLLM has ended."""
        if self.problem is not None:
            code = self._process.returncode if self._process else 0
            lines = "\n".join(f"    {line}" for line in log.last_lines(self.log))
            why = log.cause(self.log, code)
            raise EngineError(
                f"{self._name} ended while {phase} (exit code {code}): {why}\n{lines}\n  The whole log: {self.log}"
            )

    def restart(self) -> None:
        """Ends what is left of it and starts it again, on another socket or its port, with the adapters it had; then `wait`.

        Raises:
            MissingPackage, EngineError: as `start`.
        """
        self.stop()
        with self._stopping:
            self._process = self._folder = None
        self._lost = 0
        self._stuck.clear()
        self.notes.clear()
        self.start()

    def stop(self) -> None:
        """Ends every process that the start made, and waits for it. Does nothing the second time."""
        with self._stopping:
            process = self._process
            if process is not None:
                if process.stdin is not None:
                    process.stdin.close()  # the supervisor ends vLLM and then itself
                try:
                    process.wait(_GRACE + 10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                _kill_session(process.pid)
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)


def _kill_session(leader: int) -> None:
    """Kills what is left of a session whose supervisor itself was killed."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                session = int((entry / "stat").read_bytes().rsplit(b") ", 1)[1].split()[3])
                if session == leader:
                    os.kill(int(entry.name), signal.SIGKILL)


def _environment(recipe: ServeRecipe, folder: Path, device: Device) -> dict[str, str]:
    """What vLLM's processes see: no telemetry, no network for a local model, temporary files that go with the folder."""
    env = {key: value for key, value in os.environ.items() if key not in _DROPPED}
    env |= {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_MAX_STOP_STRINGS": str(MAX_STOPS),
        "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": _KEEP_ALIVE,
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(folder),
    }
    base = Path(assets.model_folder(recipe.model.model_name_or_path))
    if base.is_dir():
        env["HF_HUB_OFFLINE"] = "1"
    if device == "cpu":
        # Without it the first request with logprobs compiles a function for a minute, in which nobody else is answered.
        env.setdefault("TORCH_COMPILE_DISABLE", "1")
    if device == "cpu" and len(os.sched_getaffinity(0)) < _BINDING_PAYS_FROM:
        env.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        if 0 < sum(file.stat().st_size for file in base.glob("*.safetensors")) < _SMALL_BYTES:
            env.setdefault("OMP_NUM_THREADS", "1")
    return env
