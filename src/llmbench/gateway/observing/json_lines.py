"""A file of JSON lines about requests: only its owner can read it, it holds no key, and it does not grow for ever."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["JsonLines"]


class JsonLines:
    """Appends lines to a file, and begins a new one from a size on.

    Args:
        path: the file; a link is not followed.
        hide: takes keys out of a line.
        max_bytes: beyond these the file is renamed to end in `.1`, that one in `.2`, and so on.
        keep: how many renamed ones stay.
    """

    def __init__(self, path: Path, *, hide: Callable[[str], str], max_bytes: int, keep: int) -> None:
        self.path = path
        self._hide, self._max_bytes, self._keep = hide, max_bytes, keep

    def create(self) -> None:
        """Makes the file, or finds it; raises OSError where it cannot be written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.close(self._open())

    def write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends some lines, all of them to one file; raises OSError where they cannot be written."""
        data = "".join(self._hide(json.dumps(row, ensure_ascii=False)) + "\n" for row in rows).encode("utf-8", "replace")
        file = self._open()  # each time, so that whoever moves the file away gets a new one
        try:
            if (size := os.fstat(file).st_size) and size + len(data) > self._max_bytes:
                os.close(file)
                file = -1
                self._rotate()
                file = self._open()
            while data:
                data = data[os.write(file, data) :]
        finally:
            if file >= 0:
                os.close(file)

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def _rotate(self) -> None:
        """Moves the file to `.1`, that one to `.2`, and so on; the last is replaced."""
        for number in range(self._keep - 1, 0, -1):
            with suppress(FileNotFoundError):
                self._numbered(number).replace(self._numbered(number + 1))
        if self._keep:
            self.path.replace(self._numbered(1))
        else:
            self.path.unlink(missing_ok=True)

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
