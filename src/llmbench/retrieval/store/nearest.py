"""The rows nearest to a query: exactly by one product with the mapped vectors, or through an approximate index of their codes.

    rows 0 .. base              in the approximate index, which holds codes of them and lies in a file beside the vectors
    rows base .. n              written since it was built; always compared exactly

Whatever finds a row, its score is the inner product with the stored vector, computed in one way, so that scores of all
paths agree and equal vectors tie. A `Nearest` never changes and holds no vectors: they come with every search.
"""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmbench.errors import IndexError_

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BrokenIndex", "Nearest", "Plan", "exact", "library", "mask", "ranked"]

BLOCK = 16_384
"""Rows compared at once: 25 MB of all-MiniLM-L6-v2's vectors."""

FEW = 20_000
"""Rows that a filter leaves up to which they are gathered and compared exactly, in place of an approximate search."""

WIDE = 100
"""Hits for which candidates are found even where fewer are asked for: the codes' errors then cost a short list little, and
settings hold at ten hits and at a hundred."""

MOST = 0.9
"""The share of rows from which a selection is searched like no selection: rows deleted here and there."""

ROUNDING = 4e-6
"""How far two ways of adding up one inner product of unit vectors in float32 may lie apart."""


class BrokenIndex(IndexError_):
    """The file of an approximate index is missing, damaged, or not the one the store knows. Its vectors build it again."""


@dataclass(frozen=True)
class Plan:
    """What an approximate index is, how it is searched, and what that was measured to find."""

    kind: Literal["ivf", "hnsw"]
    base: int
    """It covers rows 0 to base."""
    dim: int
    lists: int
    """Cells of an inverted file; links of a node in a graph."""
    probes: int
    """Cells looked into (nprobe); candidates kept while a graph is walked (efSearch)."""
    factor: int
    """Candidates compared exactly for each hit (k_factor), of at least a hundred hits."""
    target: float
    """The recall@10 that was asked for."""
    recall: float
    """Recall@10 against exact search, on queries that settled no setting, with its 95 % interval."""
    low: float
    high: float
    recall_100: float
    """Recall@100 on the same queries: a search that fuses asks for so many."""
    queries: int
    """How many queries that is."""
    seconds: float
    """How long building took."""
    checksum: str = ""
    """BLAKE2b of the file."""

    def __str__(self) -> str:
        what = f"{self.lists} cells, {self.probes} probed" if self.kind == "ivf" else f"{self.lists} links, ef {self.probes}"
        return (
            f"{self.kind} over {self.base:,} vectors ({what}, {self.factor} candidates a hit): "
            f"recall@10 {self.recall:.3f} [{self.low:.3f}, {self.high:.3f}], @100 {self.recall_100:.3f}, "
            f"on {self.queries} queries"
        )


class Nearest:
    """Searches vectors; exactly where it was given no approximate index. Safe for several threads at once."""

    def __init__(self, index: Any = None, plan: Plan | None = None) -> None:
        """`index` is FAISS's and `plan` says what it is; both or neither."""
        self.index, self.plan = index, plan
        self._lock = threading.Lock()
        self._cells: NDArray[np.int32] | None = None

    @property
    def base(self) -> int:
        """How many rows the approximate index covers."""
        return 0 if self.plan is None else self.plan.base

    def search(
        self,
        vectors: NDArray[np.float32],
        queries: NDArray[np.float32],
        k: int,
        *,
        rows: NDArray[np.int64] | None = None,
        dead: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k rows with the greatest inner products.

        Args:
            vectors: shape (n, dim); may be a view into mapped records. At least `base` rows.
            queries: shape (q, dim), of unit length.
            k: how many.
            rows: the rows that may be found; None is all of them.
            dead: rows that may not be found.

        Returns:
            Scores (q, m), the highest first, and rows (q, m), ties by row; m is k, or the number of live matches where there
            are fewer.
        """
        import numpy as np

        queries = np.ascontiguousarray(queries, dtype=np.float32)
        allowed = mask(len(vectors), rows, dead)
        matches = len(vectors) if allowed is None else int(np.count_nonzero(allowed))
        k = min(k, matches)
        scores, found = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        if k == 0:
            return scores, found
        if self.plan is None or matches <= FEW or max(k, WIDE) * self.plan.factor > self.base // 4:
            pools = exact(vectors, queries, k, allowed)
        else:
            pools = self._approximate(vectors, queries, k, allowed)
        for i, pool in enumerate(pools):
            scores[i], found[i] = ranked(vectors, queries[i], pool, k)
        return scores, found

    def _approximate(
        self,
        vectors: NDArray[np.float32],
        queries: NDArray[np.float32],
        k: int,
        allowed: NDArray[np.bool_] | None,
    ) -> list[NDArray[np.int64]]:
        """For each query the rows to compare exactly: candidates of the index, and the best of the rows behind it."""
        import numpy as np

        assert self.plan is not None
        base, count = self.base, max(k, WIDE) * self.plan.factor
        inside, behind = (None, None) if allowed is None else (allowed[:base], allowed[base:])
        found = self.candidates(queries, count, inside)
        tails = exact(vectors[base:], queries, k, behind) if len(vectors) > base else [np.zeros(0, np.int64)] * len(queries)
        pools = [np.concatenate([some[some >= 0], tail + base]) for some, tail in zip(found, tails, strict=True)]
        return [pool if len(pool) >= k else exact(vectors, queries[i : i + 1], k, allowed)[0] for i, pool in enumerate(pools)]

    def candidates(
        self, queries: NDArray[np.float32], count: int, allowed: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """Rows (q, count) that the approximate index finds, the most promising first, -1 where there are no more.

        Args:
            queries: shape (q, dim).
            count: how many to find.
            allowed: which rows may be found, (base,); None is all.
        """
        import numpy as np

        assert self.plan is not None
        faiss, selector, share = library(), None, 1.0
        if allowed is not None:
            share = max(1, int(np.count_nonzero(allowed))) / self.base
            bits = np.packbits(allowed, bitorder="little")  # must outlive the search: FAISS holds its address only
            selector = faiss.IDSelectorBitmap(len(bits) * 8, faiss.swig_ptr(bits))
        found: NDArray[np.int64]
        if self.plan.kind == "hnsw":
            width = min(self.base, int(max(self.plan.probes, count) / share))
            parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=width)
            found = self.index.search(queries, count, params=parameters)[1]
        elif allowed is None or share > MOST:
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=min(self.plan.lists, int(self.plan.probes / share)))
            found = self.index.search(queries, count, params=parameters)[1]
        else:
            filled = np.bincount(self._cell_of_rows()[allowed], minlength=self.plan.lists)
            found = np.concatenate([self._in_filled_cells(query[None], count, filled, selector) for query in queries])
        return found

    def _in_filled_cells(
        self, query: NDArray[np.float32], count: int, filled: NDArray[np.int64], selector: Any
    ) -> NDArray[np.int64]:
        """Candidates (1, count) under a filter that leaves so many rows in each cell.

        Looked into are the nearest cells that hold any, as many as hold together what an unfiltered search looks at. A fixed
        number of cells finds a tenth of the best rows where a filter leaves only what is far from the query.
        """
        import numpy as np

        assert self.plan is not None
        faiss = library()
        near, cells = self.index.quantizer.search(query, self.plan.lists)
        held = filled[cells[0]]
        use = np.flatnonzero(held)
        wanted = self.base * self.plan.probes / self.plan.lists
        use = use[: int(np.searchsorted(np.cumsum(held[use]), wanted)) + 1]
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=len(use))
        chosen, nearness = np.ascontiguousarray(cells[:, use]), np.ascontiguousarray(near[:, use])
        scores, found = np.empty((1, count), np.float32), np.empty((1, count), np.int64)
        arrays = [faiss.swig_ptr(array) for array in (query, chosen, nearness, scores, found)]
        self.index.search_preassigned_c(1, arrays[0], count, *arrays[1:], False, parameters)
        return found

    def _cell_of_rows(self) -> NDArray[np.int32]:
        """The cell of each row, (base,), collected with the first search that needs it."""
        import numpy as np

        assert self.plan is not None
        with self._lock:
            if self._cells is None:
                faiss, lists = library(), self.index.invlists
                cells = np.zeros(self.base, np.int32)
                for cell in range(self.plan.lists):
                    size = lists.list_size(cell)
                    if size:
                        cells[faiss.rev_swig_ptr(lists.get_ids(cell), size)] = cell
                self._cells = cells
        return self._cells

    def save(self, path: Path) -> Plan:
        """Writes the approximate index, whole or not at all; returns its plan with the file's checksum, for the store to keep.

        Raises:
            IndexError_: the disk is full.
        """
        assert self.plan is not None
        temporary = path.with_name(f"{path.name}.tmp")
        try:
            library().write_index(self.index, str(temporary))
            digest = checksum(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            advice = "Free some space and index again; what was done before is kept."
            raise IndexError_(f"{path} cannot be written ({_line(error)}). {advice}") from error
        self.plan = replace(self.plan, checksum=digest)
        return self.plan

    @classmethod
    def load(cls, path: Path, plan: Plan) -> Nearest:
        """Opens the approximate index that a plan describes.

        Raises:
            BrokenIndex: it is not there, or not byte for byte what was saved, or not what the plan says.
        """
        try:
            if checksum(path) != plan.checksum:
                raise BrokenIndex(f"{path} is damaged, or of another state of the index. Index again: it is built anew.")
            with _bounded(path.stat().st_size):
                index = library().read_index(str(path))
        except (OSError, RuntimeError) as error:
            raise BrokenIndex(f"{path} cannot be read ({_line(error)}). Index again: it is built anew.") from error
        name = {"ivf": "IndexIVFPQFastScan", "hnsw": "IndexHNSWSQ"}[plan.kind]
        if type(index).__name__ != name or index.d != plan.dim or index.ntotal != plan.base or not index.is_trained:
            found = f"{type(index).__name__} of {index.ntotal} x {index.d}"
            raise BrokenIndex(
                f"{path} holds {found}, not {plan.kind} of {plan.base} x {plan.dim}. Index again: it is built anew."
            )
        return cls(index, plan)


def exact(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None
) -> list[NDArray[np.int64]]:
    """For each query the rows that can be among its k best: these, and what lies within rounding of the last of them.

    A block is multiplied where it is mapped; copying 50,000 vectors into an IndexFlatIP first made single queries twice as
    slow, since FAISS then uses one thread. Where few rows are allowed, only they are gathered.
    """
    import numpy as np

    chosen = None
    if allowed is not None and 4 * int(np.count_nonzero(allowed)) < len(allowed):
        chosen = np.flatnonzero(allowed)
    pools = [_Pool(k) for _ in queries]
    for first in range(0, len(vectors) if chosen is None else len(chosen), BLOCK):
        if chosen is not None:
            numbers = chosen[first : first + BLOCK]
            products = queries @ vectors[numbers].T
        else:
            block = vectors[first : first + BLOCK]
            numbers = np.arange(first, first + len(block))
            products = queries @ block.T if len(queries) > 1 else (block @ queries[0])[None]
            if allowed is not None:
                products[:, ~allowed[first : first + len(block)]] = -np.inf
        for pool, scores in zip(pools, products, strict=True):
            pool.add(scores, numbers)
    return [pool.rows() for pool in pools]


class _Pool:
    """The best rows so far of one query."""

    def __init__(self, k: int) -> None:
        import numpy as np

        self.k = k
        self.bound = float(np.finfo(np.float32).min)  # above the minus infinity of rows that are not allowed
        self.scores: list[NDArray[np.float32]] = []
        self.numbers: list[NDArray[np.int64]] = []

    def add(self, scores: NDArray[np.float32], numbers: NDArray[np.int64]) -> None:
        """Takes what of a block can be among the k best."""
        import numpy as np

        kept = np.flatnonzero(scores >= self.bound)
        if len(kept) > self.k:
            self.bound = max(self.bound, _kth(scores[kept], self.k) - ROUNDING)
            kept = kept[scores[kept] >= self.bound]
        self.scores.append(scores[kept])
        self.numbers.append(numbers[kept])

    def rows(self) -> NDArray[np.int64]:
        """The rows, not sorted; at most four times k and some, even where a great many are equal."""
        import numpy as np

        scores, numbers = np.concatenate(self.scores), np.concatenate(self.numbers)
        if len(scores) <= self.k:
            return numbers
        kept = scores >= _kth(scores, self.k) - ROUNDING
        if np.count_nonzero(kept) <= 4 * self.k + BLOCK:
            return numbers[kept]
        best: NDArray[np.int64] = np.lexsort((numbers, -np.round(scores / ROUNDING)))
        found: NDArray[np.int64] = numbers[best[: 4 * self.k + BLOCK]]
        return found


def _kth(scores: NDArray[np.float32], k: int) -> float:
    """The k-th highest score."""
    import numpy as np

    place = len(scores) - k
    return float(np.partition(scores, place)[place])


def ranked(
    vectors: NDArray[np.float32], query: NDArray[np.float32], pool: NDArray[np.int64], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The k best of a pool. einsum adds every row up in the same order, wherever it stands; BLAS does not."""
    import numpy as np

    scores = np.einsum("nd,d->n", vectors[pool], query)
    best = np.lexsort((pool, -scores))[:k]
    return scores[best], pool[best]


def mask(n: int, rows: NDArray[np.int64] | None, dead: NDArray[np.int64] | None) -> NDArray[np.bool_] | None:
    """Which of n rows may be found; None is all."""
    import numpy as np

    if rows is None and (dead is None or not len(dead)):
        return None
    allowed = np.full(n, rows is None)
    if rows is not None:
        allowed[rows] = True
    if dead is not None:
        allowed[dead] = False
    return allowed


def library() -> Any:
    """FAISS, imported where it is needed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its SWIG types on Python 3.12 and later
        import faiss
    return faiss


def checksum(path: Path) -> str:
    """BLAKE2b of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


_READING = threading.Lock()


@contextmanager
def _bounded(size: int) -> Iterator[None]:
    """No part of a file may claim to be larger than the file; FAISS keeps such limits for the whole process."""
    faiss = library()
    with _READING:
        before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
        faiss.set_deserialization_vector_byte_limit(size)
        faiss.set_deserialization_loop_limit(size)
        try:
            yield
        finally:
            faiss.set_deserialization_vector_byte_limit(before[0])
            faiss.set_deserialization_loop_limit(before[1])


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[-200:]
