"""What `training.performance: auto` chooses for a model on a machine, and why. Whatever the recipe sets is left as it is."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch

from llmbench import data, hardware
from llmbench.borrowed import usable
from llmbench.errors import RecipeError
from llmbench.estimate import Estimate
from llmbench.recipe import TrainRecipe
from llmbench.training import needs
from llmbench.training.kernels import compilation, fused_lora, packed_attention, patches
from llmbench.training.loading.model import Loaded

__all__ = ["Choice", "choose"]


@dataclass(frozen=True)
class Choice:
    """One setting that was made, with its reason."""

    name: str
    value: Any
    reason: str


def choose(recipe: TrainRecipe, loaded: Loaded, rows: data.Rows) -> tuple[TrainRecipe, tuple[Choice, ...]]:
    """The recipe with nothing left open, and what was chosen.

    Raises:
        RecipeError: the recipe sets what this model or machine cannot do.
    """
    spec = recipe.training
    _refuse(recipe, loaded)
    choices = [_precision(recipe, loaded), *_attention(recipe, loaded), *_threads(loaded)]
    wanted = spec.packing or spec.padding_free or (spec.padding_free is None and spec.performance == "auto")
    obstacle = _padding_free_obstacle(recipe, loaded) if wanted else None
    if spec.padding_free is None:
        choices.append(
            Choice("padding_free", obstacle is None, obstacle or "packed without padding; the loss is unchanged")
            if wanted
            else Choice("padding_free", False, "performance: plain")
        )
    elif spec.padding_free and obstacle:
        raise RecipeError(f"training.padding_free: not with this model: {obstacle}. Leave it out.")
    if spec.packing and recipe.method not in ("sft", "pretrain"):
        raise RecipeError(f"training.packing: not with method: {recipe.method}, whose batches are rows. Leave it out.")
    if spec.packing and obstacle:
        raise RecipeError(f"training.packing: not with this model: {obstacle}. Set training.packing=false.")
    choices += _fused_lora(recipe, loaded)
    needed = needs.of(_settled(recipe, choices), loaded, rows)
    if spec.torch_compile is None:
        choices.append(_compilation(recipe, loaded, needed))
    if spec.gradient_checkpointing is None:
        choices.append(_checkpointing(recipe, loaded, needed))
    return _settled(recipe, choices), tuple(choices)


def _settled(recipe: TrainRecipe, choices: list[Choice]) -> TrainRecipe:
    """The recipe with the choices in the places that were left open."""
    spec = recipe.training
    values = {choice.name: choice.value for choice in choices if choice.name in type(spec).model_fields}
    return recipe.model_copy(update={"training": spec.model_copy(update=values)})


def _compilation(recipe: TrainRecipe, loaded: Loaded, needed: Estimate | None) -> Choice:
    """Layers are compiled where that pays back within the run, by the estimate."""
    name = "torch_compile"
    if recipe.training.performance == "plain":
        return Choice(name, False, "performance: plain")
    if recipe.method not in ("sft", "pretrain"):
        return Choice(name, False, f"method: {recipe.method} trains uncompiled")
    if recipe.distributed.strategy != "ddp":
        return Choice(name, False, f"{recipe.distributed.called} puts layers together as they are computed")
    if recipe.adapter is not None and recipe.adapter.type == "prompt_tuning":
        return Choice(name, False, "prompt tuning bypasses the compiled layers")
    if obstacle := compilation.obstacle(loaded.model, loaded.device):
        return Choice(name, False, obstacle)
    return Choice(name, *compilation.payback(recipe, needed, loaded.device))


def _checkpointing(recipe: TrainRecipe, loaded: Loaded, needed: Estimate | None) -> Choice:
    """Activations are kept while they fit, by the estimate."""
    name, there = "gradient_checkpointing", hardware.machine(loaded.device)
    free = there.memory
    if loaded.device == "cuda":  # what this process holds already (the base, in full or in few bits) is part of the estimate
        free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    if recipe.training.performance == "plain" or needed is None:
        return Choice(name, False, "takes a third more time; turn it on if memory is short")
    if needed.peak > free:
        return Choice(name, True, f"about {needed.peak / 2**30:.1f} GiB would be needed, and {free / 2**30:.1f} GiB are free")
    return Choice(name, False, f"{free / 2**30:.1f} GiB are free, and about {needed.peak / 2**30:.1f} GiB are needed")


def _fused_lora(recipe: TrainRecipe, loaded: Loaded) -> list[Choice]:
    """Nothing to choose where there is no LoRA."""
    spec = recipe.training
    obstacle = fused_lora.obstacle(loaded.model)
    if spec.fused_lora and obstacle:
        raise RecipeError(f"training.fused_lora: not with this recipe: {obstacle}. Leave it out.")
    if recipe.lora is None or spec.fused_lora is not None:
        return []
    if spec.performance == "plain":
        return [Choice("fused_lora", False, "performance: plain")]
    return [Choice("fused_lora", obstacle is None, obstacle or "added in place: less memory traffic, the same adapter")]


def _refuse(recipe: TrainRecipe, loaded: Loaded) -> None:
    """Raises for what needs a GPU and has none, and for what a method's trainer does not take."""
    spec = recipe.training
    if spec.activation_offloading and recipe.method not in ("sft", "pretrain"):
        raise RecipeError(
            f"training.activation_offloading: not with method: {recipe.method}. Use training.gradient_checkpointing."
        )
    if spec.torch_compile and (obstacle := compilation.obstacle(loaded.model, loaded.device)):
        raise RecipeError(f"training.torch_compile: not here: {obstacle}. Set training.torch_compile=false.")
    if loaded.device == "cuda":
        return
    for name, value in (("activation_offloading", spec.activation_offloading), ("use_liger_kernel", spec.use_liger_kernel)):
        if value:
            raise RecipeError(
                f"training.{name}: works on CUDA only, and this trains on {loaded.device}. Set training.{name}=false."
            )


def _padding_free_obstacle(recipe: TrainRecipe, loaded: Loaded) -> str | None:
    if recipe.always_pads:
        return f"TRL's {recipe.method} trainer pads its own batches"
    if recipe.method == "orpo" and not usable(patches.ORPO_FORWARD):
        return "TRL's orpo trainer is another than the one whose rows are known"
    if recipe.adapter is not None and recipe.adapter.type == "prompt_tuning":
        return "prompt tuning adds virtual tokens before each row"
    attention = loaded.model.config._attn_implementation
    if attention != "sdpa":
        return f"model.attn_implementation is {attention}"
    return packed_attention.obstacle(loaded.model.config) or packed_attention.leak(loaded.model)


def _precision(recipe: TrainRecipe, loaded: Loaded) -> Choice:
    name = str(loaded.dtype).removeprefix("torch.")
    if recipe.model.dtype != "auto":
        return Choice("dtype", name, "set in the recipe")
    if loaded.device == "cuda":
        return Choice("dtype", name, "the GPU supports it" if name == "bfloat16" else "the GPU does not support bfloat16")
    if name == "bfloat16":
        return Choice("dtype", name, f"the processor supports it ({_instructions()})")
    return Choice("dtype", name, "this processor is no faster in bfloat16")


def _attention(recipe: TrainRecipe, loaded: Loaded) -> list[Choice]:
    """A word only where it is not the usual one."""
    inner = loaded.model.get_base_model() if hasattr(loaded.model, "get_base_model") else loaded.model
    found = inner.config._attn_implementation
    if recipe.model.attn_implementation != "auto" or found == "sdpa":
        return []
    return [Choice("attn_implementation", found, f"{type(inner).__name__} has no sdpa")]


def _instructions() -> str:
    return "AMX" if torch.cpu._is_amx_tile_supported() else "AVX512_BF16"


def _threads(loaded: Loaded) -> list[Choice]:
    """One thread a core that this process may use; torch counts the machine's, also where a container has fewer."""
    if loaded.device != "cpu" or "OMP_NUM_THREADS" in os.environ:
        return []
    cores = hardware.cores()
    if torch.get_num_threads() <= cores:
        return []
    torch.set_num_threads(cores)
    return [Choice("threads", cores, "as many as this process has cores")]
