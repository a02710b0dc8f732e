"""What a loaded job was estimated to need, and what it took."""

from __future__ import annotations

from typing import Any

import numpy as np

from llmbench import data, estimate, hardware
from llmbench.errors import LlmbenchError
from llmbench.estimate import shapes
from llmbench.recipe import TrainRecipe
from llmbench.training.loading.model import Loaded
from llmbench.training.loop.batches import lengths

__all__ = ["figures", "of", "unquantized"]


def of(recipe: TrainRecipe, loaded: Loaded, rows: data.Rows) -> estimate.Estimate | None:
    """The estimate from the rows' own lengths; None for methods and models that it does not know."""
    if recipe.method not in estimate.METHODS:
        return None
    try:
        found = shapes.of(loaded.folder, recipe.model.config)
    except LlmbenchError:
        return None
    report, there = rows.train_report, hardware.machine(loaded.device)
    whole = report.length_before  # of judged answers: a row is as long as its prompt with its longer answer
    if "input_ids" in rows.train.column_names or whole is None:
        whole = np.array(lengths(rows.train))
    batches = estimate.work(
        recipe,
        whole,
        report.trained_tokens / report.tokens,
        end_to_end=bool(recipe.training.padding_free),
    )
    return estimate.estimate(recipe, found, batches, there, correction=estimate.corrections(there, method=recipe.method))


def unquantized(recipe: TrainRecipe, loaded: Loaded) -> str | None:
    """What `quantization` leaves as it is in a loaded model; None where nothing, or where its shape is not known."""
    try:
        return estimate.unquantized(recipe, shapes.of(loaded.folder, recipe.model.config))
    except LlmbenchError:
        return None


def figures(needs: estimate.Estimate | None) -> dict[str, Any] | None:
    """What a run's state keeps of an estimate, to stand beside what was measured."""
    if needs is None:
        return None
    return {"seconds": needs.seconds, "uncorrected_seconds": needs.uncorrected_seconds, "peak_memory": needs.peak}
