"""This process among those of a training: which it is, and what they tell each other. Alone, each call costs nothing.

Everything goes through `torch.distributed`'s default group, which `join` makes. What one process decides by its clock, its disk
or a signal the others must hear of before they act on it, or they wait for each other for ever.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from llmbench.errors import LlmbenchError

__all__ = ["ALONE", "Ranks", "asked_for", "current", "join", "leave", "started_by_torchrun"]

T = TypeVar("T")

ASKED = "LLMBENCH_PROCESSES"
"""How many processes `llmbench train` was asked for, over all machines; what came of it is compared with it."""
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_WAIT = timedelta(minutes=30)
"""How long a process waits for another: the longest is that for the first one's certificate of a large adapter."""


@dataclass(frozen=True)
class Ranks:
    """One process of `world`."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes the run's folder and speaks to people."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other."""
        return self.world == 1

    def share(self, value: T) -> T:
        """The first process's value, on every process."""
        if self.alone:
            return value
        import torch.distributed as dist

        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Every process's value, in their order, on every process."""
        if self.alone:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value)
        return found

    def total(self, *values: float) -> tuple[float, ...]:
        """The sums of numbers over all processes, in double precision."""
        return self._reduced(values, "SUM")

    def most(self, *values: float) -> tuple[float, ...]:
        """The largest of each number over all processes."""
        return self._reduced(values, "MAX")

    def wait(self) -> None:
        """Until all processes are here."""
        if not self.alone:
            import torch.distributed as dist

            dist.barrier()

    def _reduced(self, values: tuple[float, ...], how: str) -> tuple[float, ...]:
        if self.alone:
            return values
        import torch
        import torch.distributed as dist

        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        box = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(box, op=getattr(dist.ReduceOp, how))
        return tuple(box.tolist())


ALONE = Ranks()
"""The process of a training that has no other."""


def current() -> Ranks:
    """This process as torch.distributed knows it; alone where it was never set up."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return Ranks()
    return Ranks(dist.get_rank(), dist.get_world_size())


def started_by_torchrun() -> bool:
    """Whether torchrun (or something that sets the same variables) started this process as one of several."""
    return all(name in os.environ for name in _TORCHRUN) and int(os.environ["WORLD_SIZE"]) > 1


def asked_for() -> int | None:
    """How many processes the user asked for, where `llmbench train` started this one."""
    return int(os.environ[ASKED]) if ASKED in os.environ else None


def join(device: str) -> Ranks:
    """Meets the other processes, if torchrun started this one beside others; else it is alone.

    Args:
        device: `cpu` or `cuda`, which says who carries the messages: gloo or NCCL.

    Raises:
        LlmbenchError: the processes are fewer or more than were asked for, or there are fewer GPUs than processes here.
    """
    asked = asked_for()
    if not started_by_torchrun():
        if asked is not None and asked > 1:
            raise LlmbenchError(f"{asked} processes were asked for, and this one was started alone. Start them by --processes.")
        return Ranks()
    import torch
    import torch.distributed as dist

    local = int(os.environ["LOCAL_RANK"])
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise LlmbenchError(
                f"--processes: process {local + 1} of this machine has no GPU (torch sees {torch.cuda.device_count()}). "
                "Start at most one process for each GPU."
            )
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        dist.init_process_group(backend="nccl" if device == "cuda" else "gloo", timeout=_WAIT)
    ranks = current()
    if asked is not None and ranks.world != asked:
        raise LlmbenchError(f"{asked} processes were asked for, and {ranks.world} met.")
    return ranks


def leave() -> None:
    """Waits for the others and parts from them, so that none ends while another still needs it."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
