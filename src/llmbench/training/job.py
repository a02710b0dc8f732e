"""A training, whatever its method: a page read downwards. What is particular to a method is in the module of its name."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import set_seed

from llmbench import data
from llmbench.data import preferences
from llmbench.errors import RecipeError
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run
from llmbench.training import lock, plot, quiet, save
from llmbench.training.batches import Batches
from llmbench.training.checkpoint import last_checkpoint
from llmbench.training.model import Loaded, load_model
from llmbench.training.record import Progress, Recorder, Stop
from llmbench.training.trainer import lengths

__all__ = ["Job", "prepare", "train"]


@dataclass(frozen=True)
class Job:
    """Everything that a training needs, loaded and checked; nothing is written yet."""

    recipe: TrainRecipe
    loaded: Loaded
    rows: data.Rows
    steps: int
    teacher: Any = None
    """The model that a distillation learns from."""

    @property
    def trained_parameters(self) -> int:
        """How many parameters are trained."""
        return sum(p.numel() for p in self.loaded.model.parameters() if p.requires_grad)

    @property
    def parameters(self) -> int:
        """How many parameters the model has, those of LoRA included."""
        return int(self.loaded.model.num_parameters())


def prepare(recipe: TrainRecipe, *, progress: Callable[[int], None] | None = None) -> Job:
    """Loads and checks the model and the data; `progress` is called with the number of rows read since its last call.

    Raises:
        LlmbenchError: see `load_model` and `data.load`; or rows longer than the model's context.
    """
    quiet.libraries()
    set_seed(recipe.training.seed)
    loaded = load_model(recipe)
    rows = _rows(recipe, loaded, progress)
    context = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(rows.train_report.longest, rows.eval_report.longest if rows.eval_report else 0)
    if context is not None and longest > context:
        raise RecipeError(
            f"data.max_length: the longest row has {longest:,} tokens and the model reads {context:,}. "
            f"Set data.max_length={context} and data.over_length to drop or truncate."
        )
    teacher = None
    match recipe.method:
        case "grpo":
            from llmbench.training import grpo

            grpo.check(recipe, rows.train, device=loaded.device, context=context, longest=longest)
        case "distillation":
            from llmbench.training import distillation

            teacher = distillation.teacher(recipe, loaded)
    return Job(recipe, loaded, rows, _steps(recipe, rows), teacher)


def _rows(recipe: TrainRecipe, loaded: Loaded, progress: Callable[[int], None] | None) -> data.Rows:
    """The rows in the form that the method learns from."""
    seed = recipe.training.seed
    match recipe.method:
        case "sft" | "pretrain" | "distillation":
            template = save.training_template(loaded.tokenizer)
            return data.load(recipe.data, loaded.tokenizer, seed=seed, chat_template=template, progress=progress)
        case method:
            return preferences.load(method, recipe.data, loaded.tokenizer, seed=seed, progress=progress)


def _steps(recipe: TrainRecipe, rows: data.Rows) -> int:
    """How many steps the training takes."""
    spec = recipe.training
    if spec.max_steps > 0:
        return spec.max_steps
    match recipe.method:
        case "sft" | "pretrain":
            batches = len(Batches(lengths(rows.train), recipe))
        case "grpo":
            from llmbench.training import grpo

            batches = grpo.batches(recipe, len(rows.train))
        case _:
            batches = math.ceil(len(rows.train) / spec.per_device_train_batch_size)
    return math.ceil(spec.num_train_epochs * math.ceil(batches / spec.gradient_accumulation_steps))


def train(
    recipe: TrainRecipe, run: Run, *, resume: bool = False, job: Job | None = None, progress: Progress | None = None
) -> None:
    """Trains and leaves an adapter, or a model when all parameters were trained, in the run's folder.

    Args:
        recipe: what to train.
        run: its folder, from `runs.create` or, to continue, from `runs.resume`.
        resume: continue from the last checkpoint, exactly as if nothing had happened; without one, from the start.
        job: the recipe's model and data where `prepare` has loaded them already.
        progress: told of each step, in place of the bar on stderr.

    Raises:
        LlmbenchError: something the user can mend; the run is marked failed.
        KeyboardInterrupt: stopped by Ctrl-C; a checkpoint is saved and the run is marked stopped.
    """
    stop = Stop()
    with run.writing(), stop.listening(), save.disk_errors(run):
        job = job or prepare(recipe)
        checkpoint = last_checkpoint(run.checkpoints) if resume else None
        lock.write(run, job.recipe, job.loaded, resume=checkpoint is not None)
        run.drop_metrics_after(int(checkpoint.name.split("-")[1]) if checkpoint else -1)
        recorder = Recorder(run, stop, progress)
        trainer = _trainer(job, run, recorder)
        recorder.trainer = trainer
        with recorder.showing():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if stop.asked and trainer.state.global_step < trainer.state.max_steps:
            run.mark("running", step=trainer.state.global_step, steps=trainer.state.max_steps)
            raise KeyboardInterrupt
        if job.rows.eval is not None and "eval_loss" not in recorder.at(trainer.state.global_step):
            trainer.evaluate()
        save.result(trainer.model, job, run)
        plot.write(run)
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        run.mark("running", step=trainer.state.global_step, steps=trainer.state.max_steps, **recorder.summary())


def _trainer(job: Job, run: Run, recorder: Recorder) -> Any:
    """The trainer of the recipe's method, whose libraries are loaded for no other."""
    match job.recipe.method:
        case "sft" | "pretrain":
            from llmbench.training import sft

            return sft.trainer(job, run, recorder)
        case "dpo":
            from llmbench.training import dpo

            return dpo.trainer(job, run, recorder)
        case "orpo":
            from llmbench.training import orpo

            return orpo.trainer(job, run, recorder)
        case "kto":
            from llmbench.training import kto

            return kto.trainer(job, run, recorder)
        case "reward":
            from llmbench.training import reward

            return reward.trainer(job, run, recorder)
        case "grpo":
            from llmbench.training import grpo

            return grpo.trainer(job, run, recorder)
        case "distillation":
            from llmbench.training import distillation

            return distillation.trainer(job, run, recorder)
