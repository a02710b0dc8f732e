"""The statistics of a gate: is the candidate not worse than the baseline by the margin, paired by question and by page?

One-sided limits of the house's own intervals (docs/decisions/009-statistics.md), so that a gate and a comparison agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from llmbench.errors import DataError, RecipeError
from llmbench.gate.values import GatedMetric, MetricVerdict, Outcome, QuestionsNeeded, Several
from llmbench.statistics import Difference, Kind, intervals, paired, power
from llmbench.statistics.clusters import Clusters, clusters
from llmbench.statistics.sequential import Bounds

__all__ = ["check_margin", "judge"]

_WIDEST = 100.0
"""How far parts of the baseline's mean are looked for."""


def judge(
    wanted: Sequence[GatedMetric],
    values: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]],
    groups: Mapping[str, str],
    *,
    alpha: float,
    several: Several,
    superior: bool,
    bounds: Bounds | None = None,
) -> tuple[MetricVerdict, ...]:
    """Judges each metric, in the order given.

    Args:
        wanted: the metrics with their margins.
        values: metric -> (the candidate's values by question, the baseline's).
        groups: question -> page.
        alpha: of two-sided intervals; each side errs in half of it.
        several: `fixed-sequence` stops at the first metric that is not shown; `holm` corrects the p-values of all.
        superior: ask for better than the baseline, and not only for not worse by the margin.
        bounds: those of a sequential comparison, which decide in place of a test; then there is one metric.

    Raises:
        DataError: no question has a value for both.
        RecipeError: a margin that the metric cannot have.
    """
    found = [
        _judged(one, *values[one.metric], groups, alpha=alpha, tests=len(wanted), superior=superior, bounds=bounds)
        for one in wanted
    ]
    if bounds is not None:
        return tuple(found)
    adjusted = paired.holm([one.p if one.p is not None else 1.0 for one in found])
    done: list[MetricVerdict] = []
    for one, p in zip(found, adjusted, strict=True):
        if several == "holm" and len(found) > 1:
            shown = one.outcome == "shown" and p < alpha / 2
            one = replace(one, p_adjusted=p, outcome="undecided" if one.outcome == "shown" and not shown else one.outcome)
        elif any(before.outcome != "shown" for before in done):
            one = replace(one, outcome="not tested", needed=None)
        done.append(replace(one, needed=None) if one.outcome in ("shown", "worse") else one)
    return tuple(done)


def _judged(
    wanted: GatedMetric,
    of_candidate: Mapping[str, float],
    of_baseline: Mapping[str, float],
    groups: Mapping[str, str],
    *,
    alpha: float,
    tests: int,
    superior: bool,
    bounds: Bounds | None,
) -> MetricVerdict:
    what, less = wanted.measure.kind, wanted.measure.less_is_better
    check_margin(wanted)
    ids = sorted(of_candidate.keys() & of_baseline.keys())
    if not ids:
        raise DataError(f"{wanted.metric}: no question has a value for both variants. Gate another metric.")
    a, b = (np.array([of[id] for id in ids], dtype=np.float64) for of in (of_candidate, of_baseline))
    together = clusters(ids, groups)
    margin = wanted.margin.value * float(b.mean()) if wanted.margin.relative else wanted.margin.value
    contrast = _Contrast(a, b, together, what, less, 0.0 if superior else wanted.margin.value, wanted.margin.relative)
    shown = paired.difference(
        wanted.metric, "candidate", "baseline", of_candidate, of_baseline, what, confidence=1 - alpha, groups=groups
    )
    p, worse = contrast.p() if len(ids) > 1 else (1.0, 1.0)
    outcome = _outcome(shown, p, worse, margin, alpha, less=less, superior=superior, relative=wanted.margin.relative)
    if bounds is not None:
        limit = 0.0 if superior else -margin
        outcome = "shown" if bounds.low > limit else "worse" if bounds.high < limit else "undecided"
    low, high = (bounds.low, bounds.high) if bounds is not None else (shown.low, shown.high) if shown else (None, None)
    part_low, part_high = contrast.parts(alpha / 2) if wanted.margin.relative and len(ids) > 1 else (None, None)
    d = a - b
    return MetricVerdict(
        metric=wanted.metric,
        measure=wanted.measure,
        margin=margin,
        relative=wanted.margin.value if wanted.margin.relative else None,
        less_is_better=less,
        candidate=float(a.mean()),
        baseline=float(b.mean()),
        mean=float(d.mean()),
        low=low,
        high=high,
        part_low=part_low,
        part_high=part_high,
        n=len(ids),
        pages=len(together.sizes),
        deff=shown.deff if shown else 1.0,
        wins=int(((d < 0) if less else (d > 0)).sum()),
        losses=int(((d > 0) if less else (d < 0)).sum()),
        p=p if bounds is None else None,
        p_adjusted=p if bounds is None else None,
        outcome=outcome,
        needed=contrast.needed(alpha / tests) if outcome == "undecided" or tests > 1 else None,
    )


def _outcome(
    shown: Difference | None,
    p: float,
    worse: float,
    margin: float,
    alpha: float,
    *,
    less: bool,
    superior: bool,
    relative: bool,
) -> Outcome:
    """By the one-sided p, and by the interval that people see where it is the more cautious: it includes 0 where signs do."""
    if shown is None:
        return "undecided"
    low, high = (-shown.high, -shown.low) if less else (shown.low, shown.high)
    if p < alpha / 2 and (relative or low > (0.0 if superior else -margin)):
        return "shown"
    if worse < alpha / 2 and (relative or high < (0.0 if superior else -margin)):
        return "worse"
    return "undecided"


def check_margin(wanted: GatedMetric) -> None:
    """Looks whether the metric can have this margin.

    Raises:
        RecipeError: it lies between 0 and 1, and the margin is a part of it, or not below 1.
    """
    margin = wanted.margin
    if not wanted.measure.is_amount and (margin.relative or margin.value >= 1):
        raise RecipeError(f"margin of {wanted.metric}: it lies between 0 and 1. Write 0.02 for 2 points, not {margin}.")


class _Contrast:
    """The candidate's gain question by question, which is to be above `null`: more is better, whatever the metric is."""

    def __init__(
        self,
        a: NDArray[np.float64],
        b: NDArray[np.float64],
        groups: Clusters,
        what: Kind,
        less: bool,
        margin: float,
        relative: bool,
    ) -> None:
        self._a, self._b, self._groups, self._what, self._less = a, b, groups, what, less
        self._margin, self._relative = margin, relative
        self._reach = float(max(np.abs(a).max(), np.abs(b).max())) if what == "amount" else 1.0

    @property
    def _null(self) -> float:
        return 0.0 if self._relative else -self._margin

    def _gain(self, part: float) -> NDArray[np.float64]:
        """`part` is what part of the baseline's mean the candidate may be worse by."""
        return (1 + part) * self._b - self._a if self._less else self._a - (1 - part) * self._b

    def p(self) -> tuple[float, float]:
        """One-sided: of a candidate that is worse by the margin or more, and of one that is worse by less."""
        gain = self._gain(self._margin if self._relative else 0.0)
        return intervals.against(gain, self._groups, self._what, self._null, self._reach)

    def parts(self, level: float) -> tuple[float | None, float | None]:
        """The difference as a part of the baseline's mean: those that neither side's test at this level rules out (Fieller).

        None where the parts have no end.
        """
        found: list[float | None] = []
        for side in (1, 0):
            # The test rules out a mean of at most (side 0: at least) `part`, as far as it is from what was seen.
            low, high = -_WIDEST, _WIDEST

            def tail(part: float, side: int = side) -> float:
                gain = self._a - (1 + part) * self._b
                return intervals.against(gain, self._groups, self._what, 0.0, self._reach)[1 - side]

            if tail(high if side else low) < level or tail(low if side else high) >= level:
                found.append(None)
                continue
            for _ in range(60):
                middle = (low + high) / 2
                out = tail(middle) < level
                low, high = ((middle, high) if out else (low, middle)) if side else ((low, middle) if out else (middle, high))
            found.append((low + high) / 2)
        return found[0], found[1]

    def needed(self, alpha: float) -> QuestionsNeeded:
        """How many questions in all it takes, under what is assumed."""
        gain = self._gain(self._margin if self._relative else 0.0)
        mean = float(gain.mean())
        free = self._margin * float(self._b.mean()) if self._relative else 0.0
        return QuestionsNeeded(
            alike=self._fewest(gain, free, alpha),
            as_seen=self._fewest(gain, mean, alpha) if mean > self._null else None,
            worse=self._fewest(-gain, -mean, alpha, null=-self._null) if mean < self._null else None,
        )

    def _fewest(self, gain: NDArray[np.float64], mean: float, alpha: float, null: float | None = None) -> int | None:
        null = self._null if null is None else null
        if mean <= null:
            return None
        n = len(gain)
        size = n / len(self._groups.sizes)
        if self._what == "share":
            differ = max(float(np.abs(gain).sum()), 1.0) / max(n, 10)
            differ = max(differ, abs(mean))
            deff = intervals.difference(gain, self._groups, "share", 1 - alpha).deff if n > 1 else 1.0
            of = power.Assumed((differ + mean) / 2, (differ - mean) / 2, deff=deff, size=size)
            return power.fewest(lambda k: power.passes(k, -null, alpha, of))
        found = intervals.difference(gain, self._groups, self._what, 1 - alpha, self._reach) if n > 1 else None
        z = float(-power.normal(alpha / 2))
        least = math.ceil(z * z * self._reach / (mean - null)) + 2
        if found is None or not found.error:
            return max(least, n + 1)
        of = power.Assumed(max(mean, 0.0), max(-mean, 0.0), spread=found.error * math.sqrt(n), size=size)
        fewest = power.fewest(lambda k: power.passes(k, -null, alpha, of))
        return max(fewest, least) if fewest is not None and self._what == "score" else fewest
