"""Which modules of a model get an adapter: what `all-linear` means in it, and what is left out and why.

PEFT's own `all-linear` takes routers too, which choose experts and are no place for an adapter, and stops at modules that it
has no LoRA for. For mixtures of experts PEFT also turns the names gate_proj, up_proj and down_proj into the fused parameters
of the experts (peft/utils/transformers_weight_conversion.py, 0.21), which leaves dense and shared MLPs of the same names
without an adapter. Here names mean the modules that have them.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from llmbench.borrowed import replaced
from llmbench.training.kernels import patches
from llmbench.training.loading import quantized

__all__ = ["LeftOut", "as_modules", "experts", "linears", "literal_names", "loadable"]

_ROUTERS = {"gate", "router", "wg", "shared_expert_gate"}
"""Names of the small layers that choose experts, in models that have any."""
_FUSED_MAMBA = {"out_proj", "conv1d"}
_FUSED_MAMBA_KINDS = {"falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h"}
"""Where PEFT refuses LoRA on `_FUSED_MAMBA`, whose weights Mamba's kernels read without calling the module."""


@dataclass(frozen=True)
class LeftOut:
    """Modules, or fused parameters, that get no adapter."""

    names: tuple[str, ...]
    """Their last names."""
    count: int
    parameters: int
    reason: str


def linears(model: Any, *, lora: bool) -> tuple[list[str], tuple[LeftOut, ...]]:
    """What `all-linear` means in a model: every linear layer but the head, routers and what PEFT cannot take.

    Args:
        model: the base, without an adapter.
        lora: whether the adapter is LoRA, which PEFT refuses on some of Mamba's layers.

    Returns:
        The shortest names that mean these modules and no others, as PEFT's target_modules takes them; and what is left out.
    """
    heads = {id(module) for module in _heads(model)}
    routed = _expert_count(model) > 1
    mamba = lora and getattr(model.config, "model_type", None) in _FUSED_MAMBA_KINDS
    chosen: list[str] = []
    routers: dict[str, Any] = {}
    fused: dict[str, Any] = {}
    seeing: dict[str, Any] = {}
    text = _text_part(model)
    for name, module in model.named_modules():
        if not _is_linear(module) or id(module) in heads:
            continue
        if not name.startswith(text):
            seeing[name] = module
        elif (routed and _ROUTERS & set(name.split("."))) or not _is_plain(module):
            routers[name] = module
        elif mamba and name.rsplit(".", 1)[-1] in _FUSED_MAMBA:
            fused[name] = module
        else:
            chosen.append(name)
    left = [
        _left_out(routers, "a router, which selects experts; name it in target_modules to adapt it"),
        _left_out(seeing, "it processes images or audio, which the rows do not have; name it in target_modules to adapt it"),
        _left_out(fused, "Mamba's kernels bypass it, so PEFT has no LoRA for it"),
    ]
    every = [name for name, _ in model.named_modules() if name]
    return _shortest(chosen, every), tuple(one for one in left if one is not None)


def experts(model: Any, targeted: Iterable[str] = ()) -> LeftOut | None:
    """The fused parameters of a mixture of experts that get no adapter; None where there are none.

    Args:
        model: the base, without an adapter.
        targeted: the recipe's `lora.target_parameters`.
    """
    count = _expert_count(model)
    found = {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim == 3 and parameter.shape[0] == count > 1
        and not any(name == end or name.endswith(f".{end}") for end in targeted)
    }  # fmt: skip
    if not found:
        return None
    names = tuple(sorted({_last_two(name) for name in found}))
    size = sum(parameter.numel() for parameter in found.values())
    return LeftOut(
        names, len(found), size, f"fused experts are not linear layers; lora.target_parameters=[{','.join(names)}] adapts them"
    )


@contextmanager
def literal_names() -> Iterator[None]:
    """Around PEFT's injection: the names of a recipe mean modules of this model, not those of transformers 4."""
    with replaced({patches.LITERAL_NAMES: lambda *_, **__: None}):
        yield


def loadable(config: dict[str, Any], model: Any) -> dict[str, Any]:
    """adapter_config.json under which PEFT alone finds the same modules again.

    Names that PEFT would turn into experts' parameters are written as parameters themselves, `mlp.down_proj.weight`: PEFT
    loads the same two matrices into a wrapper for the parameter, and leaves the name alone.

    Args:
        config: as PEFT saved it.
        model: the base without its adapter's wrappers, or with them.
    """
    targets = config.get("target_modules")
    if not isinstance(targets, list):
        return config
    moved = [name for name in targets if name not in _as_peft_reads(targets, model)]
    if not moved:
        return config
    parameters = {*(config.get("target_parameters") or ()), *(f"{name}.weight" for name in moved)}
    return {
        **config,
        "target_modules": sorted(set(targets) - set(moved)),
        "target_parameters": sorted(parameters),
        "lora_dropout": 0.0,  # the wrapper has none, and what is trained already needs none
    }


def as_modules(config: Any, model: Any) -> Any:
    """PEFT's config with what `loadable` wrote as parameters read as modules again, which train without a wrapper."""
    linear = [name for name, module in model.named_modules() if _is_linear(module)]
    parameters = getattr(config, "target_parameters", None) or ()
    moved = {name.removesuffix(".weight") for name in parameters if name.endswith(".weight")}
    moved = {end for end in moved if any(name == end or name.endswith(f".{end}") for name in linear)}
    if moved and not isinstance(config.target_modules, str):
        config.target_modules = {*(config.target_modules or ()), *moved}
        config.target_parameters = [name for name in parameters if name.removesuffix(".weight") not in moved] or None
    return config


def _as_peft_reads(targets: list[str], model: Any) -> set[str]:
    """The target_modules that PEFT goes on with on this model."""
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    config = LoraConfig(target_modules=sorted(targets))
    try:
        convert_peft_config_for_transformers(config, model=model, conversions=None)
    except ValueError:  # up_proj without gate_proj, which PEFT's fused names do not allow
        config = LoraConfig(target_modules=sorted({*targets, "gate_proj", "up_proj", "w1", "w3"}))
        convert_peft_config_for_transformers(config, model=model, conversions=None)
    return set(copy.copy(config.target_modules) or ())


def _is_linear(module: Any) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (torch.nn.Linear, Conv1D)) or quantized.is_quantized_linear(module)


def _is_plain(module: Any) -> bool:
    """Whether a linear layer answers with one tensor, as PEFT expects: some routers are subclasses that answer with two."""
    own = type(module).forward
    return type(module).__module__.startswith(("torch.", "bitsandbytes.", "transformers.pytorch_utils")) or (
        own is torch.nn.Linear.forward or quantized.is_quantized_linear(module)
    )


def _heads(model: Any) -> list[Any]:
    """The output embedding, and the head of a model that judges."""
    found = [model.get_output_embeddings(), *(getattr(model, name, None) for name in ("score", "classifier"))]
    return [head for head in found if head is not None]


def _text_part(model: Any) -> str:
    """How the names of the modules that read text begin: of a model that reads images or sound too, its language model's."""
    return next((f"{name}." for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] == "language_model"), "")


def _expert_count(model: Any) -> int:
    """How many experts a layer has, by the names that configurations have for it; 0 without any."""
    text = model.config.get_text_config()
    names = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    return max((count for name in names if isinstance(count := getattr(text, name, None), int)), default=0)


def _left_out(modules: dict[str, Any], reason: str) -> LeftOut | None:
    if not modules:
        return None
    names = tuple(sorted({_last(name) for name in modules}))
    return LeftOut(names, len(modules), sum(p.numel() for m in modules.values() for p in m.parameters()), reason)


def _last(name: str) -> str:
    return next((part for part in reversed(name.split(".")) if not part.isdigit()), name)


def _last_two(name: str) -> str:
    return ".".join([part for part in name.split(".") if not part.isdigit() and part != "base_layer"][-2:])


def _shortest(chosen: list[str], every: list[str]) -> list[str]:
    """The shortest ends of names that mean the chosen modules alone."""

    def ends(name: str) -> list[str]:
        parts = name.split(".")
        return [".".join(parts[i:]) for i in range(len(parts) - 1, -1, -1)]

    wanted, all_ = Counter(end for name in chosen for end in ends(name)), Counter(end for name in every for end in ends(name))
    return sorted({next((end for end in ends(name) if wanted[end] == all_[end]), name) for name in chosen})
