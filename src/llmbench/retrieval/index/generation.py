"""Which generation of an index a writer writes: the current one, a new one, or a rebuild's, begun or continued."""

from __future__ import annotations

from pathlib import Path

from llmbench.errors import IndexError_
from llmbench.recipe import RagRecipe
from llmbench.retrieval.embedding import Embedder
from llmbench.retrieval.store import Contract, WritableIndex, layout

__all__ = ["open_for_writing"]


def open_for_writing(
    folder: Path, recipe: RagRecipe, given: Embedder | None, *, rebuild: bool, renew: bool
) -> tuple[WritableIndex, Embedder]:
    """The generation to write, with its embedder: the current one, a new one, or a rebuild's, begun or continued.

    `renew` begins a new one also where the current one is of an earlier version of llmbench, which is refused else.
    """
    now = layout.current(folder)
    if now is not None and now.exists() and not rebuild:
        index = WritableIndex(now)
        embedder = given or Embedder(recipe.embedder, gpu=True, like=index.contract.embedder)
        if not renew or not index.outdated(recipe, embedder):
            index.check(recipe, embedder)
            return index, embedder
        index.close()
        given = embedder
    embedder = given or Embedder(recipe.embedder, gpu=True)
    contract = Contract.of(recipe, embedder.contract)
    for begun in reversed(layout.unpointed(folder)):
        unfinished = _begun(begun, contract)
        if unfinished is not None:
            return unfinished, embedder
        layout.remove(begun)
    path = layout.next_generation(folder)
    index = WritableIndex.create(path, contract, embedder.dim)
    if now is None or not now.exists():
        layout.point(folder, path)
    return index, embedder


def _begun(path: Path, contract: Contract) -> WritableIndex | None:
    """A generation that an interrupted rebuild left behind, when it can be continued."""
    try:
        index = WritableIndex(path)
    except IndexError_:
        return None
    try:
        if not index.contract.difference(contract) and not index.get("complete") and not index.get("packing"):
            return index
    except IndexError_:  # killed before its tables were made
        pass
    index.close()
    return None
