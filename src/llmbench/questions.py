"""The question file: JSONL with one question a line, or a file in the format of SQuAD. The only reader of both."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from llmbench import scoring
from llmbench.errors import DataError

__all__ = ["HALF", "Question", "of_split", "read", "spread"]

_SHOWN_FAULTS = 10
_DEEPEST = 100
"""Lists and objects inside one another that a column may have."""
_FORMS = '{"question": ..., "answer": ...} or {"prompt": ..., "completion": ...}'
_KNOWN = frozenset({"id", "value", "source", "answerable", "split", "group"})
"""The keys that mean something in every row, beside those of what is asked and answered."""
HALF = re.compile("[\ud800-\udfff]")
"""Halves of surrogate pairs: JSON can write them, UTF-8 cannot."""

Turns = tuple[tuple[str, str], ...]
"""The turns of a conversation as (role, text)."""
Of = TypeVar("Of")


@dataclass(frozen=True)
class Question:
    """One question with what is known about its answer.

    `answer` is a full sentence, `value` the fact inside it, `source` the path of the page that tells it; each may be None.
    `others` are further wordings of the value that are as right, `other_sources` further pages that tell it. `answerable` says
    whether the documents tell the answer at all. `group` names what the question shares with others and no source names, such
    as an article. `no_value` says that the file has `value: null`: there is no such fact. `turns` are what is asked as it is
    written, where that is more than one text without spaces around it. `columns` are the row's other keys with their JSON
    values, for metrics and prompts that name them; they are no part of what makes two questions equal. `place` is FILE:LINE.
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
    other_sources: tuple[str, ...] = ()
    turns: Turns = ()
    columns: Mapping[str, Any] = field(default_factory=dict, compare=False)
    no_value: bool = field(default=False, compare=False)
    place: str = field(default="", compare=False)

    @property
    def wordings(self) -> tuple[str, ...]:
        """Every right wording of the value; none where it is not known."""
        return () if self.value is None else (self.value, *self.others)

    @property
    def sources(self) -> tuple[str, ...]:
        """Every page that tells the answer; none where it is not known."""
        return () if self.source is None else (self.source, *self.other_sources)

    @property
    def conversation(self) -> Turns:
        """What is asked: one turn of a user, or the turns that the file has."""
        single = all(role == "user" for role, _ in self.turns) and len(self.turns) < 2
        return (("user", self.question),) if single else self.turns

    def told_by(self, text: str) -> bool:
        """Whether a passage holds one of the wordings as words of its own."""
        return any(scoring.holds_value(text, value, text) for value in self.wordings)

    def to_json(self) -> dict[str, Any]:
        """What a comparison's summary holds of it: all but where it was read."""
        values = {name: value for name, value in vars(self).items() if name not in ("no_value", "place")}
        return values | {"columns": dict(self.columns)}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Question:
        """The inverse of `to_json`. Summaries from before there were several wordings, sources, turns or columns hold none."""
        several = {name: tuple(values.get(name, ())) for name in ("others", "other_sources")}
        return Question(**{**values, **several, "turns": tuple((role, text) for role, text in values.get("turns", ()))})


def read(path: Path, fault: Callable[[Question], str | None] = lambda question: None) -> list[Question]:
    """The questions of a file, in its order. One without an id is called by its line: `questions.jsonl:3`.

    Args:
        path: JSONL, or a .json file in the format of SQuAD 1.1 or 2.0.
        fault: what the caller cannot use about a question, in words; None where it can use it.

    Raises:
        DataError: every fault of the file, each with file and line (ten are shown); or no questions in it.
    """
    questions, faults = [], []
    seen: dict[str, str] = {}
    for place, row in _rows(path):
        try:
            question = _question(json.loads(row) if isinstance(row, str) else row, path, place)
        except json.JSONDecodeError as error:
            faults.append(f"{path}:{place}: not valid JSON ({error.msg} at column {error.colno})")
            continue
        except RecursionError:
            faults.append(f"{path}:{place}: nested too deeply for a question")
            continue
        except ValueError as error:
            faults.append(f"{path}:{place}: {error}")
            continue
        if question.id in seen:
            where = f"in line {seen[question.id]}" if seen[question.id].isdigit() else f"at {seen[question.id]}"
            faults.append(f"{path}:{place}: id {question.id!r} is already used {where}")
        elif words := fault(question):
            faults.append(f"{path}:{place}: {words}")
        seen.setdefault(question.id, place)
        questions.append(question)
    if faults:
        more = [f"... and {len(faults) - _SHOWN_FAULTS} more faults"] if len(faults) > _SHOWN_FAULTS else []
        raise DataError("\n".join(faults[:_SHOWN_FAULTS] + more))
    if not questions:
        raise DataError(f'{path}: no questions in it. Write one JSON object a line: {{"id": "q1", "question": "..."}}')
    return questions


def of_split(questions: list[Question], path: Path, split: str | None) -> list[Question]:
    """Those of one split; all where it is None.

    Raises:
        DataError: the file has no question of this split.
    """
    wanted = [question for question in questions if split is None or question.split == split]
    if not wanted:
        splits = ", ".join(sorted({question.split for question in questions if question.split})) or "none"
        raise DataError(
            f"{path}: no question has split {split!r} (splits in the file: {splits}). Name one of them, or no split."
        )
    return wanted


def spread(items: Sequence[Of], limit: int | None) -> list[Of]:
    """At most `limit` of them, spread evenly, so that every part of a file is asked about."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[i * len(items) // limit] for i in range(limit)]


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Each question's place in the file with its row: a line of JSON, or an object made of one of SQuAD's."""
    text = _text_of(path)
    # Not splitlines(): JSON strings may hold U+2028, which it would cut at.
    lines = [(str(number), line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if path.suffix.lower() == ".json" and not (lines and _is_row(lines[0][1])):
        yield from _squad(path, text)
    else:
        yield from lines


def _is_row(line: str) -> bool:
    """Whether a line is a question of its own, as in JSONL that is named .json."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, dict) and ("question" in row or "prompt" in row)


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
                    if "context" in paragraph:
                        row["context"] = paragraph["context"]
                    values = {"value": [one.get("text") for one in answers]} if answers else {}
                    yield f"data[{i}].paragraphs[{j}].qas[{k}]", row | values
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise DataError(f"{path}: nested too deeply for a file of questions") from error
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
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Name a file with one JSON object a line.") from error


def _question(row: Any, path: Path, place: str) -> Question:
    """Checks one row. Keys that are not known are columns."""
    if not isinstance(row, dict):
        raise ValueError(f"a row is a JSON object, not {type(row).__name__}")
    answerable = row.get("answerable", True)
    if not isinstance(answerable, bool):
        raise ValueError(f"answerable must be true or false, not {answerable!r}")
    if row.get("question") is None and "prompt" not in row and _is_talk(row.get("turns")):
        row = {"id": row.get("question_id")} | row | {"question": "\n\n".join(row["turns"])}  # as MT-Bench has it
    asked, answered = ("prompt", "completion") if "prompt" in row and "question" not in row else ("question", "answer")
    if row.get(asked) is None:
        raise ValueError(f"a row is {_FORMS}: question is missing")
    turns = _turns(row[asked], asked, "user")
    text = next((text for role, text in reversed(turns) if role == "user"), turns[-1][1]).strip()
    answer = None if row.get(answered) is None else _turns(row[answered], answered, "assistant")
    value, *others = _several(row, "value") or [None]
    source, *other_sources = _several(row, "source") or [None]
    if not answerable and (value or source):
        raise ValueError("answerable is false, yet there is a value or a source")
    return Question(
        id=_text(row, "id") or f"{path.name}:{place}",
        question=text,
        answer=None if answer is None else " ".join(text for _, text in answer).strip(),
        value=value,
        source=source,
        answerable=answerable,
        split=_text(row, "split"),
        others=tuple(other for other in others if other is not None),
        group=_text(row, "group"),
        other_sources=tuple(other for other in other_sources if other is not None),
        turns=() if turns == (("user", text),) else turns,
        columns=_columns({key: x for key, x in row.items() if key not in {*_KNOWN, asked, answered}}),
        no_value="value" in row and row["value"] is None,
        place=f"{path}:{place}",
    )


def _is_talk(turns: Any) -> bool:
    """Whether it is what a user says turn by turn: a list of texts."""
    return isinstance(turns, list) and bool(turns) and all(isinstance(one, str) and one.strip() for one in turns)


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    """The columns as they can be written again: a half of a character becomes U+FFFD, a number that is none (NaN) null."""
    found = {}
    for key, value in row.items():
        if _is_deep(value):
            raise ValueError(f"{key} is nested deeper than {_DEEPEST} levels")
        found[HALF.sub("\ufffd", key)] = _writable(value)
    return found


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [x for of in level if isinstance(of, dict | list) for x in (of.values() if isinstance(of, dict) else of)]
        if not level:
            return False
    return True


def _writable(value: Any) -> Any:
    match value:
        case str():
            return HALF.sub("\ufffd", value)
        case float():
            return value if isfinite(value) else None
        case dict():
            return {HALF.sub("\ufffd", key): _writable(one) for key, one in value.items()}
        case list():
            return [_writable(one) for one in value]
    return value


def _turns(value: Any, key: str, role: str) -> Turns:
    """A text as one turn, or a list of turns as it is."""
    if not isinstance(value, list):
        _text({key: value}, key)
        return ((role, str(value)),)
    if not value:
        raise ValueError(f"{key} is empty")
    for turn in value:
        if not (isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)):
            raise ValueError(f"{key} must be text or a list of {{role, content}}")
        _text({key: turn["content"]}, key)
    return tuple((turn["role"], turn["content"]) for turn in value)


def _several(row: dict[str, Any], key: str) -> list[str | None]:
    """A text as it stands, or each of a list of them, every one once. An empty source is none."""
    value = row.get(key)
    if value is None or (key == "source" and value == ""):
        return []
    if not isinstance(value, list):
        return [_text(row, key)]
    return list(dict.fromkeys(_text({key: one}, key, needed=True) for one in value))


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
