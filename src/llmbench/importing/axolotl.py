"""axolotl: `axolotl train FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmbench.importing import arguments, cadence, sources
from llmbench.importing.axolotl_data import rows
from llmbench.importing.draft import Draft
from llmbench.importing.foreign import Foreign
from llmbench.importing.rewards import functions

__all__ = ["PEER", "draft"]

PEER = "axolotl"
_TEXT = "llmbench trains text models"
_MOST_WARMUP = 100
"""Steps of warm-up at most, where the file does not say."""
_DROPPED = {
    **arguments.DROPPED,
    **dict.fromkeys(("model_type", "tokenizer_type", "is_llama_derived_model", "is_falcon_derived_model",
    "is_mistral_derived_model",
                     "is_qwen_derived_model", "strict", "base_model_config"), "llmbench tells it from the model's config.json"),
    **dict.fromkeys(("dataset_prepared_path", "dataset_processes", "dataset_num_proc", "skip_prepare_dataset",
    "dataset_keep_in_memory",
                     "streaming_multipack_buffer_size", "streaming", "shuffle_merged_datasets", "num_proc"),
                    "llmbench has a cache of its own"),
    **dict.fromkeys(("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_fan_in_fan_out", "use_kernels",
    "flash_attn_fuse_mlp",
                     "flash_attn_cross_entropy", "flash_attn_rms_norm", "flash_attn_fuse_qkv", "flash_attention",
                     "xformers_attention",
                     "sdp_attention", "eager_attention", "attention"),
                    "kernels with the same result: llmbench chooses its own (training.performance)"),
    **dict.fromkeys(("wandb_project", "wandb_entity", "wandb_watch", "wandb_name", "wandb_log_model", "wandb_mode",
    "wandb_run_id",
                     "use_wandb", "mlflow_tracking_uri", "mlflow_experiment_name", "use_tensorboard", "use_trackio",
                     "trackio_project_name",
                     "comet_project_name", "use_comet", "use_otel_metrics", "swanlab_experiment_name", "swanlab_workspace"),
                    arguments.DROPPED["report_to"]),
    **dict.fromkeys(("eval_sample_packing", "pad_to_sequence_len", "sample_packing_group_size", "sample_packing_bin_size",
                     "sample_packing_sequentially", "pretrain_multipack_attn", "batch_flattening", "multipack_real_batches"),
                    "llmbench packs whole rows, each with attention of its own"),
    **dict.fromkeys(("debug", "profiler_steps", "eval_table_size", "eval_max_new_tokens", "save_first_step", "include_tps",
                     "loss_watchdog_threshold", "loss_watchdog_patience", "eval_causal_lm_metrics"),
                    "what is shown or kept while it trains"),
    **dict.fromkeys(("auto_resume_from_checkpoints", "hub_strategy"), arguments.DROPPED["resume_from_checkpoint"]),
    **dict.fromkeys(("ddp", "ddp_timeout", "fsdp_version", "fsdp_final_state_dict_type", "use_ray", "ray_num_workers",
                     "experimental_skip_move_to_device", "low_cpu_mem_usage", "gpu_memory_limit", "device_map"),
                    "llmbench trains on one device"),
    "special_tokens": "llmbench pads with a token that is never learned, and ends answers as the chat template does",
    "eot_tokens": "an answer ends as the chat template ends it", "train_on_eos": "the end of each learned turn is learned",
    "chat_template": "llmbench writes rows with the model's own chat template; a base without one needs data.chat_template",
    "default_system_message": "write a system message into the rows", "plugins": "kernels, of which llmbench has its own",
    "resize_token_embeddings_to_32x": "speed only", "mean_resizing_embeddings": "new rows start from the mean",
    "dataset_exact_deduplication": "llmbench check names duplicates; remove them from the file",
    "save_strategy": "training.save_steps says how often", "bfloat16": "bf16 says it", "float16": "fp16 says it",
    "tf32": "speed on the GPU; PyTorch's own setting stays", "hub_model_id": "llmbench uploads nothing",
    "push_dataset_to_hub": "llmbench uploads nothing", "torch_compile_backend": "llmbench compiles with inductor",
    "num_labels": "a reward model has one", "lora_on_cpu": "memory only",
}  # fmt: skip
_REFUSED = {
    "relora": "llmbench has no ReLoRA", "relora_steps": "llmbench has no ReLoRA", "lisa_step_interval": "llmbench has no LISA",
    "lora_target_parameters": "name them in lora.target_parameters, by the end of their names",
    "qat": "llmbench has no such training",
    "curriculum_sampling": "set data.shuffle: false, and sort the file",
    "roles": "write roles as user, assistant, system and tool",
    "roles_to_train": "llmbench learns assistant's turns", "use_onebitllms": "llmbench has no such training",
    "cosine_constant_lr_ratio": "no field for it", "embedding_lr": "one rate is for all",
    "embedding_lr_scale": "one rate is for all",
    "use_dynamic_finetuning": "llmbench has no DFT loss", "tokenizer_config": "name a folder in model.tokenizer",
    "quantize_moe_experts": "llmbench quantises linear layers", "noisy_embedding_alpha": "llmbench adds no noise to embeddings",
    "context_parallel_size": "llmbench trains on one device", "tensor_parallel_size": "llmbench trains on one device",
    "dp_shard_size": "llmbench trains on one device", "dp_replicate_size": "llmbench trains on one device",
    "model_quantization_config": "llmbench loads a base as it was published; name one that is not quantised",
}  # fmt: skip
_FATAL = {
    "processor_type": _TEXT, "process_reward_model": "llmbench has no process reward model",
    "diffusion": "llmbench trains autoregressive models", "merge_method": "is a merge of models, not a training",
    "gptq": "an old setting: name a model that is published quantised",
}  # fmt: skip


def draft(foreign: Foreign, into: Path) -> Draft:
    """What becomes of a configuration.

    Args:
        foreign: the file.
        into: the folder of the recipe.
    """
    made = Draft(PEER, foreign, into)
    arguments.run_name(made, "output_dir", foreign.path.stem)
    _method(made)
    _model(made)
    _adapter(made)
    rows(made)
    _length(made)
    _training(made)
    _held_out(made)
    _how_often(made)
    cadence.best_model(made)
    for key, name in (("wandb_project", "wandb"), ("mlflow_experiment_name", "mlflow"), ("trackio_project_name", "trackio")):
        if made.has(key):
            made.put("tracking.to", [*made.set_to("tracking.to", []), name])
            arguments.tracked_project(made, key)
            made.tell(key, "tracking", name)
    if made.flag("use_tensorboard"):
        made.keep("use_tensorboard", "tracking.to", [*made.set_to("tracking.to", []), "tensorboard"])
    for table, act in ((_REFUSED, made.refuse), (_FATAL, made.fail)):
        for key, why in table.items():
            if made.get(key) not in (None, False, 0):
                act(key, why)
    _defaults(made)
    made.finish(_DROPPED | dict.fromkeys(_REFUSED, "is off") | dict.fromkeys(_FATAL, "is off"))
    return made


def _method(made: Draft) -> None:
    kind = made.text("rl")
    method = {"dpo": "dpo", "ipo": "dpo", "kto": "kto", "orpo": "orpo", "grpo": "grpo"}.get(str(kind))
    if kind is not None and method is None:
        made.fail("rl", f"llmbench has no {kind}")
    if method is not None:
        made.keep("rl", "method", method)
        if kind == "ipo":
            made.put("dpo.loss_type", "ipo")
    elif made.flag("reward_model"):
        made.keep("reward_model", "method", "reward")
        if made.has("center_rewards_coefficient"):
            made.keep(
                "center_rewards_coefficient", "reward.center_rewards_coefficient", made.number("center_rewards_coefficient")
            )
    else:
        made.put("method", "sft")
    if made.has("rl_beta") and method in ("dpo", "kto"):
        made.keep("rl_beta", f"{method}.beta", made.number("rl_beta"))
    if made.has("orpo_alpha") and method == "orpo":
        made.keep("orpo_alpha", "orpo.beta", made.number("orpo_alpha"))
    for theirs, ours in (
        ("dpo_loss_type", "dpo.loss_type"),
        ("dpo_loss_weights", "dpo.loss_weights"),
        ("dpo_use_weighting", "dpo.use_weighting"),
        ("kto_desirable_weight", "kto.desirable_weight"),
        ("kto_undesirable_weight", "kto.undesirable_weight"),
    ):
        if made.has(theirs) and ours.startswith(f"{method}."):
            made.keep(theirs, ours)
    if made.number("dpo_label_smoothing"):
        made.refuse("dpo_label_smoothing", "llmbench smooths with dpo.loss_type: robust, another loss")
    if method == "grpo":
        functions(made, "trl", made.get("trl"))


def _model(made: Draft) -> None:
    if not arguments.model(made, "base_model", "revision_of_model"):
        return
    arguments.precision(made)
    if made.has("attn_implementation"):
        names = {
            "flash_attention_2": "flash_attention_2",
            "sdpa": "sdpa",
            "eager": "eager",
            "flash_attention_3": "flash_attention_3",
        }
        arguments.attention(made, "attn_implementation", dict(names))
    if tokens := made.words("tokens"):
        made.keep("tokens", "tokenizer.add_tokens", tokens)
    special = made.get("special_tokens")
    if isinstance(special, dict) and {"additional_special_tokens"} & special.keys():
        made.refuse("special_tokens", "additional_special_tokens: list them in tokenizer.add_tokens, with special: true")


def _adapter(made: Draft) -> None:
    kind = made.text("adapter")
    bits = 4 if made.flag("load_in_4bit") else 8 if made.flag("load_in_8bit") else None
    if kind is None:
        made.put("lora", None)
        made.comments["lora"] = "no adapter: all parameters"
        if bits:
            made.fail(
                f"load_in_{bits}bit", "all parameters are trained without an adapter, and a quantised base has none to train"
            )
        for key in (
            "lora_r",
            "lora_alpha",
            "lora_dropout",
            "lora_target_modules",
            "lora_target_linear",
            "lora_modules_to_save",
        ):
            made.drop(key, "has no effect without adapter")
        for key in ("load_in_4bit", "load_in_8bit"):
            made.drop(key, "the base is not quantised")
        if patterns := made.words("unfrozen_parameters"):
            made.fail(
                "unfrozen_parameters", f"lists what is trained ({len(patterns)} patterns); llmbench's freeze lists what is not"
            )
        return
    if kind not in ("lora", "qlora"):
        made.fail("adapter", f"llmbench has no {kind} of axolotl's kind; see adapter.type in docs/guide/adapters.md")
        return
    made.put("lora", {})
    made.tell("adapter", "lora", "a section", "4-bit base" if kind == "qlora" else "")
    if kind == "qlora" and bits is None:
        made.fault("adapter", "qlora needs load_in_4bit: true")
    for key, width in (("load_in_4bit", 4), ("load_in_8bit", 8)):
        if bits == width:
            made.keep(key, f"quantization.{key}", True)
        else:
            made.drop(key, "the other width, or none, holds")
    given = made.get("bnb_config_kwargs")
    for key, value in (given if isinstance(given, dict) and bits == 4 else {}).items():
        if key in ("bnb_4bit_quant_type", "bnb_4bit_use_double_quant"):
            made.put(f"quantization.{key}", value)
            made.tell("bnb_config_kwargs", f"quantization.{key}", value)
    made.drop("unfrozen_parameters", "an adapter leaves the base as it is")
    _lora(made)


def _lora(made: Draft) -> None:
    if made.has("lora_model_dir"):
        arguments.folder(made, "lora_model_dir", "adapter_name_or_path")
        made.recipe.pop("lora", None)
        for key in ("lora_r", "lora_alpha", "lora_target_modules", "lora_target_linear"):
            made.drop(key, "the adapter's own settings hold")
        return
    for key, ours in (("lora_r", "r"), ("lora_alpha", "lora_alpha"), ("lora_dropout", "lora_dropout")):
        if made.has(key):
            value = made.whole(key) if key == "lora_r" else made.number(key)
            made.keep(key, f"lora.{ours}", value)
        elif key != "lora_dropout":
            made.fault("adapter", f"needs {key}, which axolotl has no default for")
    listed = made.get("lora_target_modules")
    if made.flag("lora_target_linear"):
        made.keep("lora_target_linear", "lora.target_modules", "all-linear")
        made.drop("lora_target_modules", "lora_target_linear takes all linear layers already")
    elif isinstance(listed, str) and set(listed) & set("()|*\\[^$"):
        made.keep("lora_target_modules", "lora.target_modules", listed, "a regular expression")
    elif listed is not None:
        targets = made.words("lora_target_modules")
        made.keep("lora_target_modules", "lora.target_modules", "all-linear" if targets == ["all-linear"] else targets)
    else:
        made.fault("adapter", "needs lora_target_modules or lora_target_linear: true")
    for theirs, ours in (
        ("lora_modules_to_save", "modules_to_save"),
        ("peft_use_rslora", "use_rslora"),
        ("peft_use_dora", "use_dora"),
        ("peft_init_lora_weights", "init_lora_weights"),
        ("peft_layers_to_transform", "layers_to_transform"),
        ("lora_rank_pattern", "rank_pattern"),
        ("lora_alpha_pattern", "alpha_pattern"),
        ("peft_trainable_token_indices", "trainable_token_indices"),
        ("peft_ensure_weight_tying", "ensure_weight_tying"),
        ("loraplus_lr_ratio", "loraplus_lr_ratio"),
    ):
        if made.has(theirs):
            made.keep(theirs, f"lora.{ours}")
    peft = made.get("peft")
    config = peft.get("loftq_config") if isinstance(peft, dict) else None
    if isinstance(config, dict):
        made.keep("peft", "lora.init_lora_weights", "loftq")
        if "loftq_bits" in config:
            made.put("lora.loftq_config", {"loftq_bits": config["loftq_bits"]})


def _length(made: Draft) -> None:
    if made.has("sequence_len"):
        made.keep("sequence_len", "data.max_length", made.whole("sequence_len"))
    made.default("sequence_len", 512, "data.max_length")
    if made.recipe["method"] == "pretrain":
        made.default("excess_length_strategy", "split", "data.over_length", why="axolotl makes several rows of a long text")
        made.drop("excess_length_strategy", "raw text is split")
    elif made.has("excess_length_strategy"):
        chosen = {"drop": "drop", "truncate": "truncate", "raise": "error"}.get(str(made.get("excess_length_strategy")))
        if chosen is None:
            made.fault("excess_length_strategy", "is drop, truncate or raise")
        else:
            made.keep("excess_length_strategy", "data.over_length", chosen)
    made.default("excess_length_strategy", "drop", "data.over_length", why="axolotl drops rows that are longer")
    if made.has("sample_packing"):
        packs = made.flag("sample_packing") and made.recipe["method"] in ("sft", "pretrain")
        made.keep("sample_packing", "training.packing", packs)
    if made.flag("train_on_inputs"):
        made.keep("train_on_inputs", "data.train_on", "all")
    elif made.has("train_on_inputs"):
        made.keep("train_on_inputs", "data.train_on", "assistant")
    if made.get("shuffle_merged_datasets") is False:
        made.keep("shuffle_merged_datasets", "data.shuffle", False)


def _training(made: Draft) -> None:
    micro = made.whole("micro_batch_size", 1)
    if made.has("micro_batch_size"):
        made.keep("micro_batch_size", "training.per_device_train_batch_size", micro)
    made.default("micro_batch_size", 1, "training.per_device_train_batch_size")
    if made.has("batch_size") and not made.has("gradient_accumulation_steps"):
        total = made.whole("batch_size")
        made.keep(
            "batch_size",
            "training.gradient_accumulation_steps",
            max(int(total) // max(int(micro), 1), 1),
            f"{total} in all / {micro}",
        )
    elif made.has("batch_size"):
        made.drop("batch_size", "micro_batch_size x gradient_accumulation_steps")
    if made.has("eval_batch_size"):
        made.keep("eval_batch_size", "training.per_device_eval_batch_size", made.whole("eval_batch_size"))
    if made.has("num_epochs"):
        made.keep("num_epochs", "training.num_train_epochs", made.number("num_epochs"))
    if made.has("optimizer"):
        arguments.optimizer(made, "optimizer")
    least = made.number("cosine_min_lr_ratio")
    if least and str(made.get("lr_scheduler", "cosine")) == "cosine":
        made.keep("cosine_min_lr_ratio", "training.lr_scheduler_kwargs", {"min_lr_rate": least})
        made.put("training.lr_scheduler_type", "cosine_with_min_lr")
        made.tell("lr_scheduler", "training.lr_scheduler_type", "cosine_with_min_lr")
    elif made.has("lr_scheduler"):
        arguments.scheduler(made, "lr_scheduler")
    if made.get("gradient_checkpointing") in ("offload", "offload_disk", "unsloth"):
        made.values["gradient_checkpointing"], said = True, made.get("gradient_checkpointing")
        made.comments["training.gradient_checkpointing"] = f"{said} there, which changes memory only"
    if made.get("torch_compile") == "auto":
        made.drop("torch_compile", "llmbench chooses")
        del made.values["torch_compile"]
    arguments.training(made)
    liger = [key for key in made.values if key.startswith("liger_")]
    for key in liger:
        if made.flag(key):
            made.keep(key, "training.use_liger_kernel", True, "the layers that liger-kernel has for this model")
        else:
            made.drop(key, "is off")


def _held_out(made: Draft) -> None:
    share: Any = made.number("val_set_size", 0)
    if made.has("test_datasets"):
        return
    if not share:
        made.drop("val_set_size", "no rows are held out")
    elif share < 1:
        made.keep("val_set_size", "data.eval_fraction", float(share))
    elif (count := sources.counted(made)) is not None and count > share:
        made.keep("val_set_size", "data.eval_fraction", round(share / count, 6), f"{share:g} of {count} rows")
    else:
        made.refuse("val_set_size", "a number of rows; set data.eval_fraction to it divided by all rows")


def _how_often(made: Draft) -> None:
    held_out = cadence.held_out(made)
    for often, exact, ours in (
        ("evals_per_epoch", "eval_steps", "training.eval_steps"),
        ("saves_per_epoch", "save_steps", "training.save_steps"),
    ):
        if ours == "training.eval_steps" and not held_out:
            made.drop(often, "no rows are held out")
            made.drop(exact, "no rows are held out")
        elif made.has(often) and (times := made.number(often)):
            cadence.by_epoch(made, often, ours, float(times))
        elif made.has(exact):
            cadence.in_steps(made, exact, ours)
    if made.has("logging_steps"):
        cadence.in_steps(made, "logging_steps", "training.logging_steps")
    for key in ("eval_strategy", "evaluation_strategy"):
        made.drop(key, "training.eval_steps says how often; it evaluates at the end in any case")


def _defaults(made: Draft) -> None:
    if not made.has("learning_rate"):
        made.fail("learning_rate", "is missing, and axolotl has no default for it")
    made.default("gradient_checkpointing", False, "training.gradient_checkpointing")
    if made.set_to("training.warmup_steps") is None:
        total = cadence.steps(made)[1]
        share = 0.03 if total is None or total * 0.03 <= _MOST_WARMUP else _MOST_WARMUP
        why = f"axolotl: 3 % of the steps, at most {_MOST_WARMUP}" + ("" if total else "; set it if 3 % are more")
        made.write_out("warmup_steps", share, "training.warmup_steps", share, why)
    made.default("lr_scheduler", "cosine", "training.lr_scheduler_type")
    made.default("num_epochs", 1, "training.num_train_epochs", 1.0)
