"""`llmbench train --processes`: several processes for one training; the one that was typed starts them and says how it went."""

from __future__ import annotations

import os
import shlex
import sys
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from llmbench.errors import LlmbenchError, RunError
from llmbench.training.distributed import launch, ranks, report

if TYPE_CHECKING:
    from llmbench.recipe import TrainRecipe
    from llmbench.runs import Run
    from llmbench.training.distributed.launch import Nodes

__all__ = ["batch", "check", "joined", "machines", "reporting", "speaks", "trained", "writes"]


def machines(processes: int, nodes: int, rendezvous: str | None) -> Nodes | None:
    """The machines that the command line names; None for one process on this one.

    Raises:
        RunError: several machines, and no place where they meet.
    """
    if nodes == 1 and rendezvous is not None:
        raise RunError("--rendezvous: is where several machines meet; say how many with --nodes")
    if nodes > 1 and (rendezvous is None or not rendezvous.rpartition(":")[2].isdigit()):
        raise RunError(f"--nodes {nodes}: needs --rendezvous HOST:PORT, a free port of one of them, the same on each")
    return None if processes == nodes == 1 else launch.Nodes(processes, nodes, rendezvous)


def check(document: TrainRecipe, where: Nodes | None) -> None:
    """Makes sure that the recipe's batches can be dealt, before anything is started.

    Raises:
        RecipeError: see `deal.check`.
    """
    from llmbench.training.distributed import deal

    if not ranks.started_by_torchrun():  # whose processes look when they have met
        deal.check(document, where.world if where else 1)


def batch(document: TrainRecipe, where: Nodes | None) -> str:
    """The batch of a step, over all processes, in words."""
    from llmbench.training.distributed import deal

    return deal.words(document, where.world if where else ranks.current().world)


def reporting() -> AbstractContextManager[None]:
    """What ends this process, told to the one that started it. See `report.reporting`."""
    return report.reporting()


def writes() -> bool:
    """Whether this process writes the run: it is alone, or the first of several."""
    return not ranks.started_by_torchrun() or os.environ["RANK"] == "0"


def speaks() -> bool:
    """Whether this process says how it went: nobody else that was started for the same training does."""
    return writes() and report.FOLDER not in os.environ


def joined(run: Run | None, document: TrainRecipe) -> Run:
    """The run as this process has it, when the first process has made its folder."""
    from llmbench import workspace
    from llmbench.training.distributed.follower import Follower

    ranks.current().wait()
    return Follower(workspace.runs() / document.name) if run is None else run


def trained(where: Nodes, document: TrainRecipe, command: list[str]) -> Run | None:
    """Trains with several processes; the run, or None where another machine's process wrote it.

    Raises:
        LlmbenchError: see `launch.start`.
        KeyboardInterrupt: Ctrl-C; a checkpoint is saved where a step was taken.
    """
    from llmbench import workspace
    from llmbench.runs import Run

    run = Run(workspace.runs() / document.name)
    many = ["--processes", str(where.processes)]
    if where.nodes > 1:
        many += ["--nodes", str(where.nodes), "--rendezvous", str(where.rendezvous)]
    began = time.time()
    try:
        outcome = launch.start(where, command)
    except LlmbenchError as error:
        if run.exists and run.status["updated"] >= began and run.state in ("failed", "stopped"):
            run.mark("failed", str(error))  # in place of what the first process saw of another's end
        raise
    if outcome.stopped:
        again = [word for word in command if word not in ("--overwrite", "--resume")]
        if outcome.first:
            line = shlex.join(["llmbench", *again, "--resume", *many])
            print(f"Stopped at step {run.status.get('step', 0)}. Continue with: {line}", file=sys.stderr)
        raise KeyboardInterrupt
    return run if outcome.first else None
