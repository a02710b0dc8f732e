"""What finished runs of this workspace say about estimates: measured / estimated time and memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmbench.errors import LlmbenchError
from llmbench.hardware import Machine

if TYPE_CHECKING:
    from llmbench.runs import Run

__all__ = ["Factor", "corrections", "memory"]

_ENOUGH = 3
"""Finished runs whose median is believed."""
_STEPS, _LONG = 20, 5.0
"""Steps, and seconds beside the first step's own, that a run must have taken to say anything about longer ones."""


@dataclass(frozen=True)
class Factor:
    """How much of an estimate finished runs took."""

    median: float
    least: float
    most: float
    runs: int

    @classmethod
    def of(cls, found: Sequence[float]) -> Factor | None:
        """None of no runs."""
        return cls(statistics.median(found), min(found), max(found), len(found)) if found else None


def corrections(there: Machine, *, method: str = "sft", count: int = 10) -> list[float]:
    """Measured / estimated seconds of this workspace's last finished runs of a method, on a machine of as many cores.

    Both without what the first step takes beyond the others, which says nothing about a longer run: runs of 20 steps and 5 s
    count, and fewer than three of them not at all, as one may have had the machine to itself or not.
    """
    return _last([time for run in _every() if (time := _time(run, there, method)) is not None], count)


def memory(there: Machine, *, method: str = "sft", count: int = 10) -> list[float]:
    """Measured / estimated peak memory of the last finished runs, as `corrections` chooses them but for how long they took."""
    return _last([peak for run in _every() if (peak := _peak(run, there, method)) is not None], count)


def _every() -> list[Run]:
    from llmbench import runs

    return runs.every()


def _last(found: list[float], count: int) -> list[float]:
    return found[:count] if len(found) >= _ENOUGH else []


def _time(run: Run, there: Machine, method: str) -> float | None:
    """Measured / estimated seconds of a run; None of one that says nothing about others, a damaged one among them."""
    try:
        status = run.status
        if _alike(run, there, method):
            steady, said = status["seconds"] - status.get("startup_seconds", 0.0), status["estimate"]
            if steady >= _LONG and status["step"] >= _STEPS and said["uncorrected_seconds"] > 0:
                return float(steady / said["uncorrected_seconds"])
    except (LlmbenchError, OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _peak(run: Run, there: Machine, method: str) -> float | None:
    try:
        status = run.status
        if _alike(run, there, method) and status["peak_memory"] and status["estimate"]["peak_memory"] > 0:
            return float(status["peak_memory"] / status["estimate"]["peak_memory"])
    except (LlmbenchError, OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _alike(run: Run, there: Machine, method: str) -> bool:
    """Whether a run was finished with an estimate, by the same method and on the same device with as many cores."""
    status = run.status
    if status["state"] != "finished" or status.get("estimate") is None or run.recipe["method"] != method:
        return False
    hardware = run.lock["hardware"]
    return (hardware["device"], hardware["cores"]) == (there.device, there.cores)
