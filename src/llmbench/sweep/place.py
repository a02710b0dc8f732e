"""Where trainings run: as processes of this machine, or wherever `cluster` finds room."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from llmbench.runs import Run
from llmbench.sweep.process import TrainingProcess

__all__ = ["Here", "Training", "Workplace"]


class Training(Protocol):
    """One training, whoever started it and wherever it runs."""

    @property
    def run(self) -> Run:
        """What it trains."""

    @property
    def alive(self) -> bool:
        """Whether it runs, or waits for room."""

    @property
    def killed_by(self) -> int | None:
        """The signal that ended it, where that is known."""

    @property
    def lost(self) -> str:
        """Why its machine does not answer any more; empty where it does."""

    def start(self, command: Sequence[str], *, gpu: str | None, threads: int | None) -> None:
        """Starts `llmbench` with these arguments."""

    def stop(self) -> bool:
        """Asks it to stop after its step, with a checkpoint. False where it has to be asked again."""

    def end(self) -> None:
        """Ends it at once."""

    def last_line(self) -> str:
        """The last line that it printed."""


class Workplace(Protocol):
    """Where trainings run."""

    def room(self) -> int:
        """Trainings at once, now."""

    def share(self, slot: int) -> tuple[str | None, int | None]:
        """What the training of a worker is told to use: CUDA_VISIBLE_DEVICES, and threads; None leaves it open."""

    def training(self, folder: Path, name: str, run: Run) -> Training:
        """A training, started already or not. Its log is in the folder, by its name."""


class Here:
    """Processes of this machine, which outlive the sweep.

    Args:
        workers: trainings at once.
        gpus: one for each worker; empty leaves all to all.
    """

    def __init__(self, workers: int, gpus: Sequence[str] = ()) -> None:
        self._workers, self._gpus = workers, gpus

    def room(self) -> int:
        """Trainings at once."""
        return self._workers

    def share(self, slot: int) -> tuple[str | None, int | None]:
        """The worker's GPU, or its part of the cores."""
        if self._gpus:
            return self._gpus[slot], None
        return None, max(1, (os.cpu_count() or 1) // self._workers) if self._workers > 1 else None

    def training(self, folder: Path, name: str, run: Run) -> TrainingProcess:
        """A training, found by its lock where it runs."""
        return TrainingProcess(folder, name, run)
