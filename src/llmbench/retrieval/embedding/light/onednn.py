"""A BERT-like layer on a CPU in bfloat16 by oneDNN's operators: weights packed once, a product and what follows it in one.

PyTorch's own way takes 1.4 times as long with all-MiniLM-L6-v2 (docs/benchmarks.md, `Embedding backends`): its
attention for such a CPU is slow for heads of 32 values, and its products take weights in the order that they are stored in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from llmbench.borrowed import usable
from llmbench.retrieval.embedding.light import patches

__all__ = ["Affine", "add_linear", "attention", "available", "linear", "pack"]

Affine = tuple[torch.Tensor, torch.Tensor]
"""A packed weight, of this module alone, and a bias."""

_TOKENS = 2048
"""Rows of a product that weights are packed for; with others the same packing is used."""
_CELLS = 1 << 20
"""Scores computed at once: 2 MB in bfloat16, which a core's cache holds while they are read three times."""
_ACTIVATIONS = {
    "": ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
}


def available() -> bool:
    """Whether PyTorch has these operators here, and the CPU computes in bfloat16."""
    return bool(
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and usable(patches.BFLOAT16)
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        and all(map(usable, patches.OPERATORS))
    )


def pack(weight: torch.Tensor) -> torch.Tensor:
    """A weight (out, in) in the order that the CPU's kernels read it in."""
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _TOKENS)
    return packed


def linear(x: torch.Tensor, part: Affine, activation: str = "") -> torch.Tensor:
    """activation(x W^T + b); the activation by its name in config.json, none where it is empty."""
    kind, algorithm = _ACTIVATIONS[activation]
    made: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, *part, kind, [], algorithm)
    return made


def add_linear(x: torch.Tensor, inner: torch.Tensor, part: Affine) -> torch.Tensor:
    """x + inner W^T + b."""
    made: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(inner, x, *part, "add")
    return made


def attention(qkv: torch.Tensor, heads: int, lengths: Sequence[int]) -> torch.Tensor:
    """softmax(q k^T) v of each head, a few rows at a time.

    Args:
        qkv: (rows, length, 3 width); queries are scaled already.
        heads: how many heads share the width.
        lengths: how many positions of each row are its own; like ones stand together.

    Returns:
        (rows, length, width); finite, and of no meaning, at positions that are no row's own.
    """
    rows, length, _ = qkv.shape
    query, key, value = qkv.view(rows, length, 3, heads, -1).permute(2, 0, 3, 1, 4).reshape(3, rows * heads, length, -1)
    out = torch.zeros_like(query)
    start = 0
    while start < rows:
        longest = lengths[start]
        stop = min(rows, start + max(1, _CELLS // (heads * longest**2)))
        longest = max(lengths[start:stop])
        own = slice(start * heads, stop * heads)
        scores = torch.bmm(query[own, :longest], key[own, :longest].transpose(1, 2))
        if min(lengths[start:stop]) < longest:
            padding = torch.arange(longest)[None] >= torch.tensor(lengths[start:stop])[:, None]
            scores.view(-1, heads, longest, longest).masked_fill_(padding[:, None, None], -torch.inf)
        out[own, :longest] = torch.bmm(scores.softmax(-1), value[own, :longest])
        start = stop
    return out.view(rows, heads, length, -1).transpose(1, 2).reshape(rows, length, -1)
