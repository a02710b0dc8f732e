"""Direct preference optimisation: of two answers the chosen one becomes likelier than the reference has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer  # type: ignore[attr-defined]

from llmbench.runs import Run
from llmbench.training.loop.record import Recorder
from llmbench.training.methods.arguments import one_gpu
from llmbench.training.methods.judged import Judged, against, parts, rate, reference, settings
from llmbench.training.methods.method import Method, judged_rows, rows_by_batch

if TYPE_CHECKING:
    from llmbench.training.job import Job

__all__ = ["METHOD"]


class Trainer(Judged, DPOTrainer):
    """TRL's DPOTrainer on our rows."""


def trainer(job: Job, run: Run, recorder: Recorder) -> Trainer:
    """TRL's DPOTrainer on pairs that are tokenised already, against the model that is started from."""
    spec, training = job.recipe.dpo, job.recipe.training
    assert spec is not None
    made = Trainer(
        job.recipe,
        **parts(job, recorder),
        ref_model=reference(job),
        args=one_gpu(
            DPOConfig(
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
    spec = job.recipe.dpo
    assert spec is not None
    weights = spec.loss_weights or [1.0] * len(spec.loss_type)
    losses = [f"{weight:g} x {name}" if weight != 1 else name for name, weight in zip(spec.loss_type, weights, strict=True)]
    return [f"  method  loss {' + '.join(losses)}, beta {spec.beta:g}, {rate(job)}", against(job)]


METHOD = Method(judged_rows, rows_by_batch, trainer, _plan)
