"""Passages that say something new: maximal marginal relevance, and what repeats a better one left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["REPEATED", "Move", "Span", "duplicates", "mmr", "moves"]

REPEATED = 0.8
"""A passage repeats a better one of its document when more than this share of its characters lies in that one."""

Span = tuple[str, int, int]
"""Source, start and end of a passage."""


@dataclass(frozen=True)
class Move:
    """What MMR did with a passage: its place before and after (from 1), and the chosen passage that it is most like.

    `nearest` is an index into what MMR was given and `cosine` the similarity to it; both are None for the first one chosen.
    """

    before: int
    after: int
    nearest: int | None
    cosine: float | None


def mmr(vectors: NDArray[np.float32], scores: NDArray[np.floating[Any]], k: int, lambda_mult: float) -> list[int]:
    """Indices of up to `k` passages in the order of maximal marginal relevance (Carbonell and Goldstein 1998, SIGIR).

    The next one is the largest `lambda * relevance - (1 - lambda) * (largest cosine to one that is chosen)`. Relevance is the
    score on any scale, laid linearly from 0 (the worst candidate) to 1 (the best), so that it weighs as much beside cosines
    whether it came as a logit, a BM25 sum or a cosine; where all are equal it is 1 for all. The first is the best scored; of
    equal ones the earlier.

    Args:
        vectors: float32 (n, dim), each of length 1.
        scores: (n,), higher is better.
        k: how many.
        lambda_mult: 1 is the order of the scores, 0 is difference alone.
    """
    import numpy as np

    if not len(scores):
        return []
    given = np.asarray(scores, dtype=np.float64)
    spread = given.max() - given.min()
    relevance = (given - given.min()) / spread if spread > 0 else np.ones_like(given)
    chosen = [int(relevance.argmax())]
    nearest = vectors @ vectors[chosen[0]]
    while len(chosen) < min(k, len(given)):
        value = lambda_mult * relevance - (1 - lambda_mult) * nearest
        value[chosen] = -np.inf
        chosen.append(int(value.argmax()))
        nearest = np.maximum(nearest, vectors @ vectors[chosen[-1]])
    return chosen[: max(k, 0)]


def moves(vectors: NDArray[np.float32], scores: NDArray[np.floating[Any]], order: Sequence[int]) -> list[Move]:
    """Why each passage of an order stands where it does, in that order."""
    import numpy as np

    ranks = {int(index): rank for rank, index in enumerate(np.argsort(-np.asarray(scores), kind="stable"), 1)}
    result = []
    for place, index in enumerate(order):
        if place == 0:
            result.append(Move(ranks[index], 1, None, None))
            continue
        cosines = vectors[list(order[:place])] @ vectors[index]
        at = int(cosines.argmax())
        result.append(Move(ranks[index], place + 1, order[at], float(cosines[at])))
    return result


def duplicates(texts: Sequence[str], spans: Sequence[Span] | None = None) -> list[int]:
    """Indices of the passages to keep, in their order: each whose words are not those of a better (earlier) one.

    Left out are passages that equal an earlier one but for white space and case, that are contained in one word for word,
    or of whose span more than 80 % lies in the span of an earlier one of the same document. A passage that contains an
    earlier one says more and stays.

    Args:
        texts: the passages, best first.
        spans: where each stands; None where that is not known.
    """
    kept: list[int] = []
    words = [f" {' '.join(text.casefold().split())} " for text in texts]
    for i, text in enumerate(words):
        if any(text in words[j] or (spans is not None and _inside(spans[i], spans[j])) for j in kept):
            continue
        kept.append(i)
    return kept


def _inside(span: Span, other: Span) -> bool:
    """Whether most of a span lies in another of the same document."""
    (source, start, end), (where, a, b) = span, other
    return source == where and min(end, b) - max(start, a) > REPEATED * (end - start)
