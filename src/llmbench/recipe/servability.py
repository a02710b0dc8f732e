"""What vLLM will not load as an adapter, told from the recipe before a training, and from PEFT's config before serving.

Both ask `unservable`, so that what a training promises is what `llmbench serve` does. The reasons are those of vLLM 0.32
(vllm/lora/peft_helper.py, vllm/config/lora.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbench.recipe.adapter import LoraSpec, written_as_weights
from llmbench.recipe.combination import EMBEDDINGS, HEADS, names

if TYPE_CHECKING:
    from llmbench.recipe.train import TrainRecipe

__all__ = ["MAX_RANK", "remedy", "servability", "unservable"]

MAX_RANK = 512
"""The highest rank that vLLM takes."""
PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Starts that leave the base's weights alone; every other one means that the adapter fits changed weights only."""

_NO_MERGE = {
    "SEQ_CLS": "Use the adapter of a chat model",
    "PROMPT_TUNING": "Prompt tuning cannot be merged either. Train a LoRA to serve it (`lora:` in place of `adapter:`)",
}


def servability(recipe: TrainRecipe) -> list[str]:
    """Why vLLM will not load what this recipe trains as an adapter, a line each with the remedy; empty when it will."""
    config = _config(recipe)
    if recipe.method == "reward":
        return ["vLLM serves chat models, but this run trains a reward model, which scores answers and generates none"]
    if config is None:
        return []
    return [
        f"vLLM cannot load this adapter: it {reason}. {remedy(recipe.name, str(config['peft_type']))}"
        for reason in unservable(config)
    ]


def remedy(run: str, peft_type: str = "LORA") -> str:
    """What to do with an adapter that cannot be served as one.

    Args:
        run: the run's name.
        peft_type: PEFT's name of the kind of adapter.
    """
    if peft_type in _NO_MERGE:
        return _NO_MERGE[peft_type]
    return f"Merge it: llmbench merge {run}, then serve that folder (model.model_name_or_path)"


def unservable(config: Mapping[str, Any]) -> list[str]:
    """Why vLLM does not take an adapter, from PEFT's adapter_config.json; each reason goes on from "the adapter ..."."""

    def has(key: str) -> Any:
        return config.get(key)  # files of older PEFT lack the newer keys

    kind = has("peft_type") or "LORA"
    if has("task_type") == "SEQ_CLS":
        return ["is a reward model, which scores answers and generates none"]
    if kind != "LORA":
        return [f"is {_article(kind)} {kind} adapter, and only LoRA is served"]
    start = has("init_lora_weights")
    found = {
        "is a DoRA adapter": has("use_dora"),
        f"contains whole modules (modules_to_save: {_list(has('modules_to_save'))})": has("modules_to_save"),
        "contains bias terms": has("lora_bias") or has("bias") not in (None, "none"),
        "contains trained tokens": has("trainable_token_indices"),
        f"changes the embedding or the head ({_layer(config)})": _layer(config),
        f"starts from {start}, which changed the base's weights": isinstance(start, str) and start.lower() not in PLAIN_STARTS,
        "is an activated LoRA": has("alora_invocation_tokens"),
        "repeats layers": has("layer_replication"),
        f"adapts the fused experts ({_list(_parameters(config))})": _parameters(config),
        "is a QALoRA adapter": has("use_qalora"),
        "is a block-diagonal LoRA": has("use_bdlora"),
        f"has rank {_rank(config)}, above the limit of {MAX_RANK}": _rank(config) > MAX_RANK,
    }
    return [reason for reason, holds in found.items() if holds]


def _config(recipe: TrainRecipe) -> dict[str, Any] | None:
    """The adapter_config.json that this recipe will leave, as far as `unservable` reads it; None where it leaves a model."""
    lora = recipe.lora
    if lora is None:
        return {"peft_type": recipe.adapter.type.upper()} if recipe.adapter is not None else None
    config = lora.model_dump()
    config["peft_type"] = "LORA"
    if recipe.tokenizer is not None and not any(name in EMBEDDINGS for name in lora.modules_to_save):
        config["trainable_token_indices"] = config["trainable_token_indices"] or [0]
    config["init_lora_weights"] = "loftq" if lora.start == "loftq" else True
    factor = _rank_factor(lora)
    config["r"] = math.floor(lora.r * factor)
    config["rank_pattern"] = {name: math.floor(rank * factor) for name, rank in lora.rank_pattern.items()}
    return config


def _rank_factor(lora: LoraSpec) -> float:
    """How many times its rank an adapter has when it is saved: PiSSA's and OLoRA's start is subtracted as a second half."""
    match lora.start:
        case "pissa" | "olora":
            return 2.0
        case "eva":
            return lora.eva_config.rho if lora.eva_config is not None else 2.0
        case _:
            return 1.0


def _rank(config: Mapping[str, Any]) -> int:
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    return max((rank for rank in ranks if isinstance(rank, int)), default=0)


def _layer(config: Mapping[str, Any]) -> str | None:
    targets = config.get("target_modules")
    return names(targets, EMBEDDINGS) or names(targets, HEADS)


def _parameters(config: Mapping[str, Any]) -> list[str]:
    """Fused parameters with an adapter."""
    named = config.get("target_parameters")
    linear = written_as_weights(named) if isinstance(named, list) else []
    return [name for name in named or () if name.removesuffix(".weight") not in linear]


def _list(values: Any) -> str:
    return ", ".join(map(str, values)) if isinstance(values, list) else str(values)


def _article(word: str) -> str:
    return "an" if word[:1] in "AEIO" else "a"
