"""LoRA on a CPU in vLLM's worker: each adapter's rows are multiplied with it at once.

vLLM's own functions copy an adapter's two matrices for every token of a batch and multiply token by token, which is most of the
time of a prompt; rows of the base model are given the last slot's adapter. Here the rows of a batch are grouped by adapter once
a step, each group is one product, and rows without an adapter are left alone. The sums and their precision are the same.

The log-probabilities of a prompt are logits of one request's rows, for which vLLM knows no adapter: of two requests in a batch
its worker dies. Here such rows get no adapter of the output layer, which hardly any adapter has.

A file of its own for the interpreter that has vLLM, which may have no llmbench: `launch.py` runs it.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any

_EXPAND = "(self, y, x, w_t_all, y_offset, y_slice_size, add_inputs)"
RECORDED = {
    "_shrink_prefill": "(self, y, x, w_t_all, scale)",
    "_shrink_decode": "(self, y, x, w_t_all, scale)",
    "_expand_slice_prefill": _EXPAND,
    "_expand_slice_decode": _EXPAND,
    "update_metadata": "(self, mapping, lora_index_to_id, max_loras, vocab_size, **kwargs)",
    "add_lora_logits": "(self, y, x, lora_a_stacked, lora_b_stacked, scale, *, buffer=..., **kwargs)",
}
"""The methods of vLLM 0.32's `PunicaWrapperCPU` that are replaced; they are rows of `patches.py` too."""


def install() -> bool:
    """Replaces the functions of vLLM's `PunicaWrapperCPU`, for as long as the process of the server lives.

    Where one of them is not what was recorded all are left alone, one line on stderr says so, and False comes back.
    """
    try:
        wrapper = importlib.import_module("vllm.lora.punica_wrapper.punica_cpu").PunicaWrapperCPU
    except (ImportError, AttributeError):
        wrapper = None
    other = next((name for name, recorded in RECORDED.items() if _signature(getattr(wrapper, name, None)) != recorded), None)
    if other is not None:
        print(f"vLLM's PunicaWrapperCPU.{other} is not as recorded: its own LoRA is used, which is slower.", file=sys.stderr)
        return False
    original, logits = wrapper.update_metadata, wrapper.add_lora_logits

    def update_metadata(self: Any, mapping: Any, lora_index_to_id: Any, *args: Any, **kwargs: Any) -> None:
        original(self, mapping, lora_index_to_id, *args, **kwargs)
        slots = {lora: slot for slot, lora in enumerate(lora_index_to_id) if lora is not None}
        self.llmbench_groups = groups([slots.get(lora, -1) for lora in mapping.index_mapping])

    def _shrink(self: Any, y: Any, x: Any, weights: Any, scale: float) -> None:
        shrink(self.llmbench_groups, y, x, weights, scale)

    def _expand_slice(self: Any, y: Any, x: Any, weights: Any, offset: int, size: int, add_inputs: bool) -> None:
        expand(self.llmbench_groups, y, x, weights, offset, size, add_inputs)

    def add_lora_logits(self: Any, y: Any, x: Any, *args: Any, **kwargs: Any) -> None:
        if len(self.sampler_indices) in (1, x.reshape(-1, x.shape[-1]).shape[0]):
            logits(self, y, x, *args, **kwargs)

    wrapper.update_metadata, wrapper.add_lora_logits = update_metadata, add_lora_logits
    wrapper._shrink_prefill = wrapper._shrink_decode = _shrink
    wrapper._expand_slice_prefill = wrapper._expand_slice_decode = _expand_slice
    return True


class _Default:
    """Any default, as the register writes it."""

    def __repr__(self) -> str:
        return "..."


def _signature(function: Any) -> str | None:
    """`(self, x=...)`: without types; None where there is no function."""
    if function is None:
        return None
    found = inspect.signature(function)
    bare = [
        one.replace(annotation=one.empty, default=one.empty if one.default is one.empty else _Default())
        for one in found.parameters.values()
    ]
    return str(found.replace(parameters=bare, return_annotation=found.empty))


def groups(slots: list[int]) -> list[tuple[int, Any]]:
    """The rows of each adapter's slot, as a slice where they stand together; rows of slot -1 have none.

    Args:
        slots: the slot of each row of a batch.
    """
    import torch

    found: list[tuple[int, Any]] = []
    for slot in sorted(set(slots) - {-1}):
        rows = [row for row, one in enumerate(slots) if one == slot]
        together = rows[-1] - rows[0] + 1 == len(rows)
        found.append((slot, slice(rows[0], rows[-1] + 1) if together else torch.tensor(rows)))
    return found


def shrink(grouped: list[tuple[int, Any]], y: Any, x: Any, weights: Any, scale: float) -> None:
    """y[rows] = scale x[rows] A' in y's precision; y is (rows, r) and holds zeros, x (rows, in), weights (slots, 1, r, in)."""
    for slot, rows in grouped:
        y[rows] = scale * (x[rows].to(y.dtype) @ weights[slot].reshape(weights.shape[-2:]).to(y.dtype).T)


def expand(grouped: list[tuple[int, Any]], y: Any, x: Any, weights: Any, offset: int, size: int, add_inputs: bool) -> None:
    """y[rows, offset:offset + size] += x[rows] B', in y's precision; x is (rows, r), weights (slots, 1, size, r)."""
    part = y[:, offset : offset + size]
    if not add_inputs:
        part.zero_()
    for slot, rows in grouped:
        part[rows] += x[rows].to(y.dtype) @ weights[slot].reshape(weights.shape[-2:]).to(y.dtype).T
