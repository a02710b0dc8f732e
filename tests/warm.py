"""Programs that start in a tenth of a second: forks of a process that has imported the heavy packages once.

A training spends ten CPU seconds on imports before its first step, the app five. What the tests of killing, stopping and
full disks need is a process of its own, with its own streams, limits and environment, and that is what they get. Only what
a package reads from the environment while it is imported is the test session's. Tests of what a program imports, or of
how it is started, start it themselves.

    tests.warm.Process("training", LLMBENCH, "train", "recipe.yaml")

As a program, this file is the process that is forked from; standard input is the socket on which it is asked.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

LLMBENCH = "from llmbench.cli.main import main; main()"
"""The program `python -m llmbench`."""

PACKAGES = {
    "training": ("llmbench.training", "bitsandbytes", "trl.trainer.sft_trainer", "peft", "datasets"),
    "app": ("gradio", "pandas"),
}
"""What a process has imported, by what it is for."""

_servers: dict[str, tuple[socket.socket, subprocess.Popen[bytes]]] = {}


def _server(kind: str) -> socket.socket:
    """The process to fork from, started when it is first needed; it ends with this one, which holds the other end."""
    if kind not in _servers:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            env = {name: value for name, value in os.environ.items() if not name.startswith(("LLMBENCH", "HF_", "OPENAI"))}
            _servers[kind] = ours, subprocess.Popen([sys.executable, __file__, *PACKAGES[kind]], stdin=theirs.fileno(), env=env)
    return _servers[kind][0]


@atexit.register
def _end_servers() -> None:
    for asked, server in _servers.values():
        asked.close()
        server.wait()


class Process:
    """A Python program in a process of its own, with as much of `subprocess.Popen` as the tests use; text, in UTF-8.

    Args:
        kind: what it has imported when it starts, of `PACKAGES`.
        code: the program.
        arguments: its `sys.argv[1:]`.
        cwd: the folder it starts in; None is this process's.
        env: its environment; None is this process's.
        stdout: where its output goes; None is a pipe.
        stderr: likewise.
    """

    def __init__(
        self,
        kind: str,
        code: str,
        *arguments: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        self.args = arguments
        self.returncode: int | None = None
        self._said, theirs = socket.socketpair()
        request = {
            "code": code,
            "arguments": list(map(os.fspath, arguments)),
            "cwd": os.fspath(cwd or Path.cwd()),
            "env": dict(os.environ if env is None else env),
        }
        self.stdout, out = _pipe(stdout)
        self.stderr, err = (None, out) if stderr == subprocess.STDOUT else _pipe(stderr)
        null = os.open(os.devnull, os.O_RDONLY)
        socket.send_fds(_server(kind), [json.dumps(request).encode()], [theirs.fileno(), null, out, err])
        theirs.close()
        for given in {null, out if stdout is None else null, err if stderr is None else null}:
            os.close(given)
        self.pid = int(self._line())

    def _line(self) -> str:
        text = b""
        while not text.endswith(b"\n"):
            piece = self._said.recv(1)
            if not piece:
                raise RuntimeError("the process that programs are forked from has ended: what it printed says why")
            text += piece
        return text.decode()

    def poll(self) -> int | None:
        """Its exit code, as `subprocess` has it; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, when it has ended."""
        if self.returncode is None:
            if not select.select([self._said], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(list(self.args), timeout or 0)
            self.returncode = int(self._line())
            self._said.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it still prints until it ends."""
        said = ["", ""]

        def read(which: int, stream: IO[str] | None) -> None:
            if stream is not None and not stream.closed:
                said[which] = stream.read()
                stream.close()

        threads = [threading.Thread(target=read, args=pair, daemon=True) for pair in enumerate((self.stdout, self.stderr))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout)
            if thread.is_alive():
                raise subprocess.TimeoutExpired(list(self.args), timeout or 0)
        self.wait(timeout)
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        """Sends it, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.wait()
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()


def run(
    kind: str, code: str, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Runs the program to its end."""
    process = Process(kind, code, *arguments, cwd=cwd, env=env)
    try:
        out, err = process.communicate(timeout)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return subprocess.CompletedProcess(list(arguments), process.wait(), out, err)


def _pipe(given: int | None) -> tuple[IO[str] | None, int]:
    """The end to read from and the end to write to."""
    if given is not None and given != subprocess.PIPE:
        return None, given
    ours, theirs = os.pipe()
    return os.fdopen(ours, encoding="utf-8"), theirs


def _serve(packages: list[str]) -> dict[str, Any]:
    """Forks a process for each request, and in it returns the request; ends when nobody can ask any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    for name in packages:
        importlib.import_module(name)
    gc.freeze()
    asked = socket.socket(fileno=0)
    while True:
        message, descriptors, _, _ = socket.recv_fds(asked, 1_000_000, 4)
        with contextlib.suppress(ChildProcessError):  # waited for, so that their CPU seconds are among those of the tests
            while os.waitpid(-1, os.WNOHANG if message else 0)[0]:
                pass
        if not message:
            os._exit(0)
        if os.fork() == 0:
            asked.detach()
            return _guarded(json.loads(message), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _guarded(request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
    """Forks once more: the one process tells how the other ends, and ends it when nobody listens; the other returns."""
    told, *streams = descriptors
    child = os.fork()
    if child:
        for descriptor in range(3):
            os.close(descriptor)
        for descriptor in streams:
            os.close(descriptor)
        with socket.socket(fileno=told) as listener:
            listener.sendall(b"%d\n" % child)
            ended = os.pidfd_open(child)
            if ended not in select.select([ended, listener.fileno()], [], [])[0]:
                os.kill(child, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            with contextlib.suppress(OSError):
                listener.sendall(b"%d\n" % status)
        os._exit(0)
    os.close(told)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.enable()
    random.seed()  # each draws its own numbers: Gradio tells one app from another by one
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["llmbench", *request["arguments"]]
    sys.path[0] = ""
    if request["env"].get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    return request


def _ended(code: str) -> int:
    """Runs the program, then what Python does at its end but for taking everything apart, which takes two seconds."""
    status: Any = 0
    try:
        exec(compile(code, "<program>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        status = end.code
        if not isinstance(status, int | None):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]  # ends the threads of pools, and waits for the others
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BrokenPipeError):
            stream.flush()
    return status or 0


if __name__ == "__main__":
    os._exit(_ended(_serve(sys.argv[1:])["code"]))
