"""Odds-ratio preference optimisation: learns the chosen answer and away from the rejected one at once, without a reference."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal

import torch
from transformers import PrinterCallback
from trl.import_utils import TRLExperimentalWarning

from llmbench.borrowed import usable
from llmbench.runs import Run
from llmbench.training.kernels import fused_head, patches
from llmbench.training.loop.record import Recorder
from llmbench.training.methods.arguments import one_gpu
from llmbench.training.methods.judged import Judged, parts, rate, settings
from llmbench.training.methods.method import Method, judged_rows, rows_by_batch
from llmbench.training.methods.together import counted

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TRLExperimentalWarning)  # it may change in another version; ours is pinned
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

if TYPE_CHECKING:
    from llmbench.training.job import Job

__all__ = ["METHOD"]


class Trainer(Judged, ORPOTrainer):
    """TRL's ORPOTrainer on our rows."""

    accelerator: Any
    figures = "_stored_metrics"

    def measured(self, logs: dict[str, float]) -> Literal["train", "eval"]:
        """Which figures TRL is about to log."""
        return "train" if "loss" in logs else "eval"

    def install_heads(self) -> None:
        """TRL gives no fused head to a model that ORPO trains."""
        fused_head.install(self.model, ("log_probs", "mean_logits"))
        super().install_heads()

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

    def concatenated_forward(self, model: Any, batch: dict[str, Any]) -> Any:
        """Mean log-probabilities of the chosen and the rejected answers, their mean logits, the loss of the chosen rows.

        TRL keeps the logits of every position, in several copies. Here the positions that count are scored in chunks. The mean
        logits, which are only logged, are those of the answers; TRL's are of prompts and padding too.
        """
        if not usable(patches.ORPO_FORWARD):
            return super().concatenated_forward(model, batch)
        both = self.concatenated_inputs(batch, padding_value=self.padding_value, device=self.accelerator.device)
        ids, mask, answers = (both[f"concatenated_{name}"] for name in ("input_ids", "attention_mask", "labels"))
        chosen = len(batch["chosen_labels"])
        labels = torch.cat([ids[:chosen].masked_fill(mask[:chosen] == 0, -100), answers[chosen:]])
        balanced = {"output_router_logits": True} if self.aux_loss_enabled else {}
        out = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True, **balanced)
        learned = answers[:, 1:] != -100
        scores, logits = (x[:, -learned.shape[1] :] for x in (out.log_probs, out.mean_logits))  # prompt tuning puts more before
        means = (scores * learned).sum(1) / learned.sum(1)
        loss = -scores[:chosen].sum() / (labels[:chosen, 1:] != -100).sum()
        seen = (logits[:chosen][learned[:chosen]], logits[chosen:][learned[chosen:]])
        return means[:chosen], means[chosen:], *seen, loss, *([out.aux_loss] if self.aux_loss_enabled else [])

    def _track_num_input_tokens(self, inputs: dict[str, Any]) -> None:
        """Both answers with their prompts count; transformers looks for one `input_ids`."""
        inputs = counted(inputs)
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
