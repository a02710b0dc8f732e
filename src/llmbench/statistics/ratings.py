"""Votes on pairs of answers, and what they say of models and of voters, as values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Agreement", "Effect", "Lead", "PairVote", "Rating", "Strength", "points"]

_POINTS = 400 / math.log(10)
"""Elo's points a logit."""


def points(logits: float) -> float:
    """A strength on the scale of chess and the arenas: 1000 is the mean of the models, 400 points are odds of ten to one."""
    return 1000 + _POINTS * logits


@dataclass(frozen=True)
class PairVote:
    """One vote on two answers. `outcome` is 1 where the left one won, -1 where the right one did, 0 for a tie.

    `sided` says that the left one was shown on the left; where that is not known the vote tells nothing of sides. `styles` are
    differences of style, left against right.
    """

    left: str
    right: str
    outcome: int
    voter: str
    question: str
    sided: bool = True
    styles: tuple[float, ...] = ()


@dataclass(frozen=True)
class Strength:
    """A model's strength in logits about the mean of all models, with its interval.

    `rank_low` to `rank_high` are the ranks that it may have (1 is the best), all models' at once at the confidence of the
    rating; `best` is the chance that it is the strongest.
    """

    model: str
    value: float
    low: float
    high: float
    rank_low: int
    rank_high: int
    best: float
    wins: int
    losses: int
    ties: int


@dataclass(frozen=True)
class Lead:
    """How much stronger model `a` is than `b`, in logits, with its interval.

    `p` is of this pair alone, `p_holm` after Holm's correction over all pairs; the interval excludes 0 only where `p_holm` is
    below alpha. `high` is infinite where `a` lost no vote that
    would bound its lead. `wins`, `losses` and `ties` count the votes on these two alone, as `a` has them.
    `more` is how many more votes, of as many kinds and voters, show a lead of this size in four of five repetitions: 0 where it
    is shown, None where it has no size.
    """

    a: str
    b: str
    value: float
    low: float
    high: float
    p: float
    p_holm: float
    wins: int
    losses: int
    ties: int
    error: float = 0.0
    more: int | None = 0

    @property
    def share(self) -> tuple[float, float, float]:
        """How often `a` wins a vote that is decided, shown on no side: the share, and the ends of its interval."""
        value, low, high = (1 / (1 + math.exp(-x)) if x > -700 else 0.0 for x in (self.value, self.low, self.high))
        return value, low, high


@dataclass(frozen=True)
class Effect:
    """What something else than the model adds to the log odds of winning, in logits, with its interval."""

    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Rating:
    """What votes say of models. Strengths and leads are of votes shown on no side and, with styles, alike in style.

    `strengths` are empty where they have no finite estimate (`finite` is false): some model won, or lost, all that joins it to
    the others (`separated`; leads over it are known from below), or every vote went to one side. `order` has every model,
    strongest first. `effects` has `left`, the advantage of the left side, and styles; `untold` are those that cannot be told
    from the models. `tie` is the share of ties between equals. `apart` are models that no vote joins to those that are rated.
    `clustered` says what makes votes count together, `degrees` those of Student's t (None: normal).
    """

    strengths: tuple[Strength, ...]
    leads: tuple[Lead, ...]
    effects: Mapping[str, Effect]
    tie: float
    votes: int
    order: tuple[str, ...]
    apart: tuple[str, ...] = ()
    finite: bool = True
    separated: bool = False
    untold: tuple[str, ...] = ()
    degrees: float | None = None
    clustered: tuple[str, ...] = ()
    log: float = 0.0
    bootstrap: int = 0

    @property
    def decisive(self) -> Lead | None:
        """The lead of the first over the second; None for a single model."""
        return self.lead(self.order[0], self.order[1]) if len(self.order) > 1 else None

    def lead(self, a: str, b: str) -> Lead | None:
        """The lead between two models, whichever is ahead."""
        return next((one for one in self.leads if {one.a, one.b} == {a, b}), None)

    def to_json(self) -> dict[str, Any]:
        """All of it; what is infinite is null."""
        return {
            "strengths": [_plain(vars(one)) for one in self.strengths],
            "leads": [_plain(vars(one)) | {"share": list(one.share)} for one in self.leads],
            "effects": {name: _plain(vars(one)) for name, one in self.effects.items()},
            "tie": self.tie,
            "votes": self.votes,
            "order": list(self.order),
            "apart": list(self.apart),
            "finite": self.finite,
            "separated": self.separated,
            "untold": list(self.untold),
            "degrees": self.degrees,
            "clustered": list(self.clustered),
            "log_likelihood": self.log,
            "bootstrap": self.bootstrap,
        }


@dataclass(frozen=True)
class Agreement:
    """A coefficient with its interval: 1 is full agreement, 0 what chance gives. `observed` is the share of pairs that agree.

    The ends are NaN for fewer than two items, or where every label is the same.
    """

    value: float
    low: float
    high: float
    observed: float
    items: int
    raters: int


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isinf(value) else value for key, value in values.items()}
