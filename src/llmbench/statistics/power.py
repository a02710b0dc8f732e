"""The smallest true difference that a test of this size would find in four of five repetitions."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from llmbench.statistics.clusters import Clusters

__all__ = ["amount", "score", "share"]

POWER = 0.8


def share(a: NDArray[np.float64], b: NDArray[np.float64], groups: Clusters, deff: float, level: float) -> float | None:
    """For shares, by the exact test at `level`, the strictest that Holm's correction asks of a pair.

    A difference d changes on how many questions the two differ. Half of it is one's gain, evenly on all that it had wrong: what
    it wins where both were wrong is a new difference, what it wins where only the other was right is one less. The other half
    is the other's loss, likewise.

    Returns None where no difference would be found.
    """
    if _signs_are_too_few(groups, level):
        return None
    n = int(len(a) / deff)
    level = _normal(level, groups)
    differ = float((a != b).mean())
    growth = max(0.0, sum(_growth(float(((a == x) & (b == x)).mean()), differ / 2) for x in (0.0, 1.0)) / 2)

    def found(d: float) -> float:
        spread = min(1.0, max(d, differ + growth * d))
        return _power(n, spread, (spread + d) / (2 * spread), level)

    if found(1.0) < POWER:
        return None
    low, high = 0.0, 1.0
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (middle, high) if found(middle) < POWER else (low, middle)
    return high


def score(error: float, effect: float, groups: Clusters, level: float) -> float | None:
    """For scores, as `amount`; and not less than z^2 * effect / n, below which the score statistic rejects nothing."""
    found = amount(error, groups, level)
    least = _t(level, groups) ** 2 * effect / len(groups.of)
    return None if found is None or least > 1 else max(found, least)


def amount(error: float, groups: Clusters, level: float) -> float | None:
    """For means with this standard error: (t(1 - level / 2) + z(0.8)) errors; None where signs alone cannot reach `level`."""
    if _signs_are_too_few(groups, level):
        return None
    return error * (_t(level, groups) + float(special.ndtri(POWER)))


def _signs_are_too_few(groups: Clusters, level: float) -> bool:
    """Whether even a difference of the same sign in every cluster has a p of at least `level`: 0.06 with five of them."""
    return 2.0 ** (1 - len(groups.sizes)) >= level


def _growth(both: float, one: float) -> float:
    return (both - one) / (both + one) if both + one else 0.0


def _power(n: int, spread: float, favour: float, level: float) -> float:
    """How often the exact test of n questions finds a difference when a share `spread` differs, `favour` of it one way."""
    if n < 1:
        return 0.0
    middle, width = n * spread, 6 * math.sqrt(n * spread * (1 - spread)) + 1
    differing = np.arange(max(0, int(middle - width)), min(n, int(middle + width)) + 1)
    fewest = _critical(level, 2 ** math.ceil(math.log2(n + 1)))[differing]
    rejects = np.where(fewest > differing, 0.0, special.bdtrc(fewest - 1.0, differing, favour))
    return float((_binomial(differing, n, spread) * rejects).sum())


@lru_cache(maxsize=64)
def _critical(level: float, most: int) -> NDArray[np.int_]:
    """Of 0 to `most` questions that differ, how many must favour one side for the two-sided exact p to be below `level`."""
    n = np.arange(most + 1)
    fewest = np.asarray(stats.binom.isf(level / 2, n, 0.5), dtype=np.int_) + 1
    at_level = 2 * np.asarray(stats.binom.sf(fewest - 1, n, 0.5)) >= level  # The p itself must be below it.
    return np.where(at_level, fewest + 1, fewest)


def _binomial(k: NDArray[np.int_], n: int, p: float) -> NDArray[np.float64]:
    """The chance of k among n, by logarithms: scipy.stats takes ten times as long for few values."""
    log = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1) + special.xlogy(k, p)
    return np.asarray(np.exp(log + special.xlog1py(n - k, -p)), dtype=np.float64)


def _t(level: float, groups: Clusters) -> float:
    degrees = groups.degrees if math.isfinite(groups.degrees) else max(1, len(groups.of) - 1)
    return -float(special.stdtrit(degrees, level / 2))


def _normal(level: float, groups: Clusters) -> float:
    """The level at which a normal quantile is as far out as Student's at `level`."""
    if not math.isfinite(groups.degrees):
        return level
    return 2 * float(special.ndtr(special.stdtrit(groups.degrees, level / 2)))
