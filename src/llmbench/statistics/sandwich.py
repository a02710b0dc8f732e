"""How surely strengths are known when votes are alike inside clusters: of a voter, of a question, or of both at once."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmbench.statistics import davidson
from llmbench.statistics.clusters import Clusters, clusters
from llmbench.statistics.davidson import Cast, Fit

__all__ = ["Spread", "assumed", "grouped", "spread"]

Floats = NDArray[np.float64]

_LARGEST = 4_000_000
"""Numbers in the informations of all clusters up to which each cluster is left out in turn; above, leaving one out changes too
little to be worth them."""
_ALIKE = 0.35
"""The correlation inside clusters that is assumed where none can be seen, as for shares of questions (decision 009)."""


@dataclass(frozen=True)
class Spread:
    """Covariances of the parameters of a fit.

    `each` are of one clustering each and, where there are two, of both at once first; a contrast has the largest of its
    variances. `degrees` are those of Student's t, infinite without clusters.
    """

    each: tuple[Floats, ...]
    degrees: float

    def error(self, contrast: Floats) -> float:
        """The standard error of a linear function of the parameters."""
        return math.sqrt(max(0.0, *(float(contrast @ one @ contrast) for one in self.each)))

    def draws(self, count: int, seed: int) -> Floats:
        """Draws of the parameters around 0, count x parameters, with as heavy tails as t has."""
        values, vectors = np.linalg.eigh(self.each[0])
        rng = np.random.default_rng(seed)
        drawn: Floats = rng.standard_normal((count, len(values))) @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
        if math.isfinite(self.degrees):
            drawn *= np.sqrt(self.degrees / rng.chisquare(self.degrees, count))[:, None]
        return drawn


def grouped(names: Sequence[Hashable]) -> Clusters:
    """The clusters of votes by these names; each vote is one of its own where the clusters are too few to tell anything."""
    ids = [str(i) for i in range(len(names))]
    number: dict[Hashable, str] = {}
    return clusters(ids, {id: number.setdefault(name, str(len(number))) for id, name in zip(ids, names, strict=True)})


def assumed(sizes: Sequence[Floats]) -> float:
    """The design effect that is assumed where votes are unanimous, and so show none; `sizes` are those of clusters."""
    effects = [1 + (float(one @ one) / float(one.sum()) - 1) * _ALIKE for one in sizes if one.sum()]
    return max([1.0, *effects])


def spread(cast: Cast, found: Fit, of: Sequence[Clusters]) -> Spread:
    """The covariance of a fit, robust to any dependence inside clusters.

    By one clustering: each cluster is left out in turn, with one step of Newton's method from the maximum (the jackknife, which
    for linear models is CR3 of Bell and McCaffrey 2002; MacKinnon, Nielsen and Webb 2023). By two at once: Cameron, Gelbach and
    Miller (2011), the two less the one by single votes. Degrees are those of the fewer effective clusters, less one.
    """
    alone = grouped(range(len(cast.left)))
    real = [one for one in of if len(one.sizes) < len(cast.left)]
    each = [_covariance(cast, found, one) for one in real or [alone]]
    if len(each) == 2:
        each = [each[0] + each[1] - _covariance(cast, found, alone), *each]
    return Spread(tuple(each), min([math.inf, *(one.degrees for one in real)]))


def _covariance(cast: Cast, found: Fit, groups: Clusters) -> Floats:
    count, p = len(groups.sizes), cast.size
    held = found.information + np.eye(p) * 1e-9
    held[: cast.models, : cast.models] += 1.0
    sums = davidson.scores(cast, found.b, groups.of, count)
    factor = (count - 1) / count if count > 1 else 1.0
    if count * p * p > _LARGEST:
        moved = np.linalg.solve(held, sums.T).T / factor
    else:
        left = held - davidson.informations(cast, found.b, groups.of, count)
        moved = np.stack([_solved(one, s) for one, s in zip(left, sums, strict=True)])
        moved = moved - moved.mean(axis=0)
    return factor * (moved.T @ moved)


def _solved(information: Floats, score: Floats) -> Floats:
    """Newton's step without one cluster; directions that only this cluster tells of do not move."""
    values, vectors = np.linalg.eigh(information)
    known = values > 1e-6 * values[-1]
    step: Floats = (vectors[:, known] / values[known]) @ (vectors[:, known].T @ score)
    return step
