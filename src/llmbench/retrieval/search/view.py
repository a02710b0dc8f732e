"""An open index as a search sees it: one generation, its vectors ready to be searched, brought up to date after each commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llmbench.errors import IndexError_
from llmbench.retrieval.store import Filter, Index
from llmbench.retrieval.store.vectors import BrokenIndex, Nearest, Plan, mask
from llmbench.retrieval.store.words import BrokenPostings, Lexical, Segment, Stems

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["View"]

T = TypeVar("T")

Scored = list[tuple[int, float]]
"""Rows with their scores, best first."""


class View:
    """One generation, open for searching. Not for several threads at once; the retriever takes turns."""

    def __init__(self, generation: Path) -> None:
        """Opens it."""
        self.index = Index(generation)
        try:
            _ = self.index.vectors  # opened now: a writer may remove the generation, and what is open stays
        except IndexError_:
            self.index.close()
            raise
        self._slow: dict[str, str] = {}
        self._version = -1
        self._plan: dict[str, Any] | None = None
        self._nearest = Nearest()
        self._checked = 0
        self._dead: NDArray[np.int64] | None = None
        self._lexical: Lexical | None = None
        self._stems = Stems()
        self._segments: dict[str, Segment] = {}
        self._matching: dict[Filter, NDArray[np.int64]] = {}

    def close(self) -> None:
        """Lets go of the files."""
        self._stems.close()
        self.index.close()

    @property
    def warning(self) -> str:
        """What makes its searches slower than they should be; empty when nothing does."""
        return "\n".join(self._slow.values())

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

        def asked(lexical: Lexical) -> Scored | None:
            allowed = None if where is None else mask(self.index.vectors.rows, self._rows(where), self._dead)
            return lexical.search(text, k, self.index.totals(), allowed)

        found = self._by_postings(asked)
        return self.index.search_terms(text, k, where) if found is None else found

    def word_points(self, text: str, chunk_id: str) -> dict[str, float]:
        """What each word of a question adds to a passage's BM25 score; 0 for a word that it does not have."""
        row = self.index.place(chunk_id)
        found = None if row is None else self._by_postings(lambda lexical: lexical.points(text, row, self.index.totals()))
        return self.index.word_points(text, chunk_id) if found is None else found

    def _by_postings(self, ask: Callable[[Lexical], T | None]) -> T | None:
        """What the postings answer; None where FTS5 has to: there are none, or not of this question, or they are damaged."""
        if self._lexical is None:
            return None
        try:
            return ask(self._lexical)
        except BrokenPostings as error:
            self._give_up(error)
            return None

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
            self._plan, self._nearest = plan, Nearest()
            self._slow.pop("vectors", None)
            if plan is not None:
                try:
                    self._nearest = Nearest.load(self.index.path / "nearest.faiss", Plan(**plan))
                except BrokenIndex as error:
                    self._slow["vectors"] = f"{error} Until then every vector is compared, which is slower."
        self._lexical = None
        self._slow.pop("words", None)
        try:
            noted, rows = self.index.get("postings"), self.index.vectors.rows
            self._lexical = Lexical.load(self.index.path, noted, rows, self._dead, self._stems, self._segments)
        except BrokenPostings as error:
            self._give_up(error)
        if self._nearest.plan is None:
            for first, ids, _ in self.index.vectors.blocks(self._checked):
                self._checked = first + len(ids)

    def _give_up(self, error: BrokenPostings) -> None:
        """Has FTS5 look up words, until a writer has made the postings anew."""
        self._lexical = None
        self._segments.clear()
        self._slow["words"] = f"{error} Until then SQLite looks up words, which is slower."
