"""What a comparison promises before its first answer: one metric, a margin, when it stops, and what is left out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from llmbench.recipe.fields import Section

__all__ = ["ExclusionSpec", "Margin", "MarginText", "PreregistrationSpec"]

_WRITTEN = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:[eE]([-+]?\d+))?\s*(%?)", re.ASCII)


@dataclass(frozen=True)
class Margin:
    """By how much a candidate may be worse: `value` in the metric's unit, or (`relative`) as a part of the baseline's mean."""

    value: float
    relative: bool = False

    @staticmethod
    def parse(text: str) -> Margin:
        """`0.02`, or `10%` of the baseline's mean.

        Raises:
            ValueError: it is neither.
        """
        if not (found := _WRITTEN.fullmatch(text.strip())):
            raise ValueError(
                f"{text!r} is no margin: write a number such as 0.02, or a part of the baseline's mean such as 10%"
            )
        value = float(f"{found[1]}e{found[2] or 0}")
        return Margin(value / 100, relative=True) if found[3] else Margin(value)

    def __str__(self) -> str:
        return f"{100 * self.value:g}%" if self.relative else f"{self.value:g}"


def _margin(text: str) -> str:
    Margin.parse(text)
    return text


MarginText = Annotated[str, AfterValidator(_margin), Field(json_schema_extra={"pattern": r"^[\d.]+([eE][-+]?\d+)?\s*%?$"})]
"""A margin as it is written, which `Margin.parse` reads."""


class ExclusionSpec(Section):
    """Questions that are left out, by their ids or by a column's values, and why."""

    ids: Annotated[list[str], Field(min_length=1)] | None = None
    column: str | None = None
    """A column of the question file, such as `language`; with `values`."""
    values: Annotated[list[Any], Field(min_length=1)] | None = None
    """The column's values whose questions are left out."""
    reason: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.ids is None) == (self.column is None):
            raise ValueError("give ids, or a column with values")
        if (self.column is None) != (self.values is None):
            raise ValueError("column and values go together")
        return self


class PreregistrationSpec(Section):
    """Written with a hash into the comparison's folder before the first answer; what is other later is told as a deviation."""

    metric: str
    """The primary metric: one of the recipe's `metrics`, or latency, first_token, prompt_tokens or completion_tokens."""
    margin: MarginText = "0.02"
    """By how much the candidate may be worse: in the metric's unit (0.02 is 2 points), or `10%` of seconds or tokens."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Of two-sided intervals; a gate errs in half of it."""
    baseline: str | None = None
    """The variant that is shipped now. `stop: sequential` needs both."""
    candidate: str | None = None
    """The variant that may take its place."""
    stop: Literal["all", "sequential"] = "all"
    """all: every question is asked. sequential: asking ends as soon as a confidence sequence decides about the margin."""
    exclude: list[ExclusionSpec] = []
    """Questions that are not asked, each with a reason."""

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if self.stop == "sequential" and (self.baseline is None or self.candidate is None):
            raise ValueError("stop: sequential needs a baseline and a candidate")
        if self.baseline is not None and self.baseline == self.candidate:
            raise ValueError("baseline and candidate are the same variant")
        return self
