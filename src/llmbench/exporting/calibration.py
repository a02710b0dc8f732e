"""The rows that a quantised model is calibrated with, drawn from those that the run was trained on, and those held out."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from llmbench import data
from llmbench.data import preferences
from llmbench.errors import LlmbenchError
from llmbench.exporting.source import Exportable
from llmbench.recipe import DataSpec

__all__ = ["ROWS", "CalibrationRows", "drawn"]

ROWS = 128
"""Rows that are drawn where nothing is said; beyond a few hundred, GPTQ and AWQ gain nothing (Frantar et al. 2022 take 128)."""
_HELD_OUT = 64
_LEAST = 2
"""Tokens of a row that says anything."""
_TOKEN_BY_TOKEN = ("sft", "pretrain")


@dataclass(frozen=True)
class CalibrationRows:
    """Rows as token ids."""

    rows: list[list[int]]
    """To calibrate with; empty where none were wanted."""
    known: int
    """How many rows they were drawn from."""
    held_out: list[tuple[list[int], list[int]]]
    """Rows that were not trained on, and their labels (-100 where nothing is learned); empty where the recipe holds out none,
    or learns otherwise than token by token."""


def drawn(source: Exportable, tokenizer: Any, count: int) -> CalibrationRows:
    """The same rows each time, by the run's own seed.

    Args:
        source: whose run's training rows.
        tokenizer: the run's.
        count: how many at most; 0 asks for held-out rows alone, and for none where the data is gone.

    Raises:
        LlmbenchError: there are no training rows any more.
    """
    recipe = source.run.recipe
    method, seed = recipe["method"], int(recipe["training"]["seed"])
    try:
        spec = DataSpec.model_validate(recipe["data"])
        if method in _TOKEN_BY_TOKEN:
            found = data.load(spec, tokenizer, seed=seed)
        else:
            found = preferences.load(method, spec, tokenizer, seed=seed, as_tokens=True)
    except (LlmbenchError, ValidationError) as error:
        if count == 0:
            return CalibrationRows([], 0, [])
        why = str(error.errors()[0]["msg"] if isinstance(error, ValidationError) else error).splitlines()[0]
        raise LlmbenchError(
            f"run {source.run.name}: its training rows, which calibrate the quantised model, cannot be read: {why}. "
            "Put them back, or take --format fp8, which needs none"
        ) from error
    places = range(len(found.train))
    chosen = sorted(random.Random(seed).sample(places, min(count, len(places))))
    rows = [ids for ids in (_ids(found.train[place]) for place in chosen) if len(ids) >= _LEAST]
    if count and not rows:
        raise LlmbenchError(f"run {source.run.name} has no training row of {_LEAST} tokens, so nothing calibrates the model")
    return CalibrationRows(rows, len(found.train), _held_out(found) if method in _TOKEN_BY_TOKEN else [])


def _ids(row: dict[str, Any]) -> list[int]:
    """A row as the model meets it: a text, or a prompt with the answer that was preferred."""
    if "input_ids" in row:
        return list(map(int, row["input_ids"]))
    after = row.get("chosen_ids") or row.get("completion_ids") or []
    return list(map(int, [*row.get("prompt_ids", []), *after]))


def _held_out(found: data.Rows) -> list[tuple[list[int], list[int]]]:
    if found.eval is None:
        return []
    rows = [found.eval[place] for place in range(min(_HELD_OUT, len(found.eval)))]
    return [(list(map(int, row["input_ids"])), list(map(int, row["labels"]))) for row in rows]
