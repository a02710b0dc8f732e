"""Prediction-powered inference: a few labels of people and many judgements of a model in one interval.

The judge says what the mean looks like over all questions; the labels say how far the judge is off. However wrong the judge,
the interval holds, since labels correct it; the better it agrees, the narrower the interval. Angelopoulos, Bates, Fannjiang,
Jordan and Zrnic (2023), "Prediction-powered inference", Science 382; the weight of the judge is that of Angelopoulos, Duchi and
Zrnic (2023), "PPI++: efficient prediction-powered inference", arXiv 2311.01453. Labelled questions must be drawn at random.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from llmbench.statistics.clusters import Clusters, clusters

__all__ = ["FEWEST", "Corrected", "Powered", "combined", "correct", "difference", "mean"]

Floats = NDArray[np.float64]
Of = Mapping[str, float]
"""Question -> value."""
FEWEST = 10
"""Labels below which an interval of this kind is not worth printing."""
_PRIOR = 2.0
"""As `intervals` has it for scores, by half: a few labels that happen to agree with the judge must not look certain. Chosen by
simulation (docs/benchmarks.md)."""


@dataclass(frozen=True)
class Corrected:
    """A mean over questions as labels and judgements together have it.

    `weight` is lambda, from 0 (labels alone) to 1. `labelled` and `judged` are what each question with a label, and each one
    that is only judged, adds to the mean beyond it: the mean's error is that of their sums. `people` is the mean by labels
    alone, and `alone` what they add to that.
    """

    value: float
    weight: float
    labelled: Of
    judged: Of
    people: float
    alone: Of


@dataclass(frozen=True)
class Powered:
    """A mean, or a contrast of means, with its interval. `p` is two-sided, of a contrast of 0.

    `n` is how many questions have a label, `judged` how many are only judged. `people` is the mean by labels alone, with the
    interval from `people_low` to `people_high`; `worth` is how many times as many labels would give an interval of the width
    that the judge's help gives. `degrees` are those of Student's t.
    """

    value: float
    low: float
    high: float
    error: float
    p: float
    n: int
    judged: int
    weight: float
    people: float
    people_low: float
    people_high: float
    worth: float
    degrees: float


def correct(judged: Of, labels: Of) -> Corrected:
    """The mean of labels, with the judge's help.

    theta = lambda * mean(judge on the N without a label) + mean(label - lambda * judge on the n with one), lambda = cov(label,
    judge) / ((1 + n / N) var(judge)), clipped to [0, 1]. A label of a question that is not judged is left out.

    Args:
        judged: question -> the judge's value.
        labels: question -> the label's value, some of the same questions.

    Raises:
        ValueError: fewer than two questions have both.
    """
    both, alone = [id for id in judged if id in labels], [id for id in judged if id not in labels]
    if len(both) < 2:
        raise ValueError("fewer than two questions have a label and a judgement")
    y, f = (np.array([of[id] for id in both]) for of in (labels, judged))
    rest = np.array([judged[id] for id in alone])
    weight = _weight(y, f, rest)
    left = y - weight * f
    value = float(left.mean()) + (weight * float(rest.mean()) if len(rest) else 0.0)
    return Corrected(
        value,
        weight,
        dict(zip(both, map(float, (left - left.mean()) / len(both)), strict=True)),
        dict(zip(alone, map(float, weight * (rest - rest.mean()) / len(rest)), strict=True)) if len(rest) else {},
        float(y.mean()),
        dict(zip(both, map(float, (y - y.mean()) / len(both)), strict=True)),
    )


def combined(
    parts: Sequence[tuple[float, Corrected]],
    *,
    constant: float = 0.0,
    bounds: tuple[float, float] = (0.0, 1.0),
    confidence: float = 0.95,
    groups: Mapping[str, str] | None = None,
) -> Powered:
    """The sum of several corrected means times a factor each, plus a constant, with its interval.

    The error is that of a normal sum; the interval is Wilson's (1927) on as many questions as would have this error, which
    keeps it inside the bounds and right near them, with Student's t. Its degrees are the number of labelled clusters less two,
    the mean and the weight; clusters of questions add up before they are squared, as in `clusters.variance`.

    Args:
        parts: factors with what they multiply.
        constant: added to their sum.
        bounds: least and largest value of the sum: 0 and 1 of a share or a score, -1 and 1 of a difference.
        confidence: of the intervals.
        groups: question -> what it shares with others.
    """
    value, people = constant, constant
    labelled: dict[str, float] = {}
    judged: dict[str, float] = {}
    alone: dict[str, float] = {}
    for factor, part in parts:
        value, people = value + factor * part.value, people + factor * part.people
        for into, of in ((labelled, part.labelled), (judged, part.judged), (alone, part.alone)):
            for id, x in of.items():
                into[id] = into.get(id, 0.0) + factor * x
    found = _Wilson.made(value, [labelled, judged], groups, bounds, confidence, lost=2)
    plain = _Wilson.made(people, [alone], groups, bounds, confidence, lost=1)
    size = sum(abs(factor) for factor, _ in parts) or 1.0
    return Powered(
        value, *found.ends, found.error, found.p, len(labelled), len(judged),
        sum(abs(factor) * part.weight for factor, part in parts) / size,
        people, *plain.ends, ((plain.ends[1] - plain.ends[0]) / (found.ends[1] - found.ends[0])) ** 2, found.degrees,
    )  # fmt: skip


@dataclass(frozen=True)
class _Wilson:
    """The interval of a mean between bounds whose error is known. `p` is two-sided, of 0."""

    ends: tuple[float, float]
    error: float
    p: float
    degrees: float

    @staticmethod
    def made(
        value: float,
        parts: Sequence[Of],
        groups: Mapping[str, str] | None,
        bounds: tuple[float, float],
        confidence: float,
        lost: int,
    ) -> _Wilson:
        error, degrees = _error(parts, groups, lost)
        low, span, n = bounds[0], bounds[1] - bounds[0], len(parts[0])
        m = min(1.0, max(0.0, (value - low) / span))
        # As for scores (`intervals`): mixed with some questions' worth of the largest variance that this mean allows.
        plain = max(m * (1 - m), 1 / (4 * (n + _PRIOR))) / n
        effect = ((error / span) ** 2 / plain * n + _PRIOR) / (n + _PRIOR)
        size = n / effect
        t = float(special.stdtrit(degrees, (1 + confidence) / 2))
        centre, half = m + t * t / (2 * size), t * math.sqrt(m * (1 - m) / size + t * t / (4 * size * size))
        wide = 1 + t * t / size
        ends = min(value, low + span * (centre - half) / wide), max(value, low + span * (centre + half) / wide)
        null = -low / span
        away = abs(m - null) / math.sqrt(null * (1 - null) / size) if 0 < null < 1 else math.inf
        return _Wilson(ends, span * math.sqrt(effect * plain), min(1.0, 2 * float(special.stdtr(degrees, -away))), degrees)


def mean(judged: Of, labels: Of, *, confidence: float = 0.95, groups: Mapping[str, str] | None = None) -> Powered:
    """The mean of labels from 0 to 1 over all judged questions."""
    return combined([(1.0, correct(judged, labels))], confidence=confidence, groups=groups)


def difference(
    judged_a: Of,
    judged_b: Of,
    labels_a: Of,
    labels_b: Of,
    *,
    confidence: float = 0.95,
    groups: Mapping[str, str] | None = None,
) -> Powered:
    """The paired difference of two means, a less b, over the questions that are judged, or labelled, for both."""
    judged, labels = (
        {id: one[id] - other[id] for id in one if id in other} for one, other in ((judged_a, judged_b), (labels_a, labels_b))
    )
    return combined([(1.0, correct(judged, labels))], bounds=(-1.0, 1.0), confidence=confidence, groups=groups)


def _weight(y: Floats, f: Floats, rest: Floats) -> float:
    if not len(rest):
        return 0.0
    spread = float(np.concatenate([f, rest]).var(ddof=1))
    if spread <= 1e-15:
        return 0.0
    told = float(np.cov(y, f)[0, 1]) / ((1 + len(f) / len(rest)) * spread)
    return min(1.0, max(0.0, told))


def _error(parts: Sequence[Of], groups: Mapping[str, str] | None, lost: int) -> tuple[float, float]:
    """The standard error of the sum of all parts, and its degrees of freedom; those of the first part lose `lost`."""
    names = list(dict.fromkeys(id for part in parts for id in part))
    together = clusters(names, groups)
    place = {id: int(of) for id, of in zip(names, together.of, strict=True)}
    sums = np.zeros(len(together.sizes))
    degrees = 1.0
    for number, part in enumerate(parts):
        if not part:
            continue
        inside = {place[id] for id in part}
        count = len(inside)
        if number == 0:
            degrees = max(1.0, _effective(part, groups, together) - lost)
        scale = math.sqrt(count / max(1, count - (lost if number == 0 else 1)))
        for id, x in part.items():
            sums[place[id]] += scale * x
    return math.sqrt(float(sums @ sums)), degrees


def _effective(part: Of, groups: Mapping[str, str] | None, together: Clusters) -> float:
    if not math.isfinite(together.degrees):
        return float(len(part))
    own = clusters(list(part), groups)
    return (
        own.effective
        if math.isfinite(own.degrees)
        else float(len({groups[id] if groups and id in groups else id for id in part}))
    )
