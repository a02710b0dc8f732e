"""Kahneman-Tversky optimisation: single answers marked good or bad, measured against the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback
from trl import KTOConfig, KTOTrainer  # type: ignore[attr-defined]

from llmbench.recipe import KtoSpec
from llmbench.runs import Run
from llmbench.training.loop.record import Recorder
from llmbench.training.methods.arguments import one_gpu
from llmbench.training.methods.judged import Judged, against, parts, rate, reference, settings
from llmbench.training.methods.method import Method, judged_rows, rows_by_batch

if TYPE_CHECKING:
    from llmbench.training.job import Job

__all__ = ["METHOD"]


class Trainer(Judged, KTOTrainer):
    """TRL's KTOTrainer on our rows."""


def trainer(job: Job, run: Run, recorder: Recorder) -> Trainer:
    """TRL's KTOTrainer on answers that are tokenised already, against the model that is started from."""
    spec, training = job.recipe.kto, job.recipe.training
    assert spec is not None
    given = parts(job, recorder)
    if spec.loss_type == "kto":
        given["train_dataset"] = _with_neighbours(given["train_dataset"], training.per_device_train_batch_size)
        if given["eval_dataset"] is not None:
            given["eval_dataset"] = _with_neighbours(given["eval_dataset"], training.per_device_eval_batch_size)
    made = Trainer(
        job.recipe,
        **given,
        ref_model=reference(job),
        args=one_gpu(
            KTOConfig(
                **settings(job, run) | {"train_sampling_strategy": "sequential"},
                **spec.model_dump(),
                max_length=None,
                pad_to_multiple_of=training.pad_to_multiple_of,
            )
        ),
    )
    made.remove_callback(PrinterCallback)
    return made


def _with_neighbours(rows: Any, size: int) -> Any:
    """Adds `KL_completion_ids`: within each batch, the answer of the row before, to a prompt that it does not belong to.

    The KL between model and reference is estimated on these. The rows are shuffled once, when they are read, and keep
    their order, or a batch would be measured on other rows than its own.
    """
    answers = rows["completion_ids"][:]
    moved = [answers[i - 1] if i % size else answers[min(i + size, len(answers)) - 1] for i in range(len(answers))]
    return rows.add_column("KL_completion_ids", moved)


def _plan(job: Job) -> list[str]:
    spec = job.recipe.kto
    assert spec is not None
    return [f"  method  {spec.loss_type}, beta {spec.beta:g}, {rate(job)}", against(job), *_balance(job, spec)]


def _balance(job: Job, spec: KtoSpec) -> list[str]:
    """How many answers are good and bad, and a word where the weights do not make up for it (eq. 8 of arXiv 2402.01306)."""
    labels = job.rows.train["label"][:]
    good = sum(labels)
    bad = len(labels) - good
    found = [f"  labels  {good:,} good, {bad:,} bad"]
    ratio = spec.desirable_weight * good / (spec.undesirable_weight * bad)
    if not 1 / 1.34 <= ratio <= 1.34:
        rarer = "desirable_weight" if good < bad else "undesirable_weight"
        weight = spec.undesirable_weight * bad / good if good < bad else spec.desirable_weight * good / bad
        more = max(ratio, 1 / ratio)
        found.append(
            f"  note    one label is {more:.1f} times as frequent as the other: kto.{rarer}={weight:.2f} balances them"
        )
    return found


METHOD = Method(judged_rows, rows_by_batch, trainer, _plan)
