"""The log-probabilities of the learned tokens under a frozen head, with the gradient found on the way forward.

For log p(t) = z_t - logsumexp(z) and z = W h the gradient by h is W_t - W^T softmax(z): once the logits of some positions
are there, so is their gradient up to a factor for each position. So each position's logits are computed once, for
`_ROWS` positions at a time, and never kept: two products with W a position, where recomputing them backward takes three.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from trl.kernels import ChunkedLogProbFunction
from trl.trainer import utils as trl_utils

from llmbench.borrowed import replaced
from llmbench.training.kernels import patches

__all__ = ["FrozenHead", "Scored", "install", "scoring"]

_ROWS = {"cpu": 128, "cuda": 2048}
"""Positions at a time. On a CPU the float32 logits of 128 over 32,000 tokens are 16 MiB, which its cache still holds."""


def install(model: Any) -> None:
    """Gives a model TRL's fused head: `model(..., labels=..., fused_lm_head=True).log_probs`."""
    inner = _inner(model)
    _find_backbone(inner)
    trl_utils.add_fused_lm_head(inner, outputs=("log_probs",))


@contextmanager
def scoring(model: Any) -> Iterator[None]:
    """Has TRL's fused heads score as above while the block runs, wherever that fits; a training stands in one such block.

    Where it does not (a head that is trained, or logits that are capped or scaled), TRL's own kernel does the work. TRL scores
    every position off CUDA; here only the learned ones are: a fifth of them, and a CPU has no time for the rest.

    Args:
        model: what is trained; TRL reads the number of its experts.

    Raises:
        LlmbenchError: see `borrowed.replaced`.
    """
    with replaced({patches.LOG_PROBS: Scored, patches.LEARNED_ONLY: lambda device: True}), _counted_experts(_inner(model)):
        yield


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _find_backbone(model: Any) -> None:
    """Shows TRL the layers below the head under the name it looks for; Llama 4's text model has none of that name."""
    if model.base_model is model and isinstance(getattr(model, "model", None), torch.nn.Module):
        vars(model)[model.base_model_prefix] = model.model  # beside the registered modules, so that it is not saved twice


@contextmanager
def _counted_experts(model: Any) -> Iterator[None]:
    """Shows TRL the number of experts as `num_experts`, also of models whose configuration calls it otherwise (Granite)."""
    config = model.config.get_text_config()
    kind = type(config)
    if hasattr(config, "num_experts") or not hasattr(config, "num_local_experts"):
        yield
        return
    kind.num_experts = property(lambda self: self.num_local_experts)  # on the class, so that no config.json gets it
    try:
        yield
    finally:
        del kind.num_experts


class Scored:
    """Stands for TRL's ChunkedLogProbFunction where TRL looks it up."""

    @staticmethod
    def apply(
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        temperature: float,
        tile: int,
        cap: float | None,
        scale: float,
        outputs: tuple[str, ...],
    ) -> tuple[Any, ...]:
        """TRL's arguments and results: five tensors, those that were not asked for None."""
        frozen = not weight.requires_grad and (bias is None or not bias.requires_grad)
        if frozen and cap is None and scale == temperature == 1.0 and outputs == ("log_probs",):
            return FrozenHead.apply(hidden, weight, bias, targets), None, None, None, None  # type: ignore[no-untyped-call]
        return tuple(ChunkedLogProbFunction.apply(hidden, weight, bias, targets, temperature, tile, cap, scale, outputs))  # type: ignore[no-untyped-call]


class FrozenHead(torch.autograd.Function):
    """(hidden (n, d), weight (v, d), bias (v) or None, targets (n)) -> float32 log-probabilities (n)."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
    ) -> torch.Tensor:
        """Scores, and keeps d log p / d hidden where a gradient is wanted."""
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        wanted = ctx.needs_input_grad[0]
        weight = weight.to(dtype)
        count, words = len(hidden), len(weight)
        scores = torch.empty(count, device=hidden.device, dtype=torch.float32)
        slopes = torch.empty_like(hidden) if wanted else None
        rows = -(-count // -(-count // _ROWS[device])) if count else 1  # parts of equal size: a small last one is slow
        wide = torch.empty(rows, words, device=hidden.device, dtype=torch.float32)
        products = wide if dtype == torch.float32 else torch.empty_like(wide, dtype=dtype)  # room for one part after another
        for start in range(0, count, rows):
            part = slice(start, start + rows)
            logits = torch.mm(hidden[part].to(dtype), weight.t(), out=products[: len(hidden[part])])
            shares, target = wide[: len(logits)], targets[part, None]
            if bias is None:
                top = logits.amax(1, keepdim=True)
                shares.copy_(logits).sub_(top)
            else:
                shares.copy_(logits).add_(bias)
                shares -= shares.amax(1, keepdim=True)
            score = shares.gather(1, target)
            total = shares.exp_().sum(1, keepdim=True)
            scores[part] = (score - total.log())[:, 0]
            if slopes is not None:  # divided by their sum after the product, which is narrower
                narrow = shares if products is wide else logits.copy_(shares)
                pull = torch.mm(narrow, weight).float().div_(total)
                slopes[part] = weight[target[:, 0]].float().sub_(pull)
        ctx.save_for_backward(slopes)
        return scores

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None]:
        """The gradient by `hidden`."""
        (slopes,) = ctx.saved_tensors
        return None if slopes is None else slopes * gradients[0][:, None].to(slopes.dtype), None, None, None
