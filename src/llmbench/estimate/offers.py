"""Settings whose estimate fits where a recipe's own does not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmbench.estimate import Estimate, estimate, work
from llmbench.estimate.shapes import Shape
from llmbench.hardware import Machine
from llmbench.recipe import TrainRecipe

__all__ = ["Change", "changed", "fitting"]


@dataclass(frozen=True)
class Change:
    """Other settings, and what the training needs with them."""

    settings: dict[str, Any]
    """Dotted names, as the command line takes them."""
    estimate: Estimate

    @property
    def overrides(self) -> str:
        """For the command line."""
        return " ".join(f"{name}={json.dumps(value)}" for name, value in self.settings.items())


def fitting(
    recipe: TrainRecipe, found: Shape, lengths: np.ndarray, learned: float, there: Machine, *, limit: int, count: int = 3
) -> list[Change]:
    """The nearest settings whose estimate fits into `limit` bytes, the fastest first; each keeps the rows of a step.

    Smaller batches with more accumulation, activations computed again, a frozen base in bfloat16 where `auto` takes float32 for
    speed, a base in four bits, shorter rows, in that order alone and together.
    """
    spec = recipe.training
    rows, accumulation = spec.per_device_train_batch_size, spec.gradient_accumulation_steps
    halves: list[dict[str, Any]] = []
    while rows > 1:
        rows, accumulation = -(-rows // 2), accumulation * 2
        halves.append({"training.per_device_train_batch_size": rows, "training.gradient_accumulation_steps": accumulation})
    again: list[dict[str, Any]] = [{"training.gradient_checkpointing": True}] if not spec.gradient_checkpointing else []
    four: list[dict[str, Any]] = [{"quantization.load_in_4bit": True}] if recipe.adapts and recipe.quantization is None else []
    low = recipe.quantization is not None or recipe.model.dtype != "auto" or there.bfloat16
    half: list[dict[str, Any]] = [{"model.dtype": "bfloat16"}] if recipe.adapts and not low else []
    shorter = int(np.quantile(lengths, 0.95))
    cut: list[dict[str, Any]] = (
        [{"data.max_length": shorter, "data.over_length": "drop"}] if shorter < int(lengths.max()) else []
    )
    tried = [*halves, *again, *half, *four, *cut]
    tried += [fewer | other for fewer in halves for other in [*again, *half]]
    tried += [fewer | other | more for fewer in halves for other in again for more in [*half, *four]]
    fits: list[Change] = []
    for settings in tried:
        other = changed(recipe, settings)
        kept = lengths[lengths <= other.data.max_length] if "data.max_length" in settings else lengths
        need = estimate(other, found, work(other, kept, learned), there)
        if need.peak <= limit:
            fits.append(Change(settings, need))
        if len(fits) >= count:
            break
    return sorted(fits, key=lambda change: change.estimate.seconds)


def changed(recipe: TrainRecipe, settings: dict[str, Any]) -> TrainRecipe:
    """The recipe with dotted settings replaced."""
    document = recipe.model_dump()
    for name, value in settings.items():
        section, key = name.split(".")
        document[section] = (document[section] or {}) | {key: value}
    made: TrainRecipe = type(recipe).model_validate(document)
    return made
