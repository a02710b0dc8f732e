"""The hardware that is advised for: a GPU by the table, or this machine; what no table knows is measured in a few seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec

from llmbench import hardware, workspace
from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.estimate import gpus
from llmbench.estimate.gpus import Gpu
from llmbench.hardware import Machine

__all__ = ["Hardware", "by_table", "this"]

_READ = 256 * 2**20
"""Bytes that are read to time the memory: more than any cache holds."""
_SECONDS = 0.8
"""For each of the three figures."""
_HOST = 64 * 2**30
"""Host memory that is assumed beside a GPU of the table."""


@dataclass(frozen=True)
class Hardware:
    """What decides whether and how fast a model trains and answers."""

    name: str
    device: str
    """`cpu` or `cuda`."""
    memory: int
    """Bytes that a model may take: of a GPU, or of this machine's memory that is free now."""
    bandwidth: float
    """Bytes a second that are read from it."""
    bf16: float
    """Matrix products in bfloat16, FLOP/s."""
    float32: float | None
    """In float32; measured only."""
    fp8: float | None
    """In eight-bit floats; None where it multiplies none."""
    measured: bool
    """Whether the rates were measured; else they are the maker's, of which less is reached."""
    machine: Machine
    """As trainings are estimated for it."""
    here: bool = False
    """Whether it is this machine, whose finished runs correct estimates."""

    @property
    def int8(self) -> float:
        """Matrix products in eight-bit integers, FLOP/s: twice those in bfloat16 on each GPU of the table, and not assumed of
        a CPU."""
        return self.bf16 * (1 if self.device == "cpu" else 2)


def by_table(gpu: Gpu) -> Hardware:
    """One GPU of the table, in a machine with enough memory."""
    there = Machine("cuda", 8, _HOST, bfloat16=True, gpu=gpu.name, gpu_memory=gpu.memory)
    return Hardware(gpu.name, "cuda", gpu.memory, gpu.bandwidth, gpu.bf16, None, gpu.fp8, measured=False, machine=there)


def this(*, again: bool = False) -> Hardware:
    """This machine: free memory as it is now, and rates by the table, or measured once and kept in the cache.

    Args:
        again: measure also where the cache has figures.

    Raises:
        MissingPackage: without torch.
        LlmbenchError: the kernel does not say how much memory is free.
    """
    there = hardware.machine()
    free = there.gpu_memory if there.device == "cuda" else there.memory
    if not free:
        raise LlmbenchError("--hardware this: the kernel does not say how much memory is free. Name a GPU instead.")
    found = gpus.find(there.gpu or "")
    if found is not None:
        return replace(by_table(found), name=there.gpu or found.name, memory=free, machine=there, here=True)
    processor = hardware.processor().get("model name", "CPU")
    name = there.gpu or f"{processor}, {there.cores} cores"
    if find_spec("torch") is None:
        raise MissingPackage("advise --hardware this", "torch", "train")
    key = f"{name}, torch {version('torch')}"
    kept = {} if again else _kept()
    rates = kept.get(key)
    if rates is None:
        rates = _measured(there)
        workspace.write_json(workspace.cache() / "hardware.json", _kept() | {key: rates})
    return Hardware(name, there.device, free, rates["bandwidth"], rates["bf16"], rates["float32"], None, True, there, here=True)


def _kept() -> dict[str, dict[str, float]]:
    """What was measured before; nothing where that cannot be read, as the cache may be removed at any time."""
    try:
        found = json.loads(workspace.cached("hardware.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    good = isinstance(found, dict) and all(
        isinstance(one, dict) and {"bandwidth", "bf16", "float32"} <= one.keys() for one in found.values()
    )
    return found if good else {}


def _measured(there: Machine) -> dict[str, float]:
    """Bytes a second of a sum over 256 MiB, and FLOP/s of a square matrix product, on as many threads as there are cores."""
    import torch

    device, before = torch.device(there.device), torch.get_num_threads()
    side = 1024 if there.device == "cpu" else 8192

    def waits(work: Callable[[], object]) -> Callable[[], object]:
        def timed() -> object:
            done = work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            return done

        return timed

    torch.set_num_threads(there.cores)
    try:
        with torch.inference_mode():
            row = torch.ones(_READ // 4, device=device)
            rates = {"bandwidth": _READ / _least(waits(row.sum))}
            for name, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32)):
                x = torch.randn(side, side, device=device).to(dtype)
                rates[name] = 2 * side**3 / _least(waits(lambda x=x: x @ x))  # type: ignore[misc]
    finally:
        torch.set_num_threads(before)
    return rates


def _least(work: Callable[[], object]) -> float:
    """The least of the seconds that some work takes, in a bit less than a second; its first time does not count."""
    work()
    least, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < _SECONDS:
        start = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - start)
    return least
