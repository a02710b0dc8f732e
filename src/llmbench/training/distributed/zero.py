"""DeepSpeed's ZeRO: each process keeps its share of gradients and optimizer state (stage 2), and of every parameter (stage 3).

Its engine stands around the model, and transformers' loop goes on as with one process: `Steps` is the optimizer that the loop
steps, and the loop's backward pass and gradient norm are the engine's. It is given torch's AdamW, so nothing of it has to be
compiled, and files are written and read in the format of one process.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib.util import find_spec
from typing import Any

import torch

from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.training.distributed import ranks
from llmbench.training.distributed.ranks import Ranks

__all__ = ["Steps", "check", "held", "installed", "is_part", "part", "quiet", "stage", "started", "take", "whole"]

_STATE = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps of each parameter, beside the number of its steps."""
_ROUNDED = 8
"""Numbers a parameter, at most, by which DeepSpeed lengthens a flat share so that it begins where a GPU reads quickly."""


def installed() -> None:
    """Makes sure that DeepSpeed is there.

    Raises:
        MissingPackage: it is not.
    """
    if find_spec("deepspeed") is None:
        raise MissingPackage("train distributed.strategy=deepspeed", "deepspeed", "deepspeed")


@contextmanager
def quiet(device: str) -> Iterator[None]:
    """Imports DeepSpeed for a device; what it prints goes to stderr while the block runs.

    Raises:
        LlmbenchError: it is not installed, or works on another device.
    """
    installed()
    with redirect_stdout(sys.stderr):
        from deepspeed.accelerator import get_accelerator

        found = get_accelerator().device_name()
        if found != device:
            raise LlmbenchError(f"DeepSpeed works on {found} here, and the model is on {device}. Set DS_ACCELERATOR={device}.")
        yield


def check(model: Any, accelerator: Any) -> None:
    """Makes sure of what cannot be read from a recipe.

    Raises:
        LlmbenchError: losses are scaled, or what is trained has several precisions.
    """
    if accelerator.scaler is not None:
        raise LlmbenchError(
            "distributed.strategy: deepspeed trains in bfloat16 or float32; set model.dtype: bfloat16, or use ddp."
        )
    kinds = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.requires_grad})
    if len(kinds) > 1:
        raise LlmbenchError(
            f"distributed.strategy: deepspeed trains weights of one precision, and these have {' and '.join(kinds)}. "
            "Use model.dtype: float32, or ddp."
        )


def configuration(zero_stage: int, *, batches: int, max_grad_norm: float) -> dict[str, Any]:
    """What the engine is told.

    Args:
        zero_stage: 2 or 3.
        batches: batches of a step in each process.
        max_grad_norm: what the norm of a step's gradient is clipped to.
    """
    return {
        "train_micro_batch_size_per_gpu": 1,  # counted in batches, which need not have the same number of rows
        "gradient_accumulation_steps": batches,
        "gradient_clipping": max_grad_norm,
        "steps_per_print": None,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": zero_stage,
            "overlap_comm": False,
            "stage3_param_persistence_threshold": 0,  # else parameters below 100,000 numbers stay whole
        },
    }


def started(accelerator: Any, model: Any, optimizer: torch.optim.Optimizer, settings: Mapping[str, Any]) -> tuple[Any, Steps]:
    """The engine around a model, and what steps it. From here on the accelerator's backward pass and norm are the engine's.

    Args:
        accelerator: of the trainer.
        model: the same in each process.
        optimizer: torch's, over what is trained.
        settings: see `configuration`.
    """
    import deepspeed

    # of torch's collectives, which DeepSpeed calls by their old names
    warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)
    live, parameters = list(optimizer.param_groups), [list(group["params"]) for group in optimizer.param_groups]
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=dict(settings))
    engine.no_sync = nullcontext  # gradients are in parts after each batch, so that it would refuse
    steps = Steps(engine, parameters, live)

    def backward(loss: torch.Tensor, **_: Any) -> None:
        engine.set_gradient_accumulation_boundary(accelerator.sync_gradients)
        engine.backward(loss, scale_wrt_gas=False)  # the loss is divided by the tokens of the whole step already

    def clip_grad_norm_(parameters: Any, max_norm: float, norm_type: int = 2) -> torch.Tensor:
        return steps.norm(ranks.current())  # the engine clips when it steps

    accelerator.backward, accelerator.clip_grad_norm_ = backward, clip_grad_norm_
    return engine, steps


def stage(model: Any) -> int:
    """The stage of ZeRO that an engine works by; 0 of anything else."""
    if "deepspeed" not in sys.modules:
        return 0
    from deepspeed import DeepSpeedEngine

    return int(model.zero_optimization_stage()) if isinstance(model, DeepSpeedEngine) else 0


class Steps(torch.optim.Optimizer):
    """The optimizer of an engine as a trainer sees it: it steps the engine, and has the state of an undivided one."""

    def __init__(self, engine: Any, parameters: list[list[Any]], groups: list[dict[str, Any]]) -> None:
        """As above.

        Args:
            engine: DeepSpeed's.
            parameters: of each group.
            groups: the groups of the optimizer inside, whose `lr` a scheduler sets, with shares in place of parameters.
        """
        super().__init__([p for group in parameters for p in group], {})
        self.engine, self.parameters = engine, parameters
        self.param_groups = groups
        self.step_was_skipped = False
        self._begin()

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Clips, updates this process's share and puts the parameters together."""
        self.engine.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: the engine lets go of gradients when it has stepped."""

    def norm(self, here: Ranks) -> torch.Tensor:
        """The norm of a step's gradient over all processes, before it is clipped."""
        parts = [one for kept in self.engine.optimizer.averaged_gradients.values() if kept is not None for one in _list(kept)]
        squares = sum((part.detach().double().square().sum() for part in parts), torch.zeros((), dtype=torch.float64))
        return torch.tensor(math.sqrt(here.total(float(squares))[0]))

    def held(self, world: int) -> str:
        """What each process holds of the state: `whole`, or `1/2`."""
        here = sum(share.numel() for share in self._shares())
        each = [p.ds_numel if is_part(p) else p.numel() for group in self.parameters for p in group]
        return f"1/{world}" if here <= sum(each) / world + _ROUNDED * len(each) else "whole"

    def state_dict(self) -> dict[str, Any]:
        """The state of an undivided optimizer, on the CPU. Every process must take part."""
        count, groups = 0, []
        for group, parameters in zip(self.param_groups, self.parameters, strict=True):
            rest = {name: value for name, value in group.items() if name != "params"}
            groups.append({**rest, "params": list(range(count, count + len(parameters)))})
            count += len(parameters)
        return {"state": dict(self._whole_state()), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes up this process's share of the state of an undivided optimizer."""
        for group, saved in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({name: value for name, value in saved.items() if name != "params"})
        state = {int(number): values for number, values in state_dict["state"].items()}
        if not state:
            return
        for kept in self.engine.basic_optimizer.state.values():
            kept["step"].fill_(float(next(iter(state.values()))["step"]))
        for number, parameter in enumerate(p for group in self.parameters for p in group):
            for name in _STATE:
                _put(parameter, state[number][name], name)

    def _shares(self) -> list[torch.Tensor]:
        """The flat shares that the optimizer inside steps."""
        inner = self.engine.optimizer
        found: list[torch.Tensor] = (
            inner.fp32_partitioned_groups_flat if stage(self.engine) == 3 else inner.single_partition_of_fp32_groups
        )
        return list(found)

    def _whole_state(self) -> Iterator[tuple[int, dict[str, torch.Tensor]]]:
        from deepspeed.utils import safe_get_full_optimizer_state

        taken = next(iter(self.engine.basic_optimizer.state.values()))["step"]
        if not taken:
            return
        for number, parameter in enumerate(p for group in self.parameters for p in group):
            parts = {name: safe_get_full_optimizer_state(parameter, name).detach().cpu() for name in _STATE}
            yield number, {"step": taken.detach().cpu(), **parts}

    def _begin(self) -> None:
        """Makes the state that AdamW would make in its first step; stage 2 looks for all of it after its first group."""
        inner = self.engine.basic_optimizer
        fused = any(group.get("fused") for group in self.param_groups)
        for share in self._shares():
            number = torch.zeros((), dtype=torch.float32, device=share.device if fused else "cpu")
            inner.state[share] = {"step": number, **{name: torch.zeros_like(share) for name in _STATE}}
        if stage(self.engine) != 3:
            self.engine.optimizer._lazy_init_hp_params_optimizer_state()


def is_part(parameter: Any) -> bool:
    """Whether a parameter is in parts by stage 3."""
    return hasattr(parameter, "ds_id")


def part(parameter: Any) -> torch.Tensor:
    """This process's part of a parameter, flat."""
    size, here = parameter.ds_tensor.ds_numel, ranks.current()
    found: torch.Tensor = parameter.ds_tensor[: max(min(size, parameter.ds_numel - size * here.rank), 0)]
    return found


def whole(parameter: Any) -> torch.Tensor:
    """All of a trained parameter that is in parts. Every process must take part."""
    from deepspeed.utils import safe_get_full_fp32_param

    found: torch.Tensor = safe_get_full_fp32_param(parameter)
    return found.to(parameter.ds_tensor.dtype)


def take(parameter: Any, value: torch.Tensor) -> None:
    """Takes up this process's part of a value, in a trained parameter that is in parts."""
    _put(parameter, value, None)
    with torch.no_grad():
        parameter.ds_tensor.copy_(_cut(parameter, value))


def held(parameters: list[Any], world: int) -> str:
    """What each process holds of parameters that are in parts, by their sizes: `whole`, or `1/2`."""
    most = sum(math.ceil(p.ds_numel / world) for p in parameters)
    here = sum(p.ds_tensor.numel() + p.numel() for p in parameters)  # the latter while it is put together
    return f"1/{world}" if here <= most else "whole"


def _put(parameter: Any, value: torch.Tensor, name: str | None) -> None:
    """Takes up this process's share of an undivided value in what is optimized, or in a state of it."""
    from deepspeed import utils

    on = value.to(parameter.device)
    match is_part(parameter), name:
        case True, None:
            utils.safe_set_local_fp32_param(parameter, _cut(parameter, on))
        case True, str():
            utils.safe_set_local_optimizer_state(parameter, _cut(parameter, on), name)
        case False, None:
            utils.safe_set_full_fp32_param(parameter, on)
        case False, str():
            utils.safe_set_full_optimizer_state(parameter, on, name)


def _cut(parameter: Any, value: torch.Tensor) -> torch.Tensor:
    """This process's part of an undivided value, of the length that all parts have."""
    size, here = parameter.ds_tensor.ds_numel, ranks.current()
    found = torch.zeros(size, dtype=value.dtype, device=parameter.ds_tensor.device)
    own = value.flatten()[size * here.rank : size * (here.rank + 1)]
    found[: own.numel()] = own
    return found


def _list(kept: Any) -> list[torch.Tensor]:
    return [kept] if isinstance(kept, torch.Tensor) else [one for one in kept if one is not None]
