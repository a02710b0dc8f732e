"""The sign-flip test: if two variants are alike, the differences of a page might as well have the other sign.

For shares of independent questions it is McNemar's exact test (1947). Nothing is drawn at random: whole numbers are counted
out, few numbers enumerated, and for the rest the tail comes from its saddlepoint (Lugannani and Rice 1980).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

__all__ = ["flips"]

_ENUMERATED = 16
"""Numbers whose 2^16 signs are all looked at."""
_CELLS = 4_000
"""Sum of whole numbers up to which their distribution is counted out."""
_CLOSE = 1e-9


def flips(sums: NDArray[np.float64]) -> float:
    """Two-sided p: how often random signs bring the total of `sums` as far from 0 as it is."""
    largest = float(np.abs(sums).max(initial=0.0))
    kept = sums[np.abs(sums) > _CLOSE * largest] if largest else sums[:0]
    if not len(kept):
        return 1.0
    whole = kept / np.abs(kept).min()
    if np.abs(whole).max() < 1 + _CLOSE:
        return _ones(len(whole), abs(round(float(whole.sum()))))
    if np.abs(whole).sum() <= _CELLS and np.allclose(whole, np.round(whole), rtol=0, atol=1e-6):
        return _counted(np.sort(np.abs(np.round(whole).astype(int))), abs(round(float(whole.sum()))))
    scaled = kept / largest
    if len(kept) <= _ENUMERATED:
        return _enumerated(np.abs(scaled), abs(float(scaled.sum())))
    return _saddlepoint(np.abs(scaled), abs(float(scaled.sum())))


def _ones(n: int, total: int) -> float:
    """McNemar's exact test, of a binomial."""
    return min(1.0, 2 * float(special.bdtrc((n + total) // 2 - 1, n, 0.5))) if total else 1.0


def _counted(u: NDArray[np.int_], total: int) -> float:
    """Whole numbers: the distribution of their signed sum, number by number."""
    chances: NDArray[np.floating] = np.ones(1)
    for value, count in zip(*np.unique(u, return_counts=True), strict=True):
        steps = np.zeros(2 * value * count + 1)
        steps[:: 2 * value] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, steps)
    middle = len(chances) // 2
    return min(1.0, 2 * float(chances[middle + total :].sum())) if total else 1.0


def _enumerated(u: NDArray[np.float64], total: float) -> float:
    signs = 1 - 2 * (np.arange(2 ** len(u))[:, None] >> np.arange(len(u)) & 1)
    return float((np.abs(signs @ u) >= total - _CLOSE).mean())


def _saddlepoint(u: NDArray[np.float64], total: float) -> float:
    """The tail of a sum of independent signs times u, by the cumulants log cosh(t u)."""
    if total >= float(u.sum()) * (1 - _CLOSE):
        return 2.0 ** (1 - len(u))
    low, high = 0.0, 1.0
    while float((u * np.tanh(high * u)).sum()) < total and high < 1e12:
        high *= 2
    for _ in range(100):
        t = (low + high) / 2
        low, high = (t, high) if float((u * np.tanh(t * u)).sum()) < total else (low, t)
    t = (low + high) / 2
    cumulant = float((np.logaddexp(t * u, -t * u) - math.log(2)).sum())
    w = math.sqrt(max(0.0, 2 * (t * total - cumulant)))
    if w < 1e-3:
        return 1.0
    v = t * math.sqrt(float((u * u / np.cosh(np.minimum(t * u, 300)) ** 2).sum()))
    tail = float(special.ndtr(-w)) + math.exp(-w * w / 2) / math.sqrt(2 * math.pi) * (1 / v - 1 / w if v > 0 else 0.0)
    return min(1.0, max(0.0, 2 * tail))
