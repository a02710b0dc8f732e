"""The recipe's words as the TrainingArguments that every one of TRL's trainers takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from llmbench.runs import Run
from llmbench.training.distributed import ranks

if TYPE_CHECKING:
    from llmbench.training.job import Job

__all__ = ["arguments", "one_gpu"]


def arguments(job: Job, run: Run) -> dict[str, Any]:
    """Keyword arguments for SFTConfig, DPOConfig and their like."""
    spec, loaded = job.recipe.training, job.loaded
    return {
        "output_dir": str(run.checkpoints),
        "num_train_epochs": spec.num_train_epochs,
        "max_steps": spec.max_steps,
        "per_device_train_batch_size": spec.per_device_train_batch_size,
        "per_device_eval_batch_size": spec.per_device_eval_batch_size,
        "gradient_accumulation_steps": spec.gradient_accumulation_steps // ranks.current().world,
        "average_tokens_across_devices": True,
        "learning_rate": spec.learning_rate,
        "lr_scheduler_type": spec.lr_scheduler_type,
        "lr_scheduler_kwargs": _scheduler_kwargs(spec.lr_scheduler_kwargs, job.steps),
        "warmup_steps": spec.warmup_steps,
        "weight_decay": spec.weight_decay,
        "max_grad_norm": spec.max_grad_norm,
        "optim": "adamw_torch" if spec.optim == "muon" else spec.optim,
        "adam_beta2": spec.adam_beta2,
        _checkpointing(): spec.gradient_checkpointing,
        "use_liger_kernel": spec.use_liger_kernel,
        "logging_steps": spec.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if job.rows.eval is not None and spec.eval_steps else "no",
        "eval_steps": spec.eval_steps,
        "save_steps": spec.save_steps,
        "seed": spec.seed,
        "bf16": loaded.dtype == torch.bfloat16,
        "fp16": loaded.dtype == torch.float16,
        "use_cpu": loaded.device == "cpu",
        "include_num_input_tokens_seen": "non_padding",
        "report_to": [],
        "disable_tqdm": True,
    }


def _checkpointing() -> str:
    """The argument that recomputes activations: transformers 5.24 has a new name for it, and warns of the old one."""
    from transformers import TrainingArguments

    new = "activation_checkpointing"
    return new if hasattr(TrainingArguments, new) else "gradient_checkpointing"


def one_gpu(values: Any) -> Any:
    """The same arguments, for one GPU where several are visible: one process trains on one, torchrun starts one for each."""
    if not values.use_cpu:
        values._n_gpu = 1
    return values


def _scheduler_kwargs(values: dict[str, Any], steps: int) -> dict[str, Any]:
    """The scheduler's settings, a share of the steps made a number of steps."""
    share = values.get("num_decay_steps")
    return {**values, "num_decay_steps": round(share * steps)} if isinstance(share, float) and share < 1 else dict(values)
