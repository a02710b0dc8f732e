"""TRL's fused head, scored by our own kernel: the log-probabilities of the learned tokens without logits for a whole batch.

TRL gives a model of each of its trainers a head that scores in chunks, on its kernel; it keeps every pass over logits for what
it measures, and up to 4,096 positions of a trained head. Ours, `chunked_head`, takes its place while a training runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from trl.kernels import ChunkedLogProbFunction
from trl.trainer import utils as trl_utils

from llmbench.borrowed import replaced
from llmbench.training.kernels import chunked_head, patches

__all__ = ["Scored", "install", "scoring"]


def install(model: Any, outputs: tuple[str, ...] = ("log_probs",)) -> None:
    """Gives a model TRL's fused head: `model(..., labels=..., fused_lm_head=True).log_probs`, and other `outputs`."""
    inner = _inner(model)
    _find_backbone(inner)
    trl_utils.add_fused_lm_head(inner, outputs=outputs)


@contextmanager
def scoring(model: Any) -> Iterator[None]:
    """Has TRL's fused heads score as above while the block runs, wherever that fits; a training stands in one such block.

    Where it does not (logits that are capped), TRL's own kernel does the work. TRL scores every position off CUDA; here only
    the learned ones are: a fifth of them, and a CPU has no time for the rest.

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
        """TRL's arguments and results: five tensors, of which those that were not asked for are None."""
        if cap is None and weight.is_floating_point():
            return chunked_head.score(hidden, weight, bias, targets, scale=scale / temperature, asked=outputs)
        return tuple(ChunkedLogProbFunction.apply(hidden, weight, bias, targets, temperature, tile, cap, scale, outputs))  # type: ignore[no-untyped-call]
