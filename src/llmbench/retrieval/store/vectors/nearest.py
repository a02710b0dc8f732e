"""The rows nearest to a query: exactly by one product with the mapped vectors, or through an approximate index of their codes.

    rows 0 .. base              in the approximate index, which holds codes of them and lies in a file beside the vectors
    rows base .. n              written since it was built; always compared exactly

Whatever finds a row, its score is the inner product with the stored vector, computed in one way, so that scores of all
paths agree and equal vectors tie. A `Nearest` never changes and holds no vectors: they come with every search.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmbench import workspace
from llmbench.errors import IndexError_, MissingPackage
from llmbench.retrieval.store.vectors.exact import exact, mask, ranked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BrokenIndex", "Nearest", "Plan", "Selection", "library"]

FEW = 5_000
"""Rows that a filter leaves up to which they are gathered and compared exactly, in place of an approximate search."""

WIDE = 100
"""Hits for which candidates are found even where fewer are asked for: the codes' errors then cost a short list little, and
settings hold at ten hits and at a hundred."""

KEPT = 8
"""Selections that are kept: a megabyte each where there are a million rows."""

MOST = 0.9
"""The share of rows from which a selection is searched like no selection: rows deleted here and there."""


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
    asked: Literal["made", "own"] = "made"
    """Of which kind these queries are: made of stored vectors, or questions that the caller has."""
    own: int = 0
    """The caller's questions, where they were too few to measure with alone: these settled the settings with the made ones."""
    own_recall: float = 0.0
    """Recall@10 on them."""

    def __str__(self) -> str:
        what = f"{self.lists} cells, {self.probes} probed" if self.kind == "ivf" else f"{self.lists} links, ef {self.probes}"
        kind = "synthetic queries" if self.asked == "made" else "of the pipeline's questions"
        return (
            f"{self.kind} over {self.base:,} vectors ({what}, {self.factor} candidates a hit): "
            f"recall@10 {self.recall:.3f} [{self.low:.3f}, {self.high:.3f}], @100 {self.recall_100:.3f}, "
            f"on {self.queries} {kind}"
            + (f" and {self.own_recall:.3f} on {self.own} of the pipeline's questions" if self.own else "")
        )


class Selection:
    """Which rows may be found, in the forms that searches need; each is made once, a hundredth of a second for a million."""

    def __init__(self, n: int, rows: NDArray[np.int64] | None = None, dead: NDArray[np.int64] | None = None) -> None:
        """Of n rows: `rows` or, where that is None, all of them, without `dead`."""
        import numpy as np

        self.named = rows, dead
        self.allowed = mask(n, rows, dead)
        self.matches = n if self.allowed is None else int(np.count_nonzero(self.allowed))
        self.filled: NDArray[np.int64] | None = None
        """How many of them lie in each cell of an inverted file."""
        self._selector: Any = None

    def share(self, base: int) -> float:
        """How large a part of the first rows it leaves."""
        import numpy as np

        return 1.0 if self.allowed is None else max(1, int(np.count_nonzero(self.allowed[:base]))) / base

    def selector(self, base: int) -> Any:
        """FAISS's form of it; None is all."""
        import numpy as np

        if self._selector is None and self.allowed is not None:
            bits = np.packbits(self.allowed[:base], bitorder="little")
            faiss = library()
            self._selector = faiss.IDSelectorBitmap(len(bits) * 8, faiss.swig_ptr(bits))
            self._selector.bits = bits  # FAISS holds its address only
        return self._selector


class Nearest:
    """Searches vectors; exactly where it was given no approximate index. Safe for several threads at once."""

    def __init__(self, index: Any = None, plan: Plan | None = None) -> None:
        """`index` is FAISS's and `plan` says what it is; both or neither."""
        self.index, self.plan = index, plan
        self._lock = threading.Lock()
        self._selections: dict[tuple[int, int, int], Selection] = {}
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
            dead: rows that may not be found. Neither array is to be changed later: what it selects is remembered.

        Returns:
            Scores (q, m), the highest first, and rows (q, m), ties by row; m is k, or the number of live matches where there
            are fewer.
        """
        import numpy as np

        queries = np.ascontiguousarray(queries, dtype=np.float32)
        selection = self._selection(len(vectors), rows, dead)
        k = min(k, selection.matches)
        scores, found = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        if k == 0:
            return scores, found
        if self.plan is None or selection.matches <= FEW or max(k, WIDE) * self.plan.factor > self.base // 4:
            pools = exact(vectors, queries, k, selection.allowed)
        else:
            pools = self._approximate(vectors, queries, k, selection)
        for i, pool in enumerate(pools):
            scores[i], found[i] = ranked(vectors, queries[i], pool, k)
        return scores, found

    def _selection(self, n: int, rows: NDArray[np.int64] | None, dead: NDArray[np.int64] | None) -> Selection:
        """The selection of these very arrays, kept with them for the next query."""
        key = n, id(rows), id(dead)
        with self._lock:
            kept = self._selections.get(key)
            if kept is None:
                while len(self._selections) >= KEPT:
                    del self._selections[next(iter(self._selections))]
                kept = self._selections[key] = Selection(n, rows, dead)
        return kept

    def _approximate(
        self, vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int, selection: Selection
    ) -> list[NDArray[np.int64]]:
        """For each query the rows to compare exactly: candidates of the index, and the best of the rows behind it."""
        import numpy as np

        assert self.plan is not None
        base, allowed = self.base, selection.allowed
        found = self.candidates(queries, max(k, WIDE) * self.plan.factor, selection)
        tails = [np.zeros(0, np.int64)] * len(queries)
        if len(vectors) > base:
            tails = exact(vectors[base:], queries, k, None if allowed is None else allowed[base:])
        pools = [np.concatenate([some[some >= 0], tail + base]) for some, tail in zip(found, tails, strict=True)]
        return [pool if len(pool) >= k else exact(vectors, queries[i : i + 1], k, allowed)[0] for i, pool in enumerate(pools)]

    def candidates(self, queries: NDArray[np.float32], count: int, selection: Selection) -> NDArray[np.int64]:
        """Rows (q, count) that the approximate index finds, the most promising first, -1 where there are no more.

        Args:
            queries: shape (q, dim).
            count: how many to find.
            selection: which rows may be found.
        """
        import numpy as np

        assert self.plan is not None
        faiss, selector, share = library(), selection.selector(self.base), selection.share(self.base)
        found: NDArray[np.int64]
        if self.plan.kind == "hnsw":
            width = min(self.base, int(max(self.plan.probes, count) / share))
            parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=width)
            found = self.index.search(queries, count, params=parameters)[1]
        elif share > MOST:
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=min(self.plan.lists, int(self.plan.probes / share)))
            found = self.index.search(queries, count, params=parameters)[1]
        else:
            if selection.filled is None:
                cells = self._cell_of_rows()[selection.allowed[: self.base]]  # type: ignore[index]
                selection.filled = np.bincount(cells, minlength=self.plan.lists)
            found = np.concatenate([self._in_filled_cells(query[None], count, selection.filled, selector) for query in queries])
        return found

    def _in_filled_cells(
        self, query: NDArray[np.float32], count: int, filled: NDArray[np.int64], selector: Any
    ) -> NDArray[np.int64]:
        """Candidates (1, count) under a filter that leaves so many rows in each cell.

        Looked into are the nearest cells that hold any, as many as hold together what an unfiltered search looks at, times the
        root of the share that the filter leaves: between as many cells and as many rows. A fixed number of cells finds a
        tenth of the best rows where a filter leaves only what is far from the query.
        """
        import numpy as np

        assert self.plan is not None
        faiss = library()
        near, cells = self.index.quantizer.search(query, self.plan.lists)
        held = filled[cells[0]]
        use = np.flatnonzero(held)
        wanted = self.base * self.plan.probes / self.plan.lists * math.sqrt(int(filled.sum()) / self.base)
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
            workspace.to_disk(path.parent)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            advice = "Free some space and run it again; earlier work is kept."
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
                raise BrokenIndex(
                    f"{path} is damaged, or belongs to another state of the index. Run llmbench index build: it is rebuilt."
                )
            with _bounded(path.stat().st_size):
                index = library().read_index(str(path))
        except (OSError, RuntimeError) as error:
            raise BrokenIndex(f"{path} cannot be read ({_line(error)}). Run llmbench index build: it is rebuilt.") from error
        name = {"ivf": "IndexIVFPQFastScan", "hnsw": "IndexHNSWSQ"}[plan.kind]
        if type(index).__name__ != name or index.d != plan.dim or index.ntotal != plan.base or not index.is_trained:
            found = f"{type(index).__name__} of {index.ntotal} x {index.d}"
            raise BrokenIndex(
                f"{path} holds {found}, not {plan.kind} of {plan.base} x {plan.dim}. Run llmbench index build: it is rebuilt."
            )
        return cls(index, plan)


def library() -> Any:
    """FAISS, imported where it is needed.

    Raises:
        MissingPackage: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its SWIG types on Python 3.12 and later
            import faiss
    except ImportError as error:
        raise MissingPackage("search", "faiss-cpu", "rag") from error
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
