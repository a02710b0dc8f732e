"""What a gate found, as values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from llmbench.compare import measures
from llmbench.recipe import Margin

__all__ = ["Gate", "GatedMetric", "MetricVerdict", "Outcome", "QuestionsNeeded", "Several"]

Outcome = Literal["shown", "worse", "undecided", "not tested"]
"""Of a metric: what was to be shown is; the opposite is; neither; an earlier metric of a fixed sequence was not shown."""
Several = Literal["fixed-sequence", "holm"]
"""How several metrics share the chance of an error."""
_CODES = {"shown": 0, "worse": 1, "undecided": 3}


@dataclass(frozen=True)
class GatedMetric:
    """A metric, and by how much the candidate may be worse in it."""

    measure: measures.Measure
    margin: Margin

    @property
    def metric(self) -> str:
        """Its name."""
        return self.measure.name


@dataclass(frozen=True)
class QuestionsNeeded:
    """Questions in all, those that were asked among them, with which the gate passes in four of five repetitions.

    `alike` holds if the two variants are truly alike and differ as often as here, `as_seen` if the true difference is the one
    that was seen; `worse` is with how many the latter shows that the candidate is worse. None where no number does.
    """

    alike: int | None
    as_seen: int | None
    worse: int | None


@dataclass(frozen=True)
class MetricVerdict:
    """One metric: candidate minus baseline, paired by question.

    `measure` says what one question gives.
    `margin` is in the metric's own unit, `relative` what part of the baseline's mean it was given as. `low` and `high` are of
    1 - alpha; None where one question has none. `part_low` and `part_high` bound the difference as a part of the baseline's
    mean, where the margin is one. `p` is of a candidate that is worse by just the margin, one-sided; `p_adjusted` after the
    correction for several metrics; both are None where bounds that hold at every moment decide. `wins` and `losses` count the
    questions in which the candidate is better and worse.
    """

    metric: str
    measure: measures.Measure
    margin: float
    relative: float | None
    less_is_better: bool
    candidate: float
    baseline: float
    mean: float
    low: float | None
    high: float | None
    part_low: float | None
    part_high: float | None
    n: int
    pages: int
    deff: float
    wins: int
    losses: int
    p: float | None
    p_adjusted: float | None
    outcome: Outcome
    needed: QuestionsNeeded | None


@dataclass(frozen=True)
class Gate:
    """The verdict about a candidate: every metric that was asked for, and what a reader has to know.

    `saved` is when the baseline was saved, where it comes from a file. `created` is in seconds since 1970.
    """

    name: str
    candidate: str
    baseline: str
    saved: str | None
    superior: bool
    several: Several
    alpha: float
    sequential: bool
    metrics: tuple[MetricVerdict, ...]
    notes: tuple[str, ...]
    created: float
    report: str

    @property
    def outcome(self) -> Outcome:
        """`worse` where any metric is, `shown` where all are, else `undecided`."""
        found = [one.outcome for one in self.metrics]
        return "worse" if "worse" in found else "shown" if set(found) == {"shown"} else "undecided"

    @property
    def code(self) -> int:
        """The exit code: 0 shown, 1 shown worse, 3 undecided."""
        return _CODES[self.outcome]

    def to_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        return asdict(self) | {"outcome": self.outcome, "code": self.code}
