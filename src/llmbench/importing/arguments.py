"""The settings that transformers' TrainingArguments names, which LLaMA-Factory, TRL and Unsloth take as they are."""

from __future__ import annotations

import re
from typing import Any

from llmbench.importing.draft import Draft
from llmbench.importing.places import found, seen_from

__all__ = [
    "DROPPED",
    "attention",
    "clip",
    "compiled",
    "devices",
    "folder",
    "model",
    "optimizer",
    "precision",
    "remote_code",
    "run_name",
    "scheduler",
    "tracked_project",
    "trackers",
    "training",
    "warmup",
]

_SAME = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps", "lr_scheduler_kwargs",
    "save_total_limit", "seed", "adam_beta2", "per_device_eval_batch_size", "learning_rate", "weight_decay",
)  # fmt: skip
_WHOLE = {
    "per_device_train_batch_size", "gradient_accumulation_steps", "max_steps", "save_total_limit", "seed",
    "per_device_eval_batch_size",
}  # fmt: skip
_OPTIMIZERS = {
    "adamw_torch_fused", "adamw_torch", "adamw_8bit", "paged_adamw_8bit", "lion_8bit", "muon", "adafactor", "sgd",
}  # fmt: skip
_SAME_OPTIMIZER = {
    "adamw_bnb_8bit": ("adamw_8bit", "the same optimizer under its other name"),
    "paged_adamw": ("adamw_torch", "the same updates; there its states may move to the machine's memory"),
    "paged_adamw_32bit": ("adamw_torch", "the same updates; there its states may move to the machine's memory"),
    "adamw_apex_fused": ("adamw_torch_fused", "the same updates by another kernel"),
    "paged_lion_8bit": ("lion_8bit", "the same updates; there its states may move to the machine's memory"),
}
_NEAREST = {
    "adamw_torch_8bit": "adamw_8bit", "adamw_torch_4bit": "adamw_8bit", "lion_32bit": "lion_8bit", "lion": "lion_8bit",
    "paged_lion_32bit": "lion_8bit", "rmsprop": "adamw_torch_fused", "ademamix_8bit": "adamw_8bit",
}  # fmt: skip
_SCHEDULERS = {
    "linear", "cosine", "cosine_with_min_lr", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt",
    "warmup_stable_decay",
}  # fmt: skip
_SPEED = "speed of reading only"
_LOOKS = "what is shown while it trains"
_WHERE = "where and how results are kept: llmbench keeps them in the run's folder"
_TRACKER = "llmbench keeps the metrics in the run's folder (llmbench runs NAME)"
_DEVICES = "llmbench trains on one device"

DROPPED = {
    **dict.fromkeys(
        ("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers", "dataloader_prefetch_factor",
         "preprocessing_num_workers", "dataset_num_proc", "overwrite_cache", "preprocessing_batch_size"), _SPEED),
    **dict.fromkeys(
        ("logging_first_step", "logging_strategy", "log_level", "disable_tqdm", "plot_loss", "logging_nan_inf_filter",
         "log_completions", "num_completions_to_print", "include_num_input_tokens_seen", "include_tokens_per_second"), _LOOKS),
    **dict.fromkeys(
        ("report_to", "run_name", "logging_dir", "project", "trackio_space_id", "use_swanlab", "swanlab_project",
         "swanlab_run_name", "swanlab_mode"), _TRACKER),
    **dict.fromkeys(
        ("overwrite_output_dir", "save_only_model", "save_safetensors", "save_on_each_node", "save_strategy"), _WHERE),
    **dict.fromkeys(("push_to_hub", "hub_model_id", "hub_token", "hub_private_repo", "hub_strategy"),
                    "llmbench uploads nothing"),
    **dict.fromkeys(
        ("ddp_timeout", "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_backend", "local_rank", "ray_num_workers",
         "ray_run_name", "deepspeed_config"), _DEVICES),
    **dict.fromkeys(("do_train", "do_eval", "do_predict", "predict_with_generate", "compute_accuracy", "prediction_loss_only"),
                    "llmbench trains, and evaluates where the recipe holds rows out"),
    "resume_from_checkpoint": "llmbench train --resume-from-checkpoint continues a run",
    "remove_unused_columns": "llmbench takes the columns that it needs",
    "no_remove_unused_columns": "llmbench takes the columns that it needs",
    "gradient_checkpointing_kwargs": "how activations are computed again changes no gradient",
    "torch_empty_cache_steps": "memory only",
    "eval_accumulation_steps": "memory only",
    "auto_find_batch_size": "llmbench check says which batch fits",
    "fp16_full_eval": "precision of evaluations only", "bf16_full_eval": "precision of evaluations only",
    "tf32": "speed on the GPU; PyTorch's own setting stays",
    "use_cache": "generation only",
}  # fmt: skip
"""Keys without effect on what is trained, each with the reason."""


def training(draft: Draft) -> None:
    """Takes the settings of the optimisation that keep their name."""
    for key in _SAME:
        if not draft.has(key):
            continue
        value = draft.get(key) if key == "lr_scheduler_kwargs" else (draft.whole if key in _WHOLE else draft.number)(key)
        if key == "max_steps" and isinstance(value, int) and value < 1:
            draft.keep(key, "training.max_steps", -1, "by epochs")
        elif key == "lr_scheduler_kwargs" and not isinstance(value, dict):
            draft.fault(key, "should be a section of `key: value` lines")
        else:
            draft.keep(key, f"training.{key}", value)
    if draft.has("max_grad_norm"):
        clip(draft, "max_grad_norm")
    if draft.has("lr_scheduler_type"):
        scheduler(draft, "lr_scheduler_type")
    if draft.has("optim"):
        optimizer(draft, "optim")
    warmup(draft)
    for key in ("adam_beta1", "adam_epsilon"):
        usual = {"adam_beta1": 0.9, "adam_epsilon": 1e-8}[key]
        if draft.has(key) and draft.number(key) == usual:
            draft.drop(key, "is what llmbench takes")
        elif draft.has(key):
            draft.refuse(key, f"no field for it; llmbench takes {usual:g}")
    compiled(draft, "torch_compile")
    for key in ("use_liger_kernel", "gradient_checkpointing", "activation_offloading"):
        if draft.has(key):
            draft.keep(key, f"training.{key}", draft.flag(key))
    if draft.has("neftune_noise_alpha") and draft.number("neftune_noise_alpha"):
        draft.refuse("neftune_noise_alpha", "llmbench adds no noise to embeddings")
    if draft.flag("group_by_length"):
        draft.drop(
            "group_by_length", "llmbench orders a batch's rows by length itself; set training.max_tokens_per_batch to use it"
        )
    for key in ("deepspeed", "fsdp", "fsdp_config"):
        if draft.has(key):
            devices(draft, key)
    if draft.get("data_seed") not in (None, draft.get("seed")):
        draft.refuse("data_seed", "one seed is for all: training.seed")


def compiled(draft: Draft, key: str) -> None:
    """Whether the model is compiled, which changes its speed only and works here with sft and pretrain alone."""
    if not draft.has(key):
        return
    if draft.flag(key) and draft.recipe["method"] not in ("sft", "pretrain"):
        draft.drop(key, f"speed only; llmbench does not compile with method: {draft.recipe['method']}")
    else:
        draft.keep(key, "training.torch_compile", draft.flag(key))


def devices(draft: Draft, key: str) -> None:
    """A setting that says that several devices share the work."""
    draft.refuse(
        key, f"{_DEVICES}: if that was N devices, multiply training.gradient_accumulation_steps by N for the same batch"
    )


def clip(draft: Draft, key: str) -> None:
    """The gradient's largest norm; 0 leaves gradients as they are, which a very large one does here."""
    value = draft.number(key)
    if value:
        draft.keep(key, "training.max_grad_norm", float(value))
    else:
        draft.keep(key, "training.max_grad_norm", 1e9, "clips nothing")


def warmup(draft: Draft, ratio: str = "warmup_ratio", steps: str = "warmup_steps") -> None:
    """Steps, or a share of all steps below 1; steps win over the share, as in transformers."""
    if draft.has(steps) and draft.number(steps):
        draft.keep(steps, "training.warmup_steps", draft.number(steps))
        draft.drop(ratio, f"{steps} wins over it")
    elif draft.has(ratio):
        value = draft.number(ratio)
        if isinstance(value, int | float) and not 0 <= value < 1:
            draft.fault(ratio, f"is a share of all steps from 0 to below 1, not {value}")
        else:
            draft.keep(ratio, "training.warmup_steps", value, "a share of all steps" if value else "")
    elif draft.has(steps):
        draft.keep(steps, "training.warmup_steps", 0)


def optimizer(draft: Draft, key: str) -> None:
    """The optimizer by its name of transformers."""
    name = str(draft.text(key)).removeprefix("OptimizerNames.").lower()
    if name in _OPTIMIZERS:
        draft.keep(key, "training.optim", name)
    elif name in _SAME_OPTIMIZER:
        draft.keep(key, "training.optim", *_SAME_OPTIMIZER[name])
    else:
        near = _NEAREST.get(name, "adamw_torch_fused")
        draft.refuse(key, f"llmbench has no {name}; the nearest is {near}", "training.optim", near)


def scheduler(draft: Draft, key: str, kwargs: str = "lr_scheduler_kwargs") -> None:
    """The schedule by its name of transformers."""
    name = str(draft.text(key)).removeprefix("SchedulerType.").lower()
    given = draft.get(kwargs)
    cycles = given.get("num_cycles", 1) if isinstance(given, dict) else 1
    if name in _SCHEDULERS:
        draft.keep(key, "training.lr_scheduler_type", name)
    elif name == "cosine_with_restarts" and cycles == 1:
        draft.keep(key, "training.lr_scheduler_type", "cosine", "one cycle, so without a restart")
        draft.recipe.get("training", {}).pop("lr_scheduler_kwargs", None)
    else:
        near = "constant_with_warmup" if name == "reduce_lr_on_plateau" else "cosine"
        draft.refuse(key, f"llmbench has no schedule {name}; the nearest is {near}", "training.lr_scheduler_type", near)
        draft.recipe.get("training", {}).pop("lr_scheduler_kwargs", None)


def precision(draft: Draft, bf16: str = "bf16", fp16: str = "fp16") -> None:
    """`bf16` and `fp16` as the precision of the computation."""
    if draft.get(bf16) == "auto":
        draft.keep(bf16, "model.dtype", "auto", "bfloat16 where the hardware has it")
        draft.drop(fp16, "bf16 wins over it")
    elif draft.has(bf16) and (draft.get(bf16) == "full" or draft.flag(bf16)):
        draft.keep(bf16, "model.dtype", "bfloat16")
        draft.drop(fp16, "bf16 wins over it")
    elif draft.has(fp16) and draft.flag(fp16):
        draft.keep(fp16, "model.dtype", "float16")
        draft.drop(bf16, "fp16 wins over it")
    elif draft.has(bf16) or draft.has(fp16):
        key = bf16 if draft.has(bf16) else fp16
        draft.keep(key, "model.dtype", "float32", "neither bfloat16 nor float16")
        draft.drop(fp16 if key == bf16 else bf16, "both are off")


def attention(draft: Draft, key: str, names: dict[str, str | None]) -> None:
    """The implementation of attention; None for a value that leaves the choice open."""
    value = str(draft.text(key))
    if value in names:
        chosen = names[value]
        if chosen is None:
            draft.drop(key, "llmbench chooses")
        else:
            draft.keep(key, "model.attn_implementation", chosen)
    elif set(value) & set("/:|"):
        draft.refuse(
            key, "kernels from a hub are code, which llmbench does not load without a pinned revision; it chooses itself"
        )
    else:
        draft.refuse(key, f"llmbench has no attention {value}; it chooses itself")


def folder(draft: Draft, key: str, ours: str, name: str | None = None) -> None:
    """A model or an adapter: its folder as the recipe sees it if it is on this machine, else the name as it stands.

    Args:
        draft: the recipe in the making.
        key: the setting that names it.
        ours: the field of the recipe.
        name: the name, where the value of `key` is more than that.
    """
    given = str(draft.text(key)) if name is None else name
    path = found(given, draft.foreign.path.absolute().parent)
    draft.keep(key, ours, seen_from(path, draft.into) if path else given)


def model(draft: Draft, key: str, revision: str | None = None) -> bool:
    """The model that is trained, with its revision; whether the file names one."""
    if not draft.has(key):
        draft.fail(key, "is missing, and names the model")
        return False
    folder(draft, key, "model.model_name_or_path")
    if revision is not None:
        if draft.get(revision, "main") != "main":
            draft.keep(revision, "model.revision", draft.text(revision))
        draft.drop(revision, "is the newest, as without it")
    remote_code(draft)
    return True


def remote_code(draft: Draft, key: str = "trust_remote_code") -> None:
    """Never carried over: it would run whatever the model's repository holds on that day."""
    if draft.has(key) and draft.flag(key):
        draft.drop(
            key,
            "not carried over, since it runs the model's own code. Most models need none; for one that does, set "
            "model.trust_remote_code and pin model.revision to a commit",
        )
    else:
        draft.drop(key, "llmbench runs no model's own code unless told to")


_TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}")


def trackers(draft: Draft, key: str = "report_to", project: str = "project") -> None:
    """`report_to` as the recipe's `tracking`; `all` and trackers that llmbench has not are told."""
    if not draft.has(key):
        draft.drop(project, "no tracker is asked for")
        return
    names = [name.lower() for name in draft.words(key)]
    known = [name for name in dict.fromkeys(names) if name in _TRACKERS]
    others = [name for name in names if name not in (*_TRACKERS, "none")]
    if known:
        draft.keep(key, "tracking.to", known, f"not {', '.join(others)}: {_TRACKER}" if others else "")
        tracked_project(draft, project)
    else:
        draft.drop(key, _TRACKER)


def tracked_project(draft: Draft, key: str) -> None:
    """The trackers' project, where its name is one that all of them take."""
    if draft.has(key) and _PROJECT.fullmatch(str(draft.text(key))):
        draft.keep(key, "tracking.project", str(draft.text(key)))
    else:
        draft.drop(key, "tracking.project is llmbench's own")


_COMMON = {
    "",
    ".",
    "..",
    "out",
    "output",
    "outputs",
    "saves",
    "results",
    "tmp",
    "runs",
    "checkpoints",
    "torchtune",
    "workspace",
}


def run_name(draft: Draft, key: str, otherwise: str) -> None:
    """The run's name from the folder of results, in the characters that a name may have."""
    given: Any = draft.get(key)
    path = str(given) if given is not None else ""
    parts = [part for part in path.replace("\\", "/").split("/") if part.lower() not in _COMMON and "$" not in part]
    name = _fit("-".join(parts[-3:])) or _fit(otherwise) or "imported"
    if given is None:
        draft.put("name", name)
    else:
        draft.keep(key, "name", name)


def _fit(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("._-")[:64].strip("._-")
