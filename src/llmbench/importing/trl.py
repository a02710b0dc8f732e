"""TRL: a file for `trl sft --config FILE` and its like, a command line of its scripts, or the literal arguments of a script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmbench.errors import RecipeError
from llmbench.importing import arguments, cadence, sources
from llmbench.importing.draft import Draft
from llmbench.importing.foreign import Foreign
from llmbench.importing.places import found, seen_from
from llmbench.importing.rewards import FIELDS, functions

__all__ = ["METHODS", "PEER", "draft", "peft_targets", "preferences"]

PEER = "TRL"
METHODS = {
    "sft": "sft", "dpo": "dpo", "orpo": "orpo", "kto": "kto", "reward": "reward", "reward_modeling": "reward", "grpo": "grpo",
    "gkd": "distillation",
}  # fmt: skip
"""The verbs of `trl`, and its scripts without `.py`."""
_RATES = {"sft": 2e-5, "reward": 1e-4, "distillation": 2e-5}
_SERVER = "llmbench draws answers itself, with a vLLM of its own (grpo.generator: vllm), or in its process (grpo.use_vllm)"
_DROPPED = {
    **arguments.DROPPED,
    **dict.fromkeys(("dataset_streaming", "ignore_bias_buffers", "dataset_kwargs", "dataset_batch_size", "use_logits_to_keep",
                     "precompute_ref_log_probs", "precompute_ref_batch_size", "eval_packing", "dataset_num_proc"),
                    "how rows and references are computed: llmbench has a cache of its own"),
    **dict.fromkeys(("lora_task_type", "model_init_kwargs", "bnb_4bit_quant_storage", "use_cpu", "no_cuda", "config"),
                    "llmbench tells it from the recipe"),
    **dict.fromkeys(("config_file", "main_process_port", "mixed_precision", "num_machines", "machine_rank", "rdzv_backend",
    "env"),
                    "how the program is started"),
    **dict.fromkeys(("vllm_mode", "vllm_server_host", "vllm_server_port", "vllm_server_base_url", "vllm_tensor_parallel_size",
                     "vllm_enable_sleep_mode", "vllm_server_timeout"), _SERVER),
    "dataset_test_split": "no evaluation is asked for", "dataset_train_split": "is the data set's train",
    "packing_strategy": "llmbench packs whole rows best-fit-decreasing", "pad_to_multiple_of": "padding is never learned",
    "max_prompt_length": "prompt and answer share data.max_length", "generate_during_eval": "what is shown while it trains",
    "eos_token": "an answer ends as the chat template ends it", "pad_token": "padding is never learned",
    "remove_unused_columns": "llmbench takes the columns that it needs", "label_names": "llmbench names them itself",
    "shuffle_dataset": "llmbench shuffles (data.shuffle)", "use_bnb_nested_quant": "the base is not in four bits",
}  # fmt: skip
_REFUSED = {
    "sync_ref_model": "llmbench keeps the reference as it was", "use_vespo": "llmbench has no VESPO",
    "lora_target_parameters": "name them in lora.target_parameters, by the end of their names",
    "delta": "llmbench clips with epsilon and epsilon_high", "generation_kwargs": "no field for it",
    "top_entropy_quantile": "llmbench learns from all tokens", "router_aux_loss_coef": "llmbench adds no loss of routers",
    "reward_model_name_or_path": "llmbench judges with functions; llmbench train makes reward models",
    "train_sampling_strategy": "rows come in random order, or as the file has them (data.shuffle)",
}  # fmt: skip


def draft(foreign: Foreign, into: Path) -> Draft:
    """What becomes of a configuration.

    Args:
        foreign: the file; its `command` names the trainer, as `trl sft`. Without one the keys must show it.
        into: the folder of the recipe.

    Raises:
        RecipeError: the keys fit several trainers.
    """
    made = Draft(PEER, foreign, into)
    arguments.run_name(made, "output_dir", foreign.path.stem)
    _method(made)
    _model(made)
    _lora(made)
    _data(made)
    arguments.training(made)
    _devices(made)
    arguments.trackers(made)
    cadence.kept(made)
    cadence.best_model(made)
    for key, why in _REFUSED.items():
        if made.get(key) not in (None, False):
            made.refuse(key, why)
    _defaults(made)
    made.finish(_DROPPED | dict.fromkeys(_REFUSED, "is off"))
    return made


def _method(made: Draft) -> None:
    command = made.foreign.command
    verb = command.split()[1] if command and " " in command else _guess(made)
    method = METHODS.get(verb)
    if method is None:
        made.fail("trl", f"llmbench has no method {verb}")
        method = "sft"
    made.put("method", method)
    preferences(made, method)
    if method == "grpo":
        functions(made, "", made.values)
    elif method == "distillation":
        _teacher(made)


def preferences(made: Draft, method: str) -> None:
    """The fields of dpo, orpo, kto and reward, which keep TRL's names."""
    if method == "dpo":
        smoothing = made.number("label_smoothing", 0.0)
        for key in (
            "beta",
            "loss_type",
            "loss_weights",
            "f_alpha_divergence_coef",
            "ld_alpha",
            "use_weighting",
            "discopop_tau",
        ):
            if made.has(key):
                made.keep(key, f"dpo.{key}")
        if made.has("f_divergence_type"):
            name = str(made.get("f_divergence_type")).removeprefix("FDivergenceType.").lower()
            made.keep("f_divergence_type", "dpo.f_divergence_type", name)
        losses = made.get("loss_type", "sigmoid")
        if smoothing and "sigmoid" in (losses if isinstance(losses, list) else [losses]):
            made.refuse("label_smoothing", "llmbench smooths with dpo.loss_type: robust, another loss than a smoothed sigmoid")
        elif made.has("label_smoothing"):
            made.keep("label_smoothing", "dpo.label_smoothing", smoothing)
    elif method == "orpo" and made.has("beta"):
        made.keep("beta", "orpo.beta", made.number("beta"))
    elif method == "kto":
        for key in ("beta", "desirable_weight", "undesirable_weight", "loss_type"):
            if made.has(key):
                made.keep(key, f"kto.{key}")
    elif method == "reward" and made.has("center_rewards_coefficient"):
        made.keep("center_rewards_coefficient", "reward.center_rewards_coefficient", made.number("center_rewards_coefficient"))
    elif method == "sft" and made.has("loss_type"):
        if made.get("loss_type") in ("nll", "chunked_nll"):
            made.drop("loss_type", "the same loss, however it is computed")
        else:
            made.refuse("loss_type", "llmbench learns by the negative log-likelihood")


def _guess(made: Draft) -> str:
    """The trainer that the keys show: only one of them may have such keys."""
    shown = {
        "grpo": {"reward_funcs", "num_generations", "reward_weights"},
        "gkd": {"teacher_model_name_or_path", "lmbda", "seq_kd"},
        "kto": {"desirable_weight", "undesirable_weight"},
        "reward": {"center_rewards_coefficient"},
        "dpo": {"f_divergence_type", "ld_alpha", "discopop_tau", "use_weighting", "precompute_ref_log_probs"},
    }
    fits = [verb for verb, keys in shown.items() if any(made.has(key) for key in keys)]
    if len(fits) == 1:
        return fits[0]
    if fits or made.has("beta") or str(made.get("loss_type", "nll")) not in ("nll", "dft", "chunked_nll"):
        raise RecipeError(
            f"{made.foreign.path}: could be for several of TRL's trainers, since the verb says which. "
            f"Put the command into a text file, and import that: trl dpo --config {made.foreign.path.name}"
        )
    return "sft"


def _teacher(made: Draft) -> None:
    if not made.has("teacher_model_name_or_path"):
        made.fail("teacher_model_name_or_path", "is missing, and names the teacher")
        return
    made.keep("teacher_model_name_or_path", "distillation.teacher.model_name_or_path", made.text("teacher_model_name_or_path"))
    for key in ("lmbda", "beta", "seq_kd", "temperature", "max_new_tokens"):
        if made.has(key):
            made.keep(key, f"distillation.{key}")
    made.default("lmbda", 0.5, "distillation.lmbda")
    made.default("beta", 0.5, "distillation.beta")


def _model(made: Draft) -> None:
    if not arguments.model(made, "model_name_or_path", "model_revision"):
        return
    if made.has("bf16") or made.has("fp16"):
        arguments.precision(made)
        for key in ("dtype", "torch_dtype"):
            made.drop(key, "what weights are held in; bf16 and fp16 say how it computes")
    else:
        for key in ("dtype", "torch_dtype"):
            if made.has(key):
                value = str(made.get(key)).removeprefix("torch.")
                if value in ("auto", "float32", "bfloat16", "float16"):
                    made.keep(key, "model.dtype", value)
                else:
                    made.fault(key, "is auto, float32, bfloat16 or float16")
    if made.has("attn_implementation"):
        names: dict[str, str | None] = {name: name for name in ("flash_attention_2", "sdpa", "eager")}
        arguments.attention(made, "attn_implementation", names)


def peft_targets(model: str) -> list[str]:
    """The layers that PEFT takes for an architecture where a configuration names none, by the model's name."""
    name = model.lower().rpartition("/")[2]
    for words, targets in (
        (("phi-1", "phi-2"), ["q_proj", "v_proj", "fc1", "fc2"]),
        (("pythia", "gpt-neox", "falcon", "bloom", "dolly"), ["query_key_value"]),
        (("gpt2", "starcoderbase"), ["c_attn"]),
        (("nemotron-h",), ["q_proj", "k_proj", "v_proj", "o_proj"]),
    ):
        if any(word in name for word in words):
            return targets
    return ["q_proj", "v_proj"]


def _lora(made: Draft) -> None:
    keys = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_modules_to_save", "use_rslora", "use_dora")
    if not made.flag("use_peft"):
        made.put("lora", None)
        made.comments["lora"] = "no use_peft: all parameters"
        made.drop("use_peft", "all parameters are trained: lora: null")
        for key in keys:
            made.drop(key, "has no effect without use_peft")
    else:
        made.put("lora", {})
        made.tell("use_peft", "lora", "a section")
        for key, ours in zip(
            keys, ("r", "lora_alpha", "lora_dropout", "", "modules_to_save", "use_rslora", "use_dora"), strict=True
        ):
            if not made.has(key):
                continue
            if key == "lora_target_modules":
                targets = made.words(key)
                one = len(targets) == 1 and (targets[0] == "all-linear" or set(targets[0]) & set("()|*\\"))
                made.keep(key, "lora.target_modules", targets[0] if one else targets)
            elif key == "lora_modules_to_save":
                made.keep(key, "lora.modules_to_save", made.words(key))
            elif key in ("use_rslora", "use_dora"):
                made.keep(key, f"lora.{ours}", made.flag(key))
            else:
                made.keep(key, f"lora.{ours}", made.whole(key) if key == "lora_r" else made.number(key))
        targets = peft_targets(str(made.get("model_name_or_path")))
        made.default(
            "lora_target_modules",
            targets,
            "lora.target_modules",
            why="PEFT's choice for this kind of model; llmbench's: all-linear",
        )
        made.default("lora_dropout", 0.05, "lora.lora_dropout")
    for key in ("load_in_4bit", "load_in_8bit"):
        if made.has(key) and made.flag(key):
            made.keep(key, f"quantization.{key}", True)
        else:
            made.drop(key, "is off")
    if made.set_to("quantization.load_in_4bit"):
        for theirs, ours in (
            ("bnb_4bit_quant_type", "bnb_4bit_quant_type"),
            ("use_bnb_nested_quant", "bnb_4bit_use_double_quant"),
        ):
            if made.has(theirs):
                made.keep(theirs, f"quantization.{ours}")
        made.default("use_bnb_nested_quant", False, "quantization.bnb_4bit_use_double_quant")


def _data(made: Draft) -> None:
    method = made.recipe["method"]
    listed = made.get("datasets")
    strategy = str(made.get("eval_strategy") or made.get("evaluation_strategy") or "no")
    if isinstance(listed, list):
        for i, entry in enumerate(listed):
            if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
                made.fault(f"datasets[{i}]", "should be a section with a path")
                continue
            source = sources.origin(made, entry["path"], entry.get("data_files"))
            for word in ("name", "split"):
                if entry.get(word) is not None and not (word == "split" and entry[word] == "train"):
                    source[word] = str(entry[word])
            if entry.get("columns"):
                made.comments[f"data.train[{i}].{next(iter(source))}"] = (
                    f"of its columns TRL reads {', '.join(map(str, entry['columns']))}"
                )
            sources.add(made, source)
        made.tell("datasets", "data.train", made.set_to("data.train"))
        share = made.number("test_split_size")
        if share:
            made.keep("test_split_size", "data.eval_fraction", float(share))
    elif made.has("dataset_name"):
        source = sources.origin(made, str(made.text("dataset_name")))
        if made.has("dataset_config") and "dataset" in source:
            source["name"] = str(made.text("dataset_config"))
        text_column = str(made.get("dataset_text_field", "text"))
        if made.has("dataset_text_field") and text_column != "text" and method == "sft":
            source |= sources.renamed({"text": text_column})
        for part, key, usual in (("train", "dataset_train_split", "train"), ("eval", "dataset_test_split", "test")):
            split = str(made.get(key, usual))
            if part == "eval" and strategy == "no":
                continue
            sources.add(made, dict(source) if split == "train" else source | {"split": split}, part)
            if made.has(key):
                made.tell(key, f"data.{part}[0].split", split)
        for key in ("dataset_name", "dataset_config"):
            if made.has(key):
                made.tell(key, "data.train", made.set_to("data.train"))
        if made.has("dataset_text_field"):
            made.tell("dataset_text_field", "data.train[0].columns", text_column)
    else:
        made.fail("dataset_name", "is missing, so there is nothing to train on")
    _length(made, method)
    if made.has("chat_template_path"):
        name = str(made.text("chat_template_path"))
        path = found(name, made.foreign.path.absolute().parent)
        if path is not None and path.suffix == ".jinja":
            made.keep("chat_template_path", "data.chat_template", seen_from(path, made.into))
        else:
            made.refuse(
                "chat_template_path",
                "the template of another model: save it as a .jinja file, and name that in data.chat_template",
            )


def _length(made: Draft, method: str) -> None:
    key = "max_length" if made.has("max_length") or not made.has("max_seq_length") else "max_seq_length"
    if made.has(key):
        made.keep(key, "data.max_length", made.whole(key))
    if method in ("reward", "grpo"):
        made.default(
            "rows over max_length",
            "cut",
            "data.over_length",
            "drop",
            f"{PEER} leaves longer rows out" if method == "reward" else "",
        )
    else:
        if made.get("truncation_mode", "keep_start") != "keep_start":
            made.refuse("truncation_mode", "llmbench keeps the beginning of a row that is too long")
        made.drop("truncation_mode", "the beginning is kept, as here")
        made.default("rows over max_length", "cut", "data.over_length", "truncate", f"{PEER} cuts rows that are longer")
    for name in ("packing", "padding_free"):
        if made.has(name):
            made.keep(name, f"training.{name}", made.flag(name))
    if made.set_to("training.packing") and str(made.get("packing_strategy", "bfd")) == "wrapped":
        made.refuse("packing_strategy", "cuts rows where a bin ends; llmbench packs whole rows")
    if isinstance(made.get("pad_to_multiple_of"), int):
        made.keep("pad_to_multiple_of", "training.pad_to_multiple_of", made.whole("pad_to_multiple_of"))
    if method not in ("sft", "distillation"):
        return
    if made.flag("assistant_only_loss"):
        made.keep("assistant_only_loss", "data.train_on", "assistant")
        made.drop("completion_only_loss", "assistant_only_loss says it")
    elif made.flag("completion_only_loss"):
        made.keep("completion_only_loss", "data.train_on", "assistant")
    elif method == "sft":
        for name in ("assistant_only_loss", "completion_only_loss"):
            made.drop(name, "all tokens are learned: data.train_on: all")
        why = f"{PEER} learns all tokens of a conversation; of prompt and completion write train_on: assistant"
        made.default("assistant_only_loss", False, "data.train_on", "all", why)


def _devices(made: Draft) -> None:
    count = made.get("num_processes")
    named: Any = made.get("accelerate_config")
    if isinstance(count, int) and count > 1:
        steps = made.set_to("training.gradient_accumulation_steps", 1)
        made.keep(
            "num_processes", "training.gradient_accumulation_steps", steps * count, f"{count} devices there: the same batch"
        )
    else:
        made.drop("num_processes", "one device")
    if named == "single_gpu":
        made.drop("accelerate_config", "one device")
    elif made.has("accelerate_config"):
        arguments.devices(made, "accelerate_config")


def _defaults(made: Draft) -> None:
    method = made.recipe["method"]
    made.default("learning_rate", _RATES.get(method, 1e-6), "training.learning_rate")
    made.default("lr_scheduler_type", "linear", "training.lr_scheduler_type")
    made.default("warmup_steps", 0, "training.warmup_steps")
    made.default("num_train_epochs", 3.0, "training.num_train_epochs")
    made.default("gradient_checkpointing", True, "training.gradient_checkpointing")
    made.default("save_steps", 500, "training.save_steps")
    if method == "grpo":
        made.default("max_completion_length", 512, "grpo.max_completion_length")
    for key in FIELDS:
        made.has(key)
