"""`llmbench train --processes`: several processes for one training; the one that was typed starts them and says how it went."""

from __future__ import annotations

import os
import shlex
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmbench.errors import LlmbenchError, MissingPackage, RunError
from llmbench.training.distributed import launch, ranks, report

if TYPE_CHECKING:
    from llmbench.recipe import TrainRecipe
    from llmbench.runs import Run
    from llmbench.training.distributed.launch import Nodes

__all__ = [
    "Emit",
    "Engine",
    "batch",
    "check",
    "emitted",
    "joined",
    "left",
    "machines",
    "reporting",
    "speaks",
    "trained",
    "writes",
]


Engine = Literal["torchrun", "ray"]
"""Who starts the processes."""
Emit = Literal["slurm"]
"""What is written in place of a training."""


def machines(processes: int, nodes: int, rendezvous: str | None, engine: Engine = "torchrun") -> Nodes | None:
    """The machines that the command line names; None for one process on this one.

    Raises:
        RunError: several machines, and no place where they meet.
        MissingPackage: Ray is asked for and not installed.
    """
    if engine == "ray":
        if nodes > 1 or rendezvous is not None:
            raise RunError("--engine ray: places --processes on its cluster itself; leave --nodes and --rendezvous out")
        if find_spec("ray") is None:
            raise MissingPackage("train --engine ray", "ray", "ray")
        return None if processes == 1 else launch.Nodes(processes, engine="ray")
    if nodes == 1 and rendezvous is not None:
        raise RunError("--rendezvous: is where several machines meet; say how many with --nodes")
    if nodes > 1 and (rendezvous is None or not rendezvous.rpartition(":")[2].isdigit()):
        raise RunError(f"--nodes {nodes}: needs --rendezvous HOST:PORT, a free port of one of them, the same on each")
    return None if processes == nodes == 1 else launch.Nodes(processes, nodes, rendezvous)


def emitted(document: TrainRecipe, processes: int, nodes: int, command: list[str], *, overwrite: bool) -> Path:
    """Writes a Slurm script for a recipe into the folder that one is in, and gives its path.

    Raises:
        LlmbenchError: its batches cannot be dealt, or there is a file of this name.
    """
    from llmbench import hardware
    from llmbench.training.distributed import deal, slurm

    where = launch.Nodes(processes, nodes, "at-the-first-host:0")
    deal.check(document, where.world)
    path = Path(f"{document.name}.sbatch")
    gpus = document.model.device != "cpu" and (document.model.device == "cuda" or processes > 1 or hardware.gpus())
    slurm.write(path, slurm.script(document.name, where, command, gpus=gpus), overwrite=overwrite)
    return path


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
    """The run as this process has it, when the first process has made its folder.

    Raises:
        RunError: this process does not see it.
    """
    from llmbench import workspace
    from llmbench.training.distributed.follower import Follower

    ranks.current().wait()
    if run is not None:
        return run
    found = Follower(workspace.runs() / document.name)
    if not found.exists:
        raise RunError(f"{found.folder}: not on this machine; all machines must see the same LLMBENCH_HOME (a shared folder)")
    return found


def left() -> None:
    """Parts from the other processes, when all have come so far."""
    ranks.leave()


def trained(where: Nodes, document: TrainRecipe, command: list[str]) -> Run | None:
    """Trains with several processes; the run, or None where another machine's process wrote it.

    Raises:
        LlmbenchError: see `launch.start`.
        KeyboardInterrupt: Ctrl-C; a checkpoint is saved where a step was taken.
    """
    from llmbench import workspace
    from llmbench.runs import Run

    run = Run(workspace.runs() / document.name)
    where = replace(where, device=document.model.device)
    many = ["--processes", str(where.processes)] + ["--engine", "ray"] * (where.engine == "ray")
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
    if not outcome.first:
        print("Trained. The first process was on another machine, which says how it went.", file=sys.stderr)
    return run if outcome.first else None
