"""What every trainer of judged answers shares: rows that are tokenised already, adapters in float32, whole checkpoints."""

from __future__ import annotations

import copy
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llmbench.recipe import TrainRecipe
from llmbench.runs import Run
from llmbench.training.kernels import packed_rows
from llmbench.training.loading.adapter import keep_precision
from llmbench.training.loop.optimizer import own_optimizer
from llmbench.training.loop.record import Recorder
from llmbench.training.methods.arguments import arguments
from llmbench.training.methods.together import Among

if TYPE_CHECKING:
    from llmbench.training.job import Job

__all__ = ["Judged", "against", "parts", "rate", "reference", "settings"]


class Judged(Among):
    """Stands before one of TRL's trainers and keeps it from preparing, cutting or casting anything."""

    model: Any
    state: Any

    def __init__(self, recipe: TrainRecipe, **parts: Any) -> None:
        self.recipe = recipe
        self.paused = 0.0
        with keep_precision(parts["model"]):
            super().__init__(**parts)
        _copy_reference(self.model)
        self.install_heads()

    def install_heads(self) -> None:
        """Has model and reference read rows end to end, where that was chosen."""
        if self.recipe.training.padding_free:
            for model in (self.model, getattr(self, "ref_model", None)):
                if model is not None:
                    packed_rows.install(model)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        """The rows as they are: `llmbench.data` has written, counted and cut them."""
        return dataset

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates; the time it takes is no part of the training's speed."""
        start = time.perf_counter()
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self.paused += time.perf_counter() - start

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Saves the trained adapter alone: transformers would load only the reference's folder beside it on resume."""
        super()._save(output_dir, state_dict)
        if output_dir is not None:
            shutil.rmtree(Path(output_dir) / "ref", ignore_errors=True)


def parts(job: Job, recorder: Recorder) -> dict[str, Any]:
    """What every one of TRL's trainers is given."""
    loaded = job.loaded
    return {
        "model": loaded.model,
        "train_dataset": job.rows.train,
        "eval_dataset": job.rows.eval,
        "processing_class": loaded.tokenizer,
        "callbacks": [recorder],
        "optimizers": (own_optimizer(loaded.model, job.recipe), None),
    }


def settings(job: Job, run: Run) -> dict[str, Any]:
    """Keyword arguments for every one of TRL's configurations."""
    order = "random" if job.recipe.data.shuffle else "sequential"
    return {**arguments(job, run), "prediction_loss_only": True, "train_sampling_strategy": order}


def reference(job: Job) -> Any:
    """The frozen model that answers are measured against where all parameters are trained: the one that is started from.

    With an adapter there is none of its own; TRL keeps a copy of the adapter as it begins, named `ref`.
    """
    if hasattr(job.loaded.model, "peft_config"):
        return None
    return copy.deepcopy(job.loaded.model).eval().requires_grad_(False)


def rate(job: Job) -> str:
    """The learning rate, for people to read."""
    return f"learning rate {job.recipe.training.learning_rate:g}"


def against(job: Job) -> str:
    """The line that says what answers are measured against."""
    if hasattr(job.loaded.model, "peft_config"):
        return "  against a copy of the initial adapter"
    return f"  against a copy of the initial model ({job.parameters:,} more parameters in memory)"


def _copy_reference(model: Any) -> None:
    """Makes TRL's `ref` adapter the adapter that is started from, in every part of it and in its precision.

    TRL copies the parameters whose name has `.default.` in it, which leaves out those that end with it (embeddings' LoRA,
    IA3, VeRA): a continued adapter would be measured against a fresh one.
    """
    if "ref" not in getattr(model, "peft_config", {}):
        return
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            steps = name.split(".")
            if "default" in steps:
                held = model.get_parameter(".".join("ref" if step == "default" else step for step in steps))
                held.data = parameter.data.clone()
                held.requires_grad_(False)
