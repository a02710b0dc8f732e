"""torchtune: `tune run RECIPE --config FILE`, whose sections name components of its library."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from llmbench.importing import arguments
from llmbench.importing.draft import Draft
from llmbench.importing.foreign import Foreign
from llmbench.importing.places import found, seen_from
from llmbench.importing.torchtune_data import rows

__all__ = ["PEER", "draft"]

PEER = "torchtune"
_DROPPED = {
    **dict.fromkeys(("output_dir",), "the run's folder"),
    **dict.fromkeys(("resume_from_checkpoint", "save_adapter_weights_only", "save_every_n_steps", "keep_last_n_checkpoints",
    "save_last_epoch_only",
                     "enable_async_checkpointing", "epochs_to_save"),
                     "where and how results are kept: llmbench keeps them in the run's folder"),
    **dict.fromkeys(("log_peak_memory_stats", "log_level", "log_every_n_steps_eval", "profiler", "metric_logger"),
    "what is shown while it trains"),
    **dict.fromkeys(("device", "tensor_parallel_dim", "data_parallel_shard_dim", "fsdp_cpu_offload",
    "fsdp_reshard_after_forward",
                     "ac_mode", "ac_option", "custom_sharded_layers", "low_cpu_ram"),
                     "where it runs: llmbench trains on one device"),
    **dict.fromkeys(("optimizer_in_bwd", "use_output_mask", "cudnn_deterministic_mode", "compile_components"),
    "memory and speed only"),
    **dict.fromkeys(("loss", "collate_fn"), "llmbench's own loss: cross entropy of the tokens that are learned"),
    "tokenizer": "the model's own tokenizer and chat template", "batch_size_val": "evaluation only",
    "run_val_every_n_steps": "no rows are held out", "teacher_checkpointer": "distillation.teacher names it",
}  # fmt: skip
_OPTIMIZERS = {
    "adamw": "adamw_torch", "pagedadamw8bit": "paged_adamw_8bit", "adamw8bit": "adamw_8bit", "sgd": "sgd",
    "lion8bit": "lion_8bit",
    "pagedadamw": "adamw_torch", "adafactor": "adafactor", "muon": "muon",
}  # fmt: skip
_OWNERS = (
    ("meta-llama", "meta-llama"), ("llama", "meta-llama"), ("codellama", "codellama"), ("qwen", "Qwen"), ("mistral",
    "mistralai"),
    ("gemma", "google"), ("phi", "microsoft"),
)  # fmt: skip
_DOWNLOAD = re.compile(r"tune\s+download\s+(\S+/\S+)\s(?:.*?--output-dir\s+(\S+))?")


def draft(foreign: Foreign, into: Path) -> Draft:
    """What becomes of a configuration.

    Args:
        foreign: the file.
        into: the folder of the recipe.
    """
    made = Draft(PEER, foreign, into, _flat(foreign.values, ""))
    arguments.run_name(made, "output_dir", foreign.path.stem)
    if made.set_to("name", "").isdecimal() or made.set_to("name") in ("lora_single_device", "full_single_device"):
        made.put("name", f"{foreign.path.stem.lower()}")
    _method(made)
    _model(made)
    rows(made)
    _optimisation(made)
    logger = str(made.get("metric_logger._component_", "")).rpartition(".")[2]
    if (name := {"WandBLogger": "wandb", "TensorBoardLogger": "tensorboard"}.get(logger)) is not None:
        made.keep("metric_logger._component_", "tracking.to", [name])
        arguments.tracked_project(made, "metric_logger.project")
    known = {key for key in made.values if key.split(".")[0] in _DROPPED}
    made.finish(_DROPPED | {key: _DROPPED[key.split(".")[0]] for key in known})
    return made


def _flat(values: dict[str, Any], before: str) -> dict[str, Any]:
    """Sections as dotted keys; lists stay."""
    found_values: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            found_values |= _flat(value, f"{before}{key}.")
        else:
            found_values[before + key] = value
    return found_values


def _method(made: Draft) -> None:
    loss = str(made.get("loss._component_", "")).rpartition(".")[2]
    if made.has("kd_ratio") or made.has("teacher_model._component_"):
        ratio = made.number("kd_ratio", 0.5)
        made.put("method", "distillation")
        if ratio != 1:
            made.fail(
                "kd_ratio",
                "adds the loss of the data to the teacher's; llmbench's distillation learns from the teacher alone (1.0)",
            )
        made.put("distillation.teacher.model_name_or_path", _named(made, "teacher_checkpointer.checkpoint_dir"))
        made.tell(
            "teacher_checkpointer.checkpoint_dir",
            "distillation.teacher",
            made.set_to("distillation.teacher.model_name_or_path"),
        )
        if "Reverse" in str(made.get("kd_loss._component_")):
            made.put("distillation.beta", 1.0)
    elif loss in ("DPOLoss", "RSOLoss", "IPOLoss"):
        made.put("method", "dpo")
        made.keep("loss._component_", "dpo.loss_type", {"DPOLoss": "sigmoid", "RSOLoss": "hinge", "IPOLoss": "ipo"}[loss])
        if made.has("loss.beta"):
            made.keep("loss.beta", "dpo.beta", made.number("loss.beta"))
        if made.number("loss.label_smoothing"):
            made.refuse("loss.label_smoothing", "llmbench smooths with dpo.loss_type: robust, another loss")
    elif loss in ("SimPOLoss", "PPOLoss", "GRPOLoss") or made.has("ppo_epochs"):
        made.fail("loss._component_", f"llmbench has no {loss or 'PPO'} of torchtune's kind")
        made.put("method", "dpo")
    else:
        made.put("method", "sft")


def _model(made: Draft) -> None:
    component = made.text("model._component_")
    if component is None:
        made.fail("model", "is missing: is this a training configuration?")
        return
    builder = component.rpartition(".")[2]
    if any(word in component for word in ("vision", "flamingo", ".t5", ".clip", ".flux")):
        made.fail("model._component_", "llmbench trains text models")
    made.put("model.model_name_or_path", _named(made, "checkpointer.checkpoint_dir"))
    made.tell("checkpointer.checkpoint_dir", "model.model_name_or_path", made.set_to("model.model_name_or_path"))
    for key in [key for key in made.values if key.startswith("checkpointer.")]:
        made.drop(key, "llmbench reads safetensors of the model's folder") if key != "checkpointer.checkpoint_dir" else None
    if made.has("dtype"):
        value = {"bf16": "bfloat16", "fp32": "float32", "fp16": "float16"}.get(str(made.get("dtype")))
        if value is None:
            made.fault("dtype", "is bf16, fp32 or fp16")
        else:
            made.keep("dtype", "model.dtype", value)
    if builder.startswith(("lora_", "qlora_")) or made.has("model.lora_rank"):
        _lora(made, builder)
    else:
        made.put("lora", None)
        made.tell("model._component_", "lora", None, "all parameters")
    if builder.startswith("qlora_") or made.flag("model.quantize_base"):
        made.put("quantization", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"})
        made.tell("model._component_", "quantization", "4 bits (nf4)")
        made.drop("model.quantize_base", "the section quantization")


def _named(made: Draft, key: str) -> str:
    """The model's folder if it is on this machine, else the hub's name: of the file's `tune download` line, or of its kind."""
    folder = str(made.text(key, ""))
    path = found(folder, made.foreign.path.absolute().parent) if folder else None
    if path is not None and (path / "config.json").exists():
        return seen_from(path, made.into)
    for line in made.foreign.text.splitlines():
        match = _DOWNLOAD.search(line)
        if match and (
            match[2] is None or match[2].rstrip("/") in (folder.rstrip("/"), folder.removesuffix("original/").rstrip("/"))
        ):
            return match[1]
    name = Path(folder.removesuffix("original/").removesuffix("original").rstrip("/")).name
    owner = next((owner for word, owner in _OWNERS if name.lower().startswith(word)), None)
    if owner is None:
        return folder or "llmbench/tiny"
    made.note(key, folder, f"is not on this machine; {owner}/{name} is taken for it")
    return f"{owner}/{name}"


def _lora(made: Draft, builder: str) -> None:
    made.put("lora", {})
    phi = "phi" in builder
    names = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "output_proj": "o_proj"}
    targets: list[str] = []
    for name in made.words("model.lora_attn_modules"):
        if name not in names:
            made.fault("model.lora_attn_modules", f"has {name}, which is none of {', '.join(names)}")
        elif phi and name != "output_proj":
            targets += [] if "qkv_proj" in targets else ["qkv_proj"]
        else:
            targets.append(names.get(name, name))
    if made.flag("model.apply_lora_to_mlp"):
        targets += ["gate_up_proj", "down_proj"] if phi else ["gate_proj", "up_proj", "down_proj"]
        made.keep("model.apply_lora_to_mlp", "lora.target_modules", targets)
    else:
        made.drop("model.apply_lora_to_mlp", "attention alone")
    made.keep("model.lora_attn_modules", "lora.target_modules", targets)
    if phi and "qkv_proj" in targets:
        made.refuse("model.lora_attn_modules", "q, k and v are one layer of this model here", "lora.target_modules", targets)
    if made.flag("model.apply_lora_to_output"):
        made.refuse(
            "model.apply_lora_to_output", "llmbench trains no adapter of the head; modules_to_save: [lm_head] trains it whole"
        )
    made.drop("model.apply_lora_to_output", "the head is left as it is")
    for key, ours, usual in (("lora_rank", "r", 8), ("lora_alpha", "lora_alpha", 16), ("lora_dropout", "lora_dropout", 0.0)):
        if made.has(f"model.{key}"):
            value = made.whole(f"model.{key}") if key == "lora_rank" else made.number(f"model.{key}")
            made.keep(f"model.{key}", f"lora.{ours}", value)
        made.default(f"model.{key}", usual, f"lora.{ours}")
    if made.has("model.use_dora"):
        made.keep("model.use_dora", "lora.use_dora", made.flag("model.use_dora"))
    made.tell("model._component_", "lora", "a section")


def _optimisation(made: Draft) -> None:
    for theirs, ours in (
        ("batch_size", "per_device_train_batch_size"),
        ("gradient_accumulation_steps", "gradient_accumulation_steps"),
    ):
        if made.has(theirs):
            made.keep(theirs, f"training.{ours}", made.whole(theirs))
    if made.has("epochs"):
        made.keep("epochs", "training.num_train_epochs", float(made.number("epochs")))
    limit = made.whole("max_steps_per_epoch")
    if limit:
        total = int(limit) * int(made.number("epochs", 1))
        made.keep("max_steps_per_epoch", "training.max_steps", total, f"{limit} an epoch; without it if the data have fewer")
    _optimizer(made)
    _schedule(made)
    if made.has("clip_grad_norm"):
        arguments.clip(made, "clip_grad_norm")
    made.default(
        "clip_grad_norm", None, "training.max_grad_norm", 1e9, "torchtune clips no gradients here; llmbench's default: 1.0"
    )
    arguments.compiled(made, "compile")
    for theirs, ours in (
        ("enable_activation_checkpointing", "gradient_checkpointing"),
        ("enable_activation_offloading", "activation_offloading"),
    ):
        if made.has(theirs):
            made.keep(theirs, f"training.{ours}", made.flag(theirs))
    if made.has("log_every_n_steps"):
        made.keep("log_every_n_steps", "training.logging_steps", made.whole("log_every_n_steps"))
    if made.has("seed"):
        made.keep("seed", "training.seed", made.whole("seed"))
    made.default("enable_activation_checkpointing", False, "training.gradient_checkpointing")


def _optimizer(made: Draft) -> None:
    component = str(made.text("optimizer._component_", "torch.optim.AdamW"))
    name = component.rpartition(".")[2].lower()
    ours = _OPTIMIZERS.get(name)
    if ours == "adamw_torch" and made.flag("optimizer.fused"):
        ours = "adamw_torch_fused"
    if ours is None or component.startswith("torchao"):
        made.refuse(
            "optimizer._component_", "llmbench has no such optimizer; the nearest is adamw_8bit", "training.optim", "adamw_8bit"
        )
    else:
        made.keep("optimizer._component_", "training.optim", ours)
    made.drop("optimizer.fused", "the same updates by one kernel")
    if not made.has("optimizer.lr"):
        made.fail("optimizer.lr", "is missing")
    else:
        made.keep("optimizer.lr", "training.learning_rate", made.number("optimizer.lr"))
    if made.has("optimizer.weight_decay"):
        made.keep("optimizer.weight_decay", "training.weight_decay", made.number("optimizer.weight_decay"))
    elif "adamw" in name:
        made.default("optimizer.weight_decay", 0.01, "training.weight_decay", why="AdamW's own default; llmbench's: 0.0")
    betas = made.get("optimizer.betas")
    if isinstance(betas, list) and len(betas) == 2:
        made.keep("optimizer.betas", "training.adam_beta2", betas[1])
        if betas[0] != 0.9:
            made.refuse("optimizer.betas", "no field for the first; llmbench takes 0.9", "training.adam_beta2", betas[1])


def _schedule(made: Draft) -> None:
    component = made.text("lr_scheduler._component_")
    if component is None:
        made.default(
            "lr_scheduler", None, "training.lr_scheduler_type", "constant", "torchtune keeps the rate without lr_scheduler"
        )
        made.default("lr_scheduler", None, "training.warmup_steps", 0, "torchtune keeps the rate without lr_scheduler")
        return
    if component.endswith("get_cosine_schedule_with_warmup"):
        made.keep("lr_scheduler._component_", "training.lr_scheduler_type", "cosine")
    else:
        made.refuse(
            "lr_scheduler._component_",
            "llmbench has no such schedule; the nearest is cosine",
            "training.lr_scheduler_type",
            "cosine",
        )
    if made.has("lr_scheduler.num_warmup_steps"):
        made.keep("lr_scheduler.num_warmup_steps", "training.warmup_steps", made.whole("lr_scheduler.num_warmup_steps"))
    made.default("lr_scheduler.num_warmup_steps", 0, "training.warmup_steps")
    if made.get("lr_scheduler.num_cycles", 0.5) != 0.5:
        made.refuse("lr_scheduler.num_cycles", "llmbench's cosine falls once")
    made.drop("lr_scheduler.num_cycles", "half a wave, as here")
