"""The parent's side of the processes that read files: started when first needed, ended with their thread, replaced on death."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmbench.retrieval.documents import Momentary, Unreadable
from llmbench.retrieval.reading.writer import LARGEST_TEXT

__all__ = ["Child"]

SECONDS = 120
"""Processor time for one file, or one batch of rows; a report of 80 pages takes about two."""
PATIENCE = 5
"""How many times as long it may take by the clock, on a machine that is busy with other things."""
MEMORY = 2 * 2**30
"""Bytes of address space."""
FILES = 1000
"""After so many files a process makes room for a fresh one."""
LARGEST_ANSWER = 16 * LARGEST_TEXT
"""Bytes of one frame: text of four bytes a character, escaped, and its boxes."""


class Child:
    """One process that reads files one after another. Use it from one thread: it ends with the thread that started it."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None

    def ask(self, request: dict[str, Any], *, seconds: int | None = None) -> Iterator[dict[str, Any]]:
        """The frames of one file.

        Args:
            request: what `child.py` understands.
            seconds: processor time for it, or for each of its parts; SECONDS without it.

        Raises:
            Unreadable: the file cannot be read, or reading it went beyond the limits; other files can be read after it.
                Momentary where that may be otherwise at another time: the system refused it, or the machine was busy.
        """
        seconds = SECONDS if seconds is None else seconds
        process = self._started()
        whole = False
        try:
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps({**request, "seconds": seconds}).encode() + b"\n")
                process.stdin.flush()
            except OSError:
                raise self._died(seconds) from None
            while True:
                frame = self._frame(process.stdout.fileno(), seconds)
                if "end" in frame:
                    whole = not frame["leaving"]
                    if frame["end"]:
                        raise (Momentary if frame["momentary"] else Unreadable)(frame["end"])
                    return
                yield frame
        finally:
            if not whole:  # it died, is leaving, or nobody wants the rest
                self.close()

    def close(self) -> None:
        """Ends the process; the next request starts another."""
        if self._finalizer is not None:
            self._finalizer()
        self.process = self._finalizer = None

    def kill(self) -> None:
        """Ends the process from another thread; the one that waits for its answer is told that it died."""
        process = self.process
        if process is not None:
            process.kill()

    def _started(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            limits = {"memory": MEMORY, "files": FILES, "text": LARGEST_TEXT, "parent": os.getpid()}
            command = [sys.executable, "-P", str(Path(__file__).with_name("child.py")), json.dumps(limits)]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
            )
            self._finalizer = weakref.finalize(self, _end, self.process)
        return self.process

    def _frame(self, source: int, seconds: int) -> dict[str, Any]:
        deadline = time.monotonic() + seconds * PATIENCE
        size = int.from_bytes(self._bytes(source, 8, deadline, seconds), "big")
        if size > LARGEST_ANSWER:
            raise Unreadable("it unpacks to too much text")
        frame: dict[str, Any] = json.loads(self._bytes(source, size, deadline, seconds))
        return frame

    def _bytes(self, source: int, size: int, deadline: float, seconds: int) -> bytes:
        """So many bytes, in time."""
        poll = select.poll()
        poll.register(source, select.POLLIN)
        data = bytearray()
        while len(data) < size:
            if not poll.poll(max(0, (deadline - time.monotonic()) * 1000)):
                raise Momentary(f"not read within {seconds * PATIENCE} seconds")
            part = os.read(source, min(size - len(data), 2**20))
            if not part:
                raise self._died(seconds)
            data += part
        return bytes(data)

    def _died(self, seconds: int) -> Unreadable:
        """Why the process is gone, in words."""
        assert self.process is not None
        code = self.process.wait()
        if -code == signal.SIGXCPU:
            return Unreadable(f"not read within {seconds} seconds of processor time")
        reason = signal.Signals(-code).name if code < 0 else f"code {code}"
        return Unreadable(f"the reader died of it ({reason})")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
