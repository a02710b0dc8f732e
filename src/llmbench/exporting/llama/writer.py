"""A model's folder in transformers' format as a GGUF file: names, head and weights by architecture, one tensor at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llmbench.errors import LlmbenchError
from llmbench.exporting.llama import vocabulary
from llmbench.exporting.llama.vocabulary import Vocabulary

__all__ = ["ARCHITECTURES", "Layout", "layout", "names", "permuted", "refusal", "write"]

ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "Gemma3ForCausalLM": "gemma3",
    "Phi3ForCausalLM": "phi3",
}
"""transformers' class of a model -> llama.cpp's name of its architecture."""
_LARGEST = 65504.0
"""The largest number of float16."""
_GEMMA_LOCAL = 10_000.0
"""llama.cpp's base of the rotation in Gemma 3's local layers, which no field of a file changes,"""
_GEMMA_EVERY = 6
"""and every which layer is global."""


@dataclass(frozen=True)
class Layout:
    """How an architecture is written."""

    arch: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    config: dict[str, Any]


def layout(config: dict[str, Any]) -> Layout:
    """How a configuration's model is written; `refusal` must be None for it."""
    heads = int(config["num_attention_heads"])
    return Layout(
        ARCHITECTURES[config["architectures"][0]],
        int(config["num_hidden_layers"]),
        heads,
        int(config.get("num_key_value_heads") or heads),
        int(config.get("head_dim") or config["hidden_size"] // heads),
        config,
    )


def refusal(config: dict[str, Any]) -> str | None:
    """Why a model is not written to GGUF here, or None."""
    name = (config.get("architectures") or ["?"])[0]
    if name not in ARCHITECTURES:
        return f"{name} is not among the architectures that are written to GGUF ({', '.join(ARCHITECTURES)})"
    rope = _rope(config)
    kind = str(rope.get("rope_type", rope.get("type", "default")))
    allowed = {"llama": ("default", "linear", "llama3"), "phi3": ("default", "longrope")}.get(
        ARCHITECTURES[name], ("default", "linear")
    )
    if kind not in allowed:
        return f"its rotary positions are scaled by {kind}, which is not written for {name}"
    window = config.get("sliding_window")
    local = "sliding_attention" in (config.get("layer_types") or [])
    if (name.startswith("Qwen") and local) or (name.startswith("Mistral") and window):
        return "its attention looks at a window of tokens only, which llama.cpp does not do for this architecture"
    if name.startswith("Gemma3"):
        return _gemma_refusal(config)
    return None


def _gemma_refusal(config: dict[str, Any]) -> str | None:
    every = [
        "full_attention" if (i + 1) % _GEMMA_EVERY == 0 else "sliding_attention" for i in range(config["num_hidden_layers"])
    ]
    local = (config.get("rope_parameters") or {}).get("sliding_attention", {}).get("rope_theta", _GEMMA_LOCAL)
    if config.get("layer_types", every) != every or float(local) != _GEMMA_LOCAL:
        return "its local and global layers are not in llama.cpp's order for Gemma 3"
    if config.get("final_logit_softcapping") or config.get("attn_logit_softcapping"):
        return "its logits are capped, which llama.cpp does not do for Gemma 3"
    return None


def write(
    source: Path,
    target: Path,
    tokenizer: Any,
    stops: frozenset[int],
    *,
    name: str,
    pre: str,
    kind: str,
    weights: bool = True,
) -> None:
    """Writes a GGUF file.

    Args:
        source: a folder with config.json, tokenizer.json and safetensors.
        target: the file.
        tokenizer: transformers' own, with the chat template.
        stops: the tokens that end an answer.
        name: of the model.
        pre: llama.cpp's name of the pre-tokenizer.
        kind: of the matrices: f32 or f16. What has one dimension stays float32.
        weights: whether to write these; without, it is a vocabulary.

    Raises:
        LlmbenchError: a weight has no name in llama.cpp, or does not fit float16.
    """
    import gguf

    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    found = layout(config)
    writer = gguf.GGUFWriter(target, found.arch)
    try:
        _head(writer, found, vocabulary.model_name(name, source), kind)
        vocabulary.add(writer, _vocabulary(tokenizer, source, found), tokenizer, stops, pre)
        known = list(_tensors(source, found)) if weights else []
        for tensor, part, file in known:
            shape, dtype = part.shape(file), _type(tensor, part.shape(file), kind)
            size = math.prod(shape) * (4 if dtype == "f32" else 2)
            raw = gguf.GGMLQuantizationType.F32 if dtype == "f32" else gguf.GGMLQuantizationType.F16
            writer.add_tensor_info(tensor, shape, _numpy(dtype), size, raw)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor, part, file in known:
            values = part.values(file)
            dtype = _type(tensor, values.shape, kind)
            if dtype == "f16" and float(values.abs().max()) > _LARGEST:
                raise LlmbenchError(f"{tensor} has numbers that do not fit float16. Use --precision q8_0")
            writer.write_tensor_data(values.contiguous().numpy().astype(_numpy(dtype)))
    finally:
        writer.close()


@dataclass(frozen=True)
class _Part:
    """One tensor of the source, or one that is computed."""

    name: str
    how: str = ""
    heads: int = 0
    made: torch.Tensor | None = None

    def shape(self, file: Path) -> tuple[int, ...]:
        if self.made is not None:
            return tuple(self.made.shape)
        from safetensors import safe_open

        with safe_open(file, framework="pt") as opened:
            return tuple(opened.get_slice(self.name).get_shape())

    def values(self, file: Path) -> torch.Tensor:
        if self.made is not None:
            return self.made
        from safetensors import safe_open

        with safe_open(file, framework="pt") as opened:
            found: torch.Tensor = opened.get_tensor(self.name).float()
        match self.how:
            case "permute":
                return permuted(found, self.heads)
            case "plus one":
                return found + 1
        return found


def permuted(weights: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows in llama.cpp's order for the rotation of `llama`: pairs next to each other, where transformers has halves."""
    rows = weights.shape[0]
    return weights.reshape(heads, 2, rows // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def names(found: Layout) -> Any:
    """llama.cpp's names of an architecture's tensors, by transformers' names without their ending."""
    import gguf

    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == found.arch)
    return gguf.get_tensor_name_map(arch, found.layers)


def _tensors(source: Path, found: Layout) -> Iterator[tuple[str, _Part, Path]]:
    from safetensors import safe_open

    mapped = names(found)
    tied = bool(found.config.get("tie_word_embeddings"))
    for name, values in _computed(found):
        yield name, _Part("", made=values), source
    for file in sorted(source.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            keys = list(opened.keys())
        for key in keys:
            if key == "lm_head.weight" and tied:
                continue
            name = mapped.get_name(key, try_suffixes=(".weight", ".bias"))
            if name is None:
                raise LlmbenchError(f"{key} has no name in llama.cpp's {found.arch}. Use --format merged")
            yield name, _part(key, found), file


def _part(key: str, found: Layout) -> _Part:
    if found.arch == "llama" and ".q_proj." in key:
        return _Part(key, "permute", found.heads)
    if found.arch == "llama" and ".k_proj." in key:
        return _Part(key, "permute", found.kv_heads)
    if found.arch == "gemma3" and key.endswith("norm.weight"):
        return _Part(key, "plus one")
    return _Part(key)


def _type(name: str, shape: tuple[int, ...], kind: str) -> str:
    return "f32" if len(shape) == 1 or name.endswith("_norm.weight") else kind


def _numpy(dtype: str) -> Any:
    import numpy as np

    return np.dtype(np.float32 if dtype == "f32" else np.float16)


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """The rotation's parameters, of the global layers where there are two kinds."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return found.get("full_attention", found) or {}


def _theta(config: dict[str, Any]) -> float:
    return float(_rope(config).get("rope_theta") or config.get("rope_theta") or 10_000.0)


def _head(writer: Any, found: Layout, name: str, kind: str) -> None:
    """The fields of an architecture."""
    import gguf

    config = found.config
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if kind == "f32" else gguf.LlamaFileType.MOSTLY_F16)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(found.layers)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(found.heads)
    writer.add_head_count_kv(found.kv_heads)
    writer.add_key_length(found.head_dim)
    writer.add_value_length(found.head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    rotated = float(_rope(config).get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0)
    writer.add_rope_dimension_count(int(found.head_dim * rotated))
    writer.add_rope_freq_base(_theta(config))
    rope = _rope(config)
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if found.arch in ("gemma3", "phi3"):
        writer.add_sliding_window(int(config.get("sliding_window") or config["max_position_embeddings"]))
    if found.arch == "phi3":
        _phi(writer, config, rope)


def _phi(writer: Any, config: dict[str, Any], rope: dict[str, Any]) -> None:
    whole = int(config["max_position_embeddings"])
    short = int(rope.get("original_max_position_embeddings") or config.get("original_max_position_embeddings") or whole)
    writer.add_rope_scaling_orig_ctx_len(short)
    if rope.get("rope_type") == "longrope":
        scale = whole / short
        given = rope.get("attention_factor")
        computed = math.sqrt(1 + math.log(scale) / math.log(short)) if scale > 1 else 1.0
        writer.add_rope_scaling_attn_factors(float(given) if given is not None else computed)


def _computed(found: Layout) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors that hold what transformers computes from the configuration."""
    rope = _rope(found.config)
    match rope.get("rope_type"):
        case "llama3":
            yield "rope_freqs.weight", _llama3(rope, _theta(found.config), found.head_dim)
        case "longrope":
            yield "rope_factors_long.weight", torch.tensor(rope["long_factor"], dtype=torch.float32)
            yield "rope_factors_short.weight", torch.tensor(rope["short_factor"], dtype=torch.float32)


def _llama3(rope: dict[str, Any], theta: float, width: int) -> torch.Tensor:
    """By how much each frequency is slowed down: those of long waves by the factor, those of short ones not at all."""
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    factor, context = float(rope["factor"]), float(rope["original_max_position_embeddings"])
    found = []
    for i in range(0, width, 2):
        turns = context / (2 * math.pi * theta ** (i / width))  # of a wave in the context that was trained
        part = min(max((turns - low) / (high - low), 0.0), 1.0)
        found.append(1.0 / ((1 - part) / factor + part))
    return torch.tensor(found, dtype=torch.float32)


def _vocabulary(tokenizer: Any, source: Path, found: Layout) -> Vocabulary:
    return vocabulary.of(tokenizer, source, int(found.config["vocab_size"]))
