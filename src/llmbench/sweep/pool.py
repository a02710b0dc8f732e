"""Runs trainings, a few at once, until each has ended: starts them, takes over those that run, watches and stops them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Protocol

from llmbench import interrupts, workspace
from llmbench.errors import LlmbenchError
from llmbench.runs import Run
from llmbench.runs.best import Goal
from llmbench.sweep import trial as trials
from llmbench.sweep.place import Training, Workplace
from llmbench.sweep.trial import Trial

__all__ = ["Interruption", "Pool", "Watcher"]

_LOOK_SECONDS = 0.5
"""Between two looks at what trains."""
_STARTS = 3
"""How often a training that is killed (for memory, most often) is started before it counts as failed."""


class Watcher(Protocol):
    """What shows how far a sweep is, on a terminal or in a log."""

    def placed(self, words: str) -> None:
        """A cluster was found."""

    def phase(self, words: str, total: int, done: int) -> None:
        """The search, or the confirmation, begins."""

    def running(self, trials: list[Trial]) -> None:
        """Called about twice a second with what trains."""

    def ended(self, trial: Trial, best: Trial | None) -> None:
        """A trial has ended."""


class Interruption:
    """Whether the sweep should stop: Ctrl-C, or its time is over. The second Ctrl-C ends the trainings at once."""

    def __init__(self, timeout: float | None = None) -> None:
        self._until = math.inf if timeout is None else time.monotonic() + timeout
        self.times = 0

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self._until

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes SIGINT and SIGTERM while the block runs."""

        def ask() -> None:
            self.times += 1

        with interrupts.handed_to(ask):
            yield


@dataclass
class _Running:
    trial: Trial
    process: Training
    pruned: str = ""
    asked: bool = False


class Pool:
    """Trainings of one folder of trials.

    Args:
        folder: where the trials' files are.
        recipe: the training recipe, as the command line names it.
        goal: what is judged.
        place: where trainings run, and how many at once.
        stop: whether to stop.
        prune: why a running trial should be stopped, given it and how many of its evaluations were judged before.
        ended: told of each trial that has ended.
    """

    def __init__(
        self,
        folder: Path,
        recipe: str,
        goal: Goal,
        *,
        place: Workplace,
        stop: Interruption,
        prune: Callable[[Trial, int], str] = lambda trial, judged: "",
        ended: Callable[[Trial], None] = lambda trial: None,
    ) -> None:
        self.folder, self._recipe, self._goal, self._place, self._stop = folder, recipe, goal, place, stop
        self._prune, self._ended = prune, ended
        self._lost: set[int] = set()
        self._running: list[_Running] = []
        folder.mkdir(parents=True, exist_ok=True)
        self.trials = {one.number: one for one in trials.read(folder)}

    def run(self, following: Callable[[], Trial | None], watch: Callable[[list[Trial]], None] = lambda running: None) -> None:
        """Runs what was left running, then what follows, until nothing does.

        Args:
            following: the next trial, asked whenever a worker is free; None where there is none for now.
            watch: told now and then of what runs.

        Raises:
            KeyboardInterrupt: the user asked to stop; the trainings have ended with checkpoints.
            LlmbenchError: a run that is not this sweep's has the name of the next trial.
        """
        left = [one for one in self.trials.values() if one.state == "running"]
        left.sort(key=lambda one: not self._process(one).alive)  # what still trains first: its GPU is taken
        try:
            while True:
                stopping = self._stop.times > 0 or self._stop.late
                while not stopping and len(self._running) < self._place.room():
                    trial = left.pop(0) if left else following()
                    if trial is None:
                        break
                    self._begin(trial)
                if not self._running:
                    break
                for one in list(self._running):
                    self._look(one, stopping)
                watch([one.trial for one in self._running])
                if self._running:
                    time.sleep(_LOOK_SECONDS)
        except LlmbenchError:
            self._let_end()
            raise
        if self._stop.times:
            raise KeyboardInterrupt

    def _begin(self, trial: Trial) -> None:
        """Takes over the training of a trial, or starts or continues it."""
        process = self._process(trial)
        run = process.run
        ended = trial.starts > 0 and run.exists and run.state in ("finished", "failed")  # while no sweep looked
        if process.alive or ended:
            self._running.append(_Running(trial, process))
            return
        if not trial.starts and run.exists:
            raise LlmbenchError(
                f"Run {run.name} already exists and is not of this sweep. Remove it (llmbench runs rm {run.name}), or choose "
                "another name for the sweep with name=..."
            )
        again = ["--resume"] if run.exists else []
        taken = {one.trial.slot for one in self._running}
        slot = next(i for i in count() if i not in taken)
        trial = replace(trial, starts=trial.starts + 1, slot=slot)
        self._write(trial)  # first: whatever happens from here on, the training is known as this trial's
        gpu, threads = self._place.share(slot)
        process.start(["train", self._recipe, *trial.overrides, f"name={trial.run}", *again], gpu=gpu, threads=threads)
        self._running.append(_Running(trial, process))

    def _process(self, trial: Trial) -> Training:
        return self._place.training(self.folder, trial.file, Run(workspace.runs() / trial.run))

    def _look(self, one: _Running, stopping: bool) -> None:
        """Reads what a training has measured, stops it where it should be, and notes its end."""
        alive, run = one.process.alive, one.process.run
        if run.exists:
            before, one.trial = one.trial, one.trial.judged(run, self._goal)
            if len(before.evaluations) != len(one.trial.evaluations):
                self._write(one.trial)
                if alive and not one.pruned:
                    one.pruned = self._prune(one.trial, len(before.evaluations))
        if not alive:
            self._end(one)
        elif self._stop.times > 1:
            one.process.end()
        elif (stopping or one.pruned) and not one.asked:
            one.asked = one.process.stop()

    def _end(self, one: _Running) -> None:
        """What became of a training that has ended."""
        self._running.remove(one)
        trial, run = one.trial, one.process.run
        status = run.status if run.exists else {"state": "stopped", "reason": one.process.last_line()}
        stopping = self._stop.times > 0 or self._stop.late
        killed = one.process.killed_by
        match status["state"]:
            case "finished":
                trial = trial.finished(run, self._goal)
            case "failed":
                trial = trial.ended("failed", str(status["reason"]))
            case _ if one.pruned:
                trial = trial.ended("pruned", one.pruned)
            case _ if stopping:
                self._write(trial)  # stays running: the next sweep continues it
                return
            case _ if one.process.lost:
                if trial.number not in self._lost:  # not its fault: once more, from its checkpoint
                    self._lost.add(trial.number)
                    self._begin(trial)
                    return
                trial = trial.ended("failed", f"{one.process.lost}, twice")
            case _ if killed or status["reason"] == "killed":
                if trial.starts < _STARTS:
                    self._begin(trial)
                    return
                signals = f" by signal {killed}" if killed else ""
                trial = trial.ended("failed", f"killed{signals} {trial.starts} times; often there was too little memory")
            case _ if not run.exists or status["reason"] == "not started":
                trial = trial.ended("failed", one.process.last_line() or "its training ended without a word")
            case _:
                trial = trial.ended("failed", f"stopped from outside ({status['reason']})")
        self._write(trial)
        self._ended(trial)

    def _write(self, trial: Trial) -> None:
        self.trials[trial.number] = trial
        trials.write(self.folder, trial)

    def _let_end(self) -> None:
        """Asks all trainings to stop, and waits."""
        while self._running:
            for one in list(self._running):
                if not one.process.alive:
                    self._running.remove(one)
                elif not one.asked:
                    one.asked = one.process.stop()
            time.sleep(_LOOK_SECONDS)
