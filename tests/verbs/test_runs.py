"""`llmbench runs`: the list can be narrowed, and a long log does not slow it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from llmbench import recipe, runs
from llmbench.errors import LlmbenchError
from llmbench.recipe import TrainRecipe
from llmbench.verbs import runs as verb


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: a finished one, a stopped full training, and a killed one with a long log."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(home))
        (home / "rows.jsonl").write_text("", encoding="utf-8")
        for name in ("one", "two", "three"):
            document: dict[str, Any] = {"name": name, "data": {"train": [{"path": str(home / "rows.jsonl")}]}}
            if name == "two":
                document["lora"] = None
            (home / "my.yaml").write_text(json.dumps(document), encoding="utf-8")
            run = runs.create(recipe.load(home / "my.yaml", TrainRecipe))
            for step in range(1, 2000 if name == "three" else 3):
                run.log({"step": step, "loss": 2 / step})
            if name == "one":
                run.mark("finished", step=2, steps=2, loss=1.0)
            else:
                run.mark("stopped", "interrupted", **({"steps": 4000} if name == "three" else {}))
    return home


def run(home: Path, *arguments: str) -> Result:
    cli = typer.Typer()
    verb.register(cli)
    cli.callback()(lambda: None)
    return CliRunner(env={"LLMBENCH_HOME": str(home)}).invoke(cli, ["runs", *arguments])


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((), ["three", "two", "one"]),
        (("--last", "2"), ["three", "two"]),
        (("--state", "stopped"), ["three", "two"]),
        (("--state", "stopped", "--last", "1"), ["three"]),
        (("--method", "sft"), ["three", "two", "one"]),
        (("--method", "sft+lora"), ["three", "one"]),
        (("--state", "finished", "--method", "sft+lora"), ["one"]),
    ],
)
def test_the_list_is_narrowed(home: Path, arguments: tuple[str, ...], names: list[str]) -> None:
    lines = run(home, *arguments).stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == names
    assert [row["name"] for row in json.loads(run(home, *arguments, "--json").stdout)] == names


def test_a_killed_run_names_the_step_it_reached(home: Path) -> None:
    line = next(line for line in run(home).stdout.splitlines() if line.startswith("three"))
    assert "1999" in line and "4000" in line and "0.001" in line


LONG = "qwen3-0.6b-support-tickets-lora-r16-2026-11-29-attempt-07"
ROW: dict[str, Any] = {
    "state": "finished",
    "method": "sft+qlora",
    "base": "/home/me/models/Qwen3-0.6B-our-own-continued-pretraining",
}
ROWS = [
    ROW | {"name": "distil", "step": 40, "steps": 40, "loss": 0.1, "eval_loss": None, "seconds": 75},
    ROW | {"name": LONG, "step": 500, "steps": 9000, "loss": 1.2, "eval_loss": 1.3, "seconds": 4000},
]


def test_a_long_name_is_cut_in_the_middle_where_the_terminal_is_narrow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    verb._table(ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and max(map(len, lines)) <= 80
    for whole in ("finished", "sft+qlora", "500 of 9000", "1.200 / 1.300", "1:06:40"):
        assert whole in lines[2]
    assert re.match(r"qwe\w*…[\w-]*-07 ", lines[2])


def test_a_pipe_gets_every_row_whole(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    verb._table(ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and LONG in lines[2] and ROW["base"] in lines[2]


def test_nothing_that_fits_is_said(home: Path) -> None:
    assert "None of the 3 runs fits" in run(home, "--state", "failed").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("--state", "done"), "Choose one of: running, finished"), (("one", "--last", "1"), "leave them out")],
)
def test_what_cannot_be_meant_is_one_line(home: Path, arguments: tuple[str, ...], words: str) -> None:
    error = run(home, *arguments).exception
    assert isinstance(error, LlmbenchError) and words in str(error)
