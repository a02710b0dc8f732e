"""A BERT-like encoder in PyTorch, for bfloat16 and GPUs: fused queries, keys and values, no padding beyond a batch's own.

It needs neither transformers nor sentence_transformers, whose imports take 6 seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from llmbench.errors import LlmbenchError
from llmbench.retrieval.embedding import weights
from llmbench.retrieval.embedding.layout import Layout
from llmbench.retrieval.embedding.weights import Affine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Encoder"]

_TOKENS_CPU = 2048
_TOKENS_GPU = 65_536
"""Tokens of a batch: enough to keep the device busy, few enough that activations of 1,536 values a token stay small."""


class Encoder:
    """The encoder on one device in one precision. One thread at a time."""

    workers = 1

    def __init__(self, layout: Layout, device: str, precision: str) -> None:
        """Loads the weights.

        Raises:
            LlmbenchError: the weights are not what config.json says.
        """
        found = weights.read(layout)
        self.device = device
        self.budget = _TOKENS_GPU if device.startswith("cuda") else _TOKENS_CPU
        self._pooling = layout.pooling
        self._heads, self._epsilon = found.heads, found.epsilon
        self._activate = _activation(found.activation)
        kind = getattr(torch, precision)

        def tensor(array: NDArray[np.float32]) -> torch.Tensor:
            return torch.tensor(array).to(device=device, dtype=kind)

        def affine(part: Affine) -> tuple[torch.Tensor, torch.Tensor]:
            return tensor(part.weight), tensor(part.bias)

        self._words, self._positions = tensor(found.words), tensor(found.positions)
        self._norm = affine(found.norm)
        self._layers = [
            [affine(part) for part in (layer.qkv, layer.out, layer.norm, layer.up, layer.down, layer.last_norm)]
            for layer in found.layers
        ]

    @torch.inference_mode()
    def encode(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Token numbers of some texts -> (rows, width), before any norm."""
        lengths = torch.tensor([len(row) for row in rows])
        longest = int(lengths.max())
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        real = torch.arange(longest)[None] < lengths[:, None]
        mask = None if bool(real.all()) else real.to(self.device)
        x = self._words[ids.to(self.device)] + self._positions[:longest]
        x = self._normed(x, self._norm)
        for layer in self._layers:
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


def _activation(name: str) -> Any:
    match name:
        case "gelu":
            return F.gelu
        case "relu":
            return F.relu
        case "gelu_new" | "gelu_pytorch_tanh":
            return lambda x: F.gelu(x, approximate="tanh")
    raise LlmbenchError(f"activation {name} is not known.")
