"""`llmbench runs`: the list can be narrowed, and a long log does not slow it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from llmbench import recipe, runs, workspace, written
from llmbench.cli import runs as verb
from llmbench.errors import LlmbenchError
from llmbench.recipe import TrainRecipe


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
    "tags": [],
    "archived": False,
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


def test_tags_have_a_column_where_there_are_any(capsys: pytest.CaptureFixture[str]) -> None:
    verb._table([ROWS[0], ROWS[1] | {"tags": ["paper", "best"], "archived": True}])
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split()[-1] == "tags" and first.split()[-1] == "1:15"
    assert second.rstrip().endswith("1:06:40  paper, best") and "finished, archived" in second


def test_nothing_that_fits_is_said(home: Path) -> None:
    assert "None of the 3 runs matches" in run(home, "--state", "failed").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--state", "done"), "Choose one of: running, finished"),
        (("--method", "sft+lore"), "--method sft+lore is not a method. Choose one of: sft, pretrain, dpo"),
        (("--last", "1", "one"), "leave them out"),
    ],
)
def test_what_cannot_be_meant_is_one_line(home: Path, arguments: tuple[str, ...], words: str) -> None:
    error = run(home, *arguments).exception
    assert isinstance(error, LlmbenchError) and words in str(error)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> runs.Run:
    """A finished run with everything that one leaves behind."""
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "home"))
    (tmp_path / "my.yaml").write_text(
        json.dumps({"name": "mine", "data": {"train": [{"path": "rows.jsonl"}]}}), encoding="utf-8"
    )
    (tmp_path / "rows.jsonl").write_text("", encoding="utf-8")
    made = runs.create(recipe.load(tmp_path / "my.yaml", TrainRecipe))
    for name in ("data.json", "data.html", "lock.json", "metrics.jsonl", "samples.jsonl", "loss.svg", ".stop"):
        (made.folder / name).write_text("{}", encoding="utf-8")
    for target in (made.adapter, made.folder / "merged"):
        part = written.begin(made.folder / f".{target.name}.part")
        (part / "adapter_model.safetensors").write_bytes(b"x" * 1000)
        written.publish(part, target)
    (written.begin(made.folder / ".model.part") / "half.safetensors").write_bytes(b"x")
    for name in ("checkpoint-2", ".old-checkpoint-1"):
        (made.checkpoints / name).mkdir(parents=True)
        (made.checkpoints / name / "optimizer.safetensors").write_bytes(b"x")
    made.mark("finished")
    return made


def rm(made: runs.Run, *arguments: str, typed: str = "") -> Result:
    cli = typer.Typer()
    verb.register(cli)
    cli.callback()(lambda: None)
    return CliRunner().invoke(cli, ["runs", "rm", made.name, *arguments], input=typed)


def test_a_run_is_removed_with_all_it_left(made: runs.Run) -> None:
    done = json.loads(rm(made, "--yes", "--json").stdout)
    assert done["removed"] == str(made.folder) and done["bytes"] > 2000
    assert list(workspace.runs().iterdir()) == []


def test_nothing_is_removed_unless_somebody_says_so(made: runs.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = rm(made)
    assert isinstance(asked.exception, LlmbenchError) and "Add --yes" in str(asked.exception)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("llmbench.cli.listing.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    refused = rm(made, typed="\n")
    assert (
        refused.exit_code == 1 and "Remove run mine (finished, " in refused.stdout and "Nothing was removed" in refused.stdout
    )
    assert made.exists
    assert rm(made, typed="y\n").exit_code == 0 and not made.folder.exists()


def test_several_runs_are_removed_all_or_none(made: runs.Run) -> None:
    for name in ("second", "third"):
        runs.create(recipe.load(workspace.home().parent / "my.yaml", TrainRecipe, [f"name={name}"]))
    mine = workspace.runs() / "third" / "notes.txt"
    mine.write_text("mine", encoding="utf-8")
    assert "notes.txt" in str(rm(made, "second", "third", "--yes").exception) and len(runs.every()) == 3
    assert "There is no run gone" in str(rm(made, "second", "gone", "--yes").exception) and len(runs.every()) == 3
    mine.unlink()
    found = json.loads(rm(made, "second", "third", made.name, "--yes", "--json").stdout)
    assert [one["name"] for one in found] == ["mine", "second", "third"] and runs.every() == []


@pytest.mark.parametrize(
    "place", ["notes.txt", "adapter/notes.txt", "checkpoints/notes.txt", "checkpoints/checkpoint-2/notes.txt"]
)
def test_files_of_somebody_else_keep_a_run(made: runs.Run, place: str) -> None:
    (made.folder / place).write_text("mine", encoding="utf-8")
    before = sorted(path for path in made.folder.rglob("*") if ".part" not in str(path))
    error = rm(made, "--yes").exception
    assert isinstance(error, LlmbenchError) and place in str(error) and "Nothing was changed" in str(error)
    assert sorted(path for path in made.folder.rglob("*") if ".part" not in str(path)) == before and made.exists


def test_a_removal_that_was_killed_is_said_and_can_be_finished(made: runs.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    remove = written.remove
    removed: list[Path] = []

    def killed(folder: Path, ours: Any = None) -> None:
        if removed:
            raise KeyboardInterrupt
        removed.append(folder)
        remove(folder, ours)

    with monkeypatch.context() as patch:
        patch.setattr(written, "remove", killed)
        rm(made, "--yes")
    assert (
        removed and runs.open_run("mine").status["reason"] == "only partly removed; to remove the rest: llmbench runs rm mine"
    )
    assert rm(made, "--yes").exit_code == 0 and not made.folder.exists()


def test_a_link_in_place_of_a_run_is_left_alone(made: runs.Run, tmp_path: Path) -> None:
    made.folder.rename(tmp_path / "elsewhere")
    made.folder.symlink_to(tmp_path / "elsewhere")
    assert "is a link" in str(rm(made, "--yes").exception)
    assert (tmp_path / "elsewhere" / "state.json").exists()


def test_a_run_that_is_training_is_neither_removed_nor_stopped_twice(made: runs.Run) -> None:
    code = (
        "import signal, time\nfrom llmbench import runs\nsignal.signal(signal.SIGINT, lambda *_: None)\n"
        "with runs.open_run('mine').writing():\n    print('trains', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "trains\n"
        assert "Stop it first: llmbench runs stop mine" in str(rm(made, "--yes").exception)
        asked = json.loads(run(workspace.home(), "stop", "mine", "--json").stdout)
        assert asked == {"name": "mine", "process": process.pid, "machine": os.uname().nodename}
        assert "already asked" in str(run(workspace.home(), "stop", "mine").exception)
        process.kill()
    assert "not training" in str(run(workspace.home(), "stop", "mine").exception)
    assert rm(made, "--yes").exit_code == 0


def test_a_name_that_is_a_verb_can_still_be_shown(home: Path) -> None:
    assert run(home, "show", "one").stdout == run(home, "one").stdout
    assert run(home, "open", "one").stdout == f"{home / 'runs' / 'one'}\n"
    assert "There is no run rmm" in str(run(home, "rmm").exception)
