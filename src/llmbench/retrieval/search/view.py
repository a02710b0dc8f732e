"""An open index as a search sees it: one generation, its vectors ready to be searched, brought up to date after each commit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench.errors import IndexError_
from llmbench.retrieval.store import Filter, Index
from llmbench.retrieval.store.nearest import BrokenIndex, Nearest, Plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["View"]

Scored = list[tuple[int, float]]
"""Rows with their scores, best first."""


class View:
    """One generation, open for searching. Not for several threads at once; the retriever takes turns."""

    def __init__(self, generation: Path) -> None:
        """Opens it. `warning` says afterwards what makes its searches slower than they should be."""
        self.index = Index(generation)
        try:
            _ = self.index.vectors  # opened now: a writer may remove the generation, and what is open stays
        except IndexError_:
            self.index.close()
            raise
        self.warning = ""
        self._version = -1
        self._plan: dict[str, Any] | None = None
        self._nearest = Nearest()
        self._checked = 0
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
        vectors = self.index.vectors
        if not vectors.rows:
            return []
        rows = None if where is None else self._rows(where)
        scores, found = self._nearest.search(vectors.records["vector"], vector[None], k, rows=rows, dead=self._dead)
        # What is handed on is checked; in an exact search everything was, when it was opened.
        vectors.take(found[0], self.index.identities(found[0]))
        return list(zip(found[0].tolist(), scores[0].tolist(), strict=True))

    def terms(self, text: str, k: int, where: Filter | None) -> Scored:
        """The k rows that share the most telling words with a text, by BM25."""
        return self.index.search_terms(text, k, where)

    def vectors(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """The vectors of some rows: shape (len(rows), dim)."""
        return self.index.vectors.take(rows, self.index.identities(rows))

    def _rows(self, where: Filter) -> NDArray[np.int64]:
        """The rows that fit a filter, kept until the index changes."""
        if where not in self._matching:
            if len(self._matching) > 64:
                self._matching.clear()
            self._matching[where] = self.index.matching(where)
        return self._matching[where]

    def _refresh(self) -> None:
        """Looks at what a writer has committed since."""
        self._matching.clear()
        self._dead = self.index.dead()
        plan = self.index.get("nearest")
        if plan != self._plan:
            self._plan, self._nearest, self.warning = plan, Nearest(), ""
            if plan is not None:
                try:
                    self._nearest = Nearest.load(self.index.path / "nearest.faiss", Plan(**plan))
                except BrokenIndex as error:
                    self.warning = f"{error} Until then every vector is compared, which is slower."
        if self._nearest.plan is None:
            for first, ids, _ in self.index.vectors.blocks(self._checked):
                self._checked = first + len(ids)
