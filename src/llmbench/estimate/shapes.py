"""The widths of a model and the size of its weights, from config.json and the weights' headers; nothing is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from llmbench.errors import LlmbenchError

__all__ = ["Shape", "of"]


_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "top_k_experts")
_SHARED_WIDTHS = ("shared_expert_intermediate_size", "shared_intermediate_size")
_SHARED_COUNTS = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
"""Names that configurations have for the experts of a layer, those that a token goes through, and those that all go through."""


@dataclass(frozen=True)
class Mlp:
    """The feed-forward part of all layers together: of a mixture of experts, a token goes through some of it."""

    total: int
    """Parameters."""
    experts: int
    """Those of routed experts among them."""
    idle: float
    """The share of its experts that a token is not sent to."""
    width: int
    """Inner width that a token goes through in a layer, on average over the layers."""
    linears: int
    """Widths in and out of its plain linear layers, which LoRA adapts, on average over the layers; experts are fused."""


@dataclass(frozen=True)
class Shape:
    """The widths of a decoder, from its config.json; parameters counted in the weights' headers where there are any."""

    kind: str
    hidden: int
    intermediate: int
    """The width of the feed-forward part that a token goes through: of a mixture, of all experts that it is sent to."""
    layers: int
    heads: int
    queries: int
    keys: int
    vocabulary: int
    tied: bool
    parameters: int
    stored: int
    """Bytes of the weights' files; 0 for random weights, and where they are not downloaded yet."""
    experts: int
    """Parameters of routed experts; 0 of a dense model."""
    idle: int
    """Parameters of the experts that a token is not sent to."""
    linears: int
    """Widths in and out of a layer's plain feed-forward linear layers: 3 (hidden + intermediate) of a dense one."""
    window: int = 0
    """Tokens that a layer with a sliding window looks back; 0 without such layers."""
    windowed: int = 0
    """Layers that have the window."""

    @property
    def embedding(self) -> int:
        """Parameters of embedding and head."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def body(self) -> int:
        """Parameters of all layers."""
        return max(self.parameters - self.embedding, 0)

    @property
    def active(self) -> int:
        """Parameters of all layers that one token goes through."""
        return max(self.body - self.idle, 0)


def of(folder: Path | None, config: dict[str, Any] | None = None) -> Shape:
    """The shape of a model's folder, or of a configuration with random weights.

    Raises:
        LlmbenchError: the configuration lacks a width, or is not one of a decoder.
    """
    values = config if folder is None else json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert values is not None
    values = values.get("text_config") or values
    try:
        hidden, layers, heads = values["hidden_size"], values["num_hidden_layers"], values["num_attention_heads"]
        intermediate, vocabulary = values["intermediate_size"], values["vocab_size"]
    except KeyError as error:
        raise LlmbenchError(f"{folder or 'model.config'}: no estimate without {error.args[0]} in the configuration.") from error
    head = values.get("head_dim") or hidden // heads
    keys = (values.get("num_key_value_heads") or heads) * head
    queries = heads * head
    tied = bool(values.get("tie_word_embeddings", False))
    mlp = _mlp(values, hidden, intermediate, layers)
    parameters, experts, stored = (0, 0, 0) if folder is None else _stored(folder, _first(values, _COUNTS))
    if not parameters:
        experts = mlp.experts
        parameters = layers * hidden * (2 * queries + 2 * keys) + mlp.total + vocabulary * hidden * (1 if tied else 2)
    return Shape(
        values["model_type"], hidden, mlp.width, layers, heads, queries, keys, vocabulary, tied, parameters, stored, experts,
        round(experts * mlp.idle), mlp.linears, *_windows(values, layers),
    )  # fmt: skip


def _windows(values: dict[str, Any], layers: int) -> tuple[int, int]:
    """Tokens that layers with a sliding window look back, and how many layers have one, as transformers 5 reads them."""
    window, kinds = values.get("sliding_window"), values.get("layer_types")
    if not window or values.get("use_sliding_window") is False:
        return 0, 0
    if isinstance(kinds, list):
        return window, sum(kind == "sliding_attention" for kind in kinds)
    match values["model_type"]:
        case "gemma3_text" | "gemma3":  # the last of each six looks at everything
            return window, layers - layers // (values.get("sliding_window_pattern") or 6)
        case "gemma2" | "gpt_oss":
            return window, layers - layers // 2
        case "mistral" | "mixtral" | "phi3":
            return window, layers
    return 0, 0


def _mlp(values: dict[str, Any], hidden: int, intermediate: int, layers: int) -> Mlp:
    """The feed-forward part by the configuration: gate, up and down projections, dense or as experts with a router."""
    count, chosen = _first(values, _COUNTS), _first(values, _CHOSEN)
    if count < 2 or not chosen:
        return Mlp(layers * 3 * hidden * intermediate, 0, 0.0, intermediate, 3 * (hidden + intermediate))
    width = values.get("moe_intermediate_size") or intermediate
    shared = _first(values, _SHARED_WIDTHS) or _first(values, _SHARED_COUNTS) * width
    dense = min(_dense_layers(values, layers), layers)
    sparse = layers - dense
    inner = values.get("intermediate_size_mlp") or intermediate
    plain = 3 * hidden * (dense * inner + sparse * shared) + sparse * hidden * count
    experts = sparse * count * 3 * hidden * width
    linears = dense * 3 * (hidden + inner) + sparse * (3 * (hidden + shared) if shared else 0)
    inside = dense * inner + sparse * (chosen * width + shared)
    return Mlp(plain + experts, experts, 1 - chosen / count, inside // layers, linears // layers)


def _dense_layers(values: dict[str, Any], layers: int) -> int:
    """How many layers of a mixture have no experts."""
    kinds = values.get("mlp_layer_types")
    if isinstance(kinds, list):
        return sum(kind == "dense" for kind in kinds)
    every = values.get("decoder_sparse_step") or values.get("interleave_moe_layer_step") or 1
    plain = set(values.get("mlp_only_layers") or ())
    return (values.get("first_k_dense_replace") or 0) + sum(i in plain or (i + 1) % every != 0 for i in range(layers))


def _first(values: dict[str, Any], names: tuple[str, ...]) -> int:
    """The first number that has one of these names; 0 without any."""
    return next((value for name in names if isinstance(value := values.get(name), int)), 0)


def _stored(folder: Path, experts: int) -> tuple[int, int, int]:
    """Parameters, those of routed experts among them, and bytes of the weights, from the headers of their files."""
    parameters = routed = size = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, entry in header.items():
            if name != "__metadata__":
                shape = entry["shape"]
                parameters += prod(shape)
                fused = len(shape) == 3 and shape[0] == experts > 1
                routed += prod(shape) if experts > 1 and (fused or ".experts." in name) else 0
        size += path.stat().st_size
    return parameters, routed, size
