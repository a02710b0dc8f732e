"""Fusion: what dense and terms found, made into one ranking. Pure functions over arrays of ids and scores.

A list is a pair of arrays of equal length: ids (integers or strings) and finite scores, higher is better, in any order. What
comes back is such a pair too, best first, ties by id, so that the same candidates always give the same ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

__all__ = ["List", "convex", "ranked", "rrf"]

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ids = NDArray[Any]
    Scores = NDArray[np.float64]
    List = tuple[Ids, Scores]
    """Ids of shape (n,) and their scores of shape (n,)."""
else:
    List = tuple  # a name for type checkers; numpy is imported by those who compute


def convex(dense: List, terms: List, alpha: float) -> List:
    """`alpha * dense + (1 - alpha) * terms`, each list's scores put on the scale 0 to 1 by its own minimum and maximum.

    A candidate that only one list has counts as the other list's last: 0 on that scale. A list whose scores are all equal is
    all 1, since having found something is more than not having found it. At alpha 1 the ranking is dense's own and holds
    nothing else, at alpha 0 it is terms'.

    Bruch, Gai and Ingber, An Analysis of Fusion Functions for Hybrid Retrieval (2022), arXiv 2210.11934.

    Args:
        dense: candidates by meaning.
        terms: candidates by words.
        alpha: the weight of dense, 0 to 1.

    Raises:
        ValueError: alpha is not in 0 to 1, or a list's ids and scores differ in length.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}, not in 0 to 1")
    if alpha in (0, 1):
        ids, scores = ranked(dense if alpha else terms)
        return ids, _unit(scores)
    weighted = []
    for one, weight in ((dense, alpha), (terms, 1 - alpha)):
        ids, scores = ranked(one)
        weighted.append((ids, weight * _unit(scores)))
    return _sum(weighted)


def rrf(lists: Sequence[List], k: int = 60) -> List:
    """Reciprocal rank fusion: the sum of `1 / (k + rank)` over the lists that have a candidate, ranks from 1.

    Cormack, Clarke and Buettcher, Reciprocal Rank Fusion outperforms Condorcet and individual rank learning methods (2009).

    Raises:
        ValueError: k is negative, or a list's ids and scores differ in length.
    """
    import numpy as np

    if k < 0:
        raise ValueError(f"k is {k}, not 0 or more")
    shares = []
    for one in lists:
        ids, _ = ranked(one)
        shares.append((ids, 1.0 / (k + np.arange(1, len(ids) + 1, dtype=np.float64))))
    return _sum(shares)


def ranked(one: List) -> List:
    """A list best first, ties by id, each id once with its best score.

    Raises:
        ValueError: ids and scores differ in length.
    """
    import numpy as np

    ids, scores = np.asarray(one[0]), np.asarray(one[1], dtype=np.float64)
    if ids.shape != scores.shape or ids.ndim != 1:
        raise ValueError(f"ids and scores must be one score an id, not of shapes {ids.shape} and {scores.shape}")
    order = np.lexsort((ids, -scores))
    ids, scores = ids[order], scores[order]
    _, first = np.unique(ids, return_index=True)
    first.sort()
    return ids[first], scores[first]


def _unit(scores: Scores) -> Scores:
    """Scores on the scale 0 to 1: the smallest becomes 0, the largest 1."""
    import numpy as np

    if not len(scores):
        return scores
    low, high = scores.min(), scores.max()
    unit: Scores = (scores - low) / (high - low) if high > low else np.ones_like(scores)
    return unit


def _sum(lists: Sequence[List]) -> List:
    """The sum of each id's scores over the lists, best first."""
    import numpy as np

    filled = [one for one in lists if len(one[0])]  # an empty array has a type of its own, which would change the ids'
    if not filled:
        return lists[0] if lists else (np.zeros(0, dtype=np.int64), np.zeros(0))
    ids, places = np.unique(np.concatenate([ids for ids, _ in filled]), return_inverse=True)
    total = np.zeros(len(ids), dtype=np.float64)
    np.add.at(total, places, np.concatenate([scores for _, scores in filled]))
    return ranked((ids, total))
