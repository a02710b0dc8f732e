"""Supervised fine-tuning, and pre-training, which is the same with random weights: a page read downwards."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PrinterCallback, set_seed
from trl import SFTConfig  # type: ignore[attr-defined]

from llmbench import data
from llmbench.errors import RecipeError
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run
from llmbench.training import lock, plot, quiet, save
from llmbench.training.batches import Batches, Collator
from llmbench.training.model import Loaded, load_model
from llmbench.training.optimizer import MuonWithAdamW
from llmbench.training.record import Progress, Recorder, Stop
from llmbench.training.trainer import Trainer, last_checkpoint, lengths

__all__ = ["Job", "prepare", "train"]


@dataclass(frozen=True)
class Job:
    """Everything that a training needs, loaded and checked; nothing is written yet."""

    recipe: TrainRecipe
    loaded: Loaded
    rows: data.Rows
    steps: int

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
    rows = data.load(
        recipe.data,
        loaded.tokenizer,
        seed=recipe.training.seed,
        chat_template=save.training_template(loaded.tokenizer),
        progress=progress,
    )
    context = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(rows.train_report.longest, rows.eval_report.longest if rows.eval_report else 0)
    if context is not None and longest > context:
        raise RecipeError(
            f"data.max_length: the longest row has {longest:,} tokens and the model reads {context:,}. "
            f"Set data.max_length={context} and data.over_length to drop or truncate."
        )
    spec = recipe.training
    batches = len(Batches(lengths(rows.train), recipe))
    steps = math.ceil(spec.num_train_epochs * math.ceil(batches / spec.gradient_accumulation_steps))
    return Job(recipe, loaded, rows, spec.max_steps if spec.max_steps > 0 else steps)


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


def _trainer(job: Job, run: Run, recorder: Recorder) -> Trainer:
    """The trainer of a job, with the recipe's words handed on as they are."""
    spec, loaded = job.recipe.training, job.loaded
    muon = spec.optim == "muon"
    arguments = SFTConfig(
        output_dir=str(run.checkpoints),
        num_train_epochs=spec.num_train_epochs,
        max_steps=spec.max_steps,
        per_device_train_batch_size=spec.per_device_train_batch_size,
        per_device_eval_batch_size=spec.per_device_eval_batch_size,
        gradient_accumulation_steps=spec.gradient_accumulation_steps,
        learning_rate=spec.learning_rate,
        lr_scheduler_type=spec.lr_scheduler_type,
        lr_scheduler_kwargs=_scheduler_kwargs(spec.lr_scheduler_kwargs, job.steps),
        warmup_steps=spec.warmup_steps,
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        optim="adamw_torch" if muon else spec.optim,
        adam_beta2=spec.adam_beta2,
        gradient_checkpointing=spec.gradient_checkpointing,
        logging_steps=spec.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if job.rows.eval is not None and spec.eval_steps else "no",
        eval_steps=spec.eval_steps,
        save_steps=spec.save_steps,
        seed=spec.seed,
        bf16=loaded.dtype == torch.bfloat16,
        fp16=loaded.dtype == torch.float16,
        use_cpu=loaded.device == "cpu",
        include_num_input_tokens_seen="non_padding",
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        report_to=[],
        disable_tqdm=True,
    )
    if loaded.device == "cuda":
        arguments._n_gpu = 1  # where several are visible: one process trains on one GPU, torchrun starts one for each
    if spec.torch_compile:
        quiet.compile_backbone(loaded.model)
    trainer = Trainer(
        job.recipe,
        Collator(job.recipe, loaded.tokenizer.pad_token_id),
        model=loaded.model,
        args=arguments,
        train_dataset=job.rows.train,
        eval_dataset=job.rows.eval,
        processing_class=loaded.tokenizer,
        callbacks=[recorder],
        optimizers=(MuonWithAdamW(loaded.model, spec) if muon else None, None),
    )
    trainer.remove_callback(PrinterCallback)
    recorder.trainer = trainer
    return trainer


def _scheduler_kwargs(values: dict[str, Any], steps: int) -> dict[str, Any]:
    """The scheduler's settings, a share of the steps made a number of steps."""
    share = values.get("num_decay_steps")
    return {**values, "num_decay_steps": round(share * steps)} if isinstance(share, float) and share < 1 else dict(values)
