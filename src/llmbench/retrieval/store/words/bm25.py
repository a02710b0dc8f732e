"""BM25 over files of postings: the same words, figures and order of sums as FTS5's, and so the same scores, sooner."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench.retrieval.store.words import postings, terms
from llmbench.retrieval.store.words.postings import Segment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Lexical", "Stems", "Totals"]

_K1, _B = 1.2, 0.75
_LEAST_WEIGHT = 1e-6
"""Of a word that half of the passages hold: FTS5 takes no logarithm below zero."""

_BLOCK = 256
"""Rows whose best score is looked at first."""

Totals = tuple[int, int]
"""How many passages there are, and how many words they have in all, titles' counting once."""


class Lexical:
    """The postings of one state of an index. Not for several threads at once."""

    def __init__(self, segments: Sequence[Segment], rows: int, dead: NDArray[np.int64], stems: Stems) -> None:
        """
        Args:
            segments: files that cover all rows.
            rows: how many rows there are.
            dead: those without a passage, ascending.
            stems: which says what a question's words are.
        """
        import numpy as np

        self.segments, self.rows = segments, rows
        self._alive: NDArray[np.bool_] | None = None
        lengths = np.concatenate([segment.lengths for segment in segments])
        if len(dead) and bool(lengths[dead].any()):  # deleted since the files were written
            self._alive = np.ones(rows, dtype=bool)
            self._alive[dead] = False
        self._lengths = lengths
        self._norms: tuple[Totals, NDArray[np.float64]] | None = None
        blocks = -(-rows // _BLOCK)
        self._scores = np.zeros(blocks * _BLOCK, dtype=np.float64)
        self._stems = stems

    @classmethod
    def load(
        cls, folder: Path, noted: Any, rows: int, dead: NDArray[np.int64], stems: Stems, opened: dict[str, Segment]
    ) -> Lexical | None:
        """The postings that a store notes; None where it notes none, or passages have been added since.

        Args:
            folder: of the generation.
            noted: the store's note.
            rows: how many rows there are.
            dead: those without a passage, ascending.
            stems: which says what a question's words are.
            opened: files that are open already, by name; brought up to date. A file of the same name is the same.

        Raises:
            BrokenPostings: a file is not as it was written.
        """
        plans = postings.plans(noted)
        if not plans or plans[-1].end != rows:
            return None
        segments = [opened.get(plan.file) or Segment(folder, plan) for plan in plans]
        opened.clear()
        opened.update({segment.plan.file: segment for segment in segments})
        return cls(segments, rows, dead, stems)

    def search(
        self, text: str, k: int, totals: Totals, allowed: NDArray[np.bool_] | None = None
    ) -> list[tuple[int, float]] | None:
        """Rows and scores of the passages that share words with a question, best first, ties by row.

        Args:
            text: the question.
            k: how many.
            totals: of the index now.
            allowed: the rows that may be found, living ones; None is all that live.

        Returns None for a question that FTS5 has to answer: with a word that it takes for several, or for a beginning.

        Raises:
            BrokenPostings: what the question asks for is not as it was written.
        """
        import numpy as np

        words = self._stems.of(terms.words(text))
        if words is None:
            return None
        if not all(totals):  # everything was deleted, or no passage has a word
            return []
        for segment in self.segments:
            segment.stands()
        scores = self._scores
        scores.fill(0)
        for word in words:
            for rows, points in self._points(word, totals):
                np.add.at(scores, rows, points)  # a third of the time of scores[rows] += points
        if allowed is not None:
            scores[: self.rows][~allowed] = 0
        elif self._alive is not None:
            scores[: self.rows][~self._alive] = 0
        best = scores.reshape(-1, _BLOCK).max(axis=1)
        # The k-th best of the blocks' best scores is no higher than the k-th best score.
        bound = np.partition(best, len(best) - k)[len(best) - k] if k < len(best) else 0.0
        if bound <= 0:
            found = np.flatnonzero(scores > 0)
        else:
            blocks = np.flatnonzero(best >= bound)
            inside = scores.reshape(-1, _BLOCK)[blocks]
            one, two = np.nonzero(inside >= bound)
            found = blocks[one] * _BLOCK + two
        order = np.lexsort((found, -scores[found]))[:k]
        return [(int(row), float(scores[row])) for row in found[order]]

    def points(self, text: str, row: int, totals: Totals) -> dict[str, float] | None:
        """What each word of a question adds to a passage's score, 0 for a word that it does not have; None as in `search`."""
        import numpy as np

        asked = terms.words(text)
        words = self._stems.of(asked)
        if words is None:
            return None
        for segment in self.segments:
            segment.stands()
        found: dict[str, float] = {}
        for name in asked:
            found.setdefault(name, 0.0)
            for word in (self._stems.of([name]) or ()) if all(totals) else ():
                for rows, points in self._points(word, totals):
                    at = int(np.searchsorted(rows, row))
                    if at < len(rows) and rows[at] == row:
                        found[name] += float(points[at])
        return found

    def _points(self, word: bytes, totals: Totals) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """What a word adds to the scores of the rows that hold it, a pair of arrays for each file."""
        import numpy as np

        found = []
        hits = 0
        for segment in self.segments:
            place = segment.place(word)
            if place >= 0:
                rows, counts = segment.of(place)
                hits += len(rows) if self._alive is None else int(np.count_nonzero(self._alive[rows]))
                found.append((rows, counts))
        weight = math.log((totals[0] - hits + 0.5) / (hits + 0.5)) if hits < totals[0] + 0.5 else 0.0
        weight = weight if weight > 0 else _LEAST_WEIGHT
        norms = self._norms_of(totals)
        pairs = []
        for rows, counts in found:
            often, places = counts.astype(np.float64), rows.astype(np.int64)
            pairs.append((places, weight * ((often * (_K1 + 1.0)) / (often + norms.take(places, mode="clip")))))
        return pairs

    def _norms_of(self, totals: Totals) -> NDArray[np.float64]:
        """What a passage's length adds below the line: k1 (1 - b + b length / average), (rows,)."""
        import numpy as np

        if self._norms is None or self._norms[0] != totals:
            average = totals[1] / totals[0]
            self._norms = totals, _K1 * (1 - _B + _B * self._lengths.astype(np.float64) / average)
        return self._norms[1]


class Stems:
    """Words as FTS5 keeps them: it is asked, so that there is one rule. Not for several threads at once."""

    def __init__(self) -> None:
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.text_factory = bytes  # a word of over 32 KB is cut, maybe inside of a character
        self._db.executescript(terms.schema("asked") + "CREATE VIRTUAL TABLE stems USING fts5vocab(asked, instance);")
        self._kept: dict[str, list[bytes]] = {}

    def close(self) -> None:
        """Lets go of the table."""
        self._db.close()

    def of(self, words: Sequence[str]) -> list[bytes] | None:
        """Each word's stem, in order, words of no letters left out; None where one is several, or stands for a beginning."""
        if any(terms.is_beginning(word) for word in words):
            return None
        if len(self._kept) > 50_000:
            self._kept.clear()
        new = list(dict.fromkeys(word for word in words if word not in self._kept))
        if new:
            stems = list[list[bytes]]([] for _ in new)
            with self._db:
                self._db.execute("INSERT INTO asked(asked) VALUES ('delete-all')")
                self._db.executemany("INSERT INTO asked(rowid, title, text) VALUES (?, '', ?)", enumerate(new))
                for number, stem in self._db.execute("SELECT doc, term FROM stems ORDER BY doc, offset"):
                    stems[number].append(stem)
            self._kept |= zip(new, stems, strict=True)
        found = [self._kept[word] for word in words]
        return None if any(len(stems) > 1 for stems in found) else [stem for stems in found for stem in stems]
