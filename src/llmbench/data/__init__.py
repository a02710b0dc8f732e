"""Training files -> token ids with labels, ready for the trainer.

`load` reads every file of a recipe's `data` section, checks each row, renders it with the model's chat template, and marks
which tokens are learned: the assistant's, and no others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from llmbench.errors import DataError
from llmbench.recipe import DataSource, DataSpec

if TYPE_CHECKING:
    from datasets import Dataset  # type: ignore[import-untyped]

__all__ = ["Report", "Rows", "load"]


@dataclass(frozen=True)
class Report:
    """What became of the rows of one part (train or eval)."""

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


@dataclass(frozen=True)
class Rows:
    """The rows of a recipe as `datasets.Dataset` with `input_ids` and `labels` (int32 lists), in file order."""

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
    progress: Callable[[int], None] | None = None,
) -> Rows:
    """Reads, checks and tokenises the rows of a recipe.

    Args:
        spec: the recipe's `data` section.
        tokenizer: a fast tokenizer of transformers.
        seed: draws the rows held out by `eval_fraction`.
        chat_template: takes the place of the tokenizer's own.
        progress: called with the number of rows tokenised since the last call.

    Raises:
        DataError: a file without rows or of unknown format, a row that cannot be used, rows that are too long while
            `over_length` is `error`, or a chat template that does not show what the assistant said.
    """
    train = _part(spec, spec.train, tokenizer, chat_template, progress)
    if spec.eval:
        held_out = _part(spec, spec.eval, tokenizer, chat_template, progress)
        return Rows(train[0], train[1], held_out[0], held_out[1])
    if not spec.eval_fraction:
        return Rows(*train)
    return _hold_out(train, spec.eval_fraction, seed)


def _part(
    spec: DataSpec, sources: list[DataSource], tokenizer: Any, template: str | None, progress: Callable[[int], None] | None
) -> tuple[Dataset, Report]:
    from llmbench.data.files import read, taught
    from llmbench.data.tokens import encode

    conversations, places = [], []
    for source in sources:
        rows, where = read(source, source.path) if source.path is not None else taught(source)
        conversations += rows
        places += where
    return encode(conversations, places, tokenizer, spec, chat_template=template, progress=progress)


def _hold_out(part: tuple[Dataset, Report], fraction: float, seed: int) -> Rows:
    """Splits the rows; which ones are held out depends on their number and the seed only."""
    rows, report = part
    count = round(len(rows) * fraction)
    if not 0 < count < len(rows):
        raise DataError(f"data.eval_fraction: {fraction} of {len(rows)} rows leaves {count} to evaluate. Change it, or set 0.")
    held_out = set(Random(f"held out {seed}").sample(range(len(rows)), count))
    kept = rows.select([i for i in range(len(rows)) if i not in held_out])
    apart = rows.select(sorted(held_out))
    return Rows(kept, _recount(report, kept), apart, _recount(Report(0, 0, 0, 0), apart))


def _recount(report: Report, rows: Dataset) -> Report:
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    ids, labels = rows.with_format("arrow")["input_ids"][:], rows.with_format("arrow")["labels"][:]
    lengths = pc.list_value_length(ids)
    learned = pc.sum(pc.not_equal(pc.list_flatten(labels), -100)).as_py() or 0
    return replace(
        report, rows=len(rows), tokens=pc.sum(lengths).as_py(), trained_tokens=learned, longest=pc.max(lengths).as_py()
    )
