"""Notes, tags and the archive: what a person says of a run, and what a resume or --overwrite does with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llmbench import recipe, runs
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError
from llmbench.recipe import TrainRecipe
from llmbench.runs import labels


@pytest.fixture
def document(tmp_path: Path, home: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    path = tmp_path / "my.yaml"
    path.write_text("name: one\ndata: {train: [{path: rows.jsonl}]}\n", encoding="utf-8")
    for name in ("one", "two", "three"):
        runs.create(recipe.load(path, TrainRecipe, [f"name={name}"]))
    return path


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["runs", *arguments])


def fault(*arguments: str) -> str:
    error = typed(*arguments).exception
    assert isinstance(error, LlmbenchError)
    return str(error)


def listed(*arguments: str) -> list[str]:
    return [row["name"] for row in json.loads(typed(*arguments, "--json").stdout)]


def test_a_note_is_set_shown_and_removed(document: Path) -> None:
    assert typed("note", "one").stdout == "one has no note.\n"
    assert typed("note", "one", "too high a rate").stdout == "too high a rate\n"
    assert json.loads(typed("note", "one", "--json").stdout) == {"name": "one", "note": "too high a rate"}
    assert "  note    too high a rate" in typed("one").stdout.splitlines()
    assert typed("note", "one", "--clear").stdout == "one has no note.\n"
    assert not (runs.open_run("one").folder / "labels.json").exists()


@pytest.mark.parametrize("arguments", [("note", "one", ""), ("note", "one", "text", "--clear")])
def test_a_note_is_not_removed_by_accident(document: Path, arguments: tuple[str, ...]) -> None:
    typed("note", "one", "kept")
    assert "--clear to remove it" in fault(*arguments)
    assert labels.read(runs.open_run("one")).note == "kept"


def test_tags_are_added_removed_and_listed_by(document: Path) -> None:
    assert typed("tag", "one", "paper", "best").stdout == "one: paper, best\n"
    typed("tag", "two", "paper")
    assert typed("tag", "one", "final", "--remove", "best").stdout == "one: paper, final\n"
    assert typed("tag", "three").stdout == "three: no tags\n"
    assert sorted(listed("--tag", "paper")) == ["one", "two"]
    assert listed("--tag", "paper", "--tag", "final") == ["one"]
    assert "  tags    paper, final" in typed("one").stdout.splitlines()
    assert "None of the 3 runs matches" in typed("--tag", "gone").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("No Spaces",), "tag 'No Spaces' is not allowed"), (("new", "--remove", "gone"), "has no tag gone (its tags: kept)")],
)
def test_tags_that_cannot_be_change_nothing(document: Path, arguments: tuple[str, ...], words: str) -> None:
    typed("tag", "one", "kept")
    assert words in fault("tag", "one", *arguments)
    assert labels.read(runs.open_run("one")).tags == ("kept",)


def test_archived_runs_leave_the_list_and_keep_their_files(document: Path) -> None:
    before = {path.name for path in runs.open_run("one").folder.iterdir()}
    assert typed("archive", "one", "two").exit_code == 0
    assert listed() == ["three"] and sorted(listed("--archived")) == ["one", "three", "two"]
    assert {path.name for path in runs.open_run("one").folder.iterdir()} == before | {"labels.json"}
    assert "  archived" in typed("one").stdout.splitlines()
    typed("unarchive", "one")
    assert sorted(listed()) == ["one", "three"]
    typed("archive", "one", "three")
    assert "All 3 runs are archived. List them: llmbench runs --archived" in typed().stdout


def test_an_unknown_run_among_several_changes_none(document: Path) -> None:
    assert "There is no run gone" in fault("archive", "one", "gone")
    assert len(listed()) == 3


def test_labels_stay_when_a_run_is_resumed_and_go_with_a_run_that_is_replaced(document: Path) -> None:
    typed("note", "one", "about the first training")
    run = runs.resume(recipe.load(document, TrainRecipe))
    with run.writing():
        runs.rewind(run, -1, recipe.load(document, TrainRecipe))
    assert labels.read(run).note == "about the first training"
    runs.create(recipe.load(document, TrainRecipe), overwrite=True)
    assert labels.read(run) == labels.Labels()


def test_damaged_labels_keep_no_other_run_from_being_listed(document: Path) -> None:
    (runs.open_run("one").folder / "labels.json").write_text("{", encoding="utf-8")
    result = typed("--json")
    assert len(json.loads(result.stdout)) == 2 and "labels.json cannot be read" in result.stderr
