"""Whether the processes are what was asked for, read from torch, accelerate and the model before the first step.

Each of these was seen to be otherwise without any error: two trainings side by side in one folder, one process where two were
asked for, a sharded model that was not, gradients that were averaged over processes and not over tokens.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from llmbench.errors import LlmbenchError
from llmbench.recipe import TrainRecipe
from llmbench.training.distributed import ranks, sharding, zero

__all__ = ["Setup", "check", "expected", "found"]


@dataclass(frozen=True)
class Setup:
    """What several processes are, as asked for or as found."""

    processes: int
    """By torch.distributed."""
    trainers: int
    """By accelerate, which divides the loss and sums up the tokens."""
    strategy: str
    """What the model is wrapped in."""
    held: str
    """What each process holds of the parameters."""
    optimizer: str
    """What each process holds of the optimizer's state."""
    tokens: str
    """What a loss is the mean of: the tokens of `all processes`, or of each by itself."""
    batches: int
    """Batches of a step, over all processes."""
    first_step: tuple[int, ...]
    """The rows of the first step, over all processes, in ascending order."""
    weights: int
    """How many different models there are among the processes, by what is trained."""


_WORDS = {
    "processes": "processes that met",
    "trainers": "processes that accelerate counts",
    "strategy": "strategy",
    "held": "part of the parameters that each process holds",
    "optimizer": "part of the optimizer's state that each process holds",
    "tokens": "loss over the tokens of",
    "batches": "batches a step",
    "first_step": "rows of the first step",
    "weights": "different models among the processes",
}


def check(trainer: Any) -> None:
    """Compares what was asked with what is, on every process alike.

    Raises:
        LlmbenchError: they differ.
    """
    asked, is_ = expected(trainer), found(trainer)
    if asked == is_:
        return
    wanted, given = asdict(asked), asdict(is_)
    name = next(name for name in wanted if wanted[name] != given[name])
    raise LlmbenchError(
        f"The processes are not what was asked for: {_WORDS[name]}: {_short(wanted[name])} asked, {_short(given[name])} found. "
        "Nothing was trained. Report it with the output of llmbench doctor, and train with one process meanwhile."
    )


def expected(trainer: Any) -> Setup:
    """What the recipe and the command line say."""
    recipe: TrainRecipe = trainer.recipe
    world = ranks.asked_for() or ranks.current().world
    whole = trainer.batches(ranks.Ranks())
    a_step = recipe.training.gradient_accumulation_steps
    rows = sorted(row for batch in list(whole)[:a_step] for row in batch)
    how = recipe.distributed
    divided, state = how.strategy == "fsdp2" or how.stage == 3, how.strategy != "ddp"
    parts = ["whole", f"1/{world}"]
    return Setup(world, world, how.called, parts[divided], parts[state], "all processes", a_step, tuple(rows), 1)


def found(trainer: Any) -> Setup:
    """What is there."""
    here = ranks.current()
    slots = trainer.args.gradient_accumulation_steps
    own = [row for batch in list(trainer.batches(trainer.ranks))[:slots] for row in batch]
    return Setup(
        processes=here.world,
        trainers=int(trainer.accelerator.num_processes),
        strategy=strategy(trainer.model_wrapped),
        held=sharding.held(trainer.model.parameters(), here.world),
        optimizer=_state(trainer.optimizer, here.world),
        tokens="all processes" if trainer.args.average_tokens_across_devices else "each process",
        batches=int(here.total(slots)[0]),
        first_step=tuple(sorted(row for rows in here.gather(own) for row in rows)),
        weights=len(set(here.gather(fingerprint(trainer.model)))),
    )


def strategy(model: Any) -> str:
    """`ddp`, `fsdp2`, `deepspeed ZeRO-2`, or `none` where gradients stay with the process that computed them."""
    from torch.nn.parallel import DistributedDataParallel

    if stage := zero.stage(model):
        return f"deepspeed ZeRO-{stage}"
    if sharding.is_sharded(model):
        return "fsdp2"
    return "ddp" if isinstance(model, DistributedDataParallel) else "none"


def fingerprint(model: Any) -> tuple[float, ...]:
    """Two sums over what is trained, in double precision: equal for equal weights, and for others by accident only."""
    parts = [sharding.local(p).detach().double() for p in trained(model)]
    sums = math.fsum(float(part.sum()) for part in parts), math.fsum(float(part.square().sum()) for part in parts)
    return ranks.current().total(*sums) if sharding.in_parts(model) else sums


def _state(optimizer: Any, world: int) -> str:
    inner = getattr(optimizer, "optimizer", optimizer)  # in accelerate's
    if isinstance(inner, zero.Steps):
        return inner.held(world)
    return sharding.held((p for group in inner.param_groups for p in group["params"]), world)


def trained(model: Any) -> list[Any]:
    """The parameters that are trained."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:100] + "..."
