"""The guard of a training on a node, as a process of its own: it obeys, and it outlives whoever held it by a checkpoint."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.sweep.conftest import TRAINER
from tests.sweep.test_run import trains, wait_for

from llmbench import runs, workspace
from llmbench.runs import Run
from llmbench.sweep.process import TrainingProcess

STOPPED = {"killed": signal.SIGINT}
"""The stand-in for a training lets Ctrl-C end it after its checkpoint."""
Started = Callable[[], list[dict[str, Any]]]


def guard(home: Path, *overrides: str, resume: bool = False) -> subprocess.Popen[bytes]:
    folder = workspace.sweeps() / "try" / "trials"
    folder.mkdir(parents=True, exist_ok=True)
    command = ["train", str(home / "base.yaml"), "name=try-0000", *overrides, *(["--resume"] if resume else [])]
    place = [str(folder), "0000", str(workspace.runs() / "try-0000"), json.dumps([str(TRAINER)])]
    return subprocess.Popen(
        [sys.executable, "-m", "llmbench.sweep.guard", *place, *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def ended(one: subprocess.Popen[bytes]) -> Any:
    """What it says of the training's end; None where it says nothing."""
    assert one.stdout is not None
    with one.stdout:
        said = one.stdout.read()
    one.wait()
    if one.stdin is not None and not one.stdin.closed:
        one.stdin.close()
    return json.loads(said) if said else None


def test_a_training_that_ends_by_itself_is_told(home: Path) -> None:
    assert ended(guard(home)) == {"killed": None}
    assert runs.open_run("try-0000").state == "finished"


def test_it_stops_a_training_on_demand_though_ray_s_workers_are_deaf_to_ctrl_c(
    home: Path, monkeypatch: pytest.MonkeyPatch, started: Started
) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "20")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        one = guard(home)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    wait_for(lambda: trains("try-0000"))
    assert one.stdin is not None
    one.stdin.write(b"stop\n")
    one.stdin.flush()
    assert ended(one) == STOPPED
    assert runs.open_run("try-0000").status["reason"] == "interrupted"
    monkeypatch.setenv("FAKE_SECONDS", "0")
    assert ended(guard(home, resume=True)) == {"killed": None}
    assert [one["resume"] for one in started()] == [False, True] and runs.open_run("try-0000").state == "finished"


def test_an_end_is_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "20")
    one = guard(home)
    wait_for(lambda: trains("try-0000"))
    assert one.stdin is not None
    one.stdin.write(b"end\n")
    one.stdin.flush()
    assert ended(one) == {"killed": signal.SIGKILL}


def test_where_whoever_held_it_is_gone_the_training_stops_with_a_checkpoint(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "20")
    one = guard(home)
    wait_for(lambda: trains("try-0000"))
    assert one.stdin is not None
    one.stdin.close()
    assert ended(one) == STOPPED
    assert (runs.open_run("try-0000").state, runs.open_run("try-0000").status["reason"]) == ("stopped", "interrupted")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ties a process to another")
def test_a_guard_that_is_killed_takes_the_training_with_it(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "20")
    one = guard(home)
    wait_for(lambda: trains("try-0000"))
    training = TrainingProcess(workspace.sweeps() / "try" / "trials", "0000", Run(workspace.runs() / "try-0000"))
    pid = int((workspace.sweeps() / "try" / "trials" / "0000.lock").read_text())
    parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    assert ended(one) is None
    wait_for(lambda: not training.alive)


def test_the_next_one_waits_until_the_last_training_has_ended(
    home: Path, monkeypatch: pytest.MonkeyPatch, started: Started
) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "0.5")
    first = guard(home)
    wait_for(lambda: trains("try-0000"))
    second = guard(home, resume=True)  # as after a lost node, whose training is still in its last step
    assert first.stdin is not None
    first.stdin.close()
    assert (ended(first), ended(second)) == (STOPPED, {"killed": None})
    assert [one["resume"] for one in started()] == [False, True] and runs.open_run("try-0000").state == "finished"
