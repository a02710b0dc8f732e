"""How several processes train one model."""

from __future__ import annotations

from typing import Literal

from llmbench.recipe.fields import Section

__all__ = ["DistributedSpec"]


class DistributedSpec(Section):
    """Several processes that train one model; how many is said on the command line: `--processes`."""

    strategy: Literal["ddp", "fsdp2"] = "ddp"
    """ddp: each process holds the whole model, and gradients are averaged. fsdp2: each holds its share of every parameter, its
    gradient and its optimizer state, and puts a layer together while it computes it."""
