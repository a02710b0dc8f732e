"""What a training reads: files or generated lessons, and how long a row may be."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from llmbench.recipe.fields import ExistingPath, Fraction, Positive, Section

__all__ = ["DataSource", "DataSpec", "LessonsSpec"]


class LessonsSpec(Section):
    """Conversations that llmbench writes itself, as its bundled model was taught with (`llmbench.tiny.lessons`)."""

    stage: Literal["words", "short", "long", "cite", "absence"]
    conversations: Positive
    characters: Positive
    """A conversation takes turns until it is this long."""
    seed: int = 0


class DataSource(Section):
    """One file of training rows: JSONL, JSON, CSV or Parquet with `messages`, or with `prompt` and `completion`."""

    path: ExistingPath | None = None
    lessons: LessonsSpec | None = None
    """Instead of a file: generated conversations."""
    columns: dict[str, str] = {}
    """Standard name -> name in the file, such as `{prompt: question, completion: answer}`."""
    limit: Positive | None = None
    """Use the first N rows only."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.path is None) == (self.lessons is None):
            raise ValueError("give either a path or lessons")
        return self


class DataSpec(Section):
    """What is trained on, and how long a row may be."""

    train: list[DataSource] = Field(min_length=1)
    eval: list[DataSource] = []
    eval_fraction: Fraction = 0.0
    """Hold out this share of the training rows when `eval` is empty."""
    max_length: Positive = 1024
    """Tokens a row may have."""
    over_length: Literal["error", "drop", "truncate"] = "error"
    """What happens to a longer row. The default asks you to choose."""
    shuffle: bool = True
    """false keeps the file's order, as a curriculum needs."""
