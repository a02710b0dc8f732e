from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.sweep.conftest import Make

from llmbench.cli.main import main

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs a command in this process; gives exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llmbench", *arguments])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_a_log_gets_a_line_for_each_trial_and_people_a_table(make: Make, say: Said, home: Path) -> None:
    make(trials=3)
    code, out, err = say("sweep", str(home / "sweep.yaml"))
    assert code == 0
    lines = err.splitlines()
    assert lines[0] == "Trials: 0 of 3 done"
    assert lines[1].startswith("[1/3] try-0000 finished eval_loss ") and "; best: trial 0 with " in lines[1]
    assert len(lines) == 4
    assert out.splitlines()[0].split() == ["trial", "learning_rate", "eval_loss", "time", "tokens", "state"]
    assert "Best of 3 trials: trial " in out
    assert f"Next: llmbench train {home / 'outputs' / 'sweeps' / 'try' / 'best.yaml'}" in out


def test_programs_get_one_json_document(make: Make, say: Said, home: Path) -> None:
    make(trials=2)
    _, out, _ = say("sweep", str(home / "sweep.yaml"), "--json")
    values = json.loads(out)
    assert [one["state"] for one in values["trials"]] == ["finished", "finished"]
    assert values["best"] in (0, 1) and values["objective"] == "eval_loss"
    assert json.loads(say("sweeps", "try", "--json")[1])["verdict"] == values["verdict"]


def test_sweeps_are_listed_shown_opened_and_removed(make: Make, say: Said, home: Path) -> None:
    assert say("sweeps")[1].startswith("No sweeps yet.")
    make(trials=1)
    say("sweep", str(home / "sweep.yaml"))
    report = home / "outputs" / "sweeps" / "try" / "report.html"
    assert say("sweeps")[1].splitlines()[1].strip() == str(report)
    assert "Best of 1 trial: trial 0" in say("sweeps", "try")[1]
    assert say("sweeps", "open", "try")[1].strip() == str(report)
    code, _, err = say("sweeps", "rm", "try")
    assert code == 2 and "Add --yes" in err and report.exists()
    assert say("sweeps", "rm", "try", "--yes")[1].startswith("Removed sweep try.")
    assert not report.parent.exists()
    code, _, err = say("sweeps", "try")
    assert (code, len(err.splitlines())) == (2, 1)


@pytest.mark.slow
def test_a_real_training_from_the_bundled_sweep(tmp_path: Path) -> None:
    """A trial of the bundled model, a few steps."""
    found = _really(tmp_path, "trials=1", "confirm=null", "space.training.learning_rate=[0.003]", "space.lora.r=[16]")
    (trial,) = found["trials"]
    assert trial["state"] == "finished" and 0 < trial["value"] < 20 and trial["tokens"] > 0
    assert (tmp_path / "outputs" / "runs" / "sweep-0000" / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_real_trainings_from_the_bundled_sweep(tmp_path: Path) -> None:
    """Two trials and a confirmation of the bundled model, a few steps each."""
    found = _really(tmp_path, "trials=2", "confirm.seeds=1", "confirm.rows=0.02", "space.training.learning_rate=[0.003,0.006]")
    assert [one["state"] for one in found["trials"]] == ["finished", "finished"]
    assert all(0 < one["value"] < 20 and one["tokens"] > 0 for one in found["trials"])
    assert found["trials"][0]["params"] == {"training.learning_rate": 0.003, "lora.r": 16, "lora.use_rslora": False}
    adapter = tmp_path / "outputs" / "runs" / f"sweep-{found['best']:04}" / "adapter" / "adapter_model.safetensors"
    assert adapter.exists()


def _really(folder: Path, *fields: str) -> Any:
    """What the program prints of the bundled sweep, cut down."""
    small = (
        "pruner=none", "overrides.training.max_steps=4", "overrides.training.eval_steps=2", "overrides.evaluation.limit=8",
        "overrides.data.train.0.limit=200", "objective=eval_loss",
    )  # fmt: skip
    command = [sys.executable, "-m", "llmbench", "sweep", "recipes/sweep.yaml", *small, *fields, "--json"]
    environment = os.environ | {"LLMBENCH_HOME": str(folder / "outputs")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=580)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
