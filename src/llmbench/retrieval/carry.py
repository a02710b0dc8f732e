"""What a rebuild takes over from the index that it replaces: documents of files that cannot be read now."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmbench.errors import IndexError_
from llmbench.retrieval.store import Index, current

if TYPE_CHECKING:
    from llmbench.retrieval.writer import Writer

__all__ = ["documents", "former"]


@contextmanager
def former(writer: Writer) -> Iterator[Index | None]:
    """The index that searches use while a rebuild writes the next one; None where there is no other, or it cannot be opened."""
    path = current(writer.folder)
    index: Index | None = None
    if path is not None and path != writer.index.path and path.exists():
        try:
            index = Index(path)
            index.held()
        except IndexError_:  # a rebuild is what mends it
            if index is not None:
                index.close()
            index = None
    try:
        yield index
    finally:
        if index is not None:
            index.close()


def documents(old: Index, writer: Writer, files: Collection[str]) -> tuple[int, list[str]]:
    """Writes the documents of some files that cannot be read now, cut and embedded as the new index is.

    The files count as not read, so that the next pass reads them.

    Returns how many there were, and a line for each that is damaged.
    """
    before = writer.added, writer.changed
    count, notes = 0, []
    for source, file in old.origins():
        if file is None or file not in files:
            continue
        try:
            document = old.document(source)
        except IndexError_:
            notes.append(f"{source} is damaged in the old index and was not carried over. Write it anew.")
            continue
        if document is None:
            continue
        writer.begin(file, "")
        writer.add(document, file=file)
        count += 1
    writer.flush()
    writer.added, writer.changed = before
    return count, notes
