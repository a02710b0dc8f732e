"""Mends an index: what is derived is derived again, damaged vectors are embedded again from the text that is kept."""

from __future__ import annotations

from llmbench.errors import IndexError_
from llmbench.recipe import RagRecipe
from llmbench.retrieval.embedding import Embedder
from llmbench.retrieval.index.pipeline import BATCH
from llmbench.retrieval.index.writer import Writer
from llmbench.retrieval.store import verify

__all__ = ["repair"]


def repair(recipe: RagRecipe, *, wait: float = 0, embedder: Embedder | None = None) -> verify.Verification:
    """Mends what can be mended from the rest and looks again.

    Args:
        recipe: the pipeline.
        wait: seconds to wait for another process that is writing the index.
        embedder: one that is there already; else the recipe's.

    Returns what the second look found: no faults.

    Raises:
        IndexError_: the documents themselves are damaged; the message holds the command that builds the index again.
    """
    with Writer.open(recipe, wait=wait, embedder=embedder) as writer:
        index = writer.index
        damaged = index.vectors.damaged(index.expected())
        living = index.living(damaged)
        with index.transaction():
            index.index_terms()
            index.index_facts()
            for first in range(0, len(living), BATCH):
                rows = living[first : first + BATCH]
                found = index.chunks(rows)
                index.replace_vectors(rows, writer.embed([found[row] for row in rows]))
            index.erase_again()
        writer.finish(purge=True)
        folder = writer.folder
    found_after = verify.verify(folder)
    if found_after.faults:
        what = "; ".join(fault.what for fault in found_after.faults)
        raise IndexError_(f"{folder}: {what}. Rebuild it: llmbench index build {recipe.source} --rebuild")
    return found_after
