"""What an ablation found: means over seeds with intervals, and each condition's paired difference to the full recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from llmbench.ablation.conditions import FULL
from llmbench.statistics import Difference, Estimate, paired

__all__ = ["Ablation", "measured", "seeds_needed"]

_ALPHA = 0.05
Values = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Metric -> condition -> seed -> value."""


@dataclass(frozen=True)
class Ablation:
    """A finished ablation. The unit is the seed: each condition has one value of a metric for each."""

    name: str
    headline: str
    """The metric that it is about."""
    seeds: tuple[int, ...]
    conditions: tuple[str, ...]
    """The full recipe first."""
    runs: dict[str, dict[int, str]]
    """Condition -> seed -> the run."""
    values: Values
    estimates: dict[str, dict[str, Estimate | None]]
    """Metric -> condition -> the mean over seeds with its 95 % interval; None for fewer than two seeds."""
    differences: dict[str, tuple[Difference, ...]]
    """Metric -> each condition minus the full recipe, seed by seed, with Holm's correction over the conditions."""
    failed: dict[str, str]
    """Runs that failed, with the reason."""
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {
            "differences": {metric: [asdict(one) for one in found] for metric, found in self.differences.items()}
        }


def measured(
    name: str,
    headline: str,
    seeds: tuple[int, ...],
    runs: dict[str, dict[int, str]],
    values: Values,
    failed: dict[str, str],
    *,
    drawn: bool,
) -> Ablation:
    """The figures of what was trained.

    Differences are paired by seed: two conditions of one seed begin with the same random numbers and hold out the same rows,
    so what a seed does to both falls out. A mean of right answers counts as one value of its seed. Taking the questions one
    by one, clustered by seed, would give the same variance (Liang and Zeger's, for clusters of one size), and no more degrees
    of freedom.

    Args:
        name: the ablation's.
        headline: the metric that it is about.
        seeds: of all conditions.
        runs: condition -> seed -> run.
        values: metric -> condition -> seed -> value.
        failed: run -> reason.
        drawn: whether the held-out rows are drawn by the seed.
    """
    conditions = tuple(runs)
    keyed = {
        metric: {condition: {str(seed): value for seed, value in of.items()} for condition, of in by.items()}
        for metric, by in values.items()
    }
    estimates = {metric: {one: paired.estimate(of, "amount") for one, of in by.items()} for metric, by in keyed.items()}
    differences = {
        metric: tuple(paired.differences(metric, by, "amount", pairs=[(one, FULL) for one in by if one != FULL and FULL in by]))
        for metric, by in keyed.items()
    }
    notes = tuple(_notes(len(seeds), len(conditions) - 1, failed, drawn=drawn))
    return Ablation(name, headline, seeds, conditions, runs, values, estimates, differences, failed, notes)


def seeds_needed(comparisons: int) -> int:
    """How many seeds it takes to show a difference at 95 % when so many conditions are compared with the full recipe.

    The sign-flip test over n seeds gives p = 2 * 0.5^n at best, and Holm multiplies the smallest by the number of comparisons.
    """
    seeds = 1
    while max(comparisons, 1) * 2 * 0.5**seeds >= _ALPHA:
        seeds += 1
    return seeds


def _notes(seeds: int, comparisons: int, failed: dict[str, str], *, drawn: bool) -> Iterator[str]:
    where = "other held-out rows (the seed draws them)" if drawn else "the same held-out rows or questions"
    yield (
        f"Means and differences are over {seeds} seed{'s' * (seeds != 1)}, paired by seed. The 95 % intervals hold for other "
        f"seeds on {where}."
    )
    needed = seeds_needed(comparisons)
    if comparisons and seeds < needed:
        several = f"{comparisons} comparison{'s' * (comparisons != 1)}"
        yield (
            f"{seeds} seed{'s' * (seeds != 1)} cannot show a difference with {several}, however large: that takes at least "
            f"{needed} (--seeds {needed}; what is finished is not trained again)."
        )
    for run, reason in failed.items():
        yield f"Run {run} failed and is left out: {reason}"
