"""`llmbench raft` as typed: the file it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llmbench.cli.main import cli
from llmbench.errors import DataError, LlmbenchError

pytestmark = pytest.mark.usefixtures("kept_embedder")

QUESTIONS = [
    {"id": "a", "question": "What is the Borin lamp made of?", "value": "brass", "source": "lamp.md", "split": "train"},
    {"id": "b", "question": "What does the Alba kettle cost?", "value": "40 euros", "source": "kettle.md", "split": "test"},
    {"id": "c", "question": "Who sells the moon?", "answerable": False, "split": "train"},
    {"id": "d", "question": "How heavy is the lamp?", "value": "a ton", "source": "lamp.md", "split": "train"},
]


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture
def asked(pipeline: Path, tmp_path: Path) -> tuple[str, str]:
    """The indexed pages and a file of questions about them."""
    assert typed("index", str(pipeline)).exit_code == 0
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    return str(pipeline), str(path)


def test_rows_are_written_counted_and_can_be_trained_on(asked: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    result = typed("raft", *asked, "--split", "train", "--output", str(out), "--withhold", "0")
    assert result.exit_code == 0, result.output
    first, *rest = result.stdout.splitlines()
    assert first == f"{out}: 2 rows from 3 questions."
    assert rest[0].split(maxsplit=1) == ["1", "answered from their passages"]
    assert rest[2] == "No rows: 1 since its page was found, but no passage of it contains the value word for word."
    assert "Compare on questions" not in result.stdout
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["id"], row["messages"][-1]["content"]) for row in found] == [
        ("a", "brass [1]"),
        ("c", "The passages do not say."),
    ]
    check = typed(
        "check", "recipes/sft-lora.yaml", f"data.train=[{{path: {json.dumps(str(out))}}}]", "data.eval_fraction=0", "--json"
    )
    assert check.exit_code == 0, check.output
    assert json.loads(check.stdout)["train"]["rows"] == 2


def test_a_whole_file_is_told_apart_from_what_a_comparison_asks(asked: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    result = typed(
        "raft", *asked, "-o", str(out), "--no-cite", "search.top_k=1", "--abstention", "Ask Cora.", "--withhold", "0"
    )
    assert "Compare on other questions: a model already knows" in result.stdout
    assert "does not recognise this --abstention by default" in result.stdout
    taught = [json.loads(line)["messages"][-1]["content"] for line in out.read_text().splitlines()]
    assert taught == ["brass", "40 euros", "Ask Cora."] and "[2]" not in out.read_text()
    figures = json.loads(typed("raft", *asked, "-o", str(out), "--overwrite", "--json", "--drop-not-found").stdout)
    assert figures["rows"] == sum(figures["kinds"].values()) == 3
    assert [one["id"] for one in figures["left_out"]] == ["d"]


def test_a_file_that_is_there_stays(asked: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    out.write_text("mine")
    result = typed("raft", *asked, "-o", str(out))
    assert isinstance(result.exception, LlmbenchError) and "overwrite it with --overwrite" in str(result.exception)
    assert out.read_text() == "mine"
    result = typed("raft", *asked, "-o", str(tmp_path), "--overwrite")
    assert isinstance(result.exception, LlmbenchError) and "Name a file" in str(result.exception)
    before = Path(asked[1]).read_text()
    result = typed("raft", *asked, "-o", asked[1], "--overwrite")
    assert isinstance(result.exception, LlmbenchError) and "is the question file itself" in str(result.exception)
    assert Path(asked[1]).read_text() == before
    result = typed("raft", *asked, "-o", str(out), "--overwrite", "--abstention", " ")
    assert isinstance(result.exception, LlmbenchError) and "--abstention is empty" in str(result.exception)


def test_no_row_is_an_error_and_no_file(asked: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "hopeless.jsonl"
    path.write_text(json.dumps({"id": "x", "question": "How heavy is the lamp?"}))
    result = typed("raft", asked[0], str(path), "-o", str(tmp_path / "rows.jsonl"))
    assert isinstance(result.exception, DataError)
    assert "no question can be turned into a row. 1 since its value is unknown" in str(result.exception)
    assert not (tmp_path / "rows.jsonl").exists()
    result = typed("raft", asked[0], str(tmp_path / "absent.jsonl"), "-o", str(tmp_path / "rows.jsonl"))
    assert isinstance(result.exception, DataError) and "absent.jsonl: no such file" in str(result.exception)
    assert typed("raft", *asked).exit_code == 2
