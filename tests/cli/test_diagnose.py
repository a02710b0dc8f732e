"""`llmbench diagnose` on runs whose records were written here; trained ones are in tests/diagnosis."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmbench import recipe, runs
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run


def made(folder: Path, name: str, *, wild: bool = False, state: str = "finished", shift: float = 0.0) -> Run:
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({"name": name, "data": {"train": [{"path": "rows.jsonl"}]}}), encoding="utf-8")
    run = runs.create(recipe.load(path, TrainRecipe))
    for step in range(1, 61):
        loss = (1.0 + math.exp(-step / 8) + 0.01 * math.sin(7 * step)) if not wild or step < 20 else 6.0 + 0.01 * step
        run.log({"step": step, "epoch": step / 60, "loss": loss, "learning_rate": 2e-4, "grad_norm": 1.0, "layers": {}})
    run.log({"step": 60, "eval_loss": 1.1 + shift})
    noise = [math.sin(3 * i) for i in range(30)]
    losses = [1.1 + x if not shift else 1.1 - x + shift for x in noise]
    run.log_held_out({"step": 60, "losses": losses, "tokens": [10] * 30})
    run.mark("finished" if state == "finished" else "stopped", step=60, steps=60, loss=1.0)
    return run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "outputs"))
    (tmp_path / "rows.jsonl").touch()
    return tmp_path


def call(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["diagnose", *arguments])


def test_a_healthy_run_and_what_was_not_looked_at(home: Path) -> None:
    made(home, "good")
    done = call("good", "--strict")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0] == "good: finished, step 60: no problems found"
    assert "Not looked at" in done.stdout and "where overfitting begins: 1 evaluation" in done.stdout


def test_a_finding_has_evidence_and_a_change_and_strict_exits_with_3(home: Path) -> None:
    made(home, "bad", wild=True)
    done = call("bad")
    assert done.exit_code == 0
    assert "bad: finished, step 60: 1 error" in done.stdout and "error   learning rate too high" in done.stdout
    assert "training.learning_rate=2e-05" in done.stdout
    assert call("bad", "--strict").exit_code == 3
    [found] = json.loads(call("bad", "--json").stdout)["findings"]
    assert found["name"] == "learning rate too high" and found["change"] == ["training.learning_rate=2e-05"]
    assert found["figures"]["highest"] > found["figures"]["start"]


def test_lines_fit_a_narrow_terminal(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from llmbench import diagnosis
    from llmbench.cli import diagnose

    run = made(home, "bad", wild=True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    lines = list(diagnose._lines(diagnosis.diagnose(run)))
    assert max(map(len, lines)) <= 80 and len(lines) > 5


def test_two_runs_that_held_out_rows_cannot_tell_apart(home: Path) -> None:
    made(home, "one")
    made(home, "two", shift=0.01)
    done = call("one", "two", "--json")
    found = json.loads(done.stdout)
    assert [each["run"] for each in found["runs"]] == ["one", "two"]
    [between] = found["between"]
    assert between["name"] == "evaluation noise" and between["figures"]["runs"] == ["one", "two"]
    assert between["figures"]["low"] < 0 < between["figures"]["high"]
    assert "cannot be told apart" in call("one", "two").stdout


def test_a_run_of_a_few_steps_is_looked_at_too(home: Path) -> None:
    run = made(home, "young")
    (run.folder / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0, "learning_rate": 0.0}\n', encoding="utf-8")
    (run.folder / "held_out.jsonl").unlink()
    done = call("young", "--strict")
    assert done.exit_code == 0 and "1 losses are recorded, and 8 are needed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "There is no run nothing"),
        (("good", "--steps", "50"), "--steps, --from and --to are options of --lr-range"),
        (("good", "bad", "--lr-range"), "one recipe at a time"),
        (("good", "--lr-range", "--from", "1", "--to", "1e-3"), "at least a factor of 10 apart"),
    ],
)
def test_what_cannot_be_meant_is_one_line(home: Path, arguments: tuple[str, ...], words: str) -> None:
    made(home, "good")
    made(home, "bad")
    error = call(*arguments).exception
    assert isinstance(error, LlmbenchError) and words in str(error) and "\n" not in str(error)


def test_a_method_whose_loss_says_nothing_of_a_rate_is_refused(home: Path) -> None:
    from llmbench.training.ranging import range_test

    run = made(home, "good")
    text = (run.folder / "recipe.yaml").read_text(encoding="utf-8").replace("method: sft", "method: dpo")
    (run.folder / "recipe.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(LlmbenchError, match="is of method dpo"):
        range_test(run, low=1e-6, high=1.0, steps=40)


def test_the_run_s_own_page_names_what_is_wrong(home: Path) -> None:
    made(home, "bad", wild=True)
    shown = CliRunner().invoke(cli, ["runs", "bad"]).stdout
    assert "error   learning rate too high (more: llmbench diagnose bad)" in shown


def test_strict_and_a_range_test_do_not_go_together() -> None:
    shown = CliRunner().invoke(cli, ["diagnose", "gone", "--strict", "--lr-range"])
    assert isinstance(shown.exception, LlmbenchError) and "--lr-range tries rates: choose one" in str(shown.exception)
