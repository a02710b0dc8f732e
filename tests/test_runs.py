"""A run's folder: its states, its lock, and what survives a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmbench import provenance, recipe, runs
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError, RunError
from llmbench.recipe import TrainRecipe
from llmbench.runs import Run


@pytest.fixture
def document(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    path.write_text("name: first\ndata: {train: [{path: rows.jsonl}]}\n", encoding="utf-8")
    return path


def load(document: Path, *overrides: str) -> TrainRecipe:
    return recipe.load(document, TrainRecipe, overrides)


def test_a_new_run_holds_its_resolved_recipe(document: Path, home: Path) -> None:
    run = runs.create(load(document, "training.seed=7"))
    assert run.folder == home / "runs" / "first"
    assert run.recipe["training"]["seed"] == 7
    assert run.recipe["training"]["learning_rate"] == 2e-4
    assert (run.status["state"], run.status["reason"]) == ("stopped", "not started")
    assert recipe.load(run.folder / "recipe.yaml", TrainRecipe).training.seed == 7


def test_the_states_of_a_run(document: Path) -> None:
    run = runs.create(load(document))
    with run.writing():
        assert run.status["state"] == "running"
    assert run.status["state"] == "finished"
    with pytest.raises(KeyboardInterrupt), run.writing():
        raise KeyboardInterrupt
    assert (run.status["state"], run.status["reason"]) == ("stopped", "interrupted")
    with pytest.raises(ValueError, match="boom"), run.writing():
        raise ValueError("boom")
    assert (run.status["state"], run.status["reason"]) == ("failed", "ValueError: boom")


def test_figures_stay_until_overwritten(document: Path) -> None:
    run = runs.create(load(document))
    run.mark("running", loss=2.0, step=3)
    run.mark("finished", loss=1.0)
    assert (run.status["loss"], run.status["step"]) == (1.0, 3)


def test_a_killed_run_counts_as_stopped(document: Path) -> None:
    run = runs.create(load(document))
    run.mark("running")
    assert (run.status["state"], run.status["reason"]) == ("stopped", "killed")


def test_one_process_writes_at_a_time(document: Path) -> None:
    run = runs.create(load(document))
    program = """
        import sys
        from pathlib import Path
        from llmbench.runs import Run
        with Run(Path(sys.argv[1])).writing():
            print("held", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(run.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        assert run.status["state"] == "running"
        with pytest.raises(LlmbenchError, match=f"run first is in use by process {other.pid}"), run.writing():
            pass
        with pytest.raises(RunError, match="is training"):
            runs.create(load(document), overwrite=True)
        with pytest.raises(RunError, match="is training"):
            runs.resume(load(document))
        other.kill()
    assert (run.status["state"], run.status["reason"]) == ("stopped", "killed")


def test_a_run_is_not_replaced_unless_asked(document: Path) -> None:
    run = runs.create(load(document))
    run.log({"step": 1, "loss": 3.0})
    for ask in (runs.create, runs.check):
        with pytest.raises(RunError, match=r"Run first already exists \(stopped\)"):
            ask(load(document))
    assert runs.check(load(document), overwrite=True).metrics() != []
    assert runs.create(load(document), overwrite=True).metrics() == []


def test_a_run_is_resumed_with_its_own_recipe_only(document: Path) -> None:
    runs.create(load(document))
    assert runs.resume(load(document)).name == "first"
    with pytest.raises(RunError, match=r"another recipe \(training.seed: 42 -> 7\)"):
        runs.resume(load(document, "training.seed=7"))
    with pytest.raises(RunError, match=r"There is no run other in .*available: first"):
        runs.resume(load(document, "name=other"))


def test_a_line_cut_off_by_a_kill_is_left_out(document: Path) -> None:
    run = runs.create(load(document))
    run.log({"step": 1, "loss": 3.0})
    with (run.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 2, "lo')
    assert run.metrics() == [{"step": 1, "loss": 3.0}]


def test_lines_past_a_checkpoint_are_forgotten(document: Path) -> None:
    run = runs.create(load(document))
    for step in range(1, 6):
        run.log({"step": step})
    run.drop_metrics_after(3)
    assert [row["step"] for row in run.metrics()] == [1, 2, 3]
    run.drop_metrics_after(-1)
    assert run.metrics() == []


def test_the_newest_run_comes_first(document: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for second, name in enumerate(("one", "two", "three")):
        monkeypatch.setattr(time, "time", lambda second=second: 1000.0 + second)
        runs.create(load(document, f"name={name}"))
    assert [run.name for run in runs.every()] == ["three", "two", "one"]


def test_a_run_without_its_recipe_keeps_no_other_from_being_listed(document: Path) -> None:
    for name in ("whole", "lost", "torn"):
        runs.create(load(document, f"name={name}"))
    (runs.open_run("lost").folder / "recipe.yaml").unlink()
    (runs.open_run("torn").folder / "recipe.yaml").write_text("name: [")
    assert sorted(run.name for run in runs.every()) == ["torn", "whole"]
    listed = CliRunner().invoke(cli, ["runs"])
    assert listed.exit_code == 0 and "whole" in listed.stdout and "torn" not in listed.stdout
    assert "Run torn is damaged" in listed.stderr
    for name, reason in (("lost", "missing"), ("torn", "while parsing")):
        with pytest.raises(RunError, match=rf"Run {name} is damaged: .*recipe.yaml cannot be read \({reason}"):
            runs.resume(load(document, f"name={name}"))
        with pytest.raises(RunError, match="already exists"):
            runs.check(load(document, f"name={name}"))


def test_a_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    first = provenance.fingerprint(tmp_path)
    assert first.keys() == {"weights", "tokenizer"}
    os.utime(tmp_path / "model.safetensors", (0, 0))
    assert provenance.fingerprint(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert provenance.fingerprint(tmp_path)["weights"] != first["weights"]
    assert provenance.fingerprint(tmp_path)["tokenizer"] == first["tokenizer"]


def test_state_is_whole_json_at_every_moment(document: Path) -> None:
    run: Run = runs.create(load(document))
    run.write_lock({"seed": 1})
    assert json.loads((run.folder / "lock.json").read_text(encoding="utf-8")) == {"seed": 1}
    assert not [path for path in run.folder.iterdir() if path.name.startswith(".lock.json")]
