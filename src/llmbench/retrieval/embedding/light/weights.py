"""The safetensors of a BERT-like encoder, by what each matrix does rather than by its architecture's name for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench.errors import LlmbenchError
from llmbench.retrieval.embedding.light.layout import Layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Affine", "Layer", "Weights", "read"]


@dataclass(frozen=True)
class Affine:
    """A linear map, weight (out, in), or a layer norm, weight (width,)."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """One layer of a post-norm encoder: attention, norm, two linear maps with an activation between, norm."""

    qkv: Affine
    """Queries, keys and values in one product."""
    out: Affine
    norm: Affine
    up: Affine
    down: Affine
    last_norm: Affine


@dataclass(frozen=True)
class Weights:
    """The whole encoder. `positions[0]` is the first token's; token types are added in, since texts are of type 0."""

    words: NDArray[np.float32]
    positions: NDArray[np.float32]
    norm: Affine
    layers: tuple[Layer, ...]
    heads: int
    epsilon: float
    activation: str


_BERT = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "out": "attention.output.dense", "norm": "attention.output.LayerNorm",
    "up": "intermediate.dense", "down": "output.dense", "last_norm": "output.LayerNorm",
}  # fmt: skip
_DISTILBERT = {
    "query": "attention.q_lin", "key": "attention.k_lin", "value": "attention.v_lin", "out": "attention.out_lin",
    "norm": "sa_layer_norm", "up": "ffn.lin1", "down": "ffn.lin2", "last_norm": "output_layer_norm",
}  # fmt: skip


def read(layout: Layout) -> Weights:
    """Reads a light model's weights as float32.

    Raises:
        LlmbenchError: a matrix is missing, or the files cannot be read.
    """
    import numpy as np

    tensors = _tensors(layout.transformer)
    config, distil = layout.config, layout.kind == "distilbert"
    marker = "embeddings.word_embeddings.weight"
    prefix = next((name.removesuffix(marker) for name in tensors if name.endswith(marker)), "")

    def array(name: str) -> NDArray[np.float32]:
        try:
            return tensors[prefix + name]()
        except KeyError as error:
            raise LlmbenchError(f"{layout.transformer}: its weights lack {prefix + name}. Download the model again.") from error

    def affine(name: str) -> Affine:
        return Affine(array(f"{name}.weight"), array(f"{name}.bias"))

    def layer(index: int) -> Layer:
        names, place = (_DISTILBERT, "transformer.layer") if distil else (_BERT, "encoder.layer")
        parts = {part: affine(f"{place}.{index}.{name}") for part, name in names.items()}
        three = [parts.pop(part) for part in ("query", "key", "value")]
        qkv = Affine(np.concatenate([p.weight for p in three]), np.concatenate([p.bias for p in three]))
        return Layer(qkv=qkv, **parts)

    positions = array("embeddings.position_embeddings.weight")[layout.first_position :]
    if not distil:
        positions = positions + array("embeddings.token_type_embeddings.weight")[0]
    return Weights(
        array(marker),
        positions,
        affine("embeddings.LayerNorm"),
        tuple(layer(i) for i in range(int(config["n_layers" if distil else "num_hidden_layers"]))),
        int(config["n_heads" if distil else "num_attention_heads"]),
        float(config.get("layer_norm_eps", 1e-12)),
        str(config.get("hidden_act", config.get("activation", "gelu"))),
    )


def _tensors(folder: Path) -> dict[str, Callable[[], NDArray[np.float32]]]:
    """Every tensor of a folder by name, read when it is called."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    found: dict[str, Callable[[], NDArray[np.float32]]] = {}
    for name in names:
        path = folder / name
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(size))
        except (OSError, ValueError) as error:
            raise LlmbenchError(f"{path}: cannot be read ({error}). Download the model again.") from error
        header.pop("__metadata__", None)
        found |= {key: _reader(path, 8 + size, entry) for key, entry in header.items()}
    return found


def _reader(path: Path, base: int, entry: dict[str, Any]) -> Callable[[], NDArray[np.float32]]:
    """A tensor as float32; the format is little-endian and row-major (safetensors' README, `Format`)."""

    def array() -> NDArray[np.float32]:
        import numpy as np

        first, last = entry["data_offsets"]
        kind = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}.get(entry["dtype"])
        if kind is None:
            raise LlmbenchError(f"{path}: holds {entry['dtype']} weights, which are not read. Use backend: torch.")
        with path.open("rb") as file:
            file.seek(base + first)
            raw = np.frombuffer(file.read(last - first), dtype=kind)
        if entry["dtype"] == "BF16":  # the upper half of a float32
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32, copy=False).reshape(entry["shape"])

    return array
