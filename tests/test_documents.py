"""Every bundled document loads, explains itself, and still loads when it was copied somewhere else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmbench import assets, recipe
from llmbench.cli import new
from llmbench.recipe import CompareRecipe, RagRecipe, ServeRecipe, SweepRecipe, TrainRecipe

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(path for folder in ("recipes", "rag") for end in ("*.yaml", "*.yml") for path in (ROOT / folder).rglob(end))
VERBS = {TrainRecipe: "train", RagRecipe: "index", ServeRecipe: "serve", CompareRecipe: "compare", SweepRecipe: "sweep"}

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


def test_there_is_a_document_for_every_verb() -> None:
    assert {type(recipe.load_any(path)) for path in DOCUMENTS} == set(VERBS)


@each_document
def test_it_loads(path: Path) -> None:
    assert type(recipe.load_any(path)) in VERBS


@each_document
def test_it_opens_with_its_purpose_and_the_command_that_runs_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    comment = re.match(r"(#.*\n)+", text)
    assert comment is not None, "it does not open with a comment"
    purpose = comment.group().splitlines()[0].lstrip("# ")
    assert len(purpose) > 20
    if "Run: make tiny" not in comment.group():  # the two trainings of the bundled model are one command
        assert f"llmbench {VERBS[type(recipe.load_any(path))]} {path.relative_to(ROOT).as_posix()}" in comment.group()


@each_document
def test_a_copy_in_another_folder_finds_the_same_files(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = recipe.load_any(path)
    monkeypatch.chdir(tmp_path)
    new.new(path.relative_to(ROOT).as_posix(), Path("copy.yaml"))
    copy, original_fields = recipe.load_any("copy.yaml").model_dump(), original.model_dump()
    assert copy.pop("name", None) == ("copy" if original_fields.pop("name", None) else None)  # its runs are its own
    beside = f"{path.parent}/.."  # what a recipe names by `..` is beside the copy
    assert str(copy) == str(original_fields).replace(beside, f"{tmp_path}/..")
    assert "copy.yaml is a copy of" in capsys.readouterr().out


@each_document
def test_it_holds_no_path_of_the_machine_it_was_written_on(path: Path) -> None:
    assert not re.search(r"(?m)^[^#\n]*:[ ]+['\"]?[/~]", path.read_text(encoding="utf-8"))


def test_the_list_of_bundled_documents_is_what_lies_there() -> None:
    assert assets.documents() == [path.relative_to(ROOT).as_posix() for path in sorted(DOCUMENTS, key=lambda p: p.as_posix())]
