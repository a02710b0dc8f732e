"""What reading training rows gives: the rows, and a report of what was read, cut and left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset  # type: ignore[import-untyped]

__all__ = ["Report", "Rows", "Skipped"]


@dataclass(frozen=True)
class Skipped:
    """A row that is not used."""

    place: str
    reason: str
    """One of a few fixed phrases, so that they can be counted."""
    detail: str = ""
    """What is wrong with this row."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What became of the rows of one part (train or eval)."""

    rows_in: int
    """Rows read. One row may become several rows of the data set, or none."""
    rows: int
    """Rows that are trained or evaluated on."""
    tokens: int
    trained_tokens: int
    """Tokens that are learned: the assistant's."""
    longest: int
    """Tokens of the longest row."""
    dropped: int = 0
    truncated: int = 0
    unstopped: int = 0
    """Assistant turns whose last learned token does not end the turn, so that the model never learns to stop there."""
    double_bos: int = 0
    """Rows that begin with two beginning-of-text tokens."""
    split: int = 0
    """Rows that became several: conversations whose earlier turns the template rewrites, documents longer than max_length."""
    control: int = 0
    """Rows whose words spell out control tokens; they were split into ordinary pieces."""
    unprompted: int = 0
    """Answers learned without what the template's generation prompt ends with, such as an opened `<think>`."""
    merged: int = 0
    """Answers that begin inside a token of the prompt, which is then not learned."""
    turn_ends: tuple[int, ...] = ()
    """The tokens that end the learned turns, the commonest first."""
    skipped: tuple[Skipped, ...] = ()
    length_before: np.ndarray | None = None
    """Tokens of every row before `max_length` (int32)."""
    notes: tuple[str, ...] = ()
    """What else a person should know, a line each: how sources were mixed, that a cache was broken."""

    def remarks(self) -> list[str]:
        """Everything that a person should look at, a line each."""
        found = []
        if self.skipped and len(self.skipped) > self.dropped:
            first = next(row for row in self.skipped if "max_length" not in row.reason)
            found.append(
                f"{len(self.skipped) - self.dropped:,} rows cannot be used; the first is {first.place}: {first.detail}"
            )
        if self.unstopped:
            found.append(f"{self.unstopped:,} answers have no trained end of turn: the model may not stop")
        if self.unprompted:
            found.append(
                f"{self.unprompted:,} answers are trained without the end of the generation prompt (an opened <think>)"
            )
        if self.merged:
            found.append(
                f"{self.merged:,} answers begin inside a token of the prompt (does it end in a space?); that token is not "
                f"trained"
            )
        if self.double_bos:
            found.append(f"{self.double_bos:,} rows begin with two BOS tokens, one more than the model expects")
        if self.control:
            found.append(f"{self.control:,} rows spell out control tokens in their text; they are trained as plain text")
        if self.split:
            found.append(
                f"{self.split:,} rows became several samples: one for each answer, or one for each piece of a long text"
            )
        return [*found, *self.notes]


@dataclass(frozen=True)
class Rows:
    """The rows of a recipe, in file order, each part a `datasets.Dataset` in a memory-mapped file.

    Columns: `input_ids`, `labels` (int32 lists), `roles` (int8 list, one a token: 0 the template's text, 1 system, 2 user,
    3 assistant, 4 tool and tool definitions), `source` (its position among the part's sources) and `row` (its line or
    position there, from 1).
    """

    train: Dataset
    train_report: Report
    eval: Dataset | None = None
    eval_report: Report | None = None
