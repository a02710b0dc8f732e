"""Unsloth: options of unsloth-cli.py, a file for `unsloth train`, and the literal arguments of a script or notebook."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmbench.importing import arguments, cadence, sources
from llmbench.importing.draft import Draft
from llmbench.importing.foreign import Foreign
from llmbench.importing.rewards import FIELDS, functions
from llmbench.importing.trl import preferences

__all__ = ["PEER", "draft"]

PEER = "Unsloth"
_SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_DROPPED = {
    **arguments.DROPPED,
    **dict.fromkeys(("save_model", "save_method", "save_gguf", "save_path", "quantization", "push_model", "push_gguf",
    "hub_path",
                     "adapter_file"), "llmbench saves the adapter; llmbench merge writes a whole model"),
    **dict.fromkeys(("enable_wandb", "wandb_project", "wandb_token", "enable_tensorboard", "tensorboard_dir"),
    arguments.DROPPED["report_to"]),
    **dict.fromkeys(("token", "hf_token", "device_map", "fast_inference", "gpu_memory_utilization", "max_lora_rank",
    "unsloth_tiled_mlp",
                     "float8_kv_cache", "rope_scaling"), "how the model is loaded there"),
    **dict.fromkeys(("finetune_vision_layers", "vision_all_linear"), "text models only"),
    "chat_template": "llmbench writes rows with the model's own chat template; a base without one needs data.chat_template",
    "random_state": "one seed is for all: training.seed", "bias": "biases stay as they are, as here",
    "dataset_text_field": "the script makes that column; llmbench makes it of the rows with the chat template",
    "dtype": "bf16 and fp16 say how it computes", "loftq_config": "is off", "use_loftq": "is off",
    "padding_free": "llmbench chooses",
    "config_class": "whose defaults hold", "max_prompt_length": "prompt and answer share data.max_length",
    "max_length": "max_seq_length says it", "eval_strategy": "no rows are held out",
    "eval_dataset": "set data.eval or data.eval_fraction",
}  # fmt: skip
_TRAIN = {
    "model_name": "model", "r": "lora_r", "per_device_train_batch_size": "batch_size", "num_train_epochs": "num_epochs",
    "seed": "random_seed", "use_gradient_checkpointing": "gradient_checkpointing",
}  # fmt: skip
"""The words of `unsloth train` where they are not those of the scripts."""
_ALPACA = (
    "the program writes Alpaca's own prompt text around the columns; llmbench writes them as turns of the model's chat template"
)
_PATCHED: Mapping[str, Any] = {
    "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 5e-5, "weight_decay": 0.001,
    "warmup_steps": 0.1, "lr_scheduler_type": "linear", "optim": "adamw_8bit", "num_train_epochs": 3.0, "seed": 3407,
    "logging_steps": 1,
}  # fmt: skip
"""What Unsloth makes of the defaults of TRL's SFTConfig and its like."""
_PLAIN: Mapping[str, Any] = {"learning_rate": 5e-5, "lr_scheduler_type": "linear", "warmup_steps": 0, "num_train_epochs": 3.0}
"""Defaults of transformers' TrainingArguments, which Unsloth leaves alone."""
_CLI: Mapping[str, Any] = {
    "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "learning_rate": 2e-4, "weight_decay": 0.01,
    "warmup_steps": 5, "lr_scheduler_type": "linear", "optim": "adamw_8bit", "max_steps": 400, "seed": 3407, "logging_steps": 1,
}  # fmt: skip
_CONFIG: Mapping[str, Any] = {
    "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "learning_rate": 2e-4, "weight_decay": 0.01,
    "warmup_steps": 5, "lr_scheduler_type": "linear", "optim": "adamw_8bit", "num_train_epochs": 3.0, "seed": 3407,
}  # fmt: skip


def draft(foreign: Foreign, into: Path) -> Draft:
    """What becomes of a configuration.

    Args:
        foreign: the file; its `command` says of which kind it is.
        into: the folder of the recipe.
    """
    kind = foreign.command or "unsloth train"
    flat = _flat(foreign) if kind == "unsloth train" else foreign
    words = _TRAIN if kind == "unsloth train" else {}
    made = Draft(PEER, flat, into)
    arguments.run_name(made, "output_dir", foreign.path.stem)
    _method(made, kind)
    _model(made, words)
    _lora(made, words, kind)
    _data(made, kind)
    _training(made, words)
    defaults = {"unsloth cli": _CLI, "unsloth train": _CONFIG}.get(kind)
    if defaults is None:
        defaults = _PLAIN if made.get("config_class") == "TrainingArguments" else _PATCHED
    for name, value in defaults.items():
        made.default(words.get(name, name), value, f"training.{name}")
    arguments.trackers(made)
    chosen = [name for name in ("wandb", "tensorboard") if made.flag(f"enable_{name}")]
    for name in chosen:
        made.keep(f"enable_{name}", "tracking.to", chosen)
    if "wandb" in chosen:
        arguments.tracked_project(made, "wandb_project")
    cadence.kept(made)
    made.finish(_DROPPED)
    return made


def _flat(foreign: Foreign) -> Foreign:
    """The sections of a configuration for `unsloth train` as one; no word stands in two of them."""
    values: dict[str, Any] = {}
    lines = dict(foreign.lines)
    for key, value in foreign.values.items():
        for inner, one in (value if isinstance(value, dict) else {key: value}).items():
            values[inner] = one
            if isinstance(value, dict):
                lines[(inner,)] = foreign.lines.get((key, inner), 1)
    return replace(foreign, values=values, lines=lines)


def _method(made: Draft, kind: str) -> None:
    method = "sft"
    named = str(made.get("config_class", ""))
    for word in ("DPO", "ORPO", "KTO", "GRPO", "Reward"):
        if named.startswith(word):
            method = word.lower()
    if made.get("format_type") == "raw":
        method = "pretrain"
    made.put("method", method)
    preferences(made, method)
    if method == "grpo":
        functions(made, "", made.values)
        for key in FIELDS:
            made.has(key)


def _model(made: Draft, words: Mapping[str, str]) -> None:
    key = words.get("model_name", "model_name")
    name = made.text(key, "unsloth/llama-3-8b" if made.foreign.command == "unsloth cli" else None)
    if name is None:
        made.fail(key, "is missing, and names the model")
        return
    if made.has(key):
        arguments.folder(made, key, "model.model_name_or_path")
    else:
        made.default(key, name, "model.model_name_or_path")
    arguments.remote_code(made)
    if made.has("bf16") or made.has("fp16"):
        arguments.precision(made)
    if made.has("max_seq_length"):
        made.keep("max_seq_length", "data.max_length", made.whole("max_seq_length"))
    elif made.has("max_length"):
        made.keep("max_length", "data.max_length", made.whole("max_length"))
    made.default("max_seq_length", 2048, "data.max_length")
    method = made.recipe["method"]
    over = "drop" if method in ("reward", "grpo") else "split" if method == "pretrain" else "truncate"
    made.default("rows over max_seq_length", "cut", "data.over_length", over, "Unsloth cuts rows that are longer")


def _lora(made: Draft, words: Mapping[str, str], kind: str) -> None:
    full = made.flag("full_finetuning") or made.get("training_type") == "full"
    if made.has("full_finetuning"):
        made.tell("full_finetuning", "lora", None if full else "a section")
    if made.has("training_type"):
        made.tell("training_type", "lora", None if full else "a section")
    if full:
        made.put("lora", None)
        return
    made.put("lora", {})
    rank = 64 if kind == "unsloth train" else 16
    key = words.get("r", "r")
    if made.has(key):
        made.keep(key, "lora.r", made.whole(key))
    made.default(key, rank, "lora.r")
    if made.has("lora_alpha"):
        made.keep("lora_alpha", "lora.lora_alpha", made.number("lora_alpha"))
    made.default("lora_alpha", 16, "lora.lora_alpha")
    if made.has("lora_dropout"):
        made.keep("lora_dropout", "lora.lora_dropout", float(made.number("lora_dropout") or 0))
    if targets := made.words("target_modules"):
        made.keep("target_modules", "lora.target_modules", "all-linear" if targets == ["all-linear"] else targets)
    made.default("target_modules", _SEVEN, "lora.target_modules")
    if saved := made.words("modules_to_save"):
        made.keep("modules_to_save", "lora.modules_to_save", saved)
    for name in ("use_rslora", "use_dora"):
        if made.has(name):
            made.keep(name, f"lora.{name}", made.flag(name))
    for name in ("finetune_attention_modules", "finetune_mlp_modules", "finetune_language_layers"):
        if made.get(name) is False:
            made.refuse(name, "leave these layers out of lora.target_modules")
        else:
            made.drop(name, "all layers that lora.target_modules names")
    _bits(made, kind)


def _bits(made: Draft, kind: str) -> None:
    """Four bits unless the file says otherwise; unsloth-cli.py only when it says so."""
    published = any(word in str(made.set_to("model.model_name_or_path")) for word in ("bnb-4bit", "bnb-8bit"))
    if made.flag("load_in_8bit"):
        made.keep("load_in_8bit", "quantization.load_in_8bit", True)
    four = made.flag("load_in_4bit", kind != "unsloth cli") and not made.flag("load_in_8bit") and not made.flag("load_in_16bit")
    if published:
        made.drop("load_in_4bit", "the base is published so")
    elif four and made.has("load_in_4bit"):
        made.keep("load_in_4bit", "quantization.load_in_4bit", True)
    elif four:
        made.put("quantization", {})
        made.default("load_in_4bit", True, "quantization.load_in_4bit")
    for name in ("load_in_4bit", "load_in_8bit", "load_in_16bit"):
        if not made.flag(name):
            made.drop(name, "is off")
    made.drop("load_in_16bit", "the base is not quantised")


def _data(made: Draft, kind: str) -> None:
    method = made.recipe["method"]
    columns: dict[str, Any] = {}
    form = str(made.get("format_type", "auto"))
    if made.has("format_type"):
        columns = {"alpaca": {"format": "alpaca"}, "sharegpt": {"format": "sharegpt"}, "raw": {"format": "text"}}.get(form, {})
        made.tell("format_type", "data.train[].format", columns.get("format", "found out"))
    names = [name for key in ("dataset", "local_dataset") for name in made.words(key)]
    if kind == "unsloth script" and made.has("dataset_name"):
        source = sources.origin(made, str(made.text("dataset_name")), made.get("data_files"))
        if made.has("dataset_config") and "dataset" in source:
            source["name"] = str(made.text("dataset_config"))
        split = str(made.get("dataset_train_split", "train"))
        sources.add(made, source | ({} if split == "train" else {"split": split}) | columns)
        for key in ("dataset_name", "dataset_config", "dataset_train_split", "data_files"):
            if made.has(key):
                made.tell(key, "data.train[0]", made.recipe["data"]["train"][0])
        if made.has("map"):
            made.refuse(
                "map",
                "a function of the script reshapes the rows, which is not run: if they are no rows that llmbench reads, "
                "write it as formatting in data.train",
            )
    elif names or kind == "unsloth cli":
        for name in names or ["yahma/alpaca-cleaned"]:
            alpaca = {"format": "alpaca"} if kind == "unsloth cli" else columns
            sources.add(made, sources.origin(made, name) | alpaca)
        for key in ("dataset", "local_dataset"):
            if made.has(key):
                made.tell(key, "data.train", made.recipe["data"]["train"])
        if kind == "unsloth cli":
            made.note("dataset", names or "yahma/alpaca-cleaned", _ALPACA)
    else:
        made.fail("dataset", "is missing or computed, so there is nothing to train on; write data.train")
    if method == "sft":
        only = made.flag("train_on_responses_only") or made.flag("train_on_completions")
        key = "train_on_completions" if made.has("train_on_completions") else "train_on_responses_only"
        if made.has(key):
            made.keep(key, "data.train_on", "assistant" if only else "all")
        made.default(key, False, "data.train_on", "all", "Unsloth learns all tokens without train_on_responses_only")


def _training(made: Draft, words: Mapping[str, str]) -> None:
    for ours in ("per_device_train_batch_size", "num_train_epochs", "seed"):
        key = words.get(ours, ours)
        if key != ours and made.has(key):
            made.keep(key, f"training.{ours}", made.number(key))
    key = words.get("use_gradient_checkpointing", "use_gradient_checkpointing")
    if made.has(key):
        on = str(made.get(key)).lower() in ("unsloth", "true", "1", "yes")
        made.keep(key, "training.gradient_checkpointing", on)
    made.default(key, "unsloth", "training.gradient_checkpointing", True)
    given = dict(made.values)
    if key == "gradient_checkpointing":
        made.values.pop(key, None)
    if made.get("max_steps") == 0:
        made.keep("max_steps", "training.max_steps", -1, "by epochs")
        made.values.pop("max_steps")
    if made.get("save_steps") == 0:
        made.drop("save_steps", "is off there")
        made.values.pop("save_steps")
    arguments.training(made)
    made.values = given
    if made.has("packing"):
        made.keep("packing", "training.packing", made.flag("packing"))
