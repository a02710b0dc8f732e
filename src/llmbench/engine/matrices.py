"""An adapter's matrices against its own configuration and against its base: vLLM dies of some and ignores others silently."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from llmbench.engine.peft_config import CONFIG, remedy_of
from llmbench.engine.tensors import FLOATS, LARGEST, Tensors, read_header, read_numbers
from llmbench.errors import EngineError

__all__ = ["WEIGHTS", "check", "check_against", "check_numbers"]

WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
_IGNORED = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")
"""Copies of the base's own weights, which vLLM passes over."""
_NUMBER = re.compile(r"\.\d+\.")
_PACKED = ("U8", "I8", "I32", "U32")
"""Kinds of weights of which several share a number (bitsandbytes, GPTQ, AWQ), so that their shape is none of the layer's."""


def check(folder: Path, config: dict[str, Any]) -> Tensors:
    """The adapter's tensors: two halves of one rank for each layer, by PEFT's names, which vLLM alone understands.

    Raises:
        EngineError: they are something else.
    """
    path = folder / WEIGHTS
    tensors = {name: tensor for name, tensor in read_header(path).items() if not name.endswith(_IGNORED)}
    if not any(".lora_A." in name or ".lora_B." in name or ".lora_embedding_" in name for name in tensors):
        raise EngineError(f"{path} contains no LoRA weights")
    for name in tensors:
        if ".lora_embedding_" in name:
            raise EngineError(f"{folder} changes the embedding ({name}), so vLLM cannot load it. {remedy_of(folder)}")
        if (
            not name.startswith(_PREFIX) or not name.isprintable()
        ):  # with another prefix vLLM loads nothing and answers as the base
            raise EngineError(f"{path}: {name!r:.200} does not start with {_PREFIX}, so vLLM would ignore it")
        if not name.endswith((_A, _B)):
            raise EngineError(
                f"{path} holds {name!r:.200}, which is not a LoRA matrix, so vLLM cannot load it. {remedy_of(folder)}"
            )
    for name in tensors:
        _check_half(path, tensors, name, config)
    return tensors


def _check_half(path: Path, tensors: Tensors, name: str, config: dict[str, Any]) -> None:
    first = name.endswith(_A)
    half, other = (_A, _B) if first else (_B, _A)
    partner = tensors.get(name.removesuffix(half) + other)
    if partner is None:
        raise EngineError(f"{path}: {name} lacks its other half ({other.split('.')[1]}). Save or copy the adapter again")
    shape, kind = tensors[name].shape, tensors[name].kind
    if len(shape) != 2 or 0 in shape:
        raise EngineError(f"{path}: {name} is not a matrix (its shape is {shape}), so vLLM cannot load it")
    if kind not in FLOATS:
        raise EngineError(f"{path}: {name} is stored as {kind:.20}; save it as one of {', '.join(FLOATS)}")
    if not first:
        return
    rank, most = shape[0], max([config["r"], *(config.get("rank_pattern") or {}).values()])
    if rank > most or (rank != most and not config.get("rank_pattern")):
        raise EngineError(f"{path}: {name} has rank {rank}, but {CONFIG} says {most}")
    if len(partner.shape) == 2 and partner.shape[1] != rank:
        raise EngineError(
            f"{path}: {name} has rank {rank}, but its other half has {partner.shape[1]}. Save or copy the adapter again"
        )


def check_numbers(reference: str, folder: Path, config: dict[str, Any]) -> str:
    """Refuses what cannot be computed with: one NaN makes every answer empty. Returns a note where the adapter does nothing."""
    working = {"lora_A": False, "lora_B": False}
    for name, usable, zero in read_numbers(folder / WEIGHTS):
        if not usable:
            raise EngineError(
                f"{folder / WEIGHTS}: {name} holds NaN or infinity, or numbers beyond {LARGEST:,}, "
                "so every answer would be empty. Train the adapter again"
            )
        for half in working:
            working[half] = working[half] or (f".{half}." in name and not zero)
    if not all(working.values()):
        return f"adapter {reference} has only zero weights: its answers are exactly those of its base"
    if not any([config["lora_alpha"], *(config.get("alpha_pattern") or {}).values()]):
        return f"adapter {reference} has lora_alpha 0: its answers are exactly those of its base"
    return ""


def check_against(folder: Path, tensors: Tensors, base: str, base_folder: Path) -> str:
    """Refuses halves that do not fit the base's matrix of the same name, and layers that it does not have.

    Where the base's files name none of the layers, it may spell them otherwise, as vLLM knows: that is a note.
    """
    weights: Tensors = {}
    for file in sorted(base_folder.glob("*.safetensors")):
        weights |= read_header(file)
    modules = {name.rpartition(".")[0] for name in weights}
    layers = {_layer(name) for name in tensors}
    known = layers & modules
    _check_numbered(folder, layers - modules, modules, base)
    if known:
        for layer in sorted(layers - known):
            if ".experts" not in layer:  # which some bases hold as one matrix of another name
                raise EngineError(
                    f"{folder}: {layer} is adapted, but {base} has no such layer. The adapter was trained on another base"
                )
    for name, tensor in tensors.items():
        matrix = weights.get(f"{_layer(name)}.weight")
        if matrix is None or matrix.kind in _PACKED:
            continue
        if len(matrix.shape) != 2:
            raise EngineError(f"{folder}: {_layer(name)} is not a linear layer, so vLLM cannot load it. {remedy_of(folder)}")
        fits = tensor.shape[1] == matrix.shape[1] if name.endswith(_A) else tensor.shape[0] == matrix.shape[0]
        if not fits:
            raise EngineError(
                f"{folder}: {name.removeprefix(_PREFIX)} is {tensor.shape}, which does not fit {base}, "
                f"whose matrix is {matrix.shape}. The adapter was trained on another base"
            )
    if weights and not known:
        return (
            f"{base} names none of the layers that {folder.name} adapts, such as {min(layers)}. "
            "If its answers are the base's, vLLM did not find them either"
        )
    return ""


def _check_numbered(folder: Path, unknown: set[str], modules: set[str], base: str) -> None:
    """A layer of a number that the base does not have, among layers that it has."""
    alike: dict[str, int] = {}
    for module in modules:
        alike[_NUMBER.sub(".#.", module)] = alike.get(_NUMBER.sub(".#.", module), 0) + 1
    for layer in sorted(unknown):
        others = alike.get(_NUMBER.sub(".#.", layer), 0)
        if others:
            raise EngineError(
                f"{folder}: {layer} is adapted, but {base} has only {others} such layers. It was trained on another base"
            )


def _layer(name: str) -> str:
    return name.removeprefix(_PREFIX).partition(".lora_")[0]
