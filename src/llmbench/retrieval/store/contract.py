"""What an index's vectors depend on: the embedder as it was, and how documents were cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmbench.retrieval import chunking

if TYPE_CHECKING:
    from llmbench.recipe import RagRecipe

__all__ = ["Contract"]


@dataclass(frozen=True)
class Contract:
    """What a search must find unchanged. `embedder` is `Embedder.contract`, `chunking` the recipe's section and version."""

    embedder: Mapping[str, Any]
    chunking: Mapping[str, Any]

    @classmethod
    def of(cls, recipe: RagRecipe, embedder: Mapping[str, Any]) -> Contract:
        """What a recipe and its embedder promise."""
        return cls(dict(embedder), {**recipe.chunking.model_dump(), "version": chunking.VERSION})

    def difference(self, other: Contract) -> str:
        """The first thing in which an index (self) differs from a recipe (other), in words; empty when nothing does."""
        mine, theirs = self.embedder, other.embedder
        if mine.get("files") != theirs.get("files"):
            if mine.get("model") == theirs.get("model"):
                return f"another embedder (the files of {mine.get('model')} have changed)"
            return f"another embedder ({mine.get('model')}, not {theirs.get('model')})"
        for before, now in ((mine, theirs), (self.chunking, other.chunking)):
            for key in sorted({*before, *now} - {"files", "model"}):
                if before.get(key) != now.get(key):
                    return f"another {key} ({before.get(key)!r}, not {now.get(key)!r})"
        return ""
