"""The parent's side of a confined process: it is started, asked over pipes, and ended with its owner."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ConfinedProcess", "ProcessDied"]

_PIECE = 2**20
"""Bytes that are taken from the pipe at once."""


class ProcessDied(Exception):
    """The process is gone. Its text is how: `SIGSEGV` or `code 1`; `out_of_time` where its processor time was used up."""

    def __init__(self, code: int) -> None:
        super().__init__(signal.Signals(-code).name if code < 0 else f"code {code}")
        self.out_of_time = -code == signal.SIGXCPU


class ConfinedProcess:
    """One process that answers over pipes. Use it from one thread: it ends with that, and with this object.

    Args:
        program: what this interpreter runs: a path, or `-m` and a module. Its last argument is `limits` as JSON, with this
            process's number under `parent`; it hands them to `inside.confine`.
        limits: what `inside.confine` takes, and whatever else the program wants to know at once.
    """

    def __init__(self, program: Sequence[str], limits: Mapping[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", *program, json.dumps({**limits, "parent": os.getpid()})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout.fileno()
        self._poll = select.poll()
        self._poll.register(self._output, select.POLLIN)
        self._end = weakref.finalize(self, _end, self._process)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def send(self, data: bytes) -> None:
        """Writes all of it.

        Raises:
            ProcessDied: it is gone.
        """
        left = memoryview(data)
        try:
            while left:
                left = left[self._input.write(left) :]
        except OSError:
            raise self._died() from None

    def receive(self, most: int, deadline: float) -> bytes:
        """The next bytes, at least one and at most so many.

        Args:
            most: how many.
            deadline: by `time.monotonic`.

        Raises:
            TimeoutError: nothing came in time.
            ProcessDied: it is gone.
        """
        if not self._poll.poll(max(0, (deadline - time.monotonic()) * 1000)):
            raise TimeoutError
        data = os.read(self._output, min(most, _PIECE))
        if not data:
            raise self._died()
        return data

    def exactly(self, size: int, deadline: float) -> bytes:
        """So many bytes; raises as `receive`."""
        data = bytearray()
        while len(data) < size:
            data += self.receive(size - len(data), deadline)
        return bytes(data)

    def kill(self) -> None:
        """Ends it from another thread; the one that waits for its answer gets ProcessDied."""
        self._process.kill()

    def close(self) -> None:
        """Ends it and lets go of its pipes."""
        self._end()

    def _died(self) -> ProcessDied:
        return ProcessDied(self._process.wait())


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
