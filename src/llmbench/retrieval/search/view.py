"""An open index as a search sees it: one generation, its vectors ready to be searched, brought up to date after each commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench.retrieval.store import Filter, Index

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["View"]

Scored = list[tuple[int, float]]
"""Rows with their scores, best first."""


class View:
    """One generation, open for searching. Not for several threads at once; the retriever takes turns."""

    def __init__(self, generation: Path) -> None:
        """Opens it; the vectors are loaded with the first search."""
        self.index = Index(generation)
        self._version = -1
        self._nearest: Any = None
        self._dead: NDArray[np.int64] | None = None
        self._matching: dict[Filter, NDArray[np.int64]] = {}

    def close(self) -> None:
        """Lets go of the files."""
        self.index.close()

    @contextmanager
    def now(self) -> Iterator[View]:
        """Everything that the block asks is of one moment, whatever a writer commits meanwhile."""
        with self.index.snapshot():
            version = self.index.version
            if version != self._version:
                self._refresh()
                self._version = version
            yield self

    def dense(self, vector: NDArray[np.float32], k: int, where: Filter | None) -> Scored:
        """The k rows nearest to a vector of shape (dim,), by inner product."""
        if self._nearest is None:
            return []
        rows = None if where is None else self._rows(where)
        scores, found = self._nearest.search(vector[None], k, rows=rows, dead=self._dead)
        return [(int(r), float(s)) for r, s in zip(found[0], scores[0], strict=True) if r >= 0]

    def terms(self, text: str, k: int, where: Filter | None) -> Scored:
        """The k rows that share the most telling words with a text, by BM25."""
        return self.index.search_terms(text, k, where)

    def cosines(self, vector: NDArray[np.float32], rows: Sequence[int]) -> dict[int, float]:
        """The inner products of a vector with some rows, exactly."""
        import numpy as np

        if not rows:
            return {}
        products = self.index.vectors.take(np.array(rows, dtype=np.int64)) @ vector
        return dict(zip(rows, products.tolist(), strict=True))

    def _rows(self, where: Filter) -> NDArray[np.int64]:
        """The rows that fit a filter, kept until the index changes."""
        if where not in self._matching:
            if len(self._matching) > 64:
                self._matching.clear()
            self._matching[where] = self.index.matching(where)
        return self._matching[where]

    def _refresh(self) -> None:
        self._matching.clear()
        self._dead = self.index.dead()
        vectors = self.index.vectors
        if vectors.rows and self._nearest is None:
            from llmbench.retrieval.store.nearest import Nearest

            self._nearest = Nearest(self.index.dim)
        if self._nearest is not None:
            for _, _, block in vectors.blocks(self._nearest.count):
                self._nearest.add(block)
