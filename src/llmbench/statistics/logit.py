"""Shares between 0 and 1 as a logistic function of what may explain them, with errors robust to clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from llmbench.statistics.clusters import Clusters

__all__ = ["LogitFit", "logit"]

Floats = NDArray[np.float64]
_STEPS = 50


@dataclass(frozen=True)
class LogitFit:
    """`value` has the k coefficients in logits, `covariance` is k x k; `arrived` says whether they are finite and were reached.

    Where all of one side of the data are 1 and all of the other 0, there is no finite value.
    """

    value: Floats
    covariance: Floats
    arrived: bool


def logit(y: Floats, x: Floats, groups: Clusters) -> LogitFit:
    """The quasi-likelihood fit of shares (Papke and Wooldridge 1996) by Newton's method, with a sandwich by clusters.

    Args:
        y: shares from 0 to 1, (n,).
        x: what explains them, (n, k), a column of ones for the intercept among them.
        groups: the clusters of the rows.
    """
    n, k = x.shape
    value, arrived = np.zeros(k), False
    for _ in range(_STEPS):
        chance = special.expit(x @ value)
        bread = (x * (chance * (1 - chance))[:, None]).T @ x
        try:
            step = np.linalg.solve(bread, x.T @ (y - chance))
        except np.linalg.LinAlgError:
            break
        value = value + step
        if np.abs(value).max() > 30:
            break
        if np.abs(step).max() < 1e-10:
            arrived = True
            break
    if not arrived:
        return LogitFit(value, np.full((k, k), np.nan), False)
    residual = y - special.expit(x @ value)
    sums = np.zeros((len(groups.sizes), k))
    np.add.at(sums, groups.of, x * residual[:, None])
    count = len(groups.sizes)
    inverse = np.linalg.inv(bread)
    meat = sums.T @ sums * (count / max(1, count - 1)) * ((n - 1) / max(1, n - k))
    return LogitFit(value, inverse @ meat @ inverse, True)
