"""Supervised fine-tuning, and pre-training, which is the same with random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import PrinterCallback
from trl import SFTConfig  # type: ignore[attr-defined]

from llmbench import data
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run
from llmbench.training.kernels import compilation, packed_attention
from llmbench.training.loop.batches import Batches, Collator, lengths
from llmbench.training.loop.optimizer import own_optimizer
from llmbench.training.loop.record import Recorder
from llmbench.training.methods.arguments import arguments, one_gpu
from llmbench.training.methods.method import Method, learned_rows
from llmbench.training.methods.trainer import Trainer

if TYPE_CHECKING:
    from llmbench.training.job import Job

__all__ = ["METHOD"]


def trainer(job: Job, run: Run, recorder: Recorder) -> Trainer:
    """TRL's SFTTrainer on rows that are tokenised and marked already."""
    spec, loaded = job.recipe.training, job.loaded
    if spec.padding_free:
        packed_attention.install(loaded.model)
    if spec.torch_compile:
        compilation.install(loaded.model)
    made = Trainer(
        job.recipe,
        Collator(job.recipe, loaded.tokenizer.pad_token_id),
        plain_head=loaded.plain_head,
        model=loaded.model,
        args=one_gpu(
            SFTConfig(
                **arguments(job, run),
                activation_offloading=spec.activation_offloading,
                max_length=None,
                dataset_kwargs={"skip_prepare_dataset": True},
            )
        ),
        train_dataset=job.rows.train,
        eval_dataset=job.rows.eval,
        processing_class=loaded.tokenizer,
        callbacks=[recorder],
        optimizers=(own_optimizer(loaded.model, job.recipe), None),
    )
    made.remove_callback(PrinterCallback)
    return made


def _batches(recipe: TrainRecipe, rows: data.Rows) -> int:
    return len(Batches(lengths(rows.train), recipe))


METHOD = Method(learned_rows, _batches, trainer)
