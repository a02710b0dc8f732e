"""Passages that all variants are given alike: those of a column, or what a pipeline found once for each question."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbench import recipe as recipes
from llmbench.control_tokens import of_unknown
from llmbench.errors import DataError
from llmbench.questions import Question
from llmbench.recipe import PassagesSpec, RagRecipe

__all__ = ["FILE", "Frozen", "freeze", "origin"]

FILE = "passages.jsonl"
"""In the comparison's folder: what the pipeline found, so that a second run gives the same."""
_SHOWN = 10
_NONE = "(No passage was found.)"


@dataclass(frozen=True)
class Frozen:
    """The passages of each question, as a RAG variant's `sources`, and the words that they are put into."""

    of: Mapping[str, tuple[dict[str, Any], ...]]
    template: str
    passage: str
    system: str | None
    lines: str = ""
    """What `FILE` holds; empty where they stand in the question file."""

    def text(self, id: str) -> str:
        """The passages of a question as they stand in its prompt."""
        shown = [_filled(self.passage, {key: str(one.get(key, "")) for key in _PLACES}) for one in self.of[id]]
        # a page must not open a turn of the model's, whichever model is asked
        return of_unknown().split("\n".join(shown)) or _NONE

    def prompt(self, id: str, question: str) -> str:
        """The user's message: passages and question in their places."""
        return _filled(self.template, {"passages": self.text(id), "question": question})


_PLACES = ("n", "text", "title", "source")


def origin(spec: PassagesSpec) -> str:
    """Where passages are from, for people."""
    return f"the column {spec.column}" if spec.column is not None else f"the pipeline {Path(str(spec.pipeline)).stem}"


def freeze(spec: PassagesSpec, questions: Sequence[Question], folder: Path) -> Frozen:
    """What each question is given.

    Args:
        spec: where from.
        questions: all that will be asked.
        folder: the comparison's, where an earlier run's passages are.

    Raises:
        DataError: rows without the column, each with file and line (ten are shown).
        IndexError_: the pipeline has no index.
    """
    if spec.column is not None:
        return _of_column(spec, spec.column, questions)
    assert spec.pipeline is not None
    return _of_pipeline(recipes.load(spec.pipeline, RagRecipe), questions, folder / FILE)


def _of_column(spec: PassagesSpec, column: str, questions: Sequence[Question]) -> Frozen:
    found, faults = {}, []
    for question in questions:
        try:
            found[question.id] = _sources(question, column)
        except ValueError as error:
            faults.append(f"{question.place}: {error}")
    if faults:
        more = [f"... and {len(faults) - _SHOWN:,} more faults"] if len(faults) > _SHOWN else []
        raise DataError("\n".join(faults[:_SHOWN] + more))
    passage = str(RagRecipe.model_fields["passage"].default)
    return Frozen(found, spec.template, passage, None)


def _sources(question: Question, column: str) -> tuple[dict[str, Any], ...]:
    """A text, texts, or objects with a text, as passages numbered from 1; those without a source have the question's."""
    if column not in question.columns:
        known = ", ".join(question.columns) or "none"
        raise ValueError(f"this row has no column {column} (its columns: {known})")
    value = question.columns[column]
    listed = value if isinstance(value, list) else [value]
    found = []
    for n, one in enumerate(listed, 1):
        text = one.get("text") if isinstance(one, dict) else one
        if not isinstance(text, str):
            raise ValueError(f"{column} must be a text, a list of texts, or a list of {{text, source, title}}")
        more = {key: str(one[key]) for key in ("source", "title") if key in one} if isinstance(one, dict) else {}
        found.append({"n": n, "source": question.source or column, "title": "", "text": text} | more)
    return tuple(found)


def _of_pipeline(pipeline: RagRecipe, questions: Sequence[Question], file: Path) -> Frozen:
    """What the pipeline finds, or found when these questions were first asked."""
    document = pipeline.model_dump_json()
    keys = {q.id: hashlib.sha256(f"{document}\n{q.question}".encode()).hexdigest()[:32] for q in questions}
    kept = _kept(file)
    rows = {id: kept[id] for id, key in keys.items() if id in kept and kept[id]["key"] == key}
    missing = [question for question in questions if question.id not in rows]
    if missing:
        from llmbench.retrieval import Retriever

        with Retriever.open(pipeline) as retriever:
            for question in missing:
                grounded = retriever.ground([{"role": "user", "content": question.question}])
                rows[question.id] = {"id": question.id, "key": keys[question.id], "sources": list(grounded.sources)}
    rows = {**{id: row for id, row in kept.items() if id not in rows}, **rows}
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.values())
    of = {question.id: tuple(rows[question.id]["sources"]) for question in questions}
    return Frozen(of, pipeline.prompt, pipeline.passage, pipeline.system, lines)


def _kept(file: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for line in file.read_text(encoding="utf-8", errors="replace").split("\n") if file.exists() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("id"), str) and isinstance(row.get("sources"), list) and "key" in row:
            found[row["id"]] = row
    return found


def _filled(template: str, values: Mapping[str, str]) -> str:
    """Replaces the first `{name}` of each, in one pass: braces inside a value are never looked at."""
    left = dict(values)
    return re.sub(r"\{(\w+)\}", lambda found: left.pop(found[1], found[0]), template)
