"""`llmbench index` on what another program prints: what it becomes, what replaces it, and what is refused."""

from __future__ import annotations

import json
import os
import pty
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llmbench import retrieval, workspace
from llmbench.cli.main import cli
from llmbench.errors import DataError, LlmbenchError, RecipeError
from llmbench.recipe import RagRecipe, load
from llmbench.retrieval.reading import standard_input

pytestmark = pytest.mark.usefixtures("kept_embedder")

LAMP = b"# Borin lamp\n\nThe Borin lamp is made of brass.\n"


def run(*words: str, given: bytes = b"") -> Result:
    return CliRunner().invoke(cli, list(words), input=given, catch_exceptions=False)


def facts(*words: str, given: bytes = b"") -> Any:
    result = run(*words, "--json", given=given)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def piped(tmp_path: Path) -> str:
    """A pipeline over standard input."""
    path = tmp_path / "piped.yaml"
    path.write_text('name: piped\ndocuments: ["-"]\n')
    return str(path)


def test_what_is_piped_in_is_found_and_searching_reads_nothing(piped: str) -> None:
    assert facts("index", piped, given=LAMP)["added"] == 1
    hit = facts("search", piped, "What is the lamp made of?", given=b"never read")["hits"][0]
    assert (hit["source"], hit["line"]) == ("stdin", 1)


def test_what_comes_next_takes_its_place_and_the_same_embeds_nothing(piped: str) -> None:
    facts("index", piped, given=LAMP)
    again = facts("index", piped, given=LAMP)
    assert (again["unchanged"], again["changed"], again["embedded"]) == (1, 0, 0)
    other = facts("index", piped, given=b"The pump is loud.")
    assert (other["added"], other["changed"], other["embedded"], other["chunks"]) == (0, 1, 1, 1)
    assert [hit["text"] for hit in facts("search", piped, "lamp")["hits"]] == ["The pump is loud."]


def test_the_override_names_it_beside_a_folder_or_alone(tmp_path: Path, piped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a path on the command line is meant from here
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "pump.md").write_text("The pump is loud.")
    assert facts("index", piped, 'documents=[docs, {path: "-", format: md}]', given=LAMP)["added"] == 2
    found = facts("search", piped, "Borin")["hits"]
    assert {(hit["source"], hit["title"]) for hit in found} == {("stdin", "Borin lamp"), ("pump.md", "pump")}
    (tmp_path / "docs" / "pump.md").rename(tmp_path / "pump.md")
    with pytest.raises(DataError, match="docs is empty, but the index has 1 file from it"):
        run("index", piped, "documents=docs")
    alone = facts("index", piped, "documents=-", given=LAMP)
    assert (alone["changed"], alone["removed"]) == (1, 1)  # read as text now; the folder is none of its places


def test_its_format_is_told_by_name_or_by_its_first_bytes(piped: str) -> None:
    rows = b'{"id": 17, "text": "The lamp flickers.", "year": 2026}\n{"id": 18, "text": "The pump drips."}\nnonsense\n'
    report = facts("index", piped, 'documents=[{path: "-", format: jsonl, columns: {}}]', given=rows)
    assert (report["added"], report["skipped"][0]["source"]) == (2, "stdin")
    hit = facts("search", piped, "flickers", "--where", '{"year": 2026}')["hits"]
    assert [(one["source"], one["line"]) for one in hit] == [("stdin#17", 1)]
    facts("index", piped, given=b"<!doctype html><title>Ways</title><p>Paid back within <b>14</b> days.")
    assert [(one["source"], one["title"]) for one in facts("search", piped, "paid")["hits"]] == [("stdin", "Ways")]


def test_a_pdf_is_told_by_its_first_bytes_without_a_warning(piped: str) -> None:
    from fpdf import FPDF

    pdf = FPDF()
    pdf.set_font("Helvetica", size=11)
    pdf.add_page()
    pdf.multi_cell(0, 6, "The pump is blue.")
    facts("index", piped, given=bytes(pdf.output()))
    assert facts("search", piped, "pump")["hits"][0]["page"] == 1
    assert "named like" not in run("index", "report", piped, given=bytes(pdf.output())).stdout
    refused = run("index", piped, "--json", given=b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    assert refused.exit_code == 1  # nothing is left to search
    assert json.loads(refused.stdout)["skipped"] == [{"source": "stdin", "reason": "it is a picture"}]


@pytest.mark.parametrize("given", [b"", b" \n\n"])
def test_nothing_is_one_line_and_takes_nothing_away(piped: str, given: bytes) -> None:
    facts("index", piped, given=LAMP)
    with pytest.raises(DataError, match=r"standard input is empty; the index stays as it is\. Run: cat FILE \| llmbench index"):
        run("index", piped, given=given)
    assert len(facts("search", piped, "lamp")["hits"]) == 1


def test_too_much_is_one_line(piped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standard_input, "LARGEST_FILE", 2**20)
    with pytest.raises(DataError, match="standard input has more than 1 MiB"):
        run("index", piped, given=b"a" * (2**20 + 1))
    assert not (workspace.indexes() / "piped").exists()


def test_a_terminal_and_a_caller_that_gives_none_are_one_line(piped: str) -> None:
    recipe = load(piped, RagRecipe)
    ours, theirs = pty.openpty()
    try:
        with os.fdopen(theirs, "rb", closefd=False) as terminal, pytest.raises(DataError, match="this is a terminal"):
            retrieval.build(recipe, stdin=terminal)
        with pytest.raises(DataError, match="but nothing is piped in"):
            retrieval.build(recipe)
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_file_of_its_name_is_one_line(tmp_path: Path, piped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stdin").write_text("a file")
    with pytest.raises(LlmbenchError, match="a file is named stdin, like standard input"):
        run("index", piped, 'documents=[stdin, "-"]', given=LAMP)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ('["-", "-"]', r"standard input \(-\) is listed twice"),
        ('[{path: "-", include: ["*.md"]}]', r"standard input \(-\) is not one"),
        ('[{path: "-", columns: {}}]', r"columns on standard input \(-\) need its format: one of jsonl"),
        ('[{path: "-", format: exe}]', r"format .*'txt'"),
        ("[{path: -, formats: {.x: txt}}]", r"formats go by file endings"),
        ("[null]", r"documents\[0\]"),
    ],
)
def test_what_cannot_be_meant_is_one_line(piped: str, documents: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        load(piped, RagRecipe, [f"documents={documents}"])
    assert "\n" not in str(error.value)
