"""Training rows -> token ids with labels, ready for the trainer, in a memory-mapped file.

`load` reads every source of a recipe's `data` section, checks each row, renders it with the model's chat template, and marks
which tokens are learned: the assistant's, and no others. What it made is kept in the cache and found there the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench.recipe import DataSource, DataSpec
from llmbench.recipe.adapter import TokenizerSpec

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset  # type: ignore[import-untyped]

__all__ = ["Report", "Rows", "Skipped", "load", "rows"]


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
            found.append(f"{self.unstopped:,} answers have no learned end of turn: the model may not stop there")
        if self.unprompted:
            found.append(
                f"{self.unprompted:,} answers are learned without the end of the generation prompt (an opened <think>)"
            )
        if self.merged:
            found.append(
                f"{self.merged:,} answers begin inside a token of the prompt (does it end in a space?); it is not learned"
            )
        if self.double_bos:
            found.append(
                f"{self.double_bos:,} rows begin with two beginning-of-text tokens: the template and the data write one"
            )
        if self.control:
            found.append(f"{self.control:,} rows spell out control tokens in their words; these are learned as plain text")
        if self.split:
            found.append(
                f"{self.split:,} rows became several: each answer in the form that the model meets, or a long text in pieces"
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


def load(
    spec: DataSpec,
    tokenizer: Any,
    *,
    seed: int = 0,
    chat_template: str | None = None,
    folder: Path | None = None,
    added: TokenizerSpec | None = None,
    stops: Sequence[int] = (),
    progress: Callable[[int], None] | None = None,
) -> Rows:
    """Reads, checks and tokenises the rows of a recipe, or takes them from the cache.

    Args:
        spec: the recipe's `data` section.
        tokenizer: a fast tokenizer of transformers, or a function without arguments that loads it, which is called only when
            the cache does not have the rows.
        seed: draws the rows held out by `eval_fraction` and the rows mixed by `weight`.
        chat_template: takes the place of the recipe's and the tokenizer's own.
        folder: where the tokenizer was loaded from: it is then known by its files, without loading it.
        added: the recipe's `tokenizer` section: what the tokenizer has beyond the folder's. A row's words may hold these.
        stops: the tokens at which the model stops by itself, as its generation_config.json names them.
        progress: called with the number of rows tokenised since the last call.

    Raises:
        DataError: a source without rows or of unknown format, a row that cannot be used, rows that are too long while
            `over_length` is `error`, or a chat template that does not show what the assistant said.
    """
    from llmbench.data.parts import Parts

    parts = Parts(spec, tokenizer, seed, chat_template, folder, added, tuple(stops), progress)
    if spec.eval:
        [train], [held_out] = parts.part(spec.train), parts.part(spec.eval)
        return Rows(*train, *held_out)
    return Rows(*(value for part in parts.part(spec.train, spec.eval_fraction) for value in part))


def rows(source: DataSource) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a source as it stands there: its place (`file:line`) and its columns, renamed as the source says.

    Raises:
        DataError: the source cannot be read, or the first row that is broken.
    """
    from llmbench.data.sources import rows as found

    return found(source)
