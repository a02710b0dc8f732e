"""The smallest true difference that a test of this size would find in four of five repetitions, and how many questions it takes
to show that one variant is not worse than another by a margin."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from llmbench.statistics.clusters import ALIKE, PAGES, Clusters

__all__ = ["POWER", "Assumed", "amount", "fewest", "normal", "passes", "score", "share"]

POWER = 0.8
_MOST = 10_000_000
"""Questions above which nobody asks."""
_EXACT = 400.0
"""Questions that differ, above which the normal distribution takes the place of the counts."""


@dataclass(frozen=True)
class Assumed:
    """What is assumed of the questions to come, for the power of a gate.

    `gain` and `loss` are what the candidate wins and loses a question: of shares the share of questions that it alone, or the
    other alone, has right; `gain - loss` is the true difference. `spread` is the standard deviation of one question's
    difference where it is not a share's. `deff` is the design effect, `size` the questions of a page.
    """

    gain: float
    loss: float
    spread: float | None = None
    deff: float = 1.0
    size: float = 1.0

    @property
    def difference(self) -> float:
        """The true one: the candidate's less the baseline's, more being better."""
        return self.gain - self.loss


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


def passes(n: int, margin: float, alpha: float, of: Assumed) -> float:
    """How often a gate passes that asks for the lower limit of n questions to lie above -margin.

    Of shares by the distribution of the counts and Tango's statistic on n / deff questions, as the gate has it; where many
    differ, and of means, by the normal distribution.

    Args:
        n: questions.
        margin: by how much the candidate may be worse, 0 or more, in the metric's own unit.
        alpha: of the two-sided interval, so that the gate errs in alpha / 2.
        of: what is true.
    """
    deff, free = _clustered(n, of)
    count = n / deff
    if count < 1 or free < 1:
        return 0.0
    z = float(special.stdtrit(free, 1 - alpha / 2) if math.isfinite(free) else special.ndtri(1 - alpha / 2))
    if of.spread is not None:
        away = (of.difference + margin) * math.sqrt(count) / of.spread if of.spread else math.inf
        return float(special.ndtr(away - z))
    if count * (of.gain + of.loss) > _EXACT:
        mean = _tango_at(count * of.gain, count * of.loss, count, -margin)
        plain = of.gain + of.loss - of.difference**2
        null = (of.difference + margin) * count / float(mean) if mean else 1.0
        return float(special.ndtr((float(mean) - z) * null / math.sqrt(count * plain)))
    return _counted(int(count), of.gain, of.loss, margin, z)


def fewest(power: Callable[[int], float], wanted: float = POWER, least: int = 2) -> int | None:
    """The fewest questions with this power; None where ten million do not have it."""
    high = max(least, 2)
    if power(high) >= wanted:
        return high
    while power(high) < wanted:
        if high >= _MOST:
            return None
        high *= 2
    low = high // 2
    while high - low > max(1, high // 200):
        middle = (low + high) // 2
        low, high = (middle, high) if power(middle) < wanted else (low, middle)
    return high


def _clustered(n: int, of: Assumed) -> tuple[float, float]:
    """The design effect and the degrees of freedom that the intervals have with so many questions.

    Of shares they mix in what they assume of pages, the more the fewer pages tell of it, and go by the pages that differ.
    """
    pages = n / of.size
    if of.spread is not None:
        return of.deff, pages - 1
    if of.size <= 1:
        return of.deff, math.inf
    told = min(pages, n * (of.gain + of.loss))
    deff = (told * of.deff + PAGES * (1 + (of.size - 1) * ALIKE)) / (told + PAGES)
    return max(1.0, deff), min(pages - 1, 1.5 * told + PAGES)


def normal(level: float) -> float:
    """The quantile of the normal distribution."""
    return float(special.ndtri(level))


def _counted(n: int, gain: float, loss: float, margin: float, z: float) -> float:
    """The chance that Tango's statistic is above z, over all counts of n questions that are at all likely."""
    b, c = (np.arange(int(n * p + 6 * math.sqrt(n * p * (1 - p)) + 8)) for p in (gain, loss))
    b, c = b[b <= n], c[c <= n]
    first = _binomial(b, n, gain)
    left = np.maximum(n - b[:, None], 0)
    second = np.where(c[None, :] <= left, _among(c[None, :], left, loss / (1 - gain) if gain < 1 else 0.0), 0.0)
    above = _tango_at(b[:, None].astype(np.float64), c[None, :].astype(np.float64), n, -margin) > z
    return float((first[:, None] * second * above).sum())


def _tango_at(b: NDArray[np.float64] | float, c: NDArray[np.float64] | float, n: float, delta: float) -> NDArray[np.float64]:
    """Tango's statistic of many counts at once: as `intervals._tango`."""
    b, c = np.asarray(b, dtype=np.float64), np.asarray(c, dtype=np.float64)
    p, q = -b - c + (2 * n - b + c) * delta, -c * delta * (1 - delta)
    nuisance = (np.sqrt(np.maximum(0.0, p * p - 8 * n * q)) - p) / (4 * n)
    spread = n * (2 * nuisance + delta * (1 - delta))
    away = b - c - n * delta
    sure = np.where(away > 0, np.inf, np.where(away < 0, -np.inf, 0.0))
    return np.asarray(np.where(spread > 0, away / np.sqrt(np.where(spread > 0, spread, 1.0)), sure))


def _among(k: NDArray[np.int_], n: NDArray[np.int_], p: float) -> NDArray[np.float64]:
    """The chance of k among n, for arrays of both."""
    n = np.maximum(n, k)
    log = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1) + special.xlogy(k, p)
    return np.asarray(np.exp(log + special.xlog1py(n - k, -min(p, 1.0))), dtype=np.float64)


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
