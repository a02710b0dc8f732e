"""How several processes train one model."""

from __future__ import annotations

from typing import Literal

from llmbench.recipe.fields import Section

__all__ = ["DistributedSpec"]


class DistributedSpec(Section):
    """Several processes that train one model; how many is said on the command line: `--processes`."""

    strategy: Literal["ddp", "fsdp2", "deepspeed"] = "ddp"
    """ddp: each process holds the whole model, and gradients are averaged. fsdp2: each holds its share of every parameter, its
    gradient and its optimizer state, and puts a layer together while it computes it. deepspeed: DeepSpeed's ZeRO."""
    zero_stage: Literal[2, 3] | None = None
    """With deepspeed. 2, also where nothing is said: each process holds its share of gradients and optimizer state, and the
    whole model. 3: its share of every parameter too."""

    @property
    def stage(self) -> int:
        """The stage of ZeRO; 0 with the other strategies."""
        return (self.zero_stage or 2) if self.strategy == "deepspeed" else 0

    @property
    def called(self) -> str:
        """`ddp`, `fsdp2`, or `deepspeed ZeRO-2`."""
        return f"deepspeed ZeRO-{self.stage}" if self.stage else self.strategy
