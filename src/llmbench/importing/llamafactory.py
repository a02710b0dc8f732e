"""LLaMA-Factory: `llamafactory-cli train FILE`, with the data sets of dataset_info.json."""

from __future__ import annotations

import json
from pathlib import Path

from llmbench.importing import arguments, cadence, sources
from llmbench.importing.dataset_info import Registry, source
from llmbench.importing.draft import Draft
from llmbench.importing.foreign import Foreign, number
from llmbench.importing.places import found

__all__ = ["PEER", "draft"]

PEER = "LLaMA-Factory"
_METHODS = {"sft": "sft", "pt": "pretrain", "rm": "reward", "dpo": "dpo", "kto": "kto"}
_DROPPED = {
    **arguments.DROPPED,
    "template": "llmbench writes rows with the model's own chat template; a base without one needs data.chat_template. Behind "
    "an answer's end token LLaMA-Factory also learns what its template writes (qwen, gemma: a newline); llmbench does not",
    "dataset_dir": "where dataset_info.json lies; paths are written out",
    "pissa_convert": "llmbench saves an adapter that fits the base as it was",
    "streaming": "rows are read once and kept in a cache", "buffer_size": "rows are read once and kept in a cache",
    "tokenized_path": "llmbench has a cache of its own", "print_param_status": "what is shown while it trains",
    "infer_backend": "generation only", "cache_dir": "HF_HOME says where models are kept",
    "hf_hub_token": "log in: hf auth login",
    "use_unsloth": "llmbench has kernels of its own (training.performance)", "use_unsloth_gc": "memory only",
    "upcast_layernorm": "memory and speed; normalisation is computed in float32", "low_cpu_mem_usage": "memory only",
    "use_fast_tokenizer": "llmbench takes the fast tokenizer",
    "split_special_tokens": "text that looks like a control token stays text",
    "quantization_method": "bitsandbytes", "quantization_device_map": "llmbench trains on one device",
    "plot_loss": "every run keeps its curve", "ignore_pad_token_for_loss": "padding is never learned",
    "data_shared_file_system": "llmbench trains on one device", "neat_packing": "rows in one bin never see each other",
    "create_new_adapter": "without adapter_name_or_path it says nothing", "freeze_vision_tower": "text models only",
    "freeze_multi_modal_projector": "text models only", "freeze_language_model": "text models only",
    "image_max_pixels": "text models only", "video_max_pixels": "text models only",
}  # fmt: skip
_REFUSED = {
    "rope_scaling": "llmbench trains within the model's own context; write rope_scaling into the model's config.json",
    "use_dft_loss": "llmbench has no DFT loss", "use_asft_loss": "llmbench has no ASFT loss",
    "use_eaft_loss": "llmbench has no EAFT loss", "mixture_of_depths": "llmbench does not change the architecture",
    "shift_attn": "llmbench has no shifted attention", "fp8": "llmbench computes in float32, bfloat16 or float16",
    "use_galore": "the nearest is training.optim: adamw_8bit", "use_apollo": "the nearest is training.optim: adamw_8bit",
    "use_badam": "the nearest is training.optim: adamw_8bit", "use_adam_mini": "the nearest is training.optim: adamw_8bit",
    "default_system": "write a system message into the rows", "loraplus_lr_embedding": "no field for it",
    "pure_bf16": "llmbench holds what is trained in float32", "tool_format": "the model's own chat template writes tools",
    "dpo_label_smoothing": "llmbench smooths with dpo.loss_type: robust, another loss", "simpo_gamma": "llmbench has no SimPO",
    "moe_aux_loss_coef": "llmbench adds no loss of routers", "reserved_label_len": "prompts and answers are cut alike",
}  # fmt: skip
_FATAL = {
    "export_dir": "is a merge, not a training: llmbench merge RUN does that",
    "use_mca": "Megatron's models are not transformers'", "use_llama_pro": "LLaMA-Pro trains blocks that it inserts",
    "image_dir": "llmbench trains text models", "freeze_extra_modules": "llmbench freezes layers, not single modules",
}  # fmt: skip


def draft(foreign: Foreign, into: Path, registry: Registry) -> Draft:
    """What becomes of a configuration.

    Args:
        foreign: the file.
        into: the folder of the recipe.
        registry: dataset_info.json, where it was found.
    """
    made = Draft(PEER, foreign, into)
    arguments.run_name(made, "output_dir", foreign.path.stem)
    _method(made)
    _model(made)
    _what_is_trained(made)
    _data(made, registry)
    arguments.training(made)
    if made.flag("use_muon"):
        made.keep("use_muon", "training.optim", "muon")
    if made.has("disable_gradient_checkpointing"):
        made.keep(
            "disable_gradient_checkpointing", "training.gradient_checkpointing", not made.flag("disable_gradient_checkpointing")
        )
    if made.has("enable_liger_kernel"):
        made.keep("enable_liger_kernel", "training.use_liger_kernel", made.flag("enable_liger_kernel"))
    arguments.trackers(made)
    cadence.kept(made)
    cadence.best_model(made)
    for table, act in ((_REFUSED, made.refuse), (_FATAL, made.fail)):
        for key, why in table.items():
            if made.get(key) not in (None, False, 0):
                act(key, why)
    _defaults(made)
    made.finish(_DROPPED | dict.fromkeys(_REFUSED, "is off"))
    return made


def _method(made: Draft) -> None:
    stage = made.text("stage", "sft")
    loss = str(made.get("pref_loss", "sigmoid"))
    method = "orpo" if stage == "dpo" and loss == "orpo" else _METHODS.get(str(stage))
    if method is None:
        made.fail("stage", f"llmbench has no method {stage}; the nearest is grpo, which needs reward functions")
        method = "sft"
    if made.has("stage"):
        made.keep("stage", "method", method)
    else:
        made.put("method", method)
    if method in ("dpo", "orpo", "kto"):
        if made.has("pref_beta"):
            made.keep("pref_beta", f"{method}.beta", made.number("pref_beta"))
    else:
        made.drop("pref_beta", f"has no effect on stage {stage}")
    _preferences(made, str(stage), method, loss)
    for theirs, ours in (("kto_chosen_weight", "desirable_weight"), ("kto_rejected_weight", "undesirable_weight")):
        if made.has(theirs) and method == "kto":
            made.keep(theirs, f"kto.{ours}", made.number(theirs))
    if made.has("ld_alpha") and method == "dpo":
        made.keep("ld_alpha", "dpo.ld_alpha", made.number("ld_alpha"))


def _preferences(made: Draft, stage: str, method: str, loss: str) -> None:
    if method == "orpo":
        made.keep("pref_loss", "method", "orpo")
    elif method != "dpo":
        made.drop("pref_loss", f"has no effect on stage {stage}")
    elif loss in ("sigmoid", "hinge", "ipo"):
        weight = made.number("pref_ftx", 0.0)
        if weight:
            made.keep("pref_loss", "dpo.loss_type", [loss, "sft"])
            made.keep("pref_ftx", "dpo.loss_weights", [1.0, float(weight)], "the second is LLaMA-Factory's pref_ftx")
            made.put("dpo.loss_type", [loss, "sft"])
        elif made.has("pref_loss"):
            made.keep("pref_loss", "dpo.loss_type", loss)
    else:
        made.fail("pref_loss", f"llmbench has no {loss}; dpo.loss_type: sigmoid_norm is nearest, and keeps a reference model")


def _model(made: Draft) -> None:
    if not arguments.model(made, "model_name_or_path", "model_revision"):
        return
    arguments.precision(made)
    key = "flash_attn" if made.has("flash_attn") else "attn"
    if made.has(key):
        names = {"fa2": "flash_attention_2", "sdpa": "sdpa", "disabled": "eager", "auto": None}
        arguments.attention(made, key, names)
    if made.flag("train_from_scratch"):
        made.fail("train_from_scratch", "needs the architecture: copy config.json's fields into model.config, method: pretrain")
    tokens = made.words("add_tokens"), made.words("add_special_tokens")
    if all(tokens):
        made.refuse("add_tokens", "tokenizer.add_tokens takes one list: plain tokens or special ones")
    for key, words in zip(("add_tokens", "add_special_tokens"), tokens, strict=True):
        if words and not (key == "add_tokens" and all(tokens)):
            made.keep(key, "tokenizer.add_tokens", words)
            made.put("tokenizer.special", key == "add_special_tokens")
    if made.has("resize_vocab"):
        made.drop("resize_vocab", "the vocabulary grows with tokenizer.add_tokens")


def _what_is_trained(made: Draft) -> None:
    kind = made.text("finetuning_type", "lora")
    match kind:
        case "lora":
            _lora(made)
        case "full":
            made.keep("finetuning_type", "lora", None, "all parameters")
        case "freeze":
            made.keep("finetuning_type", "lora", None)
            _freeze(made)
        case "oft":
            made.put("lora", None)
            made.keep("finetuning_type", "adapter.type", "oft")
            _oft(made)
        case _:
            made.fail("finetuning_type", f"llmbench has no {kind}")
    bits = made.get("quantization_bit")
    if bits is not None:
        method = str(made.get("quantization_method", "bnb"))
        if bits in (4, 8) and method in ("bnb", "bitsandbytes"):
            made.keep("quantization_bit", f"quantization.load_in_{bits}bit", True)
            if made.has("quantization_type"):
                made.keep("quantization_type", "quantization.bnb_4bit_quant_type", made.text("quantization_type"))
            if made.has("double_quantization"):
                made.keep("double_quantization", "quantization.bnb_4bit_use_double_quant", made.flag("double_quantization"))
        else:
            made.fail("quantization_bit", f"llmbench has no {method} in {bits} bits; bitsandbytes has 4 and 8")
    if made.has("adapter_name_or_path"):
        folders = made.words("adapter_name_or_path")
        if len(folders) > 1 or made.flag("create_new_adapter"):
            made.fail(
                "adapter_name_or_path", "a recipe continues one adapter: merge the others into the base first (llmbench merge)"
            )
        elif folders:
            arguments.folder(made, "adapter_name_or_path", "adapter_name_or_path", folders[0])
            made.recipe.pop("lora", None)


def _lora(made: Draft) -> None:
    rank = made.whole("lora_rank", 8)
    made.put("lora", {})
    if made.has("finetuning_type"):
        made.keep("finetuning_type", "lora.r", rank)
    if made.has("lora_rank"):
        made.keep("lora_rank", "lora.r", rank)
    made.default("lora_rank", 8, "lora.r")
    if made.has("lora_alpha"):
        made.keep("lora_alpha", "lora.lora_alpha", made.number("lora_alpha"))
    made.default("lora_alpha", 2 * int(rank), "lora.lora_alpha", why=f"{PEER} takes twice the rank")
    if made.has("lora_dropout"):
        made.keep("lora_dropout", "lora.lora_dropout", float(made.number("lora_dropout") or 0))
    targets = made.words("lora_target") or ["all"]
    if made.has("lora_target"):
        made.keep("lora_target", "lora.target_modules", "all-linear" if targets == ["all"] else targets)
    if saved := made.words("additional_target"):
        made.keep("additional_target", "lora.modules_to_save", saved)
    for key in ("use_rslora", "use_dora"):
        if made.has(key):
            made.keep(key, f"lora.{key}", made.flag(key))
    if made.has("loraplus_lr_ratio"):
        made.keep("loraplus_lr_ratio", "lora.loraplus_lr_ratio", made.number("loraplus_lr_ratio"))
    if made.flag("pissa_init"):
        rounds = made.whole("pissa_iter", 16)
        made.keep("pissa_init", "lora.init_lora_weights", "pissa" if rounds == -1 else f"pissa_niter_{rounds}")
        if made.has("pissa_iter"):
            made.keep("pissa_iter", "lora.init_lora_weights", "pissa" if rounds == -1 else f"pissa_niter_{rounds}")


def _oft(made: Draft) -> None:
    if made.has("oft_block_size"):
        made.keep("oft_block_size", "adapter.oft_block_size", made.whole("oft_block_size"))
    if made.has("oft_rank") and made.get("oft_rank") != 0:
        made.refuse("oft_rank", "llmbench counts by adapter.oft_block_size")
    targets = made.words("oft_target")
    if targets:
        made.keep("oft_target", "adapter.target_modules", "all-linear" if targets == ["all"] else targets)
    if made.has("module_dropout"):
        made.keep("module_dropout", "adapter.module_dropout", float(made.number("module_dropout") or 0))
    if saved := made.words("additional_target"):
        made.keep("additional_target", "adapter.modules_to_save", saved)


def _freeze(made: Draft) -> None:
    """Trains the last N layers, which a recipe says by the number of the first ones."""
    count = made.whole("freeze_trainable_layers", 2)
    if made.words("freeze_trainable_modules") not in ([], ["all"]):
        made.fail("freeze_trainable_modules", "llmbench freezes whole layers, not modules of them")
    made.drop("freeze_trainable_modules", "all of the layer, as llmbench does")
    folder = found(str(made.get("model_name_or_path")), made.foreign.path.absolute().parent)
    try:
        layers = json.loads((folder / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"] if folder else None
    except (OSError, ValueError, KeyError):
        layers = None
    if not isinstance(layers, int) or count <= 0 or count >= layers:
        made.fail(
            "freeze_trainable_layers",
            f"trains {count} layers counted from the end; llmbench counts the frozen ones from the start, for which the "
            "model's config.json must be on this machine. Use the model's folder, or write freeze.layers yourself",
        )
        return
    made.keep("freeze_trainable_layers", "freeze.layers", layers - count, f"of {layers}; the last {count} are trained")
    made.put("freeze.embeddings", True)


def _data(made: Draft, registry: Registry) -> None:
    method = made.recipe["method"]
    for key, part in (("dataset", "train"), ("eval_dataset", "eval")):
        names = made.words(key)
        shares = _shares(made) if part == "train" else []
        for i, name in enumerate(names):
            given = source(made, registry, key, name, method)
            if made.has("max_samples") and made.whole("max_samples"):
                given["limit"] = made.whole("max_samples")
            if shares and str(made.get("mix_strategy", "concat")).startswith("interleave") and i < len(shares):
                given["weight"] = shares[i]
            sources.add(made, given, part)
        if names:
            made.tell(key, f"data.{part}", made.recipe["data"][part])
    if not made.has("dataset"):
        made.fail("dataset", "is missing, so there is nothing to train on")
    if made.has("max_samples"):
        made.tell("max_samples", "data.train[].limit", made.whole("max_samples"))
    if made.has("interleave_probs"):
        made.tell("interleave_probs", "data.train[].weight", made.get("interleave_probs"))
    made.drop(
        "mix_strategy", "interleave_probs are the weights" if made.has("interleave_probs") else "rows of all sources once"
    )
    _length(made, method)
    if made.flag("train_on_prompt"):
        made.keep("train_on_prompt", "data.train_on", "all")
    elif made.flag("mask_history"):
        made.keep("mask_history", "data.train_on", "last")
    if made.flag("disable_shuffling"):
        made.keep("disable_shuffling", "data.shuffle", False)
    if made.has("enable_thinking"):
        made.keep("enable_thinking", "data.chat_template_kwargs", {"enable_thinking": made.flag("enable_thinking")})
    _held_out(made)


def _shares(made: Draft) -> list[float]:
    """`interleave_probs`, a list or one text with commas."""
    shares = [number(word) for word in made.words("interleave_probs")]
    if None in shares:
        made.fault("interleave_probs", f"should be a list of numbers, not {made.get('interleave_probs')}")
    return [float(share) for share in shares if share is not None]


def _length(made: Draft, method: str) -> None:
    if made.has("cutoff_len"):
        made.keep("cutoff_len", "data.max_length", made.whole("cutoff_len"))
    over, why = "truncate", f"{PEER} cuts rows that are longer"
    if method == "reward":
        over, why = "drop", f"{PEER} cuts them; a reward model judges an answer at its end"
    elif method == "pretrain":
        over, why = "split", f"{PEER} makes several rows of a long text"
    made.default("cutoff_len", 2048, "data.max_length")
    made.default("rows over cutoff_len", "cut", "data.over_length", over, why)
    packing = made.flag("packing") or made.flag("neat_packing") or (method == "pretrain" and not made.has("packing"))
    if made.has("packing") or made.has("neat_packing"):
        key = "packing" if made.has("packing") else "neat_packing"
        made.keep(key, "training.packing", packing)
    elif packing:
        made.default("packing", True, "training.packing", why=f"{PEER} packs raw text")
    if packing and method == "sft" and not made.flag("neat_packing"):
        made.refuse(
            "packing", "there, rows of one bin see each other; llmbench always keeps them apart", "training.packing", True
        )


def _held_out(made: Draft) -> None:
    share = made.number("val_size", 0)
    if made.has("val_size") and isinstance(share, int | float):
        if 0 < share < 1:
            made.keep("val_size", "data.eval_fraction", float(share))
        elif share >= 1:
            rows = sources.counted(made)
            if rows is not None and rows > share:
                made.keep("val_size", "data.eval_fraction", round(share / rows, 6), f"{share:g} of {rows} rows")
            else:
                made.refuse("val_size", "a number of rows; set data.eval_fraction to it divided by all rows")


def _defaults(made: Draft) -> None:
    made.default("learning_rate", 5e-5, "training.learning_rate")
    made.default("lr_scheduler_type", "linear", "training.lr_scheduler_type")
    made.default("warmup_steps", 0, "training.warmup_steps")
    made.default("num_train_epochs", 3.0, "training.num_train_epochs")
    made.default("per_device_train_batch_size", 8, "training.per_device_train_batch_size")
    made.default("disable_gradient_checkpointing", False, "training.gradient_checkpointing", True)
    made.default("logging_steps", 500, "training.logging_steps")
    made.default("save_steps", 500, "training.save_steps")
