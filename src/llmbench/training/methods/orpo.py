"""Odds-ratio preference optimisation: learns the chosen answer and away from the rejected one at once, without a reference."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback
from trl.import_utils import TRLExperimentalWarning

from llmbench.runs import Run
from llmbench.training.loop.record import Recorder
from llmbench.training.methods.arguments import one_gpu
from llmbench.training.methods.judged import Judged, parts, rate, settings
from llmbench.training.methods.method import Method, judged_rows, rows_by_batch

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TRLExperimentalWarning)  # it may change in another version; ours is pinned
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

if TYPE_CHECKING:
    from llmbench.training.job import Job

__all__ = ["METHOD"]


class Trainer(Judged, ORPOTrainer):
    """TRL's ORPOTrainer on our rows."""

    accelerator: Any

    @staticmethod
    def tokenize_row(feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
        """TRL's columns for a row that is tokenised already; the labels of a prompt are left out of the odds."""
        prompt = feature["prompt_ids"]
        row = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for side in ("chosen", "rejected"):
            answer = feature[f"{side}_ids"]
            row[f"{side}_input_ids"] = prompt + answer
            row[f"{side}_attention_mask"] = [1] * (len(prompt) + len(answer))
            row[f"{side}_labels"] = [-100] * len(prompt) + answer
        return row

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """Both answers with their prompts count; transformers looks for one `input_ids`."""
        tokens = inputs["chosen_attention_mask"].sum() + inputs["rejected_attention_mask"].sum()
        self.state.num_input_tokens_seen += int(self.accelerator.gather(tokens).sum())


def trainer(job: Job, run: Run, recorder: Recorder) -> Trainer:
    """TRL's ORPOTrainer on pairs that are tokenised already."""
    spec = job.recipe.orpo
    assert spec is not None
    made = Trainer(
        job.recipe,
        **parts(job, recorder),
        args=one_gpu(
            ORPOConfig(
                **settings(job, run),
                **spec.model_dump(),
                max_length=job.recipe.data.max_length,
                remove_unused_columns=False,
            )
        ),
    )
    made.remove_callback(PrinterCallback)
    return made


def _plan(job: Job) -> list[str]:
    spec = job.recipe.orpo
    assert spec is not None
    return [f"  method  beta {spec.beta:g}, {rate(job)}; no reference"]


METHOD = Method(judged_rows, rows_by_batch, trainer, _plan)
