"""A model in parts: each process keeps its share of every parameter, and a layer is put together while it is computed.

torch's own `fully_shard` (FSDP2), layer by layer, or DeepSpeed's ZeRO-3 (`zero`). accelerate would shard on GPUs alone and,
elsewhere, copy the model without a word. What is saved is put together again and named as an unsharded training names it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from llmbench.errors import LlmbenchError
from llmbench.training.distributed import zero
from llmbench.training.distributed.ranks import Ranks

__all__ = [
    "gathered",
    "gathered_optimizer",
    "held",
    "in_parts",
    "is_sharded",
    "load_adapter",
    "local",
    "restore_optimizer",
    "shard",
    "whole",
]


def shard(model: Any, ranks: Ranks, device: str) -> None:
    """Divides the parameters of each layer, and then all others, among the processes. The model must be the same on all.

    Raises:
        LlmbenchError: it is not, so that the parts would not fit together.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from transformers.modeling_layers import GradientCheckpointingLayer

    if len(set(ranks.gather(_sums(model)))) > 1:
        raise LlmbenchError("The processes loaded different models, whose parts do not fit together. Nothing was trained.")
    mesh = init_device_mesh(device, (ranks.world,))
    for layer in [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    if hasattr(model, "generate"):
        register_fsdp_forward_method(model, "generate")


def is_sharded(model: Any) -> bool:
    """Whether a model is in parts by `shard`."""
    return isinstance(model, FSDPModule)


def in_parts(model: Any) -> bool:
    """Whether a model is in parts, by whatever."""
    return is_sharded(model) or any(zero.is_part(p) for p in model.parameters())


def local(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a tensor; all of one that is not in parts."""
    if zero.is_part(tensor):
        return zero.part(tensor)
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(value: Any) -> Any:
    """All of a tensor that is in parts; anything else as it is. Every process must take part."""
    if zero.is_part(value):
        return zero.whole(value)
    return value.full_tensor() if isinstance(value, DTensor) else value


def held(parameters: Iterable[Any], world: int) -> str:
    """What each process holds of parameters, by their placement and by their bytes: `whole`, or `1/2`."""
    parameters = list(parameters)
    if all(zero.is_part(p) for p in parameters):
        return zero.held(parameters, world)
    placed = all(
        isinstance(p, DTensor) and p.device_mesh.size() == world and all(isinstance(how, Shard) for how in p.placements)
        for p in parameters
    )
    most = sum(math.ceil(p.shape[0] / world) * math.prod(p.shape[1:]) * p.element_size() for p in parameters if p.ndim)
    here = sum(local(p).numel() * p.element_size() for p in parameters)
    return f"1/{world}" if placed and here <= most else "whole"


def gathered(model: Any) -> dict[str, torch.Tensor]:
    """What is trained, whole and on the CPU, by its name in `state_dict`. Every process must take part."""
    return {name: _whole(p) for name, p in model.named_parameters() if p.requires_grad}


def gathered_optimizer(state: Any) -> Any:
    """An optimizer's state with whole tensors, as an unsharded one has it. Every process must take part."""
    match state:
        case torch.Tensor():
            return _whole(state)
        case dict():
            return {key: gathered_optimizer(value) for key, value in state.items()}
        case list():
            return [gathered_optimizer(value) for value in state]
    return state


def restore_optimizer(optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
    """An unsharded state with this process's parts, for the optimizer of a sharded model."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    parts = {
        number: {
            name: _part(value, parameters[int(number)]) if isinstance(value, torch.Tensor) else value
            for name, value in values.items()
        }
        for number, values in state["state"].items()
    }
    return {**state, "state": parts}


def load_adapter(model: Any, folder: Path) -> None:
    """Takes up the weights of an adapter's checkpoint in a model that is in parts."""
    from peft import get_peft_model_state_dict

    names = {name: torch.empty(0) for name, p in model.named_parameters() if p.requires_grad}
    saved = get_peft_model_state_dict(model, state_dict=names, adapter_name="default", save_embedding_layers=False)
    by_id = {id(tensor): name for name, tensor in names.items()}
    values, parameters = load_file(folder / "adapter_model.safetensors"), dict(model.named_parameters())
    with torch.no_grad():
        for key, mark in saved.items():
            parameter = parameters[by_id[id(mark)]]
            value = values[key].to(parameter.dtype)
            if zero.is_part(parameter):
                zero.take(parameter, value)
            else:
                parameter.copy_(_part(value, parameter))


def _part(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's part of a whole tensor, divided as a parameter is; a number stays whole."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = whole(tensor)
    return found.detach().cpu()


def _sums(model: Any) -> tuple[float, ...]:
    """Sums over all parameters, which differ where models do."""
    return tuple(float(p.detach().double().sum()) for p in model.parameters())
