"""What an index's vectors depend on: the embedder as it was, and how documents were cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmbench.retrieval import chunking, embedding
from llmbench.retrieval.store.words import terms

if TYPE_CHECKING:
    from llmbench.recipe import RagRecipe

__all__ = ["OUTDATED", "Contract"]

OUTDATED = "an earlier version of llmbench"
"""The difference of an index of which passages were cut, or words told apart, otherwise than now, and nothing else."""

_VERSION = f"{chunking.VERSION}.{terms.VERSION}"
"""Of passages and of their words."""


@dataclass(frozen=True)
class Contract:
    """What a search must find unchanged: the embedder's own contract, the recipe's chunking and the chunker's version."""

    embedder: embedding.Contract
    chunking: Mapping[str, Any]

    @classmethod
    def of(cls, recipe: RagRecipe, embedder: embedding.Contract) -> Contract:
        """What a recipe and its embedder promise."""
        return cls(embedder, {**recipe.chunking.model_dump(), "version": _VERSION})

    def to_json(self) -> dict[str, Any]:
        """The contract as a JSON object."""
        return {"embedder": self.embedder.to_json(), "chunking": dict(self.chunking)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Contract:
        """What `to_json` gave.

        Raises:
            IndexError_: it is of another version.
        """
        return cls(embedding.Contract.from_json(value["embedder"]), value["chunking"])

    @property
    def outdated(self) -> bool:
        """Whether an earlier version of llmbench cut the passages, or told their words apart, otherwise than now."""
        return self.chunking.get("version") != _VERSION

    def difference(self, other: Contract) -> str:
        """The first thing in which an index (self) differs from a recipe (other), in words; empty when nothing does."""
        mine, theirs = self.embedder, other.embedder
        if mine.fingerprint != theirs.fingerprint:
            if mine.model == theirs.model:
                return f"another embedder (the files of {mine.model} have changed)"
            return f"another embedder ({mine.model}, not {theirs.model})"
        found = mine.difference(theirs)
        if found:
            return f"another embedder ({found})"
        for key in sorted({*self.chunking, *other.chunking} - {"version"}):
            if self.chunking.get(key) != other.chunking.get(key):
                return f"another {key} ({self.chunking.get(key)!r}, not {other.chunking.get(key)!r})"
        return OUTDATED if self.chunking.get("version") != other.chunking.get("version") else ""
