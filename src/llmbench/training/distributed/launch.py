"""Starts a training as several processes under torchrun, waits for them, and says in one line what went wrong with which.

Nothing here loads torch. The processes run `llmbench train` again, which finds out from torchrun's variables that it is one
of several; the first of them writes the run and speaks to the terminal.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llmbench import hardware, interrupts
from llmbench.errors import LlmbenchError
from llmbench.shown import printable
from llmbench.training.distributed import ranks, report

__all__ = ["Ended", "Nodes", "start", "torchrun"]

_PATIENCE = 5
"""Seconds that the other processes have to end after one failed, before they are ended for good."""
_TICK = 0.1
_LAST = 300
"""Characters of a process's last line that are shown."""


@dataclass(frozen=True)
class Nodes:
    """The machines of a training."""

    processes: int
    """On each machine."""
    nodes: int = 1
    rendezvous: str | None = None
    """HOST:PORT where the machines meet; every one names the same."""
    job: str = "llmbench"
    """What tells this training from others that meet there."""
    engine: Literal["torchrun", "ray"] = "torchrun"
    """Who starts the processes: torch's launcher here, or Ray Train wherever its cluster has room."""
    device: str = "auto"
    """The recipe's: whether Ray's workers need a GPU each."""

    @property
    def world(self) -> int:
        """How many processes there are over all machines."""
        return self.processes * self.nodes


@dataclass(frozen=True)
class Ended:
    """How a training by several processes ended."""

    stopped: bool
    """Whether Ctrl-C ended it, after a step and with a checkpoint."""
    first: bool
    """Whether the process that writes the run was on this machine."""


def torchrun(where: Nodes, command: Sequence[str]) -> list[str]:
    """torchrun's arguments for `llmbench COMMAND` in every process."""
    meet = ["--standalone", "--local-addr", "127.0.0.1"]
    if where.nodes > 1:
        meet = ["--rdzv-backend", "c10d", "--rdzv-endpoint", str(where.rendezvous), "--rdzv-id", where.job]
    return [
        "--nnodes", str(where.nodes), "--nproc-per-node", str(where.processes), *meet, "--max-restarts", "0",
        "--shutdown-timeout", str(_PATIENCE), "--module", "llmbench", *command,
    ]  # fmt: skip


def start(where: Nodes, command: Sequence[str]) -> Ended:
    """Starts the processes and waits until all have ended; Ctrl-C goes to each of them.

    Args:
        where: how many, and on how many machines.
        command: what stands behind `llmbench` in each process.

    Raises:
        LlmbenchError: one of them failed, or was killed; the others were ended.
        KeyboardInterrupt: Ctrl-C before there was anything to save, or a second one.
    """
    place = Path(tempfile.mkdtemp(prefix="llmbench-ranks-"))
    try:
        child = subprocess.Popen(
            _agent(where, command),
            stdin=subprocess.DEVNULL,
            env=_environment(where, place),
            start_new_session=True,  # Ctrl-C in the terminal is for this process, which hands it on
        )
        with _handing_on(child, place) as asked:
            code = _waited(child)
        return _outcome(place, code, where.world, asked=asked)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _agent(where: Nodes, command: Sequence[str]) -> list[str]:
    """What starts the processes."""
    room = "llmbench.training.distributed"
    if where.engine == "ray":
        there = hardware.gpus() if where.device == "auto" else where.device == "cuda"
        return [sys.executable, "-m", f"{room}.ray_agent", str(where.world), "cuda" if there else "cpu", *command]
    return [sys.executable, "-m", f"{room}.agent", *torchrun(where, command)]


def _environment(where: Nodes, place: Path) -> dict[str, str]:
    found = {**os.environ, report.FOLDER: str(place), ranks.ASKED: str(where.world)}
    found.setdefault("OMP_NUM_THREADS", str(max(hardware.cores() // where.processes, 1)))
    found.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # each of them would say that the other has gone
    if where.nodes == 1 and where.engine == "torchrun":
        found.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    return found


@contextmanager
def _handing_on(child: subprocess.Popen[bytes], place: Path) -> Iterator[list[float]]:
    """Hands Ctrl-C and SIGTERM on to the processes while the block runs; gives the times at which they came."""
    came: list[float] = []

    def hand_on() -> None:
        came.append(time.monotonic())
        there = report.processes(place)
        if len(came) == 1 and there:
            for process in there.values():
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGINT)
        else:
            child.terminate()  # torch's agent ends them all

    with interrupts.handed_to(hand_on):
        yield came


def _waited(child: subprocess.Popen[bytes]) -> int:
    try:
        while (code := child.poll()) is None:
            time.sleep(_TICK)
        return code
    except BaseException:
        child.terminate()
        raise


def _outcome(place: Path, code: int, world: int, *, asked: list[float]) -> Ended:
    there = report.processes(place)
    if code == 0:
        return Ended(stopped=(place / "stopped").exists(), first=0 in there)
    said = report.errors(place)
    told = next((error for error in said if error["kind"] == "told"), None)
    if told is not None:
        raise LlmbenchError(told["message"])
    failed = place / "failed.json"
    codes = {int(rank): int(end) for rank, end in json.loads(failed.read_text()).items()} if failed.exists() else {}
    killed = next((rank for rank, end in sorted(codes.items()) if end < 0 and end != -signal.SIGTERM), None)
    if killed is not None:
        name = signal.Signals(-codes[killed]).name
        raise LlmbenchError(
            f"Process {killed + 1} of {world} was killed ({name}), so the others were ended. If memory ran out, lower "
            "training.per_device_train_batch_size. Continue from the last checkpoint with --resume."
        )
    if asked:
        raise KeyboardInterrupt
    if said:
        raise LlmbenchError(_crash(said, world))
    if (place / "ray-said").exists() and not codes:
        raise LlmbenchError(f"Ray: {_short((place / 'ray-said').read_text(encoding='utf-8'))}")
    which = f"Process {min(codes) + 1} of {world}" if codes else "torch's launcher"
    raise LlmbenchError(f"{which} ended without a word (exit code {next(iter(codes.values()), code)}).{_last(place, codes)}")


def _crash(said: list[dict[str, object]], world: int) -> str:
    """The first failure that is not another's going away."""
    away = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "DistNetworkError", "NCCL")
    first = next((error for error in said if not any(word in str(error["message"]) for word in away)), said[0])
    if os.environ.get("LLMBENCH_DEBUG"):
        print(first.get("trace", ""), file=sys.stderr)
    message = _short(str(first["message"]))
    return (
        f"Process {int(str(first['rank'])) + 1} of {world} failed ({message}), so the others were ended. See where with --debug"
    )


def _short(text: str) -> str:
    return printable(" ".join(text.split()))[:_LAST]


def _last(place: Path, codes: dict[int, int]) -> str:
    for rank in sorted(codes):
        log = place / f"log-{rank}"
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
        said = [line for line in lines if line.strip()]
        if said:
            return f" Its last line: {printable(said[-1])[:_LAST]}"
    return ""
