"""What was estimated, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Difference", "Estimate", "FactorEffect", "Kind", "Noise", "p_value"]

Kind = Literal["share", "score", "amount"]
"""What one question gives: a share is 0 or 1, a score between 0 and 1 (nDCG, F1), an amount any number (seconds, tokens)."""


@dataclass(frozen=True)
class Estimate:
    """The mean of a metric over n questions, with its interval.

    `deff` is the design effect: the variance of the mean over that of as many independent questions; n / deff questions
    that share no page would say as much. 1 where no two questions share one.
    """

    mean: float
    low: float
    high: float
    n: int
    deff: float = 1.0


@dataclass(frozen=True)
class Difference:
    """Variant `a` minus variant `b` on one metric, over the n questions that both answered.

    `p` is of this pair alone, `p_holm` after Holm's correction over all pairs of the metric; the interval excludes 0 exactly
    where `p_holm` is below alpha. `a_only` and `b_only` count the questions where a, or b, has the higher value. `detectable`
    is the smallest true difference that the same test, corrected for as many pairs, finds in four of five repetitions,
    judged by the spread that was seen; None where so few questions can show no difference at all. `deff` is as in
    `Estimate`.
    """

    metric: str
    a: str
    b: str
    mean: float
    low: float
    high: float
    n: int
    a_only: int
    b_only: int
    p: float
    p_holm: float
    detectable: float | None
    deff: float = 1.0


@dataclass(frozen=True)
class FactorEffect:
    """What a factor's level does compared with the factor's first level, on average over the other factors; or, of two factors,
    how much more both levels bring together than each alone.

    `factors`, `levels` and `references` have one entry a factor. `p` is of this effect alone, and the interval excludes 0
    exactly where it is below alpha; `p_holm` is corrected over all effects of the metric. `n` and `deff` as in `Difference`.
    """

    metric: str
    factors: tuple[str, ...]
    levels: tuple[str, ...]
    references: tuple[str, ...]
    mean: float
    low: float
    high: float
    n: int
    p: float
    p_holm: float
    deff: float = 1.0


@dataclass(frozen=True)
class Noise:
    """What repeats of the same questions show of one variant.

    `question` and `sampling` are variances: of what questions have, and of what drawing the same question's answer again adds.
    `share` is the part of the variance of the mean that is sampling, `floor` the difference that two runs of the same variant,
    with as many repeats, stay within, and `flips` the part of pairs of repeats that differ. `n` questions were each repeated
    `rounds` times (the harmonic mean).
    """

    question: float
    sampling: float
    share: float
    floor: float
    flips: float
    n: int
    rounds: float


def p_value(p: float) -> str:
    """`p < 0.001` or `p = 0.043`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
