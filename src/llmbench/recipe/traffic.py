"""Routes: names whose requests are divided among variants, and what a new variant must show before it gets them all."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from llmbench.recipe.abstention import ABSTENTION
from llmbench.recipe.fields import Name, Pattern, Positive, Section
from llmbench.recipe.guardrails import RAILS

__all__ = ["Guardrails", "RolloutSpec", "RouteSpec", "ShadowSpec", "Sticky"]

Sticky = Literal["user", "conversation", "none"]
Margin = Annotated[float, Field(ge=0)] | None
ShareMargin = Annotated[float, Field(ge=0, lt=1)] | None
"""A difference of shares: .02 is two percentage points."""
Percent = Annotated[float, Field(gt=0, le=100)]


def _rail(name: str) -> str:
    if name not in RAILS:
        raise ValueError(f"{name!r:.40} is no guard-rail. Available: {', '.join(RAILS)}")
    return name


class Guardrails(Section):
    """How much worse than the control a new variant may be and still count as no worse; null leaves a guard-rail out."""

    errors: ShareMargin = 0.02
    """Share of requests without an answer: 5xx, streams that break, and empty answers."""
    first_token: Margin = 0.25
    """95th percentile of the seconds to a stream's first piece; .25 is a quarter longer."""
    seconds: Margin = None
    """95th percentile of the seconds to the end of an answer that is not streamed; .25 is a quarter longer."""
    length: Margin = 1.0
    """Median characters of an answer; 1 is twice as long, or half as long."""
    abstention: ShareMargin = 0.1
    """Share of answers that say that they do not know."""
    citations: ShareMargin = 0.1
    """Share of answers of variants with a pipeline whose citations fail: it has none, or the passages do not exist, or lack the
    answer's numbers or most of its words. Those that abstain do not fail."""
    votes: ShareMargin = None
    """Share of up-votes among the votes of POST /v1/feedback. With a margin, no variant is promoted without votes."""
    judge: ShareMargin = None
    """Mean of a judge's scores from 0 to 1, which POST /v1/feedback takes; likewise."""
    required: list[Annotated[str, AfterValidator(_rail)]] = []
    """Those that must have observations before the last step ends; the others do not block where they have none."""
    phrase: Pattern = ABSTENTION
    """By which an abstention is known, whatever the case."""

    @model_validator(mode="after")
    def _required_are_kept(self) -> Self:
        left_out = [name for name in self.required if getattr(self, name) is None]
        if left_out:
            raise ValueError(f"required: {left_out[0]} is left out (null). Give it a margin")
        if not self.margins:
            raise ValueError("every guard-rail is null. Keep one, such as errors")
        return self

    @property
    def margins(self) -> dict[str, float]:
        """Name -> margin of the guard-rails that are kept."""
        return {name: margin for name in RAILS if (margin := getattr(self, name)) is not None}

    @property
    def needed(self) -> list[str]:
        """Those without whose observations no variant is promoted: `required`, and what a document turns on by a margin."""
        asked_for = [name for name in self.margins if RAILS[name].later and name not in self.required]
        return [*self.required, *asked_for]


class RolloutSpec(Section):
    """How a new variant is given a route's requests."""

    plan: Annotated[list[Percent], Field(min_length=2)] = [1, 5, 25, 50, 100]
    """Percent of the units that it gets, step by step; the last is 100."""
    least: Positive = 50
    """Units that it must have answered in a step before the next one."""
    most: Positive = 20_000
    """Units that it may answer in the last step below 100 % before the rollout ends without a verdict."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The chance that a variant which is no worse is ever rolled back, over all guard-rails, steps and looks."""

    @model_validator(mode="after")
    def _plan_climbs(self) -> Self:
        if self.plan != sorted(set(self.plan)) or self.plan[-1] != 100:
            raise ValueError("plan must climb to 100, such as [1, 5, 25, 50, 100]")
        return self


class ShadowSpec(Section):
    """A variant that is asked too, after the client has its answer; what it says is recorded and returned to nobody."""

    variant: Name
    share: Percent = 10.0
    """Percent of the requests."""
    concurrent: Positive = 1
    """Questions that it is asked at once."""
    busy: Annotated[int, Field(ge=0)] = 4
    """It is not asked while more requests than these are being answered."""


class RouteSpec(Section):
    """A name that clients ask for as `model`, whose requests are divided among variants."""

    name: Name
    variants: Annotated[dict[Name, Annotated[float, Field(ge=0)]], Field(min_length=1)]
    """Variant -> weight; the weights need not add up to 100."""
    sticky: Sticky = "user"
    """What stays with one variant: `user` is the request's `user`, else its key, else its conversation; `conversation` is what
    it begins with, up to the first message of the user; `none` draws for each request."""
    description: str = ""
    guardrails: Guardrails = Guardrails()
    rollout: RolloutSpec = RolloutSpec()
    shadow: ShadowSpec | None = None

    @model_validator(mode="after")
    def _someone_answers(self) -> Self:
        if not any(self.variants.values()):
            raise ValueError("variants: all weights are 0. Give one of them a weight")
        return self
