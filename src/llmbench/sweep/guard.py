"""What stands between a task of a cluster and a training: `python -m llmbench.sweep.guard FOLDER NAME RUN PROGRAM ...`.

It starts the training as the sweep does at home, on the machine where it stands. A line on its standard input is an order,
`stop` or `end`. Where the input closes, whoever held it is gone, killed or not: the training is stopped with a checkpoint, and
ended where that takes too long. What it prints is how the training ended, as JSON.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from pathlib import Path

from llmbench.runs import Run
from llmbench.sweep import process
from llmbench.sweep.process import TrainingProcess

__all__ = ["main"]

_TICK = 0.2
_PATIENCE = 30.0
"""Seconds that a training has for its step and its checkpoint once nobody waits for it any more."""


class _Orders:
    """What came in on standard input so far."""

    def __init__(self) -> None:
        self.stop = self.end = self.alone = False

    def wait(self, seconds: float) -> None:
        """Takes what comes within so many seconds."""
        if self.alone:
            time.sleep(seconds)
            return
        if not select.select([0], [], [], seconds)[0]:
            return
        words = os.read(0, 4096)
        self.alone = not words
        self.stop = self.stop or self.alone or b"stop" in words
        self.end = self.end or b"end" in words


def main(folder: Path, name: str, run: Path, program: list[str], command: list[str]) -> int:
    """Runs the training to its end; returns the exit code 0 whatever became of it.

    Args:
        folder: of the trials, which holds log and lock.
        name: of the trial's files.
        run: the run's folder.
        program: what trains, behind this Python.
        command: its arguments.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray's workers are deaf to it, and a training would be too
    process.PROGRAM = (sys.executable, *program)
    training = TrainingProcess(folder, name, Run(run))
    orders = _Orders()
    while training.alive:  # the task before this one was lost, and its training has not ended yet
        if orders.stop or orders.end:
            return 0
        orders.wait(_TICK)
    training.start(command, gpu=None, threads=None, tied=True)
    asked, late = False, float("inf")
    while training.alive:
        orders.wait(_TICK)
        if orders.alone and late == float("inf"):
            late = time.monotonic() + _PATIENCE
        if orders.end or time.monotonic() > late:
            training.end()
        elif orders.stop and not asked:
            asked = training.stop()
    print(json.dumps({"killed": training.killed_by}), flush=True)
    return 0


if __name__ == "__main__":
    if os.fork():  # Ray kills a task's children with it, and this is to outlive it by a checkpoint
        os._exit(0)
    place, called, runs, trainer, *arguments = sys.argv[1:]
    sys.exit(main(Path(place), called, Path(runs), json.loads(trainer), arguments))
