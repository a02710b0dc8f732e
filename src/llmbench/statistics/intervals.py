"""Intervals in closed form: Wilson's and Tango's by effective numbers of questions, and Hall's for means of any size.

Each comes with its p: the level at which it would just touch 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

from llmbench.statistics.clusters import ALIKE, PAGES, Clusters, degrees, variance
from llmbench.statistics.values import Kind

__all__ = ["Contrast", "against", "amount", "difference", "mean"]

_PRIOR = 2.0
"""Questions' worth of the largest possible variance that a score's variance is mixed with: a few scores that happen to be alike
must not look certain. Only the questions that differ from the usual score tell otherwise: one small score among 50 that are 0
does not say that all are small. Chosen by simulation (docs/benchmarks.md)."""
_RARE = 3
"""Questions of one side up to which a single share has a limit from the Poisson distribution."""


@dataclass(frozen=True)
class Contrast:
    """The interval of a mean of paired differences.

    `p` is the level at which it would just touch 0, `error` the standard error of the mean, `effect` its variance over that of
    as many independent differences of -1, 0 and 1, `deff` what clusters alone do to the variance, and `degrees` those of
    Student's t that the interval was made with, where there are clusters.
    """

    low: float
    high: float
    p: float
    error: float
    effect: float
    deff: float
    degrees: float


def mean(x: NDArray[np.float64], groups: Clusters, kind: Kind, confidence: float) -> tuple[float, float, float]:
    """The interval of a mean and the design effect: (low, high, deff).

    Shares and scores have Wilson's (1927) on n / deff questions, amounts Hall's. Clusters bring Student's t with the degrees of
    `clusters.degrees`, a share that one question alone keeps from 0 or 1 with those of all clusters. One to three independent
    questions that differ from all others have the limit on their side from the Poisson distribution (Brown, Cai and DasGupta
    2001): by Wilson's alone, 20 questions cover a share of .04 in 85 %.
    """
    if kind == "amount":
        low, high = amount(x, groups, confidence)
        return (max(low, 0.0) if x.min() >= 0 else low), high, _inflation(x, groups)
    m = float(x.mean())
    effect = _effect(x, groups, m * (1 - m) / len(x), kind)
    # One question alone that differs from all others says nothing of how well the variance is known.
    alone = kind == "share" and min(m, 1 - m) * len(x) < 1.5
    z, n = _quantile(confidence, groups.degrees if alone else _free(x, groups, kind)), len(x) / effect
    centre, half = m + z * z / (2 * n), z * math.sqrt(m * (1 - m) / n + z * z / (4 * n * n))
    wide = 1 + z * z / n
    # Exactly 0 and 1 at the ends, which rounding would miss.
    low = 0.0 if m <= 0 else (centre - half) / wide
    high = 1.0 if m >= 1 else (centre + half) / wide
    if kind == "share" and not math.isfinite(groups.degrees):
        low, high = min(low, _rare(m * len(x), len(x), confidence)), max(high, 1 - _rare((1 - m) * len(x), len(x), confidence))
    return low, high, _design(x, groups, effect, kind)


def _rare(count: float, n: int, confidence: float) -> float:
    """The lower limit of a share of which 1 to `_RARE` of n were seen; 1 for any other count, which has Wilson's."""
    seen = round(count)
    return float(special.chdtri(2 * seen, confidence)) / (2 * n) if 1 <= seen <= _RARE else 1.0


def difference(d: NDArray[np.float64], groups: Clusters, kind: Kind, confidence: float, reach: float = 1.0) -> Contrast:
    """Differences of shares and scores lie within -reach and reach and have Tango's (1998) score interval.

    Its b and c are the sums of the positive and of the negative ones, and all is divided by the effect. Amounts have Hall's
    and Student's together, the wider on each side: skewness that is estimated from values of which a few are far out does as
    much harm as good. Where all their differences are the same, which says nothing of how much others may differ, they count
    as scores do, with the largest amount that was seen as `reach`.
    """
    if kind == "amount":
        m, error, _ = _moments(d, groups)
        if not error:
            alike = difference(d, groups, "score", confidence, reach=_reach(d, reach))
            return replace(alike, low=min(alike.low, m), high=max(alike.high, m))
        low, high = amount(d, groups, confidence)
        half = error * float(special.stdtrit(_degrees(groups), (1 + confidence) / 2))
        return Contrast(
            min(low, m - half), max(high, m + half), _amount_p(d, groups), error, 1.0, _inflation(d, groups), groups.degrees
        )
    x = d / reach
    n, b, c = len(x), float(x[x > 0].sum()), float(-x[x < 0].sum())
    m = (b - c) / n
    score, effect, free, of = _statistic(x, groups, kind, whole=reach == 1)
    z = _quantile(confidence, free)
    low, high = _root(score, z, -1.0, m), _root(score, -z, m, 1.0)
    p = 1.0 if b == c else min(1.0, 2 * _tail(abs(score(0.0)), free))
    error = reach * math.sqrt(max(0.0, effect * _plain(x)))
    return Contrast(
        reach * low, reach * high, p, error, effect, _design(x, groups, effect, of), min(groups.degrees, free)
    )  # fmt: skip


def against(d: NDArray[np.float64], groups: Clusters, kind: Kind, null: float = 0.0, reach: float = 1.0) -> tuple[float, float]:
    """One-sided p: of a mean of at most `null`, and of one of at least `null`; the interval of `difference` inverts both.

    The lower limit at a confidence of 1 - alpha lies above `null` exactly where the first is below alpha / 2, and the upper
    one below it where the second is.

    Args:
        d: paired differences, (n,).
        groups: their clusters.
        kind: what one question gives.
        null: the difference in question, within -reach and reach for shares and scores.
        reach: as for `difference`.
    """
    if kind == "amount":
        if _moments(d, groups)[1]:
            return _amount_tail(d - null, groups), _amount_tail(null - d, groups)
        return against(d, groups, "score", null, max(_reach(d, reach), 2 * abs(null)))
    x = d / reach
    score, _, free, _ = _statistic(x, groups, kind, whole=reach == 1)
    value = score(null / reach)
    return _tail(value, free), _tail(-value, free)


def amount(x: NDArray[np.float64], groups: Clusters, confidence: float) -> tuple[float, float]:
    """Hall's (1992) interval of a mean: Student's t with its skewness transformed away.

    For means of skewed amounts, such as seconds, it covers like the bootstrap-t, and draws nothing.
    """
    m, error, skew = _moments(x, groups)
    if not error:
        return m, m
    t = float(special.stdtrit(_degrees(groups), (1 + confidence) / 2))
    return m - error * _unskewed(t, skew), m - error * _unskewed(-t, skew)


def _amount_p(x: NDArray[np.float64], groups: Clusters) -> float:
    m, error, _ = _moments(x, groups)
    if not error:
        return 1.0 if m == 0 else 0.0
    return min(1.0, 2 * _amount_tail(x if m > 0 else -x, groups))


def _amount_tail(x: NDArray[np.float64], groups: Clusters) -> float:
    """The chance of a mean as large as this, or larger, if the true one is 0: Hall's or Student's, whichever is more."""
    m, error, skew = _moments(x, groups)
    if not error:
        return 0.0 if m > 0 else 1.0
    t = m / error
    hall = t + skew * t * t / 3 + skew * skew * t**3 / 27 + skew / 6  # It only rises with t.
    return float(special.stdtr(_degrees(groups), -min(t, hall)))


def _reach(d: NDArray[np.float64], reach: float) -> float:
    """The largest amount that is known of: at least that of the differences themselves, and never 0."""
    return max(reach, float(np.abs(d).max(initial=0.0))) or 1.0


def _moments(x: NDArray[np.float64], groups: Clusters) -> tuple[float, float, float]:
    """The mean, its standard error, and the skewness of the clusters' sums over the root of their number."""
    m = float(x.mean())
    size = float(np.abs(x - m).max())
    if size <= 1e-12 * abs(m):
        return m, 0.0, 0.0
    scaled = (x - m) / size  # Squares of huge values would overflow.
    u = groups.sums(scaled)
    spread = float(u @ u)
    skew = float((u**3).sum()) / spread**1.5 if spread else 0.0
    return m, size * math.sqrt(variance(scaled, groups)), skew


def _unskewed(z: float, skew: float) -> float:
    """Where Hall's transform t + k t^2 / 3 + k^2 t^3 / 27 + k / 6 takes the value z."""
    if abs(skew) < 1e-6:
        return z
    return 3 * (math.cbrt(1 + skew * (z - skew / 6)) - 1) / skew


def _plain(x: NDArray[np.float64]) -> float:
    """The variance of the mean if each of its values of -1 to 1 were one of -1, 0 and 1 independently."""
    n, m = len(x), float(x.mean())
    return (float(np.abs(x).sum()) / n - m * m) / n


def _statistic(
    x: NDArray[np.float64], groups: Clusters, kind: Kind, *, whole: bool
) -> tuple[Callable[[float], float], float, float, Kind]:
    """The score statistic by effective numbers, their effect, the degrees of freedom, and the kind that they were made for."""
    # A contrast of more than two shares takes values between the whole ones, and is a score.
    of: Kind = "share" if kind == "share" and whole else "score"
    effect = _effect(x, groups, _plain(x), of)
    b, c = float(x[x > 0].sum()), float(-x[x < 0].sum())
    return _tango(b / effect, c / effect, len(x) / effect), effect, _free(x, groups, of), of


def _tango(b: float, c: float, n: float) -> Callable[[float], float]:
    """The score statistic of a difference of paired shares; it falls as the difference grows."""

    def score(delta: float) -> float:
        p, q = -b - c + (2 * n - b + c) * delta, -c * delta * (1 - delta)
        nuisance = (math.sqrt(max(0.0, p * p - 8 * n * q)) - p) / (4 * n)
        spread = n * (2 * nuisance + delta * (1 - delta))
        away = b - c - n * delta
        if spread <= 0:
            return math.copysign(math.inf, away) if away else 0.0
        return away / math.sqrt(spread)

    return score


def _root(score: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Where a falling function takes a value, by halving: 60 steps are more than a float has digits."""
    for _ in range(60):
        middle = (low + high) / 2
        if score(middle) > target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _effect(x: NDArray[np.float64], groups: Clusters, plain: float, kind: Kind) -> float:
    """The variance of the mean over `plain`, what it would be if each question gave 0 or 1 independently.

    Shares of independent questions have 1. Those of clusters are mixed with `ALIKE`, the more the fewer differ, and have never
    less than 1: by chance they look less alike than they are.
    """
    if kind == "share":
        if not math.isfinite(groups.degrees):
            return 1.0
        assumed = 1 + (len(x) / groups.effective - 1) * ALIKE
        usual = np.median(x)
        told = min(len(groups.sizes), int(np.count_nonzero(x != usual))) if plain > 1e-15 else 0
        found = variance(x, groups) / plain if told else 1.0
        return max(1.0, (told * found + PAGES * assumed) / (told + PAGES))
    if plain <= 1e-15:
        return 1.0
    told = int(np.count_nonzero(np.abs(x - np.median(x)) > 1e-12))
    return (variance(x, groups) / plain * told + _PRIOR) / (told + _PRIOR)


def _design(x: NDArray[np.float64], groups: Clusters, effect: float, kind: Kind) -> float:
    """What clusters alone do to the variance, for people to read."""
    return effect if kind == "share" else _inflation(x, groups)


def _inflation(x: NDArray[np.float64], groups: Clusters) -> float:
    if not math.isfinite(groups.degrees) or not np.ptp(x):
        return 1.0
    scaled = (x - x.mean()) / np.abs(x - x.mean()).max()
    return variance(scaled, groups) / (float(scaled.var(ddof=1)) / len(x))


def _free(x: NDArray[np.float64], groups: Clusters, kind: Kind) -> float:
    """Degrees of Student's t; infinite (the normal distribution) for shares of independent questions, whose variance the share
    tells."""
    if math.isfinite(groups.degrees):
        known = degrees(x, groups)
        return min(groups.degrees, known + PAGES) if kind == "share" else known
    return math.inf if kind == "share" else _degrees(groups)


def _quantile(confidence: float, free: float) -> float:
    level = (1 + confidence) / 2
    return float(special.stdtrit(free, level) if math.isfinite(free) else special.ndtri(level))


def _tail(z: float, free: float) -> float:
    return float(special.stdtr(free, -z) if math.isfinite(free) else special.ndtr(-z))


def _degrees(groups: Clusters) -> float:
    return groups.degrees if math.isfinite(groups.degrees) else max(1, len(groups.of) - 1)
