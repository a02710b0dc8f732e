"""What a training needs, loaded and checked: the value that every part of it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmbench import data
from llmbench.estimate import Estimate
from llmbench.recipe import TrainRecipe
from llmbench.training.loading.model import Loaded
from llmbench.training.loop.questions import ExamQuestion
from llmbench.training.performance import Choice

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """Everything that a training needs, loaded and checked; nothing is written yet."""

    asked: TrainRecipe
    """The recipe as it was given, which a run keeps: what `--resume` asks for is compared with it."""
    recipe: TrainRecipe
    """The same with all settled that was left open."""
    loaded: Loaded
    rows: data.Rows
    steps: int
    choices: tuple[Choice, ...] = ()
    """What `training.performance` chose."""
    needs: Estimate | None = None
    """What it was estimated to need; None where the configuration does not say how wide the model is."""
    questions: tuple[ExamQuestion, ...] = ()
    """What is asked at each evaluation."""
    teacher: Any = None
    """The model that a distillation learns from."""
    sampler: Any = None
    """What draws the answers of GRPO outside this process: a `methods.drawing.Sampler`."""

    @property
    def trained_parameters(self) -> int:
        """How many parameters are trained."""
        return sum(p.numel() for p in self.loaded.model.parameters() if p.requires_grad)

    @property
    def parameters(self) -> int:
        """How many parameters the model has, those of LoRA included."""
        return int(self.loaded.model.num_parameters())
