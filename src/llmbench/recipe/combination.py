"""Which parts of a training recipe do not go together, each with the reason and the nearest that does.

PEFT, TRL and bitsandbytes refuse some of these when the model is loaded, some after the first step, and some never: they
train something else, or nothing. Each line here was seen to happen (tests/training/test_adapter.py does it again).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench import assets
from llmbench.errors import LlmbenchError
from llmbench.recipe.adapter import IA3Spec, LoraSpec, OFTSpec, PromptTuningSpec, VeraSpec

if TYPE_CHECKING:
    from llmbench.recipe.model import ModelSpec
    from llmbench.recipe.sections import TrainSections

__all__ = ["EMBEDDINGS", "HEADS", "TRAINABLE", "base_config", "names", "refusals", "tied"]

EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")
HEADS = ("lm_head", "embed_out", "output_layer")
TRAINABLE = {
    "bitsandbytes": "bitsandbytes",
    "gptq": "gptqmodel",
    "awq": "gptqmodel",
    "torchao": "torchao",
    "eetq": "eetq",
    "aqlm": "aqlm",
}
"""The kinds of quantised base that PEFT trains adapters on, with the package that each needs.

HQQ is not among them: PEFT would train on it, but transformers 5 does not load it ("not available yet").
"""

_UNROUNDED = {
    "pissa": "PiSSA decomposes the base's weights",
    "olora": "OLoRA decomposes the base's weights",
    "mica": "MiCA reads the base's smallest singular vectors",
    "orthogonal": "PEFT's orthogonal start needs floating-point weights",
    "loftq": "LoftQ rounds the weights itself and starts from the unrounded ones",
}

Config = Mapping[str, Any]


def base_config(spec: ModelSpec) -> dict[str, Any] | None:
    """config.json of a base that is a folder on this machine (or bundled); None of a hub's, which is read when it is loaded."""
    try:
        path = Path(assets.model_folder(spec.model_name_or_path)).expanduser() / "config.json"
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, LlmbenchError):
        return None
    return found if isinstance(found, dict) else None


def tied(base: Config | None) -> bool:
    """Whether embedding and head are one matrix, as far as it is known."""
    return bool(base and base.get("tie_word_embeddings", False))


def names(targets: str | list[str] | None, kinds: tuple[str, ...]) -> str | None:
    """The first of some module names that the targets name, by the end of a name or by a regular expression."""
    if targets is None or targets == "all-linear":
        return None
    for kind in kinds:
        if isinstance(targets, str):
            if any(re.fullmatch(targets, place) for place in (kind, f"model.{kind}", f"transformer.{kind}")):
                return kind
        elif any(target.rsplit(".", 1)[-1] == kind for target in targets):
            return kind
    return None


def refusals(recipe: TrainSections, base: Config | None) -> list[str]:
    """What does not go together, a line each; empty when the recipe can be trained.

    Args:
        recipe: a recipe whose parts are each right in themselves.
        base: the base model's config.json, if it is known yet.
    """
    rules: list[Callable[[TrainSections, Config | None], Iterator[str]]] = [_whole, _base, _lora, _targets, _tokens, _others]
    return [line for rule in rules for line in rule(recipe, base)]


def _whole(recipe: TrainSections, base: Config | None) -> Iterator[str]:
    """Training all parameters, or some."""
    if recipe.quantization is not None and not recipe.adapts:
        yield "quantization: freezes the base, so nothing is left to train; add a lora section"
    if recipe.freeze is not None and recipe.adapts:
        yield "freeze: is for training all parameters, and an adapter freezes the base already; write `lora: null`"
    if recipe.freeze is not None and recipe.method == "pretrain":
        yield "freeze: would leave random weights untrained; use it with a trained model and method: sft"


def _base(recipe: TrainSections, base: Config | None) -> Iterator[str]:
    """A base that comes quantised."""
    quantised = _quantised(base)
    if quantised is None:
        return
    name = recipe.model.model_name_or_path
    if quantised not in TRAINABLE:
        yield (
            f"model.model_name_or_path: {name} is quantised with {quantised}, on which no adapter can be trained; "
            f"use the unquantised model, with a quantization section if memory is short"
        )
    elif recipe.quantization is not None:
        yield f"quantization: {name} is already quantised ({quantised}); leave the section out, or use the unquantised model"
    elif not recipe.adapts:
        yield f"lora: null trains all parameters, and those of {name} are quantised ({quantised}); add a lora section"
    elif quantised != "bitsandbytes" and isinstance(recipe.adapter, VeraSpec | IA3Spec):
        yield f"adapter: PEFT has {recipe.adapter.type} for bitsandbytes' quantised layers only, not for {quantised}; use lora"


def _quantised(base: Config | None) -> str | None:
    values = base.get("quantization_config") if base else None
    return str(values.get("quant_method", "bitsandbytes")) if isinstance(values, dict) else None


def _lora(recipe: TrainSections, base: Config | None) -> Iterator[str]:
    """LoRA's variants among themselves, and beside a quantised base."""
    lora = recipe.lora
    if lora is None:
        return
    quantised = recipe.quantization is not None or _quantised(base) is not None
    if quantised and lora.start in _UNROUNDED:
        yield (
            f"lora.init_lora_weights: {_UNROUNDED[lora.start]}, which a quantised base does not have; "
            "use eva or true, or leave quantization out"
        )
    if lora.use_dora and lora.start == "mica":
        yield "lora.init_lora_weights: PEFT does not support MiCA with DoRA; use use_dora: false, or init_lora_weights: eva"
    if lora.use_dora and lora.start in ("pissa", "olora"):
        yield (
            f"lora.use_dora: {lora.init_lora_weights} changes the base, and with DoRA's magnitudes the change cannot be "
            f"undone in the saved adapter; use init_lora_weights: eva, or use_dora: false"
        )
    if lora.loraplus_lr_ratio is not None and not recipe.training.optim.startswith("adamw_torch"):
        yield f"lora.loraplus_lr_ratio: is for AdamW, not for {recipe.training.optim}; use training.optim: adamw_torch_fused"
    if lora.loraplus_lr_ratio is not None and lora.start == "mica":
        yield "lora.loraplus_lr_ratio: MiCA trains A alone, so B has no rate; leave it out, or use another start"
    if lora.layers_to_transform is not None and isinstance(lora.target_modules, str):
        yield (
            "lora.layers_to_transform: PEFT accepts it only with a list of target_modules; write "
            "target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]"
        )


def _targets(recipe: TrainSections, base: Config | None) -> Iterator[str]:
    """Adapters on the embedding or on the head."""
    place, section = _section(recipe)
    if section is None or isinstance(section, PromptTuningSpec):
        return
    head = names(section.target_modules, HEADS)
    if head is not None:
        yield (
            f"{place}.target_modules: an adapter on {head} would never be trained, because the loss is computed from "
            f"the head's own weights; train the head whole: modules_to_save: [{head}]"
        )
    embedding = names(section.target_modules, EMBEDDINGS)
    if embedding is not None and isinstance(section, VeraSpec | IA3Spec):
        yield (
            f"{place}.target_modules: PEFT has {section.type} for linear layers only, not for {embedding}; "
            f"train it whole: modules_to_save: [{embedding}]"
        )
    elif embedding is not None and tied(base):
        also = ", ensure_weight_tying: true" if isinstance(section, LoraSpec) else ""
        yield (
            f"{place}.target_modules: {embedding} is one matrix with the head here, and an adapter on it cannot be merged "
            f"without changing the head; train it whole: modules_to_save: [{embedding}]{also}"
        )


def _tokens(recipe: TrainSections, base: Config | None) -> Iterator[str]:
    """Rows of the embedding, old and new."""
    section = _section(recipe)[1]
    lora = recipe.lora
    saved = [] if section is None or isinstance(section, PromptTuningSpec) else section.modules_to_save
    embedding = next((name for name in saved if name in EMBEDDINGS), None)
    head = next((name for name in saved if name in HEADS), None)
    if recipe.tokenizer is not None and recipe.method == "pretrain":
        yield "tokenizer.add_tokens: needs a model with a vocabulary; for pretrain add the tokens to model.tokenizer"
    if recipe.tokenizer is not None and section is not None and lora is None and embedding is None:
        yield (
            f"tokenizer.add_tokens: the new rows would not be trained with adapter.type {getattr(section, 'type', '')}; "
            "write modules_to_save: [embed_tokens, lm_head], or use lora"
        )
    if lora is None:
        return
    rows = lora.trainable_token_indices is not None
    if rows and embedding is not None:
        yield (
            f"lora.trainable_token_indices: modules_to_save trains the whole of {embedding} already; leave one of them out "
        ).rstrip()
    chosen = rows or (recipe.tokenizer is not None and embedding is None)
    target = names(lora.target_modules, EMBEDDINGS)
    if not chosen:
        return
    what = "lora.trainable_token_indices" if rows else "tokenizer.add_tokens"
    if target is not None:
        yield f"{what}: PEFT trains either rows of {target} or LoRA on it; take {target} out of target_modules"
    if head is not None and embedding is None and tied(base):
        yield (
            f"{what}: {head} is one matrix with the embedding here, so it cannot be trained whole together with single rows; "
            f"write modules_to_save: [embed_tokens, {head}]"
        )
    if lora.start == "eva":
        yield f"{what}: EVA cannot read the activations of an embedding with trained rows; use init_lora_weights: true"


def _others(recipe: TrainSections, base: Config | None) -> Iterator[str]:
    """What is not LoRA."""
    adapter = recipe.adapter
    if isinstance(adapter, PromptTuningSpec):
        if recipe.training.torch_compile:
            yield "training.torch_compile: prompt tuning bypasses the compiled layers; leave it out, or use lora"
        context = base.get("max_position_embeddings") if base else None
        if isinstance(context, int) and adapter.num_virtual_tokens + recipe.data.max_length > context:
            yield (
                f"adapter.num_virtual_tokens: {adapter.num_virtual_tokens} and rows of data.max_length "
                f"{recipe.data.max_length} are more than the {context:,} tokens that the model reads; "
                f"use data.max_length: {max(context - adapter.num_virtual_tokens, 1)}"
            )
    if isinstance(adapter, OFTSpec) and base:
        widths = [base.get(key) for key in ("hidden_size", "intermediate_size")]
        odd = next((w for w in widths if isinstance(w, int) and w % adapter.oft_block_size), None)
        if odd is not None:
            fits = next(
                size
                for size in range(adapter.oft_block_size, 0, -1)
                if all(isinstance(w, int) and w % size == 0 for w in widths if w)
            )
            yield f"adapter.oft_block_size: {adapter.oft_block_size} does not divide the model's width {odd}; use {fits}"


def _section(recipe: TrainSections) -> tuple[str, LoraSpec | OFTSpec | VeraSpec | IA3Spec | PromptTuningSpec | None]:
    """What is trained beside the base, and its place in the recipe."""
    return ("lora", recipe.lora) if recipe.lora is not None else ("adapter", recipe.adapter)
