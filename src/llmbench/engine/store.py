"""The stored copies of adapters: who has one holds it, and the others can be removed.

    outputs/adapters/SHA256[:16]/{adapter_config.json, adapter_model.safetensors}

vLLM reads a copy again when it has pushed the adapter out of memory, and dies where the copy has gone. So an engine holds the
folder of each of its adapters, by a shared lock that the kernel lets go of when the process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from llmbench import workspace
from llmbench.engine.matrices import WEIGHTS
from llmbench.engine.peft_config import CONFIG, MANIFEST

__all__ = ["Hold", "folder", "prune", "touch"]

_NAME = re.compile(r"[0-9a-f]{16}")
_FILES = (CONFIG, WEIGHTS, MANIFEST)
_YOUNG_SECONDS = 3600.0
"""What was stored or asked for within this time may be on its way to an engine."""


def folder() -> Path:
    """The folder of all copies; it may be missing."""
    return workspace.home() / "adapters"


def touch(copy: Path) -> None:
    """Notes that a copy is about to be used."""
    with suppress(OSError):
        os.utime(copy)


class Hold:
    """Keeps copies from being removed."""

    def __init__(self) -> None:
        self._held: dict[Path, int] = {}

    def take(self, copy: Path) -> None:
        """Holds a copy; one that cannot be locked, as on some network disks, is not held."""
        if copy in self._held:
            return
        with suppress(OSError):
            handle = os.open(copy, os.O_RDONLY | os.O_DIRECTORY)
            self._held[copy] = handle
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)

    def release(self, copy: Path) -> None:
        """Lets go of a copy that is not used any more."""
        if (handle := self._held.pop(copy, None)) is not None:
            os.close(handle)

    def release_all(self) -> None:
        """Lets go of everything."""
        for copy in list(self._held):
            self.release(copy)


def prune(*, dry_run: bool = False) -> list[tuple[str, int]]:
    """Removes the copies that no engine has and that nobody asked for in the last hour; their names and bytes.

    A copy that is needed again is made again from its run.

    Args:
        dry_run: only tell.
    """
    found = []
    for copy in sorted(folder().iterdir()) if folder().is_dir() else ():
        if not _NAME.fullmatch(copy.name) or copy.is_symlink() or not copy.is_dir():
            continue
        if any(file.name not in _FILES for file in copy.iterdir()):
            continue  # somebody put something there
        with suppress(OSError):
            handle = os.open(copy, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - copy.stat().st_mtime < _YOUNG_SECONDS:
                    continue
                size = sum(file.stat().st_size for file in copy.iterdir())
                if not dry_run:
                    gone = copy.with_name(f".old-{copy.name}")
                    copy.rename(gone)  # nobody finds half of one
                    shutil.rmtree(gone)
                found.append((copy.name, size))
            finally:
                os.close(handle)
    return found
