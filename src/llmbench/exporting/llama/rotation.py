"""Llama 3's scaled rotation in a GGUF file: the program that reads files here computes without it, so it is looked at apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmbench.exporting.proof import Compared

__all__ = ["compared"]

_TENSOR = "rope_freqs.weight"
_ALLOWED = 1e-5
"""Of a factor: float32's digits."""


def compared(path: Path, config: dict[str, Any]) -> tuple[Compared, ...]:
    """Whether a file holds the factors by which transformers itself slows the model's rotations down; nothing without any.

    llama.cpp divides each rotation's frequency by its factor, as transformers' function for `llama3` does.

    Args:
        path: a GGUF file.
        config: the model's, as config.json has it.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type")) != "llama3":
        return ()
    import gguf
    import torch
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    held = next((one.data for one in gguf.GGUFReader(path).tensors if one.name == _TENSOR), None)
    if held is None:
        return (Compared("rotation", False, "Llama 3's scaling is missing in the file"),)
    whole = AutoConfig.for_model(**config)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](whole, torch.device("cpu"))
    width = 2 * len(scaled)
    plain = 1.0 / whole.rope_parameters["rope_theta"] ** (torch.arange(0, width, 2, dtype=torch.float32) / width)
    off = float((torch.from_numpy(held.copy()).flatten() * scaled / plain - 1).abs().max())
    said = (
        f"Llama 3's scaling of {len(scaled)} frequencies within {off:.1e}; the program that read the file computes without it"
    )
    return (Compared("rotation", off <= _ALLOWED, said, f"{_ALLOWED:.0e}"),)
