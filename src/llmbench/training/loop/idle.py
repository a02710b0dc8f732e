"""Whether a finished training has learned anything: a rate that never rose, or gradients that were nought."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmbench.recipe import TrainRecipe

__all__ = ["Idle", "reason"]

_LAST = 0.5
"""Share of the steps, at the end of a training, that must be without a gradient before it is said. Answers that are all right
give GRPO none either, for a few steps."""
_RISEN = 0.5
"""Share of the recipe's rate that a warm-up must reach within the run."""


class Idle:
    """Counts the steps that changed nothing. A step costs nothing more: norm and rate are there already."""

    def __init__(self) -> None:
        self.steps = 0
        self.still_since: int | None = None
        """The first of the steps without a gradient that the training ended with, counted from 1."""
        self.highest = 0.0
        """The highest rate that a step was taken with."""
        self._equal = False
        """GRPO: whether all answers to each prompt were rewarded alike when answers were last written."""

    def step(self, trainer: Any) -> None:
        """Called after each step, with its gradient norm and rate."""
        number = int(trainer.state.global_step)
        self.steps += 1
        norm = getattr(trainer, "last_norm", None)
        logged = getattr(trainer, "_metrics", {}).get("train", {})
        if shares := logged.get("frac_reward_zero_std"):
            # The load-balancing loss of a mixture of experts has a gradient without any reward, and so has KL.
            means = [values[-1] for name, values in logged.items() if name.startswith("rewards/") and name.endswith("/mean")]
            self._equal = shares[-1] == 1.0 or all(math.isnan(mean) for mean in means)  # no function judged any answer
        if self._equal or (norm is not None and float(norm) == 0.0):
            self.still_since = self.still_since or number
        else:
            self.still_since = None
        self.highest = max(self.highest, float(getattr(trainer, "last_rate", 0.0)))


def reason(idle: Idle, recipe: TrainRecipe, step: int) -> str | None:
    """Why nothing was learned, in one line, or None.

    Args:
        idle: what was counted.
        recipe: as it was trained.
        step: the last step.
    """
    spec = recipe.training
    if not idle.steps:
        return None
    if idle.highest == 0.0:
        return (
            f"Nothing was learned: the learning rate was 0 in every step (the warm-up, training.warmup_steps="
            f"{spec.warmup_steps:g}, takes the whole run of {step} step{'s' * (step != 1)}). "
            "Train for longer, or set training.warmup_steps=0"
        )
    if idle.still_since is not None and idle.still_since <= max(step - idle.steps, 0) + 1:
        return f"Nothing was learned: {_gradient(recipe)} was 0 in every step{_why(recipe)}"
    if idle.still_since is not None and step - idle.still_since + 1 >= _LAST * idle.steps:
        return (
            f"Nothing was learned from step {idle.still_since} on: {_gradient(recipe)} was 0 to the end{_why(recipe)}. "
            f"Try a lower training.learning_rate (it is {spec.learning_rate:g})"
        )
    if spec.warmup_steps >= 1 and math.ceil(spec.warmup_steps) >= step and idle.highest < _RISEN * spec.learning_rate:
        return (
            f"Little was learned: the warm-up (training.warmup_steps={spec.warmup_steps:g}) is longer than the run of {step} "
            f"step{'s' * (step != 1)}, so the learning rate reached only {idle.highest:.2g} of {spec.learning_rate:g}. "
            f"Train for longer, or set training.warmup_steps=0.03"
        )
    return None


def _gradient(recipe: TrainRecipe) -> str:
    return "the gradient of the rewards" if recipe.method == "grpo" else "the gradient"


def _why(recipe: TrainRecipe) -> str:
    """What makes gradients nought with a method that judges answers."""
    if recipe.method == "grpo":
        return " (the answers to each prompt had the same rewards, or none had any; look at the reward functions)"
    return ""
