"""Intervals of what is no mean of questions, such as macro F1 or BLEU: a bootstrap of whole clusters, and a test by exchange.

Every such figure is a function of sums over questions, so a resample is a product of weights and addends. The same resamples
are taken of all variants. Seeded: the same answers give the same figures. Measured coverage: docs/decisions/037-metrics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import special

from llmbench.statistics import power
from llmbench.statistics.clusters import Clusters, clusters
from llmbench.statistics.paired import Groups, holm
from llmbench.statistics.values import Difference, Estimate

__all__ = ["RESAMPLES", "Addends", "difference", "differences", "estimate"]

RESAMPLES = 2_000
"""Of each interval, and exchanges of each test: the smallest p is 1 / 2,001."""
_AT_ONCE = 4_000_000
"""Numbers of a block of weights."""
Floats = NDArray[np.float64]
Value = Callable[[Floats], Floats]


@dataclass(frozen=True)
class Addends:
    """One variant's answers: `rows` of shape (questions, k), and the function of their sum, from (..., k) to (...)."""

    ids: tuple[str, ...]
    rows: Floats
    value: Value

    def of(self, ids: Sequence[str]) -> Addends:
        """Those of these questions, in this order."""
        place = {id: number for number, id in enumerate(self.ids)}
        return replace(self, ids=tuple(ids), rows=self.rows[[place[id] for id in ids]])


def estimate(
    of: Addends, *, confidence: float = 0.95, groups: Groups = None, seed: int = 0, span: tuple[float, float] = (0.0, 1.0)
) -> Estimate | None:
    """The figure with its interval; None without answers.

    Bias-corrected and accelerated (BCa; Efron 1987), over clusters, with levels widened for few of them.
    Where no resample differs, Wilson's interval of as many
    questions as there are clusters: answers that are all right do not show that every answer is.

    Args:
        of: the answers.
        confidence: of the interval.
        groups: the clusters of the questions.
        seed: of the resamples.
        span: the range that the figure cannot leave.
    """
    if not len(of.ids):
        return None
    together = clusters(of.ids, groups)
    sums = _sums(of.rows, together)
    total = sums.sum(axis=0)
    middle = float(of.value(total))
    found = _Spread(middle, _resampled(sums, of.value, seed), of.value(total - sums))
    low, high = found.interval(confidence)
    if found.is_still:
        low, high = _wilson(middle, span, len(sums), confidence)
    low, high = max(span[0], min(low, middle)), min(span[1], max(high, middle))
    single = of.value(of.rows.sum(axis=0) - of.rows) if len(sums) < len(of.ids) else None
    return Estimate(middle, low, high, len(of.ids), 1.0 if single is None else _effect(found, single))


def differences(
    metric: str,
    of: Mapping[str, Addends],
    *,
    confidence: float = 0.95,
    groups: Groups = None,
    pairs: Sequence[tuple[str, str]] | None = None,
    tests: int = 1,
    seed: int = 0,
) -> list[Difference]:
    """Every pair of variants, the later one in the list minus the earlier one, with Holm's correction over all pairs.

    Args:
        metric: kept with each difference.
        of: variant -> answers.
        confidence: 1 - alpha.
        groups: the clusters of the questions.
        pairs: (a, b) of the pairs that are wanted, each a minus b.
        tests: pairs to correct for where they are more than those wanted.
        seed: of the resamples.
    """
    names = list(of)
    wanted = [(a, b) for i, b in enumerate(names) for a in names[i + 1 :]] if pairs is None else list(pairs)
    many = max(len(wanted), tests)
    looks: _Looks = {}
    made = [_pair(metric, pair, of, looks, confidence=confidence, groups=groups, seed=seed, tests=many) for pair in wanted]
    found = [one for one in made if one is not None]
    p_values = [one.p for one in found]
    adjusted = holm(p_values) if many <= len(found) else [min(1.0, many * p) for p in p_values]
    return [_agreeing(one, p, 1 - confidence) for one, p in zip(found, adjusted, strict=True)]


def difference(
    metric: str,
    a: str,
    b: str,
    of_a: Addends,
    of_b: Addends,
    *,
    confidence: float = 0.95,
    groups: Groups = None,
    seed: int = 0,
    tests: int = 1,
) -> Difference | None:
    """One pair, a minus b, over the questions that both answered; None for fewer than two.

    `p` is the larger of two: of the exchange of the two variants' answers, cluster by cluster (approximate randomisation,
    Noreen 1989), and of the level at which the interval would touch 0.
    """
    return _pair(metric, (a, b), {a: of_a, b: of_b}, {}, confidence=confidence, groups=groups, seed=seed, tests=tests)


@dataclass(frozen=True)
class _Looked:
    """One variant's answers to some questions: sums of clusters, resamples, and what is left without each cluster."""

    sums: Floats
    middle: float
    resampled: Floats
    without: Floats


_Looks = dict[tuple[str, tuple[str, ...]], _Looked]
"""Variant and questions -> what is taken of them once, however many pairs it is in."""


def _looked(variant: str, of: Addends, together: Clusters, seed: int, looks: _Looks) -> _Looked:
    key = variant, of.ids
    if key not in looks:
        sums = _sums(of.rows, together)
        total = sums.sum(axis=0)
        looks[key] = _Looked(sums, float(of.value(total)), _resampled(sums, of.value, seed), of.value(total - sums))
    return looks[key]


def _pair(
    metric: str,
    names: tuple[str, str],
    of: Mapping[str, Addends],
    looks: _Looks,
    *,
    confidence: float,
    groups: Groups,
    seed: int,
    tests: int,
) -> Difference | None:
    a, b = names
    ids = sorted(set(of[a].ids) & set(of[b].ids))
    if len(ids) < 2:
        return None
    one, other = of[a].of(ids), of[b].of(ids)
    together = clusters(ids, groups)
    x, y = _looked(a, one, together, seed, looks), _looked(b, other, together, seed, looks)
    middle = x.middle - y.middle
    found = _Spread(middle, x.resampled - y.resampled, x.without - y.without)
    low, high = found.interval(confidence)
    p = max(_exchanged(x.sums, y.sums, one.value, middle, seed), found.p)
    if found.is_still:
        least = _still(len(x.sums), confidence)
        low, high = middle - least, middle + least
    least_shown = power.amount(found.error, together, (1 - confidence) / tests) if found.error else None
    single = (each.value(each.rows.sum(axis=0) - each.rows) for each in (one, other)) if len(x.sums) < len(ids) else None
    deff = 1.0 if single is None else _effect(found, next(single) - next(single))
    return Difference(
        metric, a, b, middle, max(-1.0, min(low, middle)), min(1.0, max(high, middle)), len(ids), 0, 0, p, p, least_shown, deff,
    )  # fmt: skip


@dataclass(frozen=True)
class _Spread:
    """What resamples and left-out clusters say of a figure."""

    middle: float
    resampled: Floats
    without: Floats

    @property
    def is_still(self) -> bool:
        """Whether no resample differs from another."""
        return bool(np.ptp(self.resampled) < 1e-12)

    @property
    def error(self) -> float:
        """The standard error by the jackknife."""
        count = len(self.without)
        return float(np.sqrt((count - 1) / count * ((self.without - self.without.mean()) ** 2).sum())) if count > 1 else 0.0

    def interval(self, confidence: float) -> tuple[float, float]:
        """BCa's interval, its levels widened for few clusters (Hesterberg 2015): sqrt(n / (n - 1)) t in place of z."""
        tail, wide = (1 - confidence) / 2, self._wide
        z = [wide * float(special.stdtrit(max(1, len(self.without) - 1), q)) for q in (tail, 1 - tail)]
        low, high = (float(np.quantile(self.resampled, self._level(one))) for one in z)
        return low, high

    @property
    def p(self) -> float:
        """The level at which the interval would touch 0."""
        if self.is_still:
            return 1.0 if abs(self.middle) < 1e-12 else 1 / (RESAMPLES + 1)
        bias, skew = self._shape
        below = (np.count_nonzero(self.resampled < 0) + np.count_nonzero(self.resampled == 0) / 2 + 0.5) / (RESAMPLES + 1)
        w = float(special.ndtri(below)) - bias
        z = w / (1 + skew * w) - bias if 1 + skew * w > 0 else np.copysign(8.0, w)
        return float(min(1.0, 2 * special.stdtr(max(1, len(self.without) - 1), -abs(z) / self._wide)))

    @property
    def _wide(self) -> float:
        count = max(2, len(self.without))
        return float(np.sqrt(count / (count - 1)))

    @property
    def _shape(self) -> tuple[float, float]:
        """Bias and acceleration."""
        below = np.count_nonzero(self.resampled < self.middle) + np.count_nonzero(self.resampled == self.middle) / 2
        bias = float(special.ndtri(np.clip(below / len(self.resampled), 1e-3, 1 - 1e-3)))
        apart = self.without.mean() - self.without
        spread = float((apart**2).sum()) ** 1.5
        return bias, float((apart**3).sum()) / (6 * spread) if spread > 1e-300 else 0.0

    def _level(self, z: float) -> float:
        bias, skew = self._shape
        moved = bias + (bias + z) / max(1e-3, 1 - skew * (bias + z))
        return float(special.ndtr(moved))


def _sums(rows: Floats, together: Clusters) -> Floats:
    """The sum of the rows of each cluster, shape (clusters, k)."""
    sums = np.zeros((len(together.sizes), rows.shape[1]))
    np.add.at(sums, together.of, rows)
    return sums


def _resampled(sums: Floats, value: Value, seed: int) -> Floats:
    """The figure of each resample of the clusters."""
    found = []
    for start in range(0, RESAMPLES, _block(len(sums))):
        weights = _weights(len(sums), start, min(_block(len(sums)), RESAMPLES - start), seed)
        found.append(value(weights @ sums))
    return np.concatenate(found)


def _exchanged(x: Floats, y: Floats, value: Value, middle: float, seed: int) -> float:
    """Two-sided p: how often the exchange of two variants' answers in random clusters brings them as far apart as they are."""
    total_x, total_y, apart = x.sum(axis=0), y.sum(axis=0), y - x
    apart = apart[apart.any(axis=1)]  # exchanging what is alike changes nothing
    if not len(apart):
        return 1.0
    rng = np.random.default_rng((seed, len(x), 1))
    as_far, done = 0, 0
    while done < RESAMPLES:
        count = min(_block(len(apart)), RESAMPLES - done)
        moved = rng.integers(0, 2, size=(count, len(apart)), dtype=np.int8).astype(np.float64) @ apart
        far = np.abs(value(total_x + moved) - value(total_y - moved)) >= abs(middle) - 1e-12
        as_far, done = as_far + int(np.count_nonzero(far)), done + count
    return (1 + as_far) / (1 + RESAMPLES)


def _block(count: int) -> int:
    return max(1, min(RESAMPLES, _AT_ONCE // max(1, count)))


@lru_cache(maxsize=8)
def _weights(count: int, start: int, many: int, seed: int) -> Floats:
    """How often each of `count` clusters is drawn in each of `many` resamples."""
    drawn = np.random.default_rng((seed, count, 0, start)).integers(0, count, size=(many, count))
    drawn += np.arange(many)[:, None] * count
    return np.bincount(drawn.ravel(), minlength=many * count).reshape(many, count).astype(np.float64)


def _effect(found: _Spread, without: Floats) -> float:
    """The variance over that of as many independent questions, both by the jackknife; `without` leaves out single questions."""
    single = _Spread(found.middle, found.resampled, without).error
    return (found.error / single) ** 2 if single else 1.0


def _still(n: int, confidence: float) -> float:
    """How far a share of n questions may be from the one at which all agree, after Wilson (1927)."""
    z = float(special.ndtri((1 + confidence) / 2))
    return z * z / (n + z * z)


def _wilson(middle: float, span: tuple[float, float], n: int, confidence: float) -> tuple[float, float]:
    width = (span[1] - span[0]) * _still(n, confidence)
    return middle - width, middle + width


def _agreeing(one: Difference, p_holm: float, alpha: float) -> Difference:
    """With the corrected p, and 0 in the interval wherever it does not exclude 0."""
    if p_holm < alpha:
        return replace(one, p_holm=p_holm)
    return replace(one, p_holm=p_holm, low=min(one.low, 0.0), high=max(one.high, 0.0))
