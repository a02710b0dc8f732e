"""Padded batches read end to end: a model with TRL's fused head is given rows with padding, and computes none of it.

TRL's trainers of preferences pad the answers of a batch to the longest. They ask a model for the log-probabilities of labels
by `model(..., fused_lm_head=True)`, always: here what is not padding is put end to end on the way in, `packed_attention` keeps
the rows apart, and each log-probability is put back in its place on the way out.
"""

from __future__ import annotations

import functools
from types import MethodType
from typing import Any

import torch

from llmbench.training.kernels import packed_attention

__all__ = ["install"]

_EACH = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1", "label_mask")
"""What TRL's fused head says of each position."""


def install(model: Any) -> None:
    """Has a model that TRL gave its fused head read padded rows end to end, when it is asked for log-probabilities.

    Args:
        model: one for which `packed_attention` has no obstacle; of PEFT or not. Other calls of it, as for generating, are as
            they were.
    """
    packed_attention.install(model)
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    padded = inner.forward

    @functools.wraps(type(inner).forward)  # by which `generate` judges what it may pass
    def forward(self: Any, *args: Any, **given: Any) -> Any:
        mask = given.get("attention_mask")
        if not given.get("fused_lm_head") or args or mask is None or given.get("input_ids") is None:
            return padded(*args, **given)
        seen = mask.bool()
        out = padded(**given | _end_to_end(given["input_ids"], given["labels"], seen))
        for name in _EACH:
            value = getattr(out, name)
            if value is not None:
                setattr(out, name, _back(value, seen))
        return out

    inner.forward = MethodType(forward, inner)


def _end_to_end(ids: torch.Tensor, labels: torch.Tensor, seen: torch.Tensor) -> dict[str, Any]:
    """The input for rows (b, t) of which some positions are seen, as one row of those; no row is asked for its first token."""
    lengths = seen.sum(1)
    ends = lengths.cumsum(0)
    starts = ends - lengths
    longest = int(lengths.max())
    asked = labels[seen]
    asked[starts[lengths > 0]] = -100
    bounds = torch.cat([ends.new_zeros(1), ends]).to(torch.int32)
    places = torch.arange(len(asked), device=ids.device) - starts.repeat_interleave(lengths)
    return {
        "input_ids": ids[seen][None], "labels": asked[None], "position_ids": places[None], "attention_mask": None,
        "cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest,
    }  # fmt: skip


def _back(value: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """What is said of each next token of the rows end to end (1, n - 1), for rows (b, t - 1) with 0 where there is padding."""
    whole = torch.cat([value.new_zeros(1), value[0]])
    return value.new_zeros(seen.shape).masked_scatter(seen, whole)[:, 1:]
