"""What of a training recipe does not go together with a model in parts."""

from __future__ import annotations

from collections.abc import Iterator

from llmbench.recipe.sections import TrainSections

__all__ = ["refusals"]


def refusals(recipe: TrainSections) -> Iterator[str]:
    """What does not go together with parameters in parts, a line each."""
    if recipe.distributed.strategy != "fsdp2":
        return
    place = "distributed.strategy: fsdp2"
    if recipe.quantization is not None:
        yield f"{place} divides unquantised parameters; leave quantization out, or use ddp"
    if recipe.adapter is not None:
        yield f"{place} is for lora and for all parameters; use ddp with adapter.type {recipe.adapter.type}"
    if recipe.training.optim == "muon":
        yield f"{place} divides the matrices that muon makes orthogonal; use training.optim: adamw_torch_fused"
    if recipe.training.torch_compile:
        yield f"{place} puts layers together as they are computed; leave training.torch_compile out"
    if recipe.training.load_best_model_at_end and not recipe.adapts:
        yield f"{place} loads a best step's adapter, and no whole model; leave training.load_best_model_at_end out"
