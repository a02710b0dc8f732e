"""The widths of a model and the size of its weights, from config.json and the weights' headers; nothing is loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from llmbench.errors import LlmbenchError

__all__ = ["Shape", "of"]


@dataclass(frozen=True)
class Shape:
    """The widths of a decoder, from its config.json; parameters counted in the weights' headers where there are any."""

    kind: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    queries: int
    keys: int
    vocabulary: int
    tied: bool
    parameters: int
    stored: int
    """Bytes of the weights' files; 0 for random weights."""

    @property
    def embedding(self) -> int:
        """Parameters of embedding and head."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def body(self) -> int:
        """Parameters of all layers."""
        return max(self.parameters - self.embedding, 0)


def of(folder: Path | None, config: dict[str, Any] | None = None) -> Shape:
    """The shape of a model's folder, or of a configuration with random weights.

    Raises:
        LlmbenchError: the configuration lacks a width, or is not one of a decoder.
    """
    values = config if folder is None else json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert values is not None
    values = values.get("text_config", values)
    try:
        hidden, layers, heads = values["hidden_size"], values["num_hidden_layers"], values["num_attention_heads"]
        intermediate, vocabulary = values["intermediate_size"], values["vocab_size"]
    except KeyError as error:
        raise LlmbenchError(f"{folder or 'model.config'}: no estimate without {error.args[0]} in the configuration.") from error
    head = values.get("head_dim") or hidden // heads
    keys = (values.get("num_key_value_heads") or heads) * head
    queries = heads * head
    tied = bool(values.get("tie_word_embeddings", False))
    body = layers * (hidden * (2 * queries + 2 * keys) + 3 * hidden * intermediate)
    parameters, stored = (body + vocabulary * hidden * (1 if tied else 2), 0) if folder is None else _stored(folder)
    kind = values["model_type"]
    return Shape(kind, hidden, intermediate, layers, heads, queries, keys, vocabulary, tied, parameters, stored)


def _stored(folder: Path) -> tuple[int, int]:
    """Parameters and bytes of the weights, from the headers of their files."""
    parameters = size = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        parameters += sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
        size += path.stat().st_size
    return parameters, size
