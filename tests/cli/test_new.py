"""`llmbench new`: listing the bundled documents and copying one out."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmbench import assets, recipe
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError
from llmbench.recipe import RagRecipe


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def new(*arguments: str) -> str:
    """What the verb prints; its errors come out as they are."""
    result = CliRunner().invoke(cli, ["new", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_without_a_name_every_document_is_listed_with_its_purpose() -> None:
    printed = new()
    for document in assets.documents():
        assert document in printed
    assert "The sample documents: the handbook of Osmer" in printed


@pytest.mark.parametrize("name", ["handbook", "handbook.yaml", "rag/handbook", "rag/handbook.yaml"])
def test_a_document_is_copied_by_any_of_its_names(name: str, folder: Path) -> None:
    printed = new(name)
    assert (folder / "handbook.yaml").exists()
    assert printed.startswith("handbook.yaml is a copy of rag/handbook.yaml.")
    assert printed.rstrip().endswith("then run: llmbench index handbook.yaml")


def test_the_copy_is_the_original_with_its_own_name_in_the_commands(folder: Path) -> None:
    new("handbook", "deep/mine.yaml")
    copy, original = (folder / "deep" / "mine.yaml").read_text(), assets.bundled("rag/handbook.yaml").read_text()
    assert copy == original.replace("rag/handbook.yaml", "deep/mine.yaml").replace("name: handbook", "name: mine")
    assert "llmbench index deep/mine.yaml" in copy


def test_the_copy_finds_the_bundled_files(folder: Path) -> None:
    new("handbook", "deep/mine.yaml")
    assert recipe.load("deep/mine.yaml", RagRecipe).documents[0].path == assets.bundled("rag/handbook")


def test_a_folder_as_target_takes_the_documents_name(folder: Path) -> None:
    (folder / "here").mkdir()
    new("handbook", "here")
    assert (folder / "here" / "handbook.yaml").exists()


def test_a_file_that_is_there_is_kept_unless_overwritten(folder: Path) -> None:
    (folder / "handbook.yaml").write_text("mine")
    with pytest.raises(LlmbenchError, match=r"^handbook\.yaml already exists\. .* --overwrite$"):
        new("handbook")
    assert (folder / "handbook.yaml").read_text() == "mine"
    new("handbook", "--overwrite")
    assert "Osmer" in (folder / "handbook.yaml").read_text()


def test_an_unknown_name_names_the_near_one(folder: Path) -> None:
    with pytest.raises(LlmbenchError, match=r"^No bundled document is named handboko\. Did you mean handbook\?"):
        new("handboko")
    assert list(folder.iterdir()) == []


def test_a_name_like_nothing_says_how_to_list_them() -> None:
    with pytest.raises(LlmbenchError, match=r"^No bundled document is named zzzzzz\. List them: llmbench new$"):
        new("zzzzzz")
