"""Whether a learning rate suits the size of a model."""

from __future__ import annotations

from pathlib import Path

from llmbench.errors import LlmbenchError
from llmbench.estimate import shapes
from llmbench.recipe import TrainRecipe

__all__ = ["high", "start"]

_USUAL = {True: ((3e8, 2e-3), (3e9, 5e-4), (3e10, 3e-4)), False: ((3e8, 1e-3), (3e9, 1e-4), (3e10, 3e-5))}
"""With an adapter and without: parameters up to which a rate is the highest that is usual with AdamW. LoRA's best rate is about
ten times that of full training (Biderman et al. 2024, arXiv 2405.09673)."""
_START = {True: 2e-4, False: 2e-5}
_MOST = 0.1
"""AdamW, Muon and Lion move a weight by about the rate in a step whatever its gradient is, and weights are about 0.02 to 1."""
_METHODS = {"dpo": 0.1, "orpo": 0.1, "kto": 0.1, "grpo": 0.1, "reward": 0.3}
"""Judged answers are learned at a tenth of the rate and less."""


def start(method: str, *, adapts: bool) -> float:
    """The rate to start with, with an adapter or with all parameters."""
    return _START[adapts] * _METHODS.get(method, 1.0)


def high(recipe: TrainRecipe, folder: Path | None) -> list[str]:
    """A line where the rate is higher than what models of this size, or any, are trained with; empty where it is not.

    Args:
        recipe: of any method.
        folder: the base's files; None where they are not on this machine.
    """
    adapts, rate = recipe.adapts, recipe.training.learning_rate
    if recipe.training.optim in ("sgd", "adafactor"):
        return []  # whose steps follow the gradient's size
    vectors = recipe.lora is None and recipe.adapter is not None and recipe.adapter.type in ("ia3", "vera", "prompt_tuning")
    share = _METHODS.get(recipe.method, 1.0)
    begin = start(recipe.method, adapts=adapts)
    most = _MOST * (100 if vectors else 1)  # vectors take rates a hundred times as high
    if rate > most:
        return [
            f"{rate:g} is too high for {recipe.training.optim}, which moves each weight by about this much per step: "
            f"training will most likely diverge. Start with training.learning_rate={begin * (100 if vectors else 1):g}"
        ]
    if folder is None or vectors or recipe.training.optim == "muon":
        return []
    try:
        size = shapes.of(folder).parameters
    except (LlmbenchError, OSError, ValueError):
        return []
    if size < 5e7:
        return []
    highest = share * next((most for upto, most in _USUAL[adapts] if size <= upto), _USUAL[adapts][-1][1])
    if rate <= highest:
        return []
    return [
        f"{rate:g} is high for a model of {_billions(size)} parameters ({'an adapter' if adapts else 'all parameters'}, "
        f"method {recipe.method}): it may diverge or forget what it knew. Start with training.learning_rate={begin:g}"
    ]


def _billions(size: int) -> str:
    return f"{size / 1e9:.1f}B" if size >= 1e9 else f"{size / 1e6:.0f}M"
