"""What the tests of the data report share: rows in a file, a recipe over them, and what `llmbench check` says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner, Result

from llmbench.cli.main import cli
from llmbench.data.report import DataReport, Note, read_json

__all__ = ["chat", "checked", "looked", "notes", "recipe", "rows"]


def chat(question: str, answer: str, *, system: str | None = None) -> dict[str, Any]:
    """A row of one question and its answer."""
    before = [{"role": "system", "content": system}] if system else []
    turns = [*before, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns}


def rows(path: Path, *found: Any) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")
    return path


def recipe(folder: Path, train: Any, **sections: Any) -> Path:
    """A recipe over rows, or over the sources that are given; sections are added to."""
    sources = train if isinstance(train[0], dict) and "path" in train[0] else [{"path": str(rows(folder / "t.jsonl", *train))}]
    data = {"train": sources, "max_length": 256} | sections.pop("data", {})
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "looked", "data": data} | sections), encoding="utf-8")
    return path


def checked(*arguments: str) -> Result:
    """`llmbench check` as typed."""
    return CliRunner().invoke(cli, ["check", *arguments])


def looked(folder: Path, train: Any, **sections: Any) -> DataReport:
    """The report of rows."""
    result = checked(str(recipe(folder, train, **sections)), "--json")
    assert result.exit_code in (0, 2) and result.stdout, repr(result.exception)
    return read_json(result.stdout)


def notes(report: DataReport, level: str) -> list[Note]:
    """The notes of one level."""
    return [note for note in report.notes if note.level == level]
