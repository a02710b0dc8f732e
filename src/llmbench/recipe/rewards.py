"""What an answer is worth to GRPO: built-in functions, or one of the user's own in a file that the recipe names."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from llmbench.recipe.fields import OwnFunction, Pattern, Positive, Section

__all__ = ["ExactMatchSpec", "LengthSpec", "RegexSpec", "RewardFunction"]


class ExactMatchSpec(Section):
    """1 when the answer is the text of a column, else 0; spaces around both are passed over."""

    column: str
    ignore_case: bool = False


class RegexSpec(Section):
    """1 when the pattern is found in the answer (and what it finds is what a column says), else 0."""

    pattern: Pattern
    group: Annotated[int, Field(ge=0)] = 0
    """What counts as found; 0 is all of the pattern."""
    column: str | None = None
    """Compare with this column; where the pattern is found in its text too, with what it finds there."""

    @model_validator(mode="after")
    def _group_exists(self) -> Self:
        groups = re.compile(self.pattern).groups
        if self.group > groups:
            raise ValueError(f"group: {self.group}, but the pattern has {groups} (parentheses make one)")
        return self


class LengthSpec(Section):
    """1 when the answer has about `target` tokens; falls in a line to 0 at no tokens, or at twice the target."""

    target: Positive
    tolerance: Annotated[int, Field(ge=0)] = 0
    """Tokens more or less that still count as 1."""


class RewardFunction(Section):
    """One function and its weight; the rewards of all are added up."""

    exact_match: ExactMatchSpec | None = None
    regex: RegexSpec | None = None
    json_schema: dict[str, Any] | None = None
    """1 when the answer is JSON that fits this schema, 0.2 when it is JSON, else 0."""
    length: LengthSpec | None = None
    function: OwnFunction | None = None
    """`path/to/file.py:name`, called as TRL does: prompts, completions, completion_ids and the data's columns by name."""
    weight: float = 1.0

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = ("exact_match", "regex", "json_schema", "length", "function")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(kinds)}, not {' and '.join(given) or 'none'}")
        return self

    @property
    def name(self) -> str:
        """What the reward is called in metrics and messages."""
        if self.function is not None:
            return self.function.rpartition(":")[2]
        return next(kind for kind in ("exact_match", "regex", "json_schema", "length") if getattr(self, kind) is not None)

    @property
    def column(self) -> str | None:
        """The column of the data that it reads, where one is named."""
        if self.exact_match is not None:
            return self.exact_match.column
        return self.regex.column if self.regex is not None else None
