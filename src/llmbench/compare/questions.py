"""The question file: JSONL, one question a line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbench.errors import DataError
from llmbench.recipe import QuestionSource

__all__ = ["Question", "read"]

_SHOWN_FAULTS = 10


@dataclass(frozen=True)
class Question:
    """One question with what is known about its answer.

    `answer` is a full sentence, `value` the fact inside it, `source` the path of the page that tells it; each may be
    None. `answerable` says whether the documents tell the answer at all.
    """

    id: str
    question: str
    answer: str | None = None
    value: str | None = None
    source: str | None = None
    answerable: bool = True
    split: str | None = None


def read(spec: QuestionSource) -> list[Question]:
    """The questions of the wanted split, in the file's order; `limit` spreads its picks evenly over them.

    Raises:
        DataError: faulty rows, each with file and line; no such split; or nothing left to ask.
    """
    questions, faults = [], []
    lines_of: dict[str, int] = {}
    for number, line in enumerate(_lines(spec.path), 1):
        if not line.strip():
            continue
        try:
            question = _question(json.loads(line))
        except json.JSONDecodeError as error:
            faults.append(f"{spec.path}:{number}: not valid JSON ({error.msg} at column {error.colno})")
            continue
        except ValueError as error:
            faults.append(f"{spec.path}:{number}: {error}")
            continue
        if question.id in lines_of:
            faults.append(f"{spec.path}:{number}: id {question.id!r} stands in line {lines_of[question.id]} already")
        lines_of.setdefault(question.id, number)
        questions.append(question)
    if faults:
        more = [f"... and {len(faults) - _SHOWN_FAULTS} more faults"] if len(faults) > _SHOWN_FAULTS else []
        raise DataError("\n".join(faults[:_SHOWN_FAULTS] + more))
    if not questions:
        raise DataError(f'{spec.path}: no questions in it. Write one JSON object a line: {{"id": "q1", "question": "..."}}')
    return _limited(_of_split(questions, spec), spec.limit)


def _lines(path: Path) -> list[str]:
    try:
        # Not splitlines(): JSON strings may hold U+2028, which it would cut at.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder. Name a file with one JSON object a line.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error


def _of_split(questions: list[Question], spec: QuestionSource) -> list[Question]:
    if spec.split is None:
        return questions
    wanted = [q for q in questions if q.split == spec.split]
    if not wanted:
        splits = ", ".join(sorted({q.split for q in questions if q.split})) or "none"
        raise DataError(
            f"{spec.path}: no question has split {spec.split!r} (splits in the file: {splits}). Set questions.split."
        )
    return wanted


def _limited(questions: list[Question], limit: int | None) -> list[Question]:
    if limit is None or limit >= len(questions):
        return questions
    return [questions[i * len(questions) // limit] for i in range(limit)]


def _question(row: Any) -> Question:
    """Checks one row. Keys that are not known are somebody else's notes and are left alone."""
    if not isinstance(row, dict):
        raise ValueError(f"a row is a JSON object, not {type(row).__name__}")
    answerable = row.get("answerable", True)
    if not isinstance(answerable, bool):
        raise ValueError(f"answerable must be true or false, not {answerable!r}")
    question = Question(
        id=_text(row, "id", needed=True) or "",
        question=_text(row, "question", needed=True) or "",
        answer=_text(row, "answer"),
        value=_text(row, "value"),
        source=_text(row, "source"),
        answerable=answerable,
        split=_text(row, "split"),
    )
    if not answerable and (question.value or question.source):
        raise ValueError("answerable is false, yet there is a value or a source")
    return question


def _text(row: dict[str, Any], key: str, *, needed: bool = False) -> str | None:
    value = row.get(key)
    if value is None:
        if needed:
            raise ValueError(f"{key} is missing")
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"{key} must be text, not {value!r}")
    text = str(value).strip()
    if not text:
        raise ValueError(f"{key} is empty")
    return text
