"""What the vectors of an index depend on, as JSON to keep beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from llmbench.errors import IndexError_
from llmbench.retrieval.embedding import canaries

__all__ = ["TOLERANCE", "Contract"]

TOLERANCE = {"float32": 1e-4, "bfloat16": 1e-3, "float16": 1e-3, "int8": 1e-2}
"""How far apart (1 - cosine) canaries may lie, by the rougher of the two precisions."""


@dataclass(frozen=True)
class Contract:
    """A promise: a text embedded under it has the vector that it had when the index was made, but for rounding.

    Vectors in float32, bfloat16 and float16, by whatever backend, stand in for one another; int8 vectors are another space.
    `canaries` are the vectors of `canaries.TEXTS`, packed; a promise that no model was loaded for has none.
    """

    model: str
    """The name in the recipe; not compared, since a folder may move."""
    fingerprint: str
    """SHA-256 over the files that decide a vector."""
    pooling: str
    normalize: bool
    query_prefix: str
    document_prefix: str
    window: int
    truncate_dim: int | None
    dim: int
    backend: str
    precision: str
    canaries: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The contract as a JSON object."""
        return asdict(self) | {"canaries": list(self.canaries)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Contract:
        """What `to_json` gave.

        Raises:
            IndexError_: a field is missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if value.keys() != names:
            wrong = ", ".join(sorted(value.keys() ^ names))
            raise IndexError_(f"the index records its embedder in another format ({wrong}). Rebuild the index.")
        return cls(**{**value, "canaries": tuple(value["canaries"])})

    def difference(self, other: Contract) -> str:
        """The first promise in which this contract (an index's) differs from another (a recipe's); empty when none does."""
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if field.name in ("model", "backend", "precision", "canaries") or mine == theirs:
                continue
            if field.name == "fingerprint":
                return f"the embedder's files changed (index: {mine[:12]}, now: {theirs[:12]})"
            return f"{field.name} is {mine!r} in the index and {theirs!r} now"
        mine, theirs = self._space(), other._space()
        return "" if mine == theirs else f"vectors are {mine} in the index and {theirs} now"

    def drift(self, stored: Contract) -> str:
        """What differs between this contract's canary vectors and a stored one's, in words; empty when nothing does."""
        if len(stored.canaries) != len(canaries.TEXTS):
            return f"{len(stored.canaries)} canaries are stored, and {len(canaries.TEXTS)} are known"
        try:
            theirs = canaries.unpack(stored.canaries)
        except ValueError:
            return "the stored canaries cannot be read"
        far = canaries.distance(canaries.unpack(self.canaries), theirs)
        allowed = max(TOLERANCE[self.precision], TOLERANCE.get(stored.precision, 0.0))
        if far <= allowed:
            return ""
        return f"the same texts get other vectors than when the index was built (1 - cosine {far:.2g}, at most {allowed:.0e})"

    def _space(self) -> str:
        """Which vectors may be compared with one another."""
        return f"int8 by {self.backend}" if self.precision == "int8" else "floating point"
