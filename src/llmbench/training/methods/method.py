"""What tells one method from another, as a value: how its rows are read, checked and counted, its trainer, and its words."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmbench import data
from llmbench.data import preferences, vocabulary
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run
from llmbench.training.loading.model import Loaded
from llmbench.training.loop.record import Recorder

if TYPE_CHECKING:
    from llmbench.training.job import Job

__all__ = ["Method", "judged_rows", "learned_rows", "rows_by_batch"]

Counted = Callable[[int], None] | None
"""Told of the number of rows read since its last call."""


@dataclass(frozen=True)
class Method:
    """A method, by its functions."""

    rows: Callable[[TrainRecipe, Loaded, Counted], data.Rows]
    """Reads the rows in the form that it learns from."""
    batches: Callable[[TrainRecipe, data.Rows], int]
    """Batches of an epoch."""
    trainer: Callable[[Job, Run, Recorder], Any]
    """Makes its trainer."""
    plan: Callable[[Job], list[str]] = lambda _: []
    """What it is about to do, in lines that a user reads before the training begins."""
    check: Callable[[TrainRecipe, Loaded, data.Rows], None] = lambda *_: None
    """Raises LlmbenchError where model and rows do not fit it, before anything is written."""
    teacher: Callable[[TrainRecipe, Loaded], Any] = lambda *_: None
    """Loads the model that it learns from, if there is one."""
    first: str | None = None
    """What comes before its first step, which then cannot be tried by itself."""


def learned_rows(recipe: TrainRecipe, loaded: Loaded, progress: Counted) -> data.Rows:
    """Rows that are learned from token by token."""
    return data.load(
        recipe.data,
        loaded.tokenizer,
        seed=recipe.training.seed,
        folder=recipe.model.tokenizer or loaded.folder,
        added=recipe.tokenizer,
        stops=vocabulary.stops(loaded.folder),
        progress=progress,
    )


def judged_rows(recipe: TrainRecipe, loaded: Loaded, progress: Counted) -> data.Rows:
    """Answers that are compared, marked or still to be written."""
    return preferences.load(
        recipe.method,
        recipe.data,
        loaded.tokenizer,
        seed=recipe.training.seed,
        added=recipe.tokenizer,
        stops=vocabulary.stops(loaded.folder),
        progress=progress,
    )


def rows_by_batch(recipe: TrainRecipe, rows: data.Rows) -> int:
    """Batches of so many rows each, the last one smaller."""
    return math.ceil(len(rows.train) / recipe.training.per_device_train_batch_size)
