"""Past one machine: Ray finds room for trainings on the nodes of a cluster, and keeps nothing of the search.

A training has an actor (`node`), which holds the CPUs and GPUs that it asks for. What is drawn, judged and pruned is decided by
the sweep alone, from the folders that all nodes see.
"""

from __future__ import annotations

import io
import logging
import os
import re
import signal
import socket
import sys
import threading
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

from llmbench import borrowed, workspace
from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.runs import Run
from llmbench.shown import printable
from llmbench.sweep import process
from llmbench.sweep.node import Holder, unlike

__all__ = ["PROBE", "Asked", "Cluster", "connected"]

PROBE = ".cluster"
"""A file of the sweep's folder, by which a node finds out whether it sees the folder."""
_PASSED = ("HF_", "LLMBENCH_", "MLFLOW_", "OMP_", "PYTHONPATH", "TRACKIO_", "TRANSFORMERS_", "WANDB_")
"""Beginnings of the variables that a training is given beside those of its node."""
_ANSWER = 120.0
"""Seconds in which every node has to answer: its first process loads the libraries."""
_STORE = 100 * 2**20
"""Bytes of memory for Ray's objects where it is started here: nothing large passes through it."""
_SHOWN = 300
"""Characters of Ray's own words that are shown."""


@dataclass(frozen=True)
class Asked:
    """Which cluster, and what each training gets of it."""

    address: str | None = None
    """HOST:PORT, or `auto` for the one that this machine is part of; None is RAY_ADDRESS, else one that is started here."""
    cpus: int = 1
    gpus: float | None = None
    """A part of one, or several; None is one where the cluster has any."""


@contextmanager
def connected(asked: Asked, folder: Path, recipe: Path, most: int | None) -> Iterator[Cluster]:
    """Connects to a cluster, or starts one on this machine for as long as the block runs.

    Args:
        asked: which, and what a training gets.
        folder: the sweep's.
        recipe: the training recipe.
        most: trainings at once, at most.

    Raises:
        MissingPackage: Ray is not installed.
        LlmbenchError: the cluster does not answer, no node is large enough, or one does not see what this machine sees.
    """
    if find_spec("ray") is None:
        raise MissingPackage("sweep --engine ray", "ray", "ray")
    address = _address(asked.address)
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        os.environ.setdefault(name, "0")  # nothing is reported home, and what Ray changes some day is not announced
    if address == "local":
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # whatever the system: it listens on the loopback only
    import ray

    before = _handlers()
    out = sys.stdout
    try:
        _connect(address)
        sys.stdout = _WithoutRay(out)
        cluster = Cluster(asked, folder, recipe, most)
        workspace.write_text(folder / PROBE, cluster.token)
        cluster.check()
        yield cluster
    except ray.exceptions.RayError as error:
        raise LlmbenchError(f"Ray: {_short(error)}. The same command continues: what was trained is kept.") from error
    finally:
        sys.stdout = io.StringIO()  # what it held back so far, it prints now
        ray.shutdown()
        sys.stdout = out
        _handlers(before)
        (folder / PROBE).unlink(missing_ok=True)


def _connect(address: str) -> None:
    """Connects to a cluster, or starts one, without a word of Ray's.

    Raises:
        LlmbenchError: that failed.
    """
    import ray

    logging.getLogger("ray").setLevel(logging.CRITICAL)
    own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _STORE} if address == "local" else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level=logging.CRITICAL, **own)
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        if address == "local":
            raise LlmbenchError(f"Ray could not be started on this machine: {_short(error)}.") from error
        raise LlmbenchError(f"No Ray cluster is reached at {address}: {_short(error)}. Is it of this Ray's version?") from error


class _WithoutRay(io.TextIOBase):
    """Standard output without what Ray's own threads print of nodes that are lost: the sweep says it, and JSON stays whole."""

    def __init__(self, to: TextIO) -> None:
        self._to = to

    def write(self, text: str) -> int:
        return len(text) if threading.current_thread().name.startswith("ray_") else self._to.write(text)

    def flush(self) -> None:
        self._to.flush()

    def isatty(self) -> bool:
        return self._to.isatty()

    def fileno(self) -> int:
        return self._to.fileno()


def _address(given: str | None) -> str:
    """The cluster's address as Ray takes it, after a look whether anything answers there.

    Raises:
        LlmbenchError: it is none, or nothing does.
    """
    address = given or os.environ.get("RAY_ADDRESS") or "local"
    if address in ("auto", "local"):
        return address
    found = re.fullmatch(r"\[?([^\[\]/]+?)\]?:([0-9]{1,5})", address)
    where = "--ray-address" if given else "RAY_ADDRESS"
    if found is None:
        raise LlmbenchError(
            f"{where}: {address} is not HOST:PORT, such as node-1:6379, and not `auto`. Run the sweep on a machine of the "
            "cluster: it needs the folder that the nodes see"
        )
    try:
        socket.create_connection((found[1], int(found[2])), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise LlmbenchError(
            f"{where}: no Ray cluster answers at {address} ({error}). Start one there: ray start --head --port={found[2]}"
        ) from error
    return address


def _handlers(again: dict[int, Any] | None = None) -> dict[int, Any]:
    """The handlers of the signals that Ray takes for itself; with some, puts those back."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    for number, handler in (again or {}).items():
        signal.signal(number, handler)
    return {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


def _short(error: BaseException) -> str:
    """Ray's words in one line, without where it was in its code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(" ".join(lines[-1:] if "Traceback" in str(error) else lines))[:_SHOWN].rstrip(".")


class Cluster:
    """Room for trainings on the nodes of the cluster that this process is connected to."""

    def __init__(self, asked: Asked, folder: Path, recipe: Path, most: int | None) -> None:
        self._most, self.token, self.cpus = most, uuid.uuid4().hex, asked.cpus
        nodes = self._nodes()
        self.gpus = asked.gpus if asked.gpus is not None else float(any(one["Resources"].get("GPU") for one in nodes))
        self._given: dict[str, Any] = {
            "probe": str((folder / PROBE).absolute()), "token": self.token, "recipe": str(recipe.absolute()),
            "version": borrowed.version("llmbench"), "cwd": str(Path.cwd()),
        }  # fmt: skip

    def check(self) -> None:
        """Asks every node that is large enough whether it sees what this machine sees.

        Raises:
            LlmbenchError: one does not, or there is none.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        fitting = [one for one in self._nodes() if self._fits(one)]
        if not fitting:
            greatest = max((int(one["Resources"].get("CPU", 0)) for one in self._nodes()), default=0)
            gpus = max((int(one["Resources"].get("GPU", 0)) for one in self._nodes()), default=0)
            raise LlmbenchError(
                f"No node of the Ray cluster has room for a training that gets {self._words()}: the largest has "
                f"{_many(greatest, 'CPU')} and {_many(gpus, 'GPU')}. Lower --trial-cpus or --trial-gpus."
            )
        look: Any = ray.remote(unlike)
        asked = {
            look.options(
                num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(one["NodeID"], soft=False)
            ).remote(self._given): one["NodeManagerAddress"]
            for one in fitting
        }  # fmt: skip
        for answer, host in asked.items():
            try:
                fault = ray.get(answer, timeout=_ANSWER)
            except ray.exceptions.GetTimeoutError:
                fault = f"it did not answer within {_ANSWER:g} seconds"
            except ray.exceptions.RayError as error:
                fault = f"{_short(error)}; the same llmbench has to be installed there"
            if fault:
                raise LlmbenchError(f"Node {host} of the Ray cluster cannot train this: {fault}.")

    def room(self) -> int:
        """Trainings that the nodes have CPUs and GPUs for, other users aside; one at least, which then waits."""
        found = sum(self._fits(one) for one in self._nodes())
        return max(1, found if self._most is None else min(found, self._most))

    def share(self, slot: int) -> tuple[str | None, int | None]:
        """Which GPU, Ray says; threads for its CPUs."""
        del slot
        return None, max(1, self.cpus)

    def training(self, folder: Path, name: str, run: Run) -> RayTraining:
        """A training that runs where there is room."""
        return RayTraining(self, folder, name, run)

    def describe(self) -> str:
        """The cluster, for people."""
        nodes = self._nodes()
        cpus, gpus = (int(sum(one["Resources"].get(what, 0) for one in nodes)) for what in ("CPU", "GPU"))
        return (
            f"Ray: {_many(len(nodes), 'node')}, {_many(cpus, 'CPU')}, {_many(gpus, 'GPU')}; a training gets {self._words()}, "
            f"so {self.room()} at once"
        )

    def work(self, threads: int | None) -> dict[str, Any]:
        """What a node needs to know of any training."""
        environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED)}
        environment.setdefault("OMP_NUM_THREADS", str(threads or 1))
        environment["LLMBENCH_HOME"] = str(workspace.home())
        if not self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        return self._given | {"environment": environment}

    def _words(self) -> str:
        gpus = f"{self.gpus:g} GPU{'' if self.gpus == 1 else 's'}"
        return f"{_many(self.cpus, 'CPU')} and {gpus}" if self.gpus else _many(self.cpus, "CPU")

    def _fits(self, node: dict[str, Any]) -> int:
        """Trainings that a node has room for, if nobody else uses it."""
        there = node["Resources"]
        cpus, gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
        by_gpu = float("inf") if not self.gpus else gpus // self.gpus if self.gpus >= 1 else gpus * (1 // self.gpus)
        return int(min(cpus // self.cpus, by_gpu))

    def _nodes(self) -> list[dict[str, Any]]:
        import ray

        return [one for one in ray.nodes() if one["Alive"]]  # type: ignore[no-untyped-call]


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


class RayTraining:
    """A training on some node. It ends with the sweep: nothing is left behind on a cluster that others use."""

    def __init__(self, cluster: Cluster, folder: Path, name: str, run: Run) -> None:
        self._cluster, self._folder, self._name, self.run = cluster, folder, name, run
        self._at_home = process.TrainingProcess(folder, name, run)  # reads the log that the node writes
        self._keeper: Any = None
        self._placed: Any = None
        self._ended: Any = None
        self._result: dict[str, Any] | None = None
        self._dropped = False

    def start(self, command: Sequence[str], *, gpu: str | None, threads: int | None) -> None:
        """Asks Ray for room and has `llmbench` started there with these arguments. `gpu` is Ray's to say."""
        import ray

        del gpu
        work = self._cluster.work(threads) | {
            "folder": str(self._folder.absolute()), "name": self._name, "run": str(self.run.folder.absolute()),
            "program": list(process.PROGRAM[1:]), "command": list(command),
        }  # fmt: skip
        keeper: Any = ray.remote(Holder)
        self._keeper = keeper.options(
            num_cpus=self._cluster.cpus, num_gpus=self._cluster.gpus, max_concurrency=4, max_restarts=0, max_task_retries=0
        ).remote()
        self._placed, self._ended = self._keeper.host.remote(), self._keeper.keep.remote(work)

    @property
    def alive(self) -> bool:
        """Whether it runs or waits for room.

        Raises:
            LlmbenchError: the node that it came to cannot train it.
        """
        import ray

        if self._ended is None or self._result is not None:
            return False
        if not ray.wait([self._ended], timeout=0)[0]:
            return True
        try:
            self._result = dict(ray.get(self._ended))
        except ray.exceptions.RayError as error:
            self._result = {"lost": "" if self._dropped else f"its node or its task was lost ({_short(error)})"}
        self._drop()
        if refused := self._result.get("refused"):
            raise LlmbenchError(f"Node {self._result['host']} of the Ray cluster cannot train this: {refused}.")
        return False

    @property
    def killed_by(self) -> int | None:
        """The signal that ended it."""
        return (self._result or {}).get("killed")

    @property
    def lost(self) -> str:
        """Why nothing is known of it any more; empty where it ended by itself."""
        return str((self._result or {}).get("lost", ""))

    def stop(self) -> bool:
        """Asks it to stop after its step, with a checkpoint; one that waits for room is taken back."""
        return self._order("stop")

    def end(self) -> None:
        """Ends it at once."""
        self._order("end")

    def last_line(self) -> str:
        """The last line that it printed."""
        return self._at_home.last_line()

    def _order(self, word: str) -> bool:
        import ray

        if self._keeper is None or self._dropped:
            return True
        if not ray.wait([self._placed], timeout=0)[0]:
            self._drop()
        else:
            self._keeper.order.remote(word)
        return True

    def _drop(self) -> None:
        """Lets go of the CPUs and GPUs."""
        import ray

        self._dropped = True
        with suppress(ray.exceptions.RayError, ValueError):
            ray.kill(self._keeper)
