"""The answers of a comparison: one JSON line each, appended as they arrive, so that a kill loses none that was given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from llmbench import workspace
from llmbench.compare import json_lines
from llmbench.questions import Question

__all__ = ["Answer", "AnswerLog", "Cell", "Place", "Scores", "key_of", "scored"]

Cell = tuple[str, str]
"""A question's id and a variant."""
Place = tuple[str, str, int]
"""A question's id, a variant, and the number of the repeat."""
Scores = Mapping[str, float | None]
"""Metric -> value; None where the metric does not apply."""

# What servers renew in each listing, so that it says nothing about the model.
_VOLATILE = ("created", "permission")


@dataclass(frozen=True)
class Answer:
    """What one variant answered to one question, or the error that came instead.

    `key` is the hash of all that the answer depends on; `latency` and `first_token` are seconds, of several turns their sums.
    `repeat` counts from 0. `turns` are the answers to every turn of a question that has several; `text` is the last one.
    `tool_calls` are as OpenAI's API has them. `manifest` says what answered: base, adapter, prompt, engine, sampling, passages.
    Where log-probabilities were asked for, `logprob` is their sum over the answer's tokens, `bits` a hash of the tokens with
    them, and `tokens` one of the tokens alone. `openings` is what could have been the first token -> its log-probability.
    """

    id: str
    variant: str
    key: str
    text: str = ""
    sources: tuple[dict[str, Any], ...] = ()
    latency: float = 0.0
    first_token: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = ""
    error: str | None = None
    openings: dict[str, float] = field(default_factory=dict)
    repeat: int = 0
    turns: tuple[str, ...] = ()
    tool_calls: tuple[dict[str, Any], ...] = ()
    manifest: dict[str, Any] = field(default_factory=dict)
    logprob: float | None = None
    bits: str = ""
    tokens: str = ""

    @property
    def cell(self) -> Cell:
        """Its place in the table of questions and variants."""
        return self.id, self.variant

    @property
    def place(self) -> Place:
        """Its place among the repeats, too."""
        return self.id, self.variant, self.repeat


_FIELDS = {one.name for one in fields(Answer)}
_LATER = ("openings", "repeat", "turns", "tool_calls", "manifest", "bits", "tokens")
"""Fields that older files lack; what is empty is not written."""


def key_of(
    question: Question,
    entry: Mapping[str, Any],
    max_tokens: int,
    base_url: str,
    more: Mapping[str, Any] | None = None,
) -> str:
    """The hash of all that an answer depends on; an answer of another key is asked for again.

    `entry` is what the endpoint lists about the variant. A server that tells of neither adapter nor RAG says too little
    about what answers there, so its URL counts too. `more` is what else is asked, such as another prompt or a seed; where that
    is nothing, the key is what it was before a recipe could say so.
    """
    known = {name: value for name, value in entry.items() if name not in _VOLATILE}
    where = "" if {"adapter", "rag"} <= known.keys() else base_url
    asked = question.question if len(question.conversation) == 1 else question.conversation
    parts = [asked, max_tokens, known, where, *([more] if more else [])]
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class AnswerLog:
    """answers.jsonl: the latest line of a question, variant and repeat counts."""

    def __init__(self, path: Path, *, first: Callable[[], None] | None = None) -> None:
        """Reads what is there; `first` is called before the first answer is added."""
        self.path, self._first = path, first
        self._rows: dict[Place, dict[str, Any]] = {}
        for row in _rows(path):
            self._rows[_place(row)] = row

    def answer(self, cell: Cell, repeat: int = 0) -> Answer | None:
        """The latest answer of a cell, failed ones included."""
        row = self._rows.get((*cell, repeat))
        return None if row is None else _answer(row)

    def has(self, cell: Cell, key: str, repeat: int = 0) -> bool:
        """Whether a cell holds an answer, not an error, of this key."""
        row = self._rows.get((*cell, repeat))
        return row is not None and row["key"] == key and row.get("error") is None

    @property
    def answered(self) -> int:
        """How many answers there are, failures left out."""
        return sum(row.get("error") is None for row in self._rows.values())

    def settled(self, cell: Cell, key: str, repeat: int = 0) -> bool:
        """Whether a cell was asked, and answered or failed, with this key."""
        row = self._rows.get((*cell, repeat))
        return row is not None and row["key"] == key

    def append(self, answer: Answer) -> None:
        """Adds one answer, on disk when this returns."""
        row = {
            name: value for name, value in asdict(answer).items() if value is not None and (value or name not in _LATER)
        }  # fmt: skip
        if self._first is not None:
            self._first()
            self._first = None
        json_lines.append(self.path, row, "answers")
        self._rows[answer.place] = row

    def finish(self, scores: Mapping[Place, Scores]) -> None:
        """Rewrites the file, one line a cell, those of this comparison with their scores.

        Answers to questions that are not asked this time stay, without scores, for when they are asked again.
        """
        for place, row in self._rows.items():
            row.pop("scores", None)
            if place in scores:
                row["scores"] = dict(scores[place])
        ordered = [*scores, *(place for place in self._rows if place not in scores)]
        workspace.write_text(self.path, "".join(json.dumps(self._rows[one], ensure_ascii=False) + "\n" for one in ordered))


def scored(path: Path) -> list[tuple[Answer, dict[str, float | None]]]:
    """The answers that carry scores, in the file's order: those of the comparison as it was last finished."""
    return [(_answer(row), row["scores"]) for row in _rows(path) if "scores" in row]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Those that are answers."""
    for row in json_lines.read(path):
        if all(isinstance(row.get(key), str) for key in ("id", "variant", "key")) and type(row.get("repeat", 0)) is int:
            yield row


def _place(row: Mapping[str, Any]) -> Place:
    return row["id"], row["variant"], row.get("repeat", 0)


def _answer(row: dict[str, Any]) -> Answer:
    known = {name: value for name, value in row.items() if name in _FIELDS}
    return Answer(**known | {name: tuple(row.get(name, ())) for name in ("sources", "turns", "tool_calls")})
