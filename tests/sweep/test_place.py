"""The seam between the sweep and where its trainings run, and what is asked of a cluster before Ray is."""

from __future__ import annotations

import importlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.sweep.conftest import Make, Quiet
from tests.sweep.test_run import RATE, states, trains

from llmbench import borrowed, runs, sweep
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.runs import Run
from llmbench.sweep import cluster, node
from llmbench.sweep.place import Here
from llmbench.sweep.process import TrainingProcess

running = importlib.import_module("llmbench.sweep.run")  # the room's face has a function of that name
Started = Callable[[], list[dict[str, Any]]]


class Away(TrainingProcess):
    """A training whose machine goes while it trains, as often as it is told."""

    def __init__(self, folder: Path, name: str, run: Run, times: dict[str, int]) -> None:
        super().__init__(folder, name, run)
        self.times, self.gone = times, ""

    @property
    def lost(self) -> str:
        return self.gone

    @property
    def alive(self) -> bool:
        if not self.gone and super().alive and self.times.get(self.run.name) and trains(self.run.name):
            self.times[self.run.name] -= 1
            self.gone = "its node or its task was lost"
            self.end()
            while super().alive:
                time.sleep(0.02)
        return super().alive


def lossy(monkeypatch: pytest.MonkeyPatch, times: dict[str, int]) -> None:
    """Has trainings run on machines that go."""

    class Lossy(Here):
        def training(self, folder: Path, name: str, run: Run) -> Away:
            return Away(folder, name, run, times)

    monkeypatch.setattr(running, "Here", Lossy)
    monkeypatch.setenv("FAKE_SECONDS", "0.4")


def test_a_trial_whose_machine_is_lost_is_continued_once(
    make: Make, quiet: Quiet, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    lossy(monkeypatch, {"try-0001": 1, "try-0002": 2})
    found = sweep.run(make(space={RATE: [0.1, 0.01, 0.001]}, sampler="grid"), quiet)
    assert states(found) == ["finished", "finished", "failed"]
    assert found.trials[2].reason == "its node or its task was lost, twice"
    assert [one["resume"] for one in started() if one["run"] != "try-0000"] == [False, True, False, True]
    assert [step for step, _ in found.trials[1].evaluations] == [1, 2, 3, 4], "nothing is measured twice"


def test_a_place_with_more_room_later_gets_more_at_once(make: Make, quiet: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    most: list[int] = []

    class Growing(Here):
        def room(self) -> int:
            return 1 if len(quiet.done) < 1 else 3

    monkeypatch.setattr(running, "Here", Growing)
    monkeypatch.setenv("FAKE_SECONDS", "0.2")
    quiet.on_running = lambda trials: most.append(len(trials))
    assert len(sweep.run(make(trials=4), quiet).trials) == 4
    assert most[0] == 1 and max(most) == 3


def test_gpus_of_this_machine_are_refused_on_a_cluster(make: Make, quiet: Quiet, home: Path) -> None:
    with pytest.raises(RecipeError, match=r"gpus: names GPUs of this machine.*--trial-gpus"):
        sweep.run(make(gpus=["0"]), quiet, sweep.Asked())
    assert list((home / "outputs").iterdir()) == []


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://head:10001", r"--ray-address: ray://head:10001 is not HOST:PORT, such as node-1:6379.*on a machine of the"),
        ("head", "head is not HOST:PORT"),
        ("127.0.0.1:{free}", r"no Ray cluster answers at 127\.0\.0\.1:[0-9]+ .*Start one there: ray start --head --port="),
    ],
)
def test_an_address_where_no_cluster_answers_is_said_at_once(
    make: Make, quiet: Quiet, monkeypatch: pytest.MonkeyPatch, address: str, message: str
) -> None:
    pytest.importorskip("ray")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        free = one.getsockname()[1]
    with pytest.raises(LlmbenchError, match=message):
        sweep.run(make(), quiet, sweep.Asked(address.format(free=free)))
    monkeypatch.setenv("RAY_ADDRESS", address.format(free=free))
    with pytest.raises(LlmbenchError, match=message.replace("--ray-address", "RAY_ADDRESS")):
        sweep.run(make(), quiet, sweep.Asked())


def test_a_node_says_what_it_does_not_see(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "_PATIENCE", 0.3)
    probe = home / "outputs" / cluster.PROBE
    given = {"probe": str(probe), "token": "abc", "recipe": str(home / "base.yaml"), "version": "1", "cwd": str(home)}
    monkeypatch.setattr(borrowed, "version", lambda name: "1")
    assert "it does not see" in node.unlike(given) and "Set LLMBENCH_HOME to a folder that all nodes share" in node.unlike(
        given
    )
    probe.write_text("another sweep's")
    assert "it does not see" in node.unlike(given)
    probe.write_text("abc")
    assert node.unlike(given) == ""
    assert node.unlike(given | {"recipe": "/nowhere/base.yaml"}).startswith("it has not the recipe /nowhere/base.yaml")
    assert node.unlike(given | {"cwd": "/nowhere"}).startswith("it has not the working directory")
    assert node.unlike(given | {"version": "2"}) == "it has llmbench 1 and the sweep 2. Install the same one"


def test_a_training_is_kept_on_a_node_and_says_where_it_was(home: Path) -> None:
    folder = home / "outputs" / "sweeps" / "try" / "trials"
    folder.mkdir(parents=True)
    (folder / cluster.PROBE).write_text("abc")
    given = {
        "probe": str(folder / cluster.PROBE), "token": "abc", "recipe": str(home / "base.yaml"), "cwd": str(home),
        "version": borrowed.version("llmbench"), "folder": str(folder), "name": "0000",
        "run": str(home / "outputs" / "runs" / "try-0000"), "program": [str(Path(__file__).with_name("trainer.py"))],
        "command": ["train", str(home / "base.yaml"), "name=try-0000"], "environment": {"CUDA_VISIBLE_DEVICES": ""},
    }  # fmt: skip
    assert node.Holder().keep(given) == {"killed": None}
    assert runs.open_run("try-0000").state == "finished"
    assert (folder / "0000.log").read_text() == f"on {socket.gethostname()}, CUDA_VISIBLE_DEVICES=\n"
    refused = node.Holder().keep(given | {"cwd": "/nowhere"})
    assert refused["host"] == socket.gethostname() and "the working directory" in refused["refused"]


def test_a_lost_package_is_named(make: Make, quiet: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(LlmbenchError, match=r"`llmbench sweep --engine ray` needs ray.*llmbench\[ray\]"):
        sweep.run(make(), quiet, sweep.Asked())
