"""What has changed in a pipeline's documents since its index was built: a look that reads no document and writes nothing."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass

from llmbench.recipe import STDIN, RagRecipe
from llmbench.retrieval import reading
from llmbench.retrieval.documents import Skipped
from llmbench.retrieval.reading import File
from llmbench.retrieval.reading.standard_input import SOURCE
from llmbench.retrieval.store import FileState, Index

__all__ = ["Freshness", "known_time", "look", "settings"]

RACE = 2_000_000_000
"""Nanoseconds: a file changed this shortly before it was looked at may change again without its time showing it."""


@dataclass(frozen=True)
class Freshness:
    """Files that the next build would read or drop, by source, and (source, reason) of those that it would not read."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    skipped: tuple[Skipped, ...]

    @property
    def stale(self) -> int:
        """How many files differ from the index."""
        return len(self.added) + len(self.changed) + len(self.removed)


def look(recipe: RagRecipe, index: Index) -> Freshness:
    """Compares the files of a pipeline with those that an index knows, by size and time, or by hash where these differ.

    Raises:
        DataError: a folder of the pipeline is gone, cannot be read, or is empty although the index holds files of it.
    """
    known, held = index.files(), index.held()
    walk = reading.walk(recipe.documents, None, held - {SOURCE})
    files = {file.source: file for file in walk.files}
    kept = {source for name, _ in walk.unread for source in known if source == name or _within(source, name)}
    unread = [(name, reason) for name, reason in walk.unread if not any(s == name or _within(s, name) for s in held)]
    refused = [(state.source, state.skipped) for state in known.values() if state.skipped]
    gone = known.keys() - files.keys() - kept
    if any(place.path == STDIN for place in recipe.documents):
        gone -= {SOURCE}
    return Freshness(
        added=tuple(sorted(files.keys() - known.keys())),
        changed=tuple(sorted(source for source in files.keys() & known.keys() if _differs(files[source], known[source]))),
        removed=tuple(sorted(gone)),
        skipped=tuple(sorted({*walk.skipped, *unread, *refused})),
    )


def settings(file: File) -> str:
    """How a file is read, as the index notes it: with other settings it is read again."""
    place = file.place
    columns = place.columns.model_dump() if place.columns else None
    # What came later in time comes last, and only where it is given, so that files read before it was known are not read again.
    given: list[object] = [file.suffix] if place.format or place.formats else []
    given += [{"password_env": place.password_env}] if place.password_env else []
    return json.dumps([reading.VERSION, columns, place.metadata, *given], sort_keys=True)


def known_time(mtime: int) -> int:
    """The time of a file in nanoseconds; 0, which never counts as known, when it was changed just now."""
    return mtime if time.time_ns() - mtime > RACE else 0


def _within(source: str, folder: str) -> bool:
    return folder.endswith("/") and source.startswith("" if folder == "./" else folder)


def _differs(file: File, known: FileState) -> bool:
    if known.settings != settings(file) or not known.sha256:
        return True
    try:
        stat = file.path.stat()
        if stat.st_size != known.size:
            return True
        if known.mtime and known.mtime == stat.st_mtime_ns:
            return False
        with file.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() != known.sha256
    except OSError:
        return True
