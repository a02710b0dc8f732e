"""Every index of the workspace: whose it is, what it holds, and whether it can be searched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from llmbench import workspace, written
from llmbench.errors import IndexError_
from llmbench.retrieval.store import Index, layout

__all__ = ["Entry", "every", "size"]

State = Literal["ready", "writing", "incomplete", "outdated", "unusable", "not built"]
_CONTENT = ("index.sqlite", "vectors.bin")
"""The files whose time tells when an index was written; a database's log is touched by who reads, too."""


@dataclass(frozen=True)
class Entry:
    """One index. What cannot be read is None."""

    name: str
    pipeline: str
    """The origin of the pipeline that made it (see `Document.origin`); empty where it is not known."""
    state: State
    """`writing`: a process writes it now. `incomplete`: its first build was stopped. `outdated`: an earlier version of llmbench
    made it, and searches refuse it. `unusable`: it is damaged, or of a version that is not known."""
    reason: str
    """Why it is unusable; empty else."""
    documents: int | None
    chunks: int | None
    bytes: int
    """Of all generations."""
    built: float | None
    """When the generation that is searched was last written, in seconds since 1970."""
    generation: int | None
    """The one that is searched."""
    generations: tuple[int, ...]
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {**asdict(self), "generations": list(self.generations), "folder": str(self.folder)}


def every() -> list[Entry]:
    """The indexes of this workspace, by name. Folders of anything else are passed over; nothing is written."""
    return [_entry(folder) for folder in sorted(workspace.indexes().glob("*")) if folder.is_dir() and _is_index(folder)]


def size(folder: Path) -> int:
    """The bytes of all files in a folder; one that is removed meanwhile counts nothing."""
    return sum(_sizes(folder))


def _is_index(folder: Path) -> bool:
    return written.made_by(folder, "index") is not None or bool(layout.generations(folder))


def _entry(folder: Path) -> Entry:
    state: State
    documents, chunks, path, reason = None, None, None, ""
    busy = workspace.held(folder)
    try:
        index = _opened(folder)
        if index is None:
            state = "not built"
        else:
            try:
                path = index.path
                with index.snapshot():
                    documents, chunks = index.document_count(), index.count()
                    complete, outdated = bool(index.get("complete")), index.contract.outdated
                state = "outdated" if outdated else "ready" if complete else "incomplete"
            finally:
                index.close()
    except IndexError_ as error:
        state, reason = "unusable", str(error)
    if busy:  # what was begun just now may look as if it were damaged
        state, reason = "writing", ""
    numbers = tuple(int(generation.name) for generation in layout.generations(folder))
    where = written.made_by(folder, "index") or ""
    number = None if path is None else int(path.name)
    return Entry(folder.name, where, state, reason, documents, chunks, size(folder), _built(path), number, numbers, folder)


def _opened(folder: Path) -> Index | None:
    """The generation that is searched; None where nothing is built. A writer may go over to the next one meanwhile."""
    while (path := layout.standing(folder)) is not None:
        try:
            return Index(path)
        except IndexError_:
            if layout.current(folder) == path:
                raise
    return None


def _built(path: Path | None) -> float | None:
    if path is None:
        return None
    times = []
    for name in _CONTENT:
        with suppress(OSError):
            times.append((path / name).stat().st_mtime)
    return max(times, default=None)


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file():
                yield path.stat().st_size
