"""Reads vLLM's log for people: what it is doing while it starts, and why it ended."""

from __future__ import annotations

import re
import signal
from pathlib import Path

__all__ = ["Tail", "cause", "last_lines"]

_PHASES = (
    ("non-default args", "reading the model's configuration"),
    ("Resolved architecture", "starting the engine"),
    ("Starting to load model", "loading the weights"),
    ("Loading weights took", "warming up"),
    ("init engine", "starting the API"),
    ("Starting vLLM server", "starting the API"),
)
_FIRST = "importing vLLM"
_PREFIX = re.compile(r"^(\([^)]*pid=\d+\) ?)?((INFO|WARNING|ERROR|CRITICAL|DEBUG) [\d-]+ [\d:]+ \[[^\]]*\] ?)?")
_ERROR = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt)\b(?::.*)?$")
_SECONDHAND = (
    "Engine core initialization failed", "WorkerProc initialization failed", "See root cause above", "EngineDeadError",
)  # fmt: skip
_SUDDEN = ("exited unexpectedly", "died unexpectedly")
_NOISE = re.compile(r"^\s*(nanobind: |- leaked |- \.\.\. skipped|See https://nanobind|.*resource_tracker: |Route: )")
_TAIL_BYTES = 200_000
_SIGNALLED = 128


class Tail:
    """Follows a growing log: the phase that its lines so far say."""

    def __init__(self, path: Path, first: str = _FIRST) -> None:
        """Takes the log, and the phase before its first line."""
        self._path = path
        self._offset = 0
        self.phase = first

    def read(self) -> str:
        """Takes in what was added; returns the phase."""
        if not self._path.exists():
            return self.phase
        with self._path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.decode("utf-8", "replace").splitlines():
            self.phase = next((phase for mark, phase in _PHASES if mark in line), self.phase)
        return self.phase


def last_lines(path: Path, count: int = 15) -> list[str]:
    """The last lines that say something, without vLLM's prefix of process, time and place."""
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        text = file.read().decode("utf-8", "replace")
    lines = [_PREFIX.sub("", line).rstrip()[:300] for line in text.splitlines()]
    return [line for line in lines if line.strip() and not _NOISE.match(line)][-count:]


def cause(path: Path, code: int = 0) -> str:
    """The line that says best why vLLM ended: a mistake in the arguments, the last first-hand error, else the last line.

    Args:
        path: its log.
        code: its exit code; above 128 a signal ended it, of which its log says nothing.
    """
    lines = last_lines(path, 400)
    errors = [line.strip() for line in lines if _ERROR.match(line.strip())]
    first_hand = [line for line in errors if not any(mark in line for mark in _SECONDHAND)]
    usage = [line.strip() for line in lines if ": error: " in line]
    sudden = [line for line in lines if any(mark in line for mark in _SUDDEN)]
    for found in (usage, first_hand, sudden, errors, [_signalled(code)] if code > _SIGNALLED else lines):
        if found:
            return found[-1]
    return "its log is empty"


def _signalled(code: int) -> str:
    number = code - _SIGNALLED
    if number == signal.SIGKILL:
        return "it was killed (SIGKILL), most likely because memory ran out"
    name = next((one.name for one in signal.Signals if one == number), f"signal {number}")
    return f"it was terminated by {name}"
