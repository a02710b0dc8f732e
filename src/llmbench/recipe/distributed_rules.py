"""What of a training recipe does not go together with a training in parts."""

from __future__ import annotations

from collections.abc import Iterator

from llmbench.recipe.sections import TrainSections

__all__ = ["refusals"]


def refusals(recipe: TrainSections) -> Iterator[str]:
    """What does not go together with parameters, gradients or optimizer state in parts, a line each."""
    spec = recipe.distributed
    if spec.zero_stage is not None and spec.strategy != "deepspeed":
        yield f"distributed.zero_stage: is for strategy deepspeed; leave it out with {spec.strategy}"
    if spec.strategy == "ddp":
        return
    place = f"distributed.strategy: {spec.strategy}"
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
    if spec.strategy == "deepspeed":
        yield from _deepspeed(recipe, place)


def _deepspeed(recipe: TrainSections, place: str) -> Iterator[str]:
    """What its engine does not do, or does otherwise."""
    if recipe.training.optim not in ("adamw_torch", "adamw_torch_fused", "muon"):
        yield f"{place} steps torch's AdamW, not {recipe.training.optim}; use training.optim: adamw_torch_fused"
    if recipe.model.dtype == "float16":
        yield f"{place} trains in bfloat16 or float32; set model.dtype: bfloat16, or use ddp"
