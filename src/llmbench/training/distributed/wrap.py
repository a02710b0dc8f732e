"""A model made one of several that are trained as one."""

from __future__ import annotations

from typing import Any

from llmbench.recipe import DistributedSpec

__all__ = ["wrapped"]


def wrapped(accelerator: Any, model: Any, spec: DistributedSpec) -> Any:
    """The model with what accelerate adds to a forward pass (its precision), and as its processes share it.

    ddp: in torch's DistributedDataParallel. Each holds it whole; gradients are averaged at the last batch of a step.
    """
    from torch.nn.parallel import DistributedDataParallel

    if isinstance(model, DistributedDataParallel):
        return model
    inner = accelerator.prepare_model(model, evaluation_mode=True)  # its precision, and no wrapper of its choice
    if spec.strategy == "fsdp2":  # in parts already, before its optimizer was made
        return inner
    devices = [accelerator.device.index] if accelerator.device.type == "cuda" else None
    return DistributedDataParallel(inner, device_ids=devices, forward_sync_buffers=False)
