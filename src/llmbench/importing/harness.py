"""Tests of other harnesses -> a question file and the metrics that fit, with an account of what is not mapped.

Nothing of a foreign file is run or fetched: JavaScript, Python, templates with logic and judges are listed, with a reason each.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llmbench.errors import RecipeError
from llmbench.importing import evals, promptfoo
from llmbench.importing.drafted_questions import DraftedQuestions, NotMapped

__all__ = ["HARNESSES", "ImportedQuestions", "questions"]

HARNESSES = {"promptfoo": "promptfoo", "evals": "OpenAI Evals"}
"""Whose tests are read, by the word for `--from`."""
SCHEMA = "llmbench.import-questions/1"


@dataclass(frozen=True)
class ImportedQuestions:
    """What came of a file: the rows of a question file, the `metrics` of a recipe, and what is not mapped."""

    file: Path
    harness: str
    rows: tuple[dict[str, Any], ...]
    metrics: tuple[Any, ...]
    not_mapped: tuple[NotMapped, ...] = field(default=())

    @property
    def jsonl(self) -> str:
        """The question file."""
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)

    def recipe(self, questions: str) -> str:
        """The recipe's lines about them."""
        part = {"questions": {"path": questions}, "metrics": list(self.metrics)}
        return yaml.safe_dump(part, sort_keys=False, allow_unicode=True, width=120)

    def as_json(self) -> dict[str, Any]:
        """The account as JSON has it."""
        return {
            "schema": SCHEMA,
            "file": str(self.file),
            "from": self.harness,
            "questions": len(self.rows),
            "metrics": list(self.metrics),
            "not_mapped": [asdict(one) for one in self.not_mapped],
        }


def questions(file: Path, harness: str | None = None) -> ImportedQuestions:
    """Makes questions of a file of tests.

    Args:
        file: a configuration or a list of tests of promptfoo (YAML, JSON, CSV), or samples of OpenAI Evals (JSONL).
        harness: whose it is, a key of HARNESSES; None tells it from the file.

    Raises:
        RecipeError: the file cannot be read, is of neither, or no question can be made of it.
    """
    whose = harness or ("evals" if file.suffix.lower() in (".jsonl", ".ndjson") else "promptfoo")
    made: DraftedQuestions = evals.draft(file) if whose == "evals" else promptfoo.draft(file)
    if not made.rows:
        why = f" ({made.not_mapped[0].what}: {made.not_mapped[0].why})" if made.not_mapped else ""
        raise RecipeError(f"{file}: no question can be made of it{why}.")
    return ImportedQuestions(file, whose, tuple(made.rows), tuple(made.metrics), tuple(made.not_mapped))
