"""What a rebuild takes over from the index that it replaces, for no file gives it: programs' documents, a tuned alpha."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmbench.errors import IndexError_
from llmbench.retrieval.store import Index, layout

if TYPE_CHECKING:
    from llmbench.retrieval.index.writer import Writer

__all__ = ["alpha", "documents", "former"]


@contextmanager
def former(writer: Writer) -> Iterator[Index | None]:
    """The index that searches use while a rebuild writes the next one; None where there is no other, or it cannot be opened."""
    path = layout.current(writer.folder)
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


def documents(old: Index, writer: Writer, files: Collection[str | None]) -> tuple[int, list[str]]:
    """Writes the documents of some files that cannot be read now, cut and embedded as the new index is; None among them are
    those that programs gave.

    The files count as not read, so that the next pass reads them.

    Returns how many there were, and a line for each that is damaged.
    """
    before = writer.tally.added, writer.tally.changed
    count, notes = 0, []
    for source, file in old.origins():
        if file not in files:
            continue
        try:
            document = old.document(source)
        except IndexError_:
            notes.append(f"{source} is damaged in the old index, and was not carried over. Write it again.")
            continue
        if document is None:
            continue
        if file is not None:
            writer.begin(file, "")
        writer.add(document, file=file)
        count += 1
    writer.flush()
    writer.tally.added, writer.tally.changed = before
    return count, notes


def alpha(old: Index, writer: Writer) -> str:
    """Takes over what `llmbench evaluate rag --tune` found, where vectors and words are what it was found with.

    Returns a line where it was not, with the command that tunes anew; else nothing.
    """
    value, new = old.get("alpha"), writer.index
    if value is None:
        return ""
    try:
        difference = old.contract.embedder.difference(new.contract.embedder)
    except IndexError_ as error:
        difference = str(error)
    if not difference and old.term_settings() != new.term_settings():
        difference = "words are now indexed differently"
    if difference:
        again = f"Tune it again: llmbench evaluate rag {writer.recipe.source} --tune"
        return f"The tuned alpha {value:g} was dropped, since it was tuned on a different index ({difference}). {again}"
    with new.transaction():
        new.set(alpha=value, alpha_from=old.get("alpha_from"))
    return ""
