"""LoRA's two small products added to the base's in place: the same adapter in fewer passes over memory.

PEFT's layer makes four more tensors of the output's size (the product with B, its scaled copy, the sum, and a cast) and as many
on the way back. Where the adapter is two plain matrices none of them is needed: y += (x A^T) (s B)^T is one call that reads and
writes y once. The parameters, their names and what is saved stay PEFT's.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn

from llmbench import borrowed
from llmbench.training.kernels import patches

__all__ = ["install", "obstacle"]


def obstacle(model: Any) -> str | None:
    """Why no layer of a model can do so, or None."""
    if borrowed.look(patches.LORA_FORWARD).state != "ok":
        return "this version of PEFT calls its layers differently"
    return None if any(_plain(layer) for layer in model.modules()) else "it has no plain LoRA on a linear layer"


def install(model: Any) -> None:
    """Gives each layer whose adapter is two plain matrices the shorter forward; others keep PEFT's."""
    for layer in model.modules():
        if _plain(layer):
            layer.forward = MethodType(_forward, layer)


def _plain(layer: Any) -> bool:
    """Whether a module is PEFT's LoRA on a linear layer without a variant (DoRA and its like), a bias or a second adapter."""
    from peft.tuners import lora

    kinds = [lora.Linear, *(getattr(lora, name) for name in ("Linear4bit", "Linear8bitLt") if hasattr(lora, name))]
    if type(layer) not in kinds or layer.lora_variant or len(layer.lora_A) != 1 or len(layer.active_adapters) != 1:
        return False
    down, up = (matrices[layer.active_adapters[0]] for matrices in (layer.lora_A, layer.lora_B))
    return type(down) is type(up) is nn.Linear and up.bias is None


def _forward(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """In place of the layer's own forward, which still does what is not plain: a disabled, merged or mixed adapter."""
    names = layer.active_adapters
    own = len(names) == 1 and names[0] in layer.lora_A and not (args or kwargs or layer.disable_adapters or layer.merged)
    if not own or not (torch.is_autocast_enabled(x.device.type) or x.dtype == layer.lora_A[names[0]].weight.dtype):
        result: torch.Tensor = type(layer).forward(layer, x, *args, **kwargs)
        return result
    (name,) = names
    rows = x.reshape(-1, x.shape[-1])
    y = layer.base_layer(rows)
    if type(layer.base_layer) is not nn.Linear:
        y = y.clone()  # bitsandbytes may hand out a view, which autograd would not let be written to
    down, up, scaling = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else y.dtype
    out: torch.Tensor = _Added.apply(y, layer.lora_dropout[name](rows).to(dtype), down, up, scaling)  # type: ignore[no-untyped-call]
    return out.view(*x.shape[:-1], -1)


class _Added(torch.autograd.Function):
    """y (n, out), x (n, in), A (r, in), B (out, r), s -> y + s x A^T B^T, written into y; multiplied in x's precision."""

    @staticmethod
    def forward(
        ctx: Any, y: torch.Tensor, x: torch.Tensor, down: torch.Tensor, up: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """Keeps x, which the base's product keeps too, and x A^T, which is small."""
        a, b = down.to(x.dtype), (up * scaling).to(x.dtype)
        hidden = x @ a.t()
        if y.dtype == x.dtype:
            y.addmm_(hidden, b.t())
        else:  # a quantised base may answer in float32 under autocast
            y += hidden @ b.t()
        ctx.mark_dirty(y)
        ctx.save_for_backward(x, a, b, hidden)
        ctx.scaling, ctx.dtypes = scaling, (down.dtype, up.dtype)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradient by y is the one that comes in."""
        x, a, b, hidden = ctx.saved_tensors
        slope = gradients[0].to(x.dtype)
        inner = slope @ b
        by_x = inner @ a if ctx.needs_input_grad[1] else None
        by_down = (inner.t() @ x).to(ctx.dtypes[0]) if ctx.needs_input_grad[2] else None
        by_up = (hidden.t() @ slope).t().to(ctx.dtypes[1]).mul_(ctx.scaling) if ctx.needs_input_grad[3] else None
        return gradients[0], by_x, by_down, by_up, None
