"""`llmbench train` and `llmbench runs` as typed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llmbench.cli.main import cli
from llmbench.cli.train import _next
from llmbench.errors import LlmbenchError, MissingPackage, RunError
from llmbench.runs import Run

from .conftest import Write


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def fault(*arguments: str) -> LlmbenchError:
    result = typed(*arguments)
    assert isinstance(result.exception, LlmbenchError), result.output
    return result.exception


@pytest.fixture
def listed(trained: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The finished run, in the outputs folder that the verbs look at."""
    monkeypatch.setenv("LLMBENCH_HOME", str(trained.folder.parent.parent))
    return trained


def test_a_training_says_what_it_will_do_and_where_the_result_is(write: Write, home: Path) -> None:
    document = write("said")
    result = typed("train", str(document.source), "training.max_steps=2")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "Run said: sft, LoRA r=4"
    assert lines[1].startswith("  model   llmbench/tiny, ") and lines[1].endswith(" trained")
    assert lines[2].startswith("  data    40 rows, ")
    assert any(line.startswith("  steps   2 on c") for line in lines)
    assert f"Adapter: {home / 'runs' / 'said' / 'adapter'}" in lines
    assert lines[-1].startswith("Next: ") and "llmbench serve" in lines[-1]
    assert "step 2/2  loss" in result.stderr


def test_what_vllm_cannot_load_is_not_sent_to_be_served(trained: Run) -> None:
    assert _next(trained, served=True).endswith("then: llmbench serve recipes/serve.yaml")
    assert _next(trained, served=False).startswith(f"llmbench merge {trained.name}")


def test_json_is_one_document_on_stdout(write: Write, home: Path) -> None:
    document = write("json")
    result = typed("train", str(document.source), "training.max_steps=2", "--json")
    record = json.loads(result.stdout)
    assert record["state"] == "finished" and record["step"] == record["steps"] == 2
    assert record["result"] == str(home / "runs" / "json" / "adapter")
    assert record["loss"] > 0 and record["tokens_per_second"] > 0


def test_a_dry_run_leaves_no_run(write: Write, home: Path) -> None:
    document = write("dry")
    result = typed("train", str(document.source), "--dry-run", "--json")
    plan = json.loads(result.stdout)
    assert (plan["name"], plan["rows"], plan["steps"]) == ("dry", 40, 12)
    assert 0 < plan["trained_parameters"] < plan["parameters"]
    assert [path.name for path in home.iterdir()] == ["cache"]


def test_bad_data_leaves_no_run_and_replaces_none(write: Write, home: Path) -> None:
    document = write("bad")
    assert "longer than 4 tokens" in str(fault("train", str(document.source), "data.max_length=4"))
    assert not (home / "runs").exists()
    typed("train", str(document.source), "training.max_steps=1")
    assert "longer than 4" in str(fault("train", str(document.source), "data.max_length=4", "--overwrite"))
    assert Run(home / "runs" / "bad").state == "finished"


def test_a_finished_run_is_neither_repeated_nor_resumed(listed: Run, tmp_path: Path, write: Write) -> None:
    source = str(write("trained").source)
    error = fault("train", source)
    assert isinstance(error, RunError) and "already exists (finished)" in str(error)
    assert "was started with another recipe" in str(fault("train", source, "--resume"))
    assert "choose one" in str(fault("train", source, "--resume", "--overwrite"))


@pytest.mark.parametrize(
    ("package", "sections"), [("trl", {}), ("peft", {}), ("bitsandbytes", {"quantization": {"load_in_4bit": True}})]
)
def test_a_missing_package_is_named(
    write: Write, monkeypatch: pytest.MonkeyPatch, package: str, sections: dict[str, Any]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("llmbench.cli.train.find_spec", lambda name: None if name == package else found(name))
    error = fault("train", str(write("missing", **sections).source))
    assert isinstance(error, MissingPackage)
    assert str(error) == f"`llmbench train` needs {package}, which is not installed. Run: pip install 'llmbench[train]'"


def test_runs_are_listed(listed: Run) -> None:
    result = typed("runs")
    header, row = (line.split() for line in result.stdout.splitlines())
    assert header == ["run", "state", "method", "base", "steps", "loss", "time"]
    assert row[:5] == ["trained", "finished", "sft+lora", "llmbench/tiny", "12"]


def test_a_run_is_shown(listed: Run) -> None:
    text = typed("runs", "trained").stdout
    for piece in ("trained: finished", "LoRA r=4 alpha=8", "rows.jsonl", "█", "▁", "held out", "12 of 12", str(listed.adapter)):
        assert piece in text


def test_runs_as_json(listed: Run) -> None:
    [record] = json.loads(typed("runs", "--json").stdout)
    assert record["name"] == "trained" and record["eval_loss"] > 0
    whole = json.loads(typed("runs", "trained", "--json").stdout)
    assert whole["recipe"]["lora"]["r"] == 4 and whole["lock"]["seed"] == 42 and len(whole["metrics"]) == 14


def test_no_runs_yet_says_how_to_make_one(home: Path) -> None:
    assert typed("runs").stdout.startswith("No runs yet. Make one: llmbench train")
    assert "There is no run nonesuch" in str(fault("runs", "nonesuch"))


def test_a_run_that_never_started_is_shown(write: Write, home: Path) -> None:
    from llmbench import runs

    runs.create(write("fresh"))
    assert "fresh: stopped (not started)" in typed("runs", "fresh").stdout
    assert json.loads(typed("runs", "fresh", "--json").stdout)["lock"] is None
    assert typed("runs").stdout.splitlines()[1].split()[:2] == ["fresh", "stopped"]
