"""A real Ray on this machine, with one node or two: the sweep is the one that runs without it, and nothing outlives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.sweep.conftest import Make, Quiet
from tests.sweep.test_run import RATE, start, states, trains, wait_for

from llmbench import runs, sweep, workspace
from llmbench.errors import LlmbenchError
from llmbench.sweep import cluster

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets of Ray's own processes, closed by their ends
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # ray 2.60 sets an option of its own that it deprecates
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
Started = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def two_nodes() -> Iterator[Any]:
    """A cluster of a head that trains nothing and of nodes, which tests add: "add(cpus)" and "address"."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()  # type: ignore[no-untyped-call]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_draws_prunes_and_confirms_as_without_ray(make: Make, quiet: Quiet, home: Path, monkeypatch: Any) -> None:
    fields: dict[str, Any] = {"pruner": "asha", "confirm": {"rows": 0.2, "seeds": 1}, "parallel": 1, "trials": 4}
    monkeypatch.setenv("FAKE_SECONDS", "0.7")
    space = {RATE: [0.01, 0.001, 0.1, 0.00001]}
    monkeypatch.chdir(home)
    found = sweep.run(make(**fields, space=space, sampler="grid"), quiet, sweep.Asked(cpus=2))
    assert quiet.cluster.startswith("Ray: 1 node, ") and quiet.cluster.endswith("a training gets 2 CPUs, so 1 at once")
    here = sweep.run(make(**fields, space=space, sampler="grid", name="here"), Quiet())
    assert states(found) == states(here) == ["finished", "finished", "pruned", "pruned"]
    assert [(one.params, one.value) for one in found.trials] == [(one.params, one.value) for one in here.trials]
    assert found.claim == here.claim and found.claim is not None
    log = (found.folder / "trials" / "0000.log").read_text()
    assert log.startswith("on ") and "CUDA_VISIBLE_DEVICES=" in log
    assert not (found.folder / cluster.PROBE).exists()
    import ray

    assert not ray.is_initialized(), "what was started is stopped"
    sweep.remove("try")


def test_ctrl_c_stops_trials_with_checkpoints_and_the_same_command_continues(
    make: Make, home: Path, quiet: Quiet, started: Started
) -> None:
    spec = make(trials=2, overrides={"training.max_steps": 12}, parallel=2)
    first = start(home, "--engine", "ray")
    wait_for(lambda: trains("try-0000") and trains("try-0001"))
    first.send_signal(signal.SIGINT)
    _, printed = first.communicate(timeout=60)
    assert first.returncode == 130
    lines = printed.splitlines()
    assert lines[0].startswith("Ray: 1 node, ") and lines[1] == "Trials: 0 of 2 done" and lines[3:] == ["Stopped."]
    assert lines[2].startswith("0 of 2 trainings are done, and checkpoints are saved. Run the same command")
    assert {runs.open_run(f"try-000{i}").status["reason"] for i in range(2)} == {"interrupted"}
    assert states(sweep.run(spec, quiet, sweep.Asked())) == ["finished"] * 2
    assert [one["resume"] for one in started()] == [False, False, True, True]


def test_a_sweep_that_is_killed_leaves_no_training_behind_and_continues(
    make: Make, home: Path, quiet: Quiet, started: Started
) -> None:
    spec = make(trials=1, overrides={"training.max_steps": 12})
    first = start(home, "--engine", "ray", seconds="1")
    wait_for(lambda: trains("try-0000"))
    first.kill()
    first.communicate()
    training = started()[0]["pid"]
    wait_for(lambda: not alive(training))
    assert runs.open_run("try-0000").status["reason"] == "interrupted", "with a checkpoint"
    assert states(sweep.run(spec, quiet, sweep.Asked())) == ["finished"]
    assert [one["resume"] for one in started()] == [False, True]


def test_a_second_ctrl_c_ends_them_at_once(make: Make, home: Path, started: Started) -> None:
    make(trials=1)
    first = start(home, "--engine", "ray", seconds="60")
    wait_for(lambda: trains("try-0000"))
    os.kill(started()[0]["pid"], signal.SIGSTOP)  # does not come to the end of its step
    first.send_signal(signal.SIGINT)
    wait_for(lambda: (runs.open_run("try-0000").folder / ".stop").exists())
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    assert first.returncode == 130 and not alive(started()[0]["pid"])


def test_a_lost_node_costs_no_trial(
    make: Make, quiet: Quiet, two_nodes: Any, started: Started, monkeypatch: pytest.MonkeyPatch, home: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(home)
    monkeypatch.setenv("FAKE_SECONDS", "0.7")
    first = two_nodes.add_node(num_cpus=1)

    def running(trials: list[sweep.Trial]) -> None:
        if trials and trials[0].evaluations and first in two_nodes.worker_nodes:
            two_nodes.remove_node(first, allow_graceful=False)
            two_nodes.add_node(num_cpus=1)

    quiet.on_running = running
    capfd.readouterr()
    found = sweep.run(make(trials=1, overrides={"training.max_steps": 8}), quiet, sweep.Asked(two_nodes.address))
    assert capfd.readouterr().out == "", "Ray's own words would spoil --json"
    assert states(found) == ["finished"]
    assert [one["resume"] for one in started()] == [False, True]
    assert [step for step, _ in found.trials[0].evaluations] == list(range(1, 9))


def test_trials_are_placed_where_there_is_room_and_a_node_that_sees_other_files_is_refused(
    make: Make, quiet: Quiet, two_nodes: Any, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setenv("FAKE_SECONDS", "0.3")
    two_nodes.add_node(num_cpus=2)
    two_nodes.add_node(num_cpus=3)
    most: list[int] = []
    quiet.on_running = lambda trials: most.append(len(trials))
    monkeypatch.setenv("RAY_ADDRESS", two_nodes.address)
    found = sweep.run(make(trials=4), quiet, sweep.Asked(cpus=2))
    assert quiet.cluster == "Ray: 3 nodes, 5 CPUs, 0 GPUs; a training gets 2 CPUs, so 2 at once"
    assert states(found) == ["finished"] * 4 and max(most) == 2
    with pytest.raises(LlmbenchError, match=r"No node .* room for a training that gets 4 CPUs: the largest has 3 CPUs and 0"):
        sweep.run(make(trials=5), quiet, sweep.Asked(cpus=4))
    with pytest.raises(LlmbenchError, match=r"gets 1 CPU and 1 GPU: .*Lower --trial-cpus or --trial-gpus"):
        sweep.run(make(trials=5), quiet, sweep.Asked(gpus=1))
    monkeypatch.setattr(workspace, "write_text", lambda path, text: path.write_text(text[::-1]))
    blind = pytest.raises(LlmbenchError, match=r"Node .* cannot train this: it does not see .*Set LLMBENCH_HOME to a folder")
    with blind, cluster.connected(sweep.Asked(), found.folder, home / "base.yaml", None):
        raise AssertionError


@pytest.mark.timeout(600)
def test_real_trainings_on_a_real_cluster(tmp_path: Path) -> None:
    """Two trials of the bundled model, a few steps each, through the program."""
    fields = [
        "trials=2", "pruner=none", "confirm=null", "overrides.training.max_steps=4", "overrides.training.eval_steps=2",
        "overrides.evaluation.limit=8", "overrides.data.train.0.limit=200", "space.training.learning_rate=[0.003,0.006]",
        "objective=eval_loss",
    ]  # fmt: skip
    command = [sys.executable, "-m", "llmbench", "sweep", "recipes/sweep.yaml", *fields, "--engine", "ray", "--json"]
    environment = os.environ | {"LLMBENCH_HOME": str(tmp_path / "outputs")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=580)
    assert done.returncode == 0, done.stderr
    assert [one["state"] for one in json.loads(done.stdout)["trials"]] == ["finished", "finished"]
    assert len(done.stderr.splitlines()) == 4, "a line for the cluster, one for the search, one for each trial"
