"""Mends an index: what is derived is derived again, damaged vectors are embedded again from the text that is kept."""

from __future__ import annotations

from llmbench.errors import IndexError_
from llmbench.recipe import RagRecipe
from llmbench.retrieval.store.verify import Verification, verify
from llmbench.retrieval.writer import Writer

__all__ = ["repair"]


def repair(recipe: RagRecipe, *, wait: float = 0) -> Verification:
    """Mends what can be mended from the rest and looks again.

    Returns what the second look found: no faults.

    Raises:
        IndexError_: the documents themselves are damaged; the message holds the command that builds the index again.
    """
    with Writer.open(recipe, wait=wait) as writer:
        index = writer.index
        damaged = index.vectors.damaged()
        living = index.living(damaged)
        with index.transaction():
            index.index_terms()
            index.index_facts()
            if living:
                found = index.chunks(living)
                index.replace_vectors(living, writer.embed([found[row] for row in living]))
        index.vectors.erase([row for row in damaged if row not in set(living)])
        writer.finish(purge=True)
        folder = writer.folder
    found_after = verify(folder)
    if found_after.faults:
        what = "; ".join(fault.what for fault in found_after.faults)
        raise IndexError_(f"{folder}: {what}. Build it again: llmbench index {recipe.source} --rebuild")
    return found_after
