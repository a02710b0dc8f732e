"""A bounded queue that a thread writes from, so that what is written about requests never holds one up."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, Self, TypeVar

__all__ = ["Backlog"]

T = TypeVar("T")
_SOON = 0.2
"""Seconds for which entries are gathered before they are written together: a thread that wakes for each costs more than it."""
_MOST = 10_000
_MOST_BYTES = 64 * 2**20
_BATCH = 500


class Backlog(Generic[T]):
    """Takes entries in the event loop and writes them in a thread. What does not fit is dropped and counted.

    Args:
        name: what it is to people, such as `access log`.
        write: writes some entries, in their order; an error loses them, and the first of a row of errors is told.
        say: called with a line when writing fails.
        idle: called about as often as `every` says, whether or not something is written.
        every: seconds.
        most: entries that may wait.
        most_bytes: their size in all, as `put` is told it.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[list[T]], object],
        say: Callable[[str], None],
        *,
        idle: Callable[[], object] = lambda: None,
        every: float | None = None,
        most: int = _MOST,
        most_bytes: int = _MOST_BYTES,
    ) -> None:
        self._name, self._write, self._say = name, write, say
        self._most, self._most_bytes, self._idle, self._every = most, most_bytes, idle, every
        self._waiting: deque[tuple[T, int]] = deque()
        self._put = self._taken = 0  # bytes; each is counted by one thread only
        self._full = self._failed = 0
        self._some, self._end = threading.Event(), threading.Event()
        self._failing = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def dropped(self) -> int:
        """Entries that were lost."""
        return self._full + self._failed

    def put(self, entry: T, size: int = 0) -> None:
        """Has an entry written soon, unless too much waits already. Never blocks; one thread may call it."""
        if len(self._waiting) >= self._most or self._put - self._taken + size > self._most_bytes:
            self._full += 1
            return
        self._put += size
        self._waiting.append((entry, size))
        if not self._some.is_set():
            self._some.set()

    def close(self, seconds: float = 5.0) -> None:
        """Writes what waits, for so many seconds at most."""
        self._end.set()
        self._some.set()
        self._thread.join(seconds)

    def _work(self) -> None:
        looked = time.monotonic()
        while True:
            self._some.wait(self._every)
            if self._every is not None and time.monotonic() - looked >= self._every:
                looked = time.monotonic()
                with suppress(Exception):  # tried again next time
                    self._idle()
            self._end.wait(_SOON)
            self._some.clear()
            while batch := self._batch():
                self._written(batch)
            if self._end.is_set():
                return

    def _batch(self) -> list[T]:
        found: list[T] = []
        while self._waiting and len(found) < _BATCH:
            entry, size = self._waiting.popleft()
            self._taken += size
            found.append(entry)
        return found

    def _written(self, batch: list[T]) -> None:
        try:
            self._write(batch)
        except Exception as error:  # whatever it is, requests are answered and the next entries tried
            self._failed += len(batch)
            if not self._failing:
                with suppress(Exception):  # nobody may be there to be told
                    self._say(f"Cannot write the {self._name} ({type(error).__name__}: {error}). Requests are not affected.")
            self._failing = True
        else:
            self._failing = False
