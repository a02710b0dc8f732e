"""Comparing queries with every row that may be found: the rule by which all else is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BLOCK", "exact", "mask", "ranked"]

BLOCK = 16_384
"""Rows compared at once: 25 MB of all-MiniLM-L6-v2's vectors."""

ROUNDING = 4e-6
"""How far two ways of adding up one inner product of unit vectors in float32 may lie apart."""


def exact(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None
) -> list[NDArray[np.int64]]:
    """For each query the rows that can be among its k best: these, and what lies within rounding of the last of them.

    A block is multiplied where it is mapped; copying 50,000 vectors into an IndexFlatIP first made single queries twice as
    slow, since FAISS then uses one thread. Where few rows are allowed, only they are gathered.
    """
    import numpy as np

    if not len(queries):
        return []
    chosen = None
    if allowed is not None and 4 * int(np.count_nonzero(allowed)) < len(allowed):
        chosen = np.flatnonzero(allowed)
    pools = [_Pool(k) for _ in queries]
    for first in range(0, len(vectors) if chosen is None else len(chosen), BLOCK):
        if chosen is not None:
            numbers = chosen[first : first + BLOCK]
            block = vectors[numbers]
            # Not BLAS: its threads cost more than such a product, 16 ms against 6 for 4,000 rows where others use the cores.
            products = queries @ block.T if len(queries) > 1 else np.einsum("nd,d->n", block, queries[0])[None]
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
