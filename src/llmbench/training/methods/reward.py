"""A reward model: a head of one number on the base, which says how good an answer is. Not a chat model; vLLM serves none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import PrinterCallback
from trl import RewardConfig, RewardTrainer  # type: ignore[attr-defined]

from llmbench.runs import Run
from llmbench.training.loop.record import Recorder
from llmbench.training.methods.arguments import one_gpu
from llmbench.training.methods.judged import Judged, parts, rate, settings
from llmbench.training.methods.method import Method, judged_rows, rows_by_batch

if TYPE_CHECKING:
    from llmbench.training.job import Job

__all__ = ["METHOD"]


class Trainer(Judged, RewardTrainer):
    """TRL's RewardTrainer on our rows."""


def trainer(job: Job, run: Run, recorder: Recorder) -> Trainer:
    """TRL's RewardTrainer on pairs that are tokenised already."""
    spec, training = job.recipe.reward, job.recipe.training
    assert spec is not None
    made = Trainer(
        job.recipe,
        **parts(job, recorder),
        args=one_gpu(
            RewardConfig(
                **settings(job, run),
                **spec.model_dump(),
                max_length=None,
                pad_to_multiple_of=training.pad_to_multiple_of,
            )
        ),
    )
    made.remove_callback(PrinterCallback)
    return made


def _plan(job: Job) -> list[str]:
    return [
        f"  method  pairs scored by a head with a single output, {rate(job)}",
        "  note    a reward model does not generate text and cannot be served; use it to score answers or in training",
    ]


METHOD = Method(judged_rows, rows_by_batch, trainer, _plan)
