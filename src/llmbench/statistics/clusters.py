"""Questions about one page are not independent: what such clusters do to the variance of a mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALIKE", "FEWEST", "PAGES", "SIGNS", "Clusters", "clusters", "degrees", "variance"]

FEWEST = 5
"""Effective clusters below which questions count as independent: a variance estimated from fewer is worth little."""
SIGNS = 6
"""Clusters that a difference needs to be shown at 95 %: with five of one sign p is 2 * 0.5^5 = 0.06."""

ALIKE, PAGES = 0.35, 2.0
"""The correlation inside clusters that is assumed of shares, with the weight of so many clusters that tell of it: few differing
answers show neither how alike those of a page are nor how well that is known. Chosen by simulation (docs/benchmarks.md)."""


@dataclass(frozen=True)
class Clusters:
    """Which cluster each of n questions belongs to, as numbers from 0.

    `effective` is n^2 / sum of squared sizes (Carter, Schnepel and Steigerwald 2017): the number of clusters when all are of
    one size, less when a few hold most questions. `degrees` are those of Student's t; infinite without clusters.
    """

    of: NDArray[np.intp]
    sizes: NDArray[np.float64]
    effective: float
    degrees: float

    def sums(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The sum of x in each cluster."""
        return np.bincount(self.of, x, minlength=len(self.sizes)).astype(np.float64)


def clusters(ids: Sequence[str], of: Mapping[str, str] | None) -> Clusters:
    """The clusters of these questions; a question that `of` does not name is one of its own.

    Where no two share a cluster, or the clusters are too few (`FEWEST`), every question is one of its own.
    """
    n, number = len(ids), np.arange(len(ids), dtype=np.intp)
    if of:
        keys = [(True, of[id]) if id in of else (False, id) for id in ids]
        seen: dict[tuple[bool, str], int] = {}
        together = np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.intp)
        sizes = np.bincount(together).astype(np.float64) if n else np.zeros(0)
        effective = n**2 / float(sizes @ sizes) if n else 0.0
        if len(sizes) < n and effective >= FEWEST:
            return Clusters(together, sizes, effective, effective - 1)
    return Clusters(number, np.ones(n), float(n), math.inf)


def variance(x: NDArray[np.float64], groups: Clusters) -> float:
    """The variance of the mean of x, robust to any dependence inside clusters: C / (C - 1) * sum of squared sums / n^2.

    Liang and Zeger (1986) with the small-sample factor; for clusters of one it is Student's s^2 / n.
    """
    count = len(groups.sizes)
    if count < 2:
        return 0.0
    u = groups.sums(x - x.mean())
    return float(u @ u) * count / (count - 1) / len(x) ** 2


def degrees(x: NDArray[np.float64], groups: Clusters) -> float:
    """The degrees of freedom of that variance: 1.5 S^2 / sum of u^4, with S the sum of the squared sums u.

    Satterthwaite's idea (1946), by the fourth moment that the clusters show: where a few of them hold nearly all that differs,
    the variance is known no better than by those few. The factor is half of what normal sums would have, since the clusters
    that were drawn show too small a moment; with it, gates err in at most 2.0 % where 2.5 % is meant (docs/benchmarks.md). From
    2 to `groups.degrees`; infinite without clusters.
    """
    if not math.isfinite(groups.degrees):
        return math.inf
    squares = groups.sums(x - x.mean()) ** 2
    total, fourth = float(squares.sum()), float(squares @ squares)
    return max(2.0, min(groups.degrees, 1.5 * total * total / fourth)) if fourth else groups.degrees
