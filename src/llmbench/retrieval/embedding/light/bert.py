"""A BERT-like encoder in PyTorch, for bfloat16 and GPUs: fused queries, keys and values, no padding beyond a batch's own.

It needs neither transformers nor sentence_transformers, whose imports take 6 seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from llmbench import hardware
from llmbench.errors import LlmbenchError
from llmbench.retrieval.embedding.light import onednn, weights
from llmbench.retrieval.embedding.light.layout import Layout
from llmbench.retrieval.embedding.light.weights import Affine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Encoder"]

_TOKENS_CPU = 2048
_TOKENS_CORE = 1536
_TOKENS_GPU = 65_536
"""Tokens of a batch for all cores together, for one core, for a GPU: enough to keep it busy, few enough that activations of
1,536 values a token stay small."""

_counting = threading.Lock()


class Encoder:
    """The encoder on one device in one precision. `workers` threads may encode at once, each after `enter`."""

    def __init__(self, layout: Layout, device: str, precision: str) -> None:
        """Loads the weights.

        Raises:
            LlmbenchError: the weights are not what config.json says.
        """
        found = weights.read(layout)
        self.device = device
        self._pooling = layout.pooling
        self._heads, self._epsilon, self._activation = found.heads, found.epsilon, found.activation
        self._activate = _activation(found.activation)
        self._packed = device == "cpu" and precision == "bfloat16" and onednn.available()
        self.workers = hardware.cores() if self._packed else 1
        self.budget = _TOKENS_GPU if device.startswith("cuda") else _TOKENS_CORE if self._packed else _TOKENS_CPU
        kind = getattr(torch, precision)

        def tensor(array: NDArray[np.float32]) -> torch.Tensor:
            return torch.tensor(array).to(device=device, dtype=kind)

        def affine(part: Affine) -> tuple[torch.Tensor, torch.Tensor]:
            return tensor(part.weight), tensor(part.bias)

        self._words, self._positions = tensor(found.words), tensor(found.positions)
        self._norm = affine(found.norm)

        def product(part: Affine) -> tuple[torch.Tensor, torch.Tensor]:
            weight, bias = affine(part)
            return (onednn.pack(weight) if self._packed else weight), bias

        self._layers = [
            [
                product(_scaled(layer.qkv, found.heads) if self._packed else layer.qkv), product(layer.out), affine(layer.norm),
                product(layer.up), product(layer.down), affine(layer.last_norm),
            ]
            for layer in found.layers
        ]  # fmt: skip

    def enter(self) -> None:
        """Lets this thread compute on one core from now on where there are several workers, so that none waits for another.

        PyTorch keeps the number for each thread and hands the one set last on to threads that are new to it, which are to
        have all cores: hence another thread sets the number of before.
        """
        if self.workers == 1:
            return
        with _counting:
            cores = torch.get_num_threads()
            torch.set_num_threads(1)
            keeper = threading.Thread(target=torch.set_num_threads, args=(cores,))
            keeper.start()
            keeper.join()

    @torch.inference_mode()
    def encode(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Token numbers of some texts -> (rows, width), before any norm."""
        sizes = [len(row) for row in rows]
        lengths = torch.tensor(sizes)
        longest = int(lengths.max())
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        real = torch.arange(longest)[None] < lengths[:, None]
        mask = None if bool(real.all()) else real.to(self.device)
        x = self._words[ids.to(self.device)] + self._positions[:longest]
        x = self._normed(x, self._norm)
        for layer in self._layers:
            if self._packed:
                x = self._packed_layer(x, layer, sizes)
            else:
                x = self._layer(x, layer, None if mask is None else mask[:, None, None, :])
        pooled = self._pooled(x.float(), lengths.to(self.device), mask)
        return pooled.cpu().numpy()

    def _layer(
        self, x: torch.Tensor, layer: list[tuple[torch.Tensor, torch.Tensor]], mask: torch.Tensor | None
    ) -> torch.Tensor:
        qkv, out, norm, up, down, last_norm = layer
        rows, length, width = x.shape
        query, key, value = F.linear(x, *qkv).view(rows, length, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = self._normed(x + F.linear(attended.transpose(1, 2).reshape(rows, length, width), *out), norm)
        return self._normed(x + F.linear(self._activate(F.linear(x, *up)), *down), last_norm)

    def _packed_layer(self, x: torch.Tensor, layer: list[onednn.Affine], lengths: Sequence[int]) -> torch.Tensor:
        """As `_layer`, by oneDNN's operators."""
        qkv, out, norm, up, down, last_norm = layer
        attended = onednn.attention(onednn.linear(x, qkv), self._heads, lengths)
        x = self._normed(onednn.add_linear(x, attended, out), norm)
        return self._normed(onednn.add_linear(x, onednn.linear(x, up, self._activation), down), last_norm)

    def _normed(self, x: torch.Tensor, norm: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], norm[0], norm[1], self._epsilon)

    def _pooled(self, hidden: torch.Tensor, lengths: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """As `pooling.pool`, on the device."""
        match self._pooling:
            case "cls":
                return hidden[:, 0]
            case "lasttoken":
                return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
            case "max":
                return (hidden if mask is None else hidden.masked_fill(~mask[..., None], -torch.inf)).amax(1)
            case "mean":
                kept = hidden if mask is None else hidden * mask[..., None]
                return kept.sum(1) / lengths[:, None]
        raise AssertionError(self._pooling)


def _scaled(qkv: Affine, heads: int) -> Affine:
    """Queries divided by the root of a head's width, in float32, rather than in every batch."""
    weight, bias, width = qkv.weight.copy(), qkv.bias.copy(), qkv.weight.shape[1]
    scale = (width // heads) ** -0.5
    weight[:width] *= scale
    bias[:width] *= scale
    return Affine(weight, bias)


def _activation(name: str) -> Any:
    match name:
        case "gelu":
            return F.gelu
        case "relu":
            return F.relu
        case "gelu_new" | "gelu_pytorch_tanh":
            return lambda x: F.gelu(x, approximate="tanh")
    raise LlmbenchError(f"activation {name} is not known.")
