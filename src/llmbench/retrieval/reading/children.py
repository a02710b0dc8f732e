"""The parent's side of the processes that read files: started when first needed, ended with their thread, replaced on death."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmbench.confined.process import ConfinedProcess, ProcessDied
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
        self.process: ConfinedProcess | None = None

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
            process.send(json.dumps({**request, "seconds": seconds}).encode() + b"\n")
            while True:
                frame = _frame(process, time.monotonic() + seconds * PATIENCE)
                if "end" in frame:
                    whole = not frame["leaving"]
                    if frame["end"]:
                        raise (Momentary if frame["momentary"] else Unreadable)(frame["end"])
                    return
                yield frame
        except TimeoutError:
            raise Momentary(f"not read within {seconds * PATIENCE} seconds") from None
        except ProcessDied as died:
            if died.out_of_time:
                raise Unreadable(f"not read within {seconds} seconds of processor time") from None
            raise Unreadable(f"the reader died of it ({died})") from None
        finally:
            if not whole:  # it died, is leaving, or nobody wants the rest
                self.close()

    def close(self) -> None:
        """Ends the process; the next request starts another."""
        if self.process is not None:
            self.process.close()
        self.process = None

    def kill(self) -> None:
        """Ends the process from another thread; the one that waits for its answer is told that it died."""
        process = self.process
        if process is not None:
            process.kill()

    def _started(self) -> ConfinedProcess:
        if self.process is None:
            limits = {"memory": MEMORY, "files": FILES, "text": LARGEST_TEXT}
            self.process = ConfinedProcess([str(Path(__file__).with_name("child.py"))], limits)
        return self.process


def _frame(process: ConfinedProcess, deadline: float) -> dict[str, Any]:
    size = int.from_bytes(process.exactly(8, deadline), "big")
    if size > LARGEST_ANSWER:
        raise Unreadable("it unpacks to too much text")
    frame: dict[str, Any] = json.loads(process.exactly(size, deadline))
    return frame
