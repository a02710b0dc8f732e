"""The statistics of a comparison: the house's, as the recipe's `statistics` has them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from llmbench.questions import Question
from llmbench.recipe import StatisticsSpec
from llmbench.statistics import Difference, Estimate, Kind, paired, resampling
from llmbench.statistics.paired import Groups, Values, holm, quantile
from llmbench.statistics.resampling import Addends

__all__ = [
    "MANY", "difference", "differences", "estimate", "groups", "holm", "interaction", "quantile", "whole_differences",
    "whole_estimate",
]  # fmt: skip

MANY = 20
"""Variants above which each is compared with the best one only, corrected for all pairs: 1,000 variants have 499,500."""


def groups(asked: Sequence[Question], spec: StatisticsSpec) -> dict[str, str]:
    """Question -> what it shares with others; empty where the recipe says that questions are independent."""
    if spec.cluster == "none":
        return {}
    return {question.id: shared for question in asked if (shared := question.group or "\n".join(sorted(question.sources)))}


def estimate(
    values: Values, *, binary: bool, spec: StatisticsSpec, bounded: bool = False, groups: Groups = None
) -> Estimate | None:
    """The mean with its interval: of shares (`binary`), of scores from 0 to 1 (`bounded`), or of any amounts."""
    return paired.estimate(values, _kind(binary, bounded), confidence=spec.confidence, groups=groups)


def differences(
    metric: str,
    values: Mapping[str, Values],
    *,
    binary: bool,
    spec: StatisticsSpec,
    bounded: bool = False,
    groups: Groups = None,
    best: str | None = None,
) -> list[Difference]:
    """Every pair of variants, the later one in the list minus the earlier one, with Holm's correction over all pairs.

    Of more than `MANY` variants only the pairs with `best` (by default the one with the highest mean), corrected for all pairs.
    """
    kind = _kind(binary, bounded)
    if len(values) > MANY:
        means = {variant: sum(of.values()) / len(of) for variant, of in values.items() if of}
        best = best or max(means, key=lambda variant: means[variant], default="")
        pairs, tests = [(best, other) for other in values if other != best and best in values], math.comb(len(values), 2)
        return paired.differences(metric, values, kind, confidence=spec.confidence, groups=groups, pairs=pairs, tests=tests)
    return paired.differences(metric, values, kind, confidence=spec.confidence, groups=groups)


def difference(
    metric: str,
    a: str,
    b: str,
    of_a: Values,
    of_b: Values,
    *,
    binary: bool,
    spec: StatisticsSpec,
    bounded: bool = False,
    groups: Groups = None,
) -> Difference | None:
    """One pair; None when fewer than two questions have a value for both."""
    return paired.difference(metric, a, b, of_a, of_b, _kind(binary, bounded), confidence=spec.confidence, groups=groups)


def whole_estimate(of: Addends, spec: StatisticsSpec, groups: Groups) -> Estimate | None:
    """A metric of all questions together, with its interval."""
    return resampling.estimate(of, confidence=spec.confidence, groups=groups, seed=spec.seed)


def whole_differences(
    metric: str, of: Mapping[str, Addends], spec: StatisticsSpec, groups: Groups, best: str | None
) -> list[Difference]:
    """Every pair of variants in a metric of all questions together, or those with `best`, as `differences`."""
    pairs, tests = None, 1
    if len(of) > MANY:
        first = best if best is not None and best in of else next(iter(of))
        pairs, tests = [(first, other) for other in of if other != first], math.comb(len(of), 2)
    return resampling.differences(
        metric, of, confidence=spec.confidence, groups=groups, pairs=pairs, tests=tests, seed=spec.seed
    )


def interaction(
    cells: Sequence[Values], spec: StatisticsSpec, *, binary: bool = True, groups: Groups = None
) -> Estimate | None:
    """How much more b and a bring together than each alone, for cells none, a, b, both of a metric of 0 to 1."""
    return paired.interaction(cells, _kind(binary, True), confidence=spec.confidence, groups=groups)


def _kind(binary: bool, bounded: bool) -> Kind:
    return "share" if binary else "score" if bounded else "amount"
