"""Statistics that a few wild values do not move, in plain Python: curves have some thousand points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist, median

__all__ = ["Interval", "bends", "blocks", "level_error", "noise", "paired", "quantile", "rising", "running"]

_MAD = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation (Rousseeuw and Croux 1993)."""


@dataclass(frozen=True)
class Interval:
    """A mean difference with its interval, from so many rows."""

    mean: float
    low: float
    high: float
    rows: int

    @property
    def apart(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def noise(values: Sequence[float]) -> float:
    """The standard deviation of the scatter around a curve that moves slowly.

    From the median absolute difference of neighbours, in which a trend cancels out (the estimator of Rice 1984, with a
    median for the mean). 0 for fewer than three values.
    """
    apart = [abs(b - a) for a, b in pairwise(values)]
    return _MAD * median(apart) / math.sqrt(2) if len(apart) > 1 else 0.0


def bends(values: Sequence[float]) -> float:
    """As `noise`, from second differences, in which a slope that changes slowly cancels out too; for few values."""
    apart = [abs(a - 2 * b + c) for a, b, c in zip(values, values[1:], values[2:], strict=False)]
    return _MAD * median(apart) / math.sqrt(6) if apart else 0.0


def blocks(values: Sequence[float], count: int, weights: Sequence[float] | None = None) -> list[float]:
    """The median of each of `count` stretches, of equally many values or of equal weight; empty where one would have none."""
    if len(values) < count:
        return []
    if weights is None:
        edges = [round(i * len(values) / count) for i in range(count + 1)]
        return [median(values[a:b]) for a, b in pairwise(edges)]
    total, so_far = sum(weights), 0.0
    parts: list[list[float]] = [[] for _ in range(count)]
    if total <= 0:
        return []
    for value, weight in zip(values, weights, strict=True):
        parts[min(int(count * (so_far + weight / 2) / total), count - 1)].append(value)
        so_far += weight
    return [median(part) for part in parts] if all(parts) else []


def level_error(scatter: float, count: int) -> float:
    """The standard error of the median of so many values: 1.2533 times that of the mean."""
    return 1.2533 * scatter / math.sqrt(max(count, 1))


def running(values: Sequence[float], width: int) -> list[float]:
    """The running median over `width` values around each."""
    half = width // 2
    return [median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def rising(values: Sequence[float]) -> list[float]:
    """The closest curve that never falls (isotonic regression by pooling adjacent violators; Barlow et al. 1972)."""
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (b, n), (a, m) = pools.pop(), pools.pop()
            pools.append(((a * m + b * n) / (m + n), m + n))
    return [mean for mean, count in pools for _ in range(count)]


def quantile(confidence: float, degrees: int) -> float:
    """Student's t, two-sided, by its expansion around the normal quantile (Abramowitz and Stegun 26.7.5)."""
    z, v = NormalDist().inv_cdf((1 + confidence) / 2), max(degrees, 1)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / v + second / v**2 + third / v**3


def paired(a: Sequence[float], b: Sequence[float], weights: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """The weighted mean of b - a over rows that both measured, as a loss over tokens is one; None for fewer than three rows.

    The standard error is that of a ratio (Cochran 1977, 6.8): rows are drawn, and tokens come with them.
    """
    count, total = len(a), sum(weights)
    if count < 3 or count != len(b) or total <= 0:
        return None
    mean = sum(w * (y - x) for x, y, w in zip(a, b, weights, strict=True)) / total
    spread = sum((w * (y - x - mean)) ** 2 for x, y, w in zip(a, b, weights, strict=True))
    half = quantile(confidence, count - 1) * math.sqrt(spread * count / (count - 1)) / total
    return Interval(mean, mean - half, mean + half, count)
