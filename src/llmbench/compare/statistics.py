"""How sure one may be: intervals of each variant, paired differences of every two, and what this many questions can show.

All variants answer the same questions, so they are compared question by question: what makes a question hard falls out.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from llmbench.compare.result import Difference, Estimate
from llmbench.recipe import StatisticsSpec

__all__ = ["difference", "differences", "estimate", "holm", "interaction", "quantile"]

Values = Mapping[str, float]
"""Question id -> value of one metric for one variant."""

_BATCH_CELLS = 4_000_000
"""Resampled values held at once (32 MB)."""
_POWER = 0.8


def estimate(values: Values, *, binary: bool, spec: StatisticsSpec, salt: str = "") -> Estimate | None:
    """The mean with its interval: Wilson (1927) for shares, BCa bootstrap for other means; None for too few values.

    A share needs one value, another mean two.
    """
    x = np.fromiter(values.values(), dtype=np.float64)
    if len(x) == 0 or (len(x) < 2 and not binary):
        return None
    if binary:
        found = stats.binomtest(int(x.sum()), len(x)).proportion_ci(spec.confidence, method="wilson")
        low, high = float(found.low), float(found.high)
    else:
        low, high = _bootstrap(x, spec, salt)
    return Estimate(float(x.mean()), low, high, len(x))


def differences(metric: str, values: Mapping[str, Values], *, binary: bool, spec: StatisticsSpec) -> list[Difference]:
    """Every pair of variants, the later one in the list minus the earlier one, with Holm's correction over all pairs."""
    found = [
        one
        for b, a in combinations(values, 2)
        if (one := difference(metric, a, b, values[a], values[b], binary=binary, spec=spec)) is not None
    ]
    adjusted = holm([one.p for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, adjusted, strict=True)]


def difference(
    metric: str, a: str, b: str, of_a: Values, of_b: Values, *, binary: bool, spec: StatisticsSpec
) -> Difference | None:
    """One pair; None when fewer than two questions have a value for both.

    The interval is a paired bootstrap over questions (BCa, Efron 1987). The test is McNemar's exact one for shares
    (1947; a binomial test of the questions where the two differ), else a sign-flip permutation test of the mean.
    """
    shared = sorted(of_a.keys() & of_b.keys())
    if len(shared) < 2:
        return None
    d = np.array([of_a[id] - of_b[id] for id in shared])
    ahead, behind = int((d > 0).sum()), int((d < 0).sum())
    salt = f"{metric}/{a}/{b}"
    if binary:
        p = float(stats.binomtest(ahead, ahead + behind).pvalue) if ahead + behind else 1.0
        low, high = _bootstrap(d, spec, salt) if np.ptp(d) else _same_everywhere(float(d[0]), len(d), spec)
    else:
        p = _sign_flip(d, spec, salt)
        low, high = _bootstrap(d, spec, salt)
    return Difference(
        metric, a, b, float(d.mean()), low, high, len(d), ahead, behind, p, p, _detectable(d, binary=binary, spec=spec)
    )  # fmt: skip


def interaction(cells: Sequence[Values], spec: StatisticsSpec) -> Estimate | None:
    """How much more b and a bring together than each alone: (both - a) - (b - none), for cells none, a, b, both.

    Paired over the questions that all four answered; None for fewer than two.
    """
    none, a, b, both = cells
    shared = sorted(none.keys() & a.keys() & b.keys() & both.keys())
    if len(shared) < 2:
        return None
    d = np.array([both[id] - a[id] - b[id] + none[id] for id in shared])
    low, high = _bootstrap(d, spec, "interaction")
    return Estimate(float(d.mean()), low, high, len(d))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): the chance of any false finding among these tests stays below alpha."""
    m, adjusted, highest = len(p_values), [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (m - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value that this share of the values does not exceed, interpolated; None without values."""
    return float(np.quantile(np.asarray(values), share)) if values else None


def _bootstrap(x: NDArray[np.float64], spec: StatisticsSpec, salt: str) -> tuple[float, float]:
    """The BCa interval of the mean; the percentile interval where BCa's acceleration cannot be had."""
    if not np.ptp(x):
        return float(x[0]), float(x[0])
    options: dict[str, Any] = {
        "n_resamples": spec.resamples,
        "confidence_level": spec.confidence,
        "batch": max(1, _BATCH_CELLS // len(x)),
        "vectorized": True,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap((x,), np.mean, method="BCa", rng=_rng(spec, salt), **options).confidence_interval
    if not math.isfinite(found.low) or not math.isfinite(found.high):
        found = stats.bootstrap((x,), np.mean, method="percentile", rng=_rng(spec, salt), **options).confidence_interval
    return float(found.low), float(found.high)


def _same_everywhere(d: float, n: int, spec: StatisticsSpec) -> tuple[float, float]:
    """The interval when the two differ on every question alike, where a bootstrap would claim to be certain.

    Wilson's upper limit for none of n says how often something else may yet happen.
    """
    slack = float(stats.binomtest(0, n).proportion_ci(spec.confidence, method="wilson").high)
    return max(-1.0, d - slack), min(1.0, d + slack)


def _sign_flip(d: NDArray[np.float64], spec: StatisticsSpec, salt: str) -> float:
    """Two-sided: how often a mean this far from 0 comes about when each difference might as well have the other sign."""
    if not d.any():
        return 1.0
    result = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", vectorized=True, n_resamples=spec.resamples,
        batch=max(1, _BATCH_CELLS // len(d)), rng=_rng(spec, salt),
    )  # fmt: skip
    return float(result.pvalue)


def _detectable(d: NDArray[np.float64], *, binary: bool, spec: StatisticsSpec) -> float:
    """(z(1 - alpha/2) + z(power)) standard errors; for shares not less than the exact test could ever call a difference."""
    alpha = 1 - spec.confidence
    errors = float(stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(_POWER))
    size = errors * float(d.std(ddof=1)) / math.sqrt(len(d))
    if not binary:
        return size
    fewest = math.ceil(math.log2(2 / alpha))  # 2 * 0.5^k <= alpha: all k questions that differ favour one side.
    return min(1.0, max(size, fewest / len(d)))


def _rng(spec: StatisticsSpec, salt: str) -> np.random.Generator:
    """Of its own for each figure, so that one more variant or metric leaves the others' figures as they were."""
    return np.random.default_rng([spec.seed, zlib.crc32(salt.encode())])
