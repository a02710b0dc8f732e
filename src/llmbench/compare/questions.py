"""The question file: JSONL with one question a line, or a file in the format of SQuAD."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from llmbench import scoring
from llmbench.errors import DataError
from llmbench.recipe import QuestionSource

__all__ = ["HALF", "Question", "read"]

_SHOWN_FAULTS = 10
HALF = re.compile("[\ud800-\udfff]")
"""Halves of surrogate pairs: JSON can write them, UTF-8 cannot."""


@dataclass(frozen=True)
class Question:
    """One question with what is known about its answer.

    `answer` is a full sentence, `value` the fact inside it, `source` the path of the page that tells it; each may be
    None. `others` are further wordings of the value that are as right. `answerable` says whether the documents tell the
    answer at all. `group` names what the question shares with others and `source` does not name, such as an article.
    """

    id: str
    question: str
    answer: str | None = None
    value: str | None = None
    source: str | None = None
    answerable: bool = True
    split: str | None = None
    others: tuple[str, ...] = ()
    group: str | None = None

    @property
    def wordings(self) -> tuple[str, ...]:
        """Every right wording of the value; none where it is not known."""
        return () if self.value is None else (self.value, *self.others)

    def told_by(self, text: str) -> bool:
        """Whether a passage holds one of the wordings as words of its own."""
        return any(scoring.holds_value(text, value, text) for value in self.wordings)

    @staticmethod
    def from_json(values: dict[str, Any]) -> Question:
        """What a comparison's summary holds of it; summaries written before there were several wordings hold none."""
        return Question(**{**values, "others": tuple(values.get("others", ()))})


def read(spec: QuestionSource) -> list[Question]:
    """The questions of the wanted split, in the file's order; `limit` spreads its picks evenly over them.

    Raises:
        DataError: faulty rows, each with file and line; no such split; or nothing left to ask.
    """
    questions, faults = [], []
    seen: dict[str, str] = {}
    for place, row in _rows(spec.path):
        try:
            question = _question(json.loads(row) if isinstance(row, str) else row)
        except json.JSONDecodeError as error:
            faults.append(f"{spec.path}:{place}: not valid JSON ({error.msg} at column {error.colno})")
            continue
        except RecursionError:
            faults.append(f"{spec.path}:{place}: nested too deeply for a question")
            continue
        except ValueError as error:
            faults.append(f"{spec.path}:{place}: {error}")
            continue
        if question.id in seen:
            where = f"in line {seen[question.id]}" if seen[question.id].isdigit() else f"at {seen[question.id]}"
            faults.append(f"{spec.path}:{place}: id {question.id!r} is already used {where}")
        seen.setdefault(question.id, place)
        questions.append(question)
    if faults:
        more = [f"... and {len(faults) - _SHOWN_FAULTS} more faults"] if len(faults) > _SHOWN_FAULTS else []
        raise DataError("\n".join(faults[:_SHOWN_FAULTS] + more))
    if not questions:
        raise DataError(f'{spec.path}: no questions in it. Write one JSON object a line: {{"id": "q1", "question": "..."}}')
    return _limited(_of_split(questions, spec), spec.limit)


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Each question's place in the file with its row: a line of JSON, or an object made of one of SQuAD's."""
    text = _text_of(path)
    if path.suffix.lower() == ".json":
        yield from _squad(path, text)
        return
    # Not splitlines(): JSON strings may hold U+2028, which it would cut at.
    yield from ((str(number), line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _squad(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """The questions of a file in the format of SQuAD 1.1 or 2.0: {"data": [{"paragraphs": [{"qas": [...]}]}]}."""
    try:
        for i, article in enumerate(json.loads(text)["data"]):
            for j, paragraph in enumerate(article["paragraphs"]):
                for k, asked in enumerate(paragraph["qas"]):
                    answers = asked.get("answers") or []
                    row = {
                        "group": str(article.get("title") or f"data[{i}]"),
                        "id": asked.get("id"),
                        "question": asked.get("question"),
                        "answerable": not asked.get("is_impossible"),
                    }
                    yield f"data[{i}].paragraphs[{j}].qas[{k}]", {**row, "value": [one["text"] for one in answers] or None}
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON ({error.msg} at column {error.colno})") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: not in the format of SQuAD, as a .json file must be. Write JSONL, one question a line."
        ) from error


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
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
    value, *others = _wordings(row) or [None]
    question = Question(
        id=_text(row, "id", needed=True) or "",
        question=_text(row, "question", needed=True) or "",
        answer=_text(row, "answer"),
        value=value,
        source=_text(row, "source"),
        answerable=answerable,
        split=_text(row, "split"),
        others=tuple(other for other in others if other is not None),
        group=_text(row, "group"),
    )
    if not answerable and (question.value or question.source):
        raise ValueError("answerable is false, yet there is a value or a source")
    return question


def _wordings(row: dict[str, Any]) -> list[str | None]:
    """`value` as it stands, or each of a list of them, every one once."""
    value = row.get("value")
    if not isinstance(value, list):
        return [_text(row, "value")]
    return list(dict.fromkeys(_text({"value": one}, "value", needed=True) for one in value))


def _text(row: dict[str, Any], key: str, *, needed: bool = False) -> str | None:
    value = row.get(key)
    if value is None:
        if needed:
            raise ValueError(f"{key} is missing")
        return None
    plain = isinstance(value, (str, int, float)) and not isinstance(value, bool)
    if not plain or (isinstance(value, float) and not isfinite(value)):
        raise ValueError(f"{key} must be text, not {json.dumps(value)[:80]}")
    text = str(value).strip()
    if not text:
        raise ValueError(f"{key} is empty")
    if half := HALF.search(text):
        raise ValueError(f"{key} has half a character (\\u{ord(half[0]):04x}, an emoji cut in two): complete or remove it")
    return text
