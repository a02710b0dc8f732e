"""How sure one may be: intervals over queries, paired tests between pipelines, and what so many queries can show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["Difference", "Estimate", "detectable", "difference", "differences", "estimate", "holm", "interval", "student"]

Values = Mapping[str, float]
"""Query -> value of one measure."""

RESAMPLES = 10_000
_BATCH_CELLS = 4_000_000
"""Resampled values held at once (32 MB)."""
_POWER = 0.8


@dataclass(frozen=True)
class Estimate:
    """A mean over queries with its interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The mean of a - b over the queries that both have, with its interval.

    `p_bootstrap` and `p_randomisation` are two-sided; `p_holm` is the latter, corrected for how many differences were looked
    at. `detectable` is the smallest true difference that so many queries would show in four of five tries.
    """

    a: str
    b: str
    mean: float
    low: float
    high: float
    queries: int
    better: int
    worse: int
    p_bootstrap: float
    p_randomisation: float
    p_holm: float
    detectable: float


def estimate(values: Values, *, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """The mean with its bootstrap interval."""
    numbers = list(values.values())
    low, high = interval(numbers, confidence=confidence, seed=seed)
    return Estimate(float(np.mean(numbers)) if numbers else math.nan, low, high)


def interval(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean, over queries."""
    if len(values) < 2 or len(set(values)) == 1:
        return (values[0], values[0]) if values else (math.nan, math.nan)
    means = _bootstrapped(np.asarray(values, dtype=np.float64), resamples, seed)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def difference(a: str, b: str, of_a: Values, of_b: Values, *, confidence: float = 0.95, seed: int = 0) -> Difference:
    """One pair, query by query: what makes a query hard falls out.

    The interval and one test are a paired bootstrap over queries (Sakai 2006), the other test is Fisher's randomisation, in
    which each query's difference might as well have the other sign (Smucker, Allan and Carterette 2007).
    """
    shared = sorted(of_a.keys() & of_b.keys())
    d = np.array([of_a[query] - of_b[query] for query in shared], dtype=np.float64)
    low, high = interval(d.tolist(), confidence=confidence, seed=seed)
    p_bootstrap, p_randomisation = _p_bootstrap(d, seed), _p_randomisation(d, seed)
    counts = (len(d), int((d > 0).sum()), int((d < 0).sum()))
    mean = float(d.mean()) if len(d) else math.nan
    found = detectable(d, confidence=confidence)
    return Difference(a, b, mean, low, high, *counts, p_bootstrap, p_randomisation, p_randomisation, found)


def differences(reference: str, values: Mapping[str, Values], *, confidence: float = 0.95, seed: int = 0) -> list[Difference]:
    """The reference minus each of the others, with Holm's correction over them all."""
    others = [name for name in values if name != reference]
    found = [difference(reference, name, values[reference], values[name], confidence=confidence, seed=seed) for name in others]
    adjusted = holm([one.p_randomisation for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, adjusted, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): the chance of any false finding among these tests stays below its level."""
    m, adjusted, highest = len(p_values), [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(m), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (m - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def detectable(d: NDArray[np.float64], *, confidence: float = 0.95) -> float:
    """The smallest true difference seen in 80 of 100 tries: (z(1 - alpha/2) + z(0.8)) standard errors of the paired mean."""
    from scipy import stats

    if len(d) < 2:
        return math.nan
    errors = float(stats.norm.ppf((1 + confidence) / 2) + stats.norm.ppf(_POWER))
    return errors * float(d.std(ddof=1)) / math.sqrt(len(d))


def student(d: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    """Student's interval of the paired mean, which holds its level down to few queries and costs no resampling.

    Urbano, Lima and Hanjalic, Statistical Significance Testing in Information Retrieval (2019), find it the most reliable.
    """
    from scipy import stats

    if len(d) < 2:
        return -math.inf, math.inf
    reach = float(stats.t.ppf((1 + confidence) / 2, len(d) - 1)) * float(d.std(ddof=1)) / math.sqrt(len(d))
    return float(d.mean()) - reach, float(d.mean()) + reach


def _bootstrapped(x: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """The means of so many resamples."""
    rng, n = np.random.default_rng(seed), len(x)
    step = max(1, _BATCH_CELLS // n)
    blocks = [x[rng.integers(0, n, (min(step, resamples - a), n))].mean(axis=1) for a in range(0, resamples, step)]
    return np.concatenate(blocks)


def _p_bootstrap(d: NDArray[np.float64], seed: int) -> float:
    """How often resampled means, moved so that there is no difference, lie as far from 0 as the one that was found."""
    if len(d) < 2 or not d.any():
        return 1.0
    means = _bootstrapped(d - d.mean(), RESAMPLES, seed)
    return float((1 + (np.abs(means) >= abs(d.mean()) - 1e-12).sum()) / (1 + RESAMPLES))


def _p_randomisation(d: NDArray[np.float64], seed: int) -> float:
    """How often a mean this far from 0 comes about when every difference's sign is thrown anew; exact up to 13 queries."""
    if len(d) < 2 or not d.any():
        return 1.0
    from scipy import stats

    found = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", vectorized=True, n_resamples=RESAMPLES,
        batch=max(1, _BATCH_CELLS // len(d)), rng=np.random.default_rng(seed),
    )  # fmt: skip
    return float(found.pvalue)
