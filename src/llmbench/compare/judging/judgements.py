"""The judgements of a comparison: one JSON line each, appended as they arrive, so that a kill loses none that was given."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from llmbench import workspace
from llmbench.compare import json_lines

__all__ = ["FILE", "JudgementLog", "Ruling", "Seat", "answer_hash", "counted"]

FILE = "judgements.jsonl"
Seat = tuple[str, tuple[str, ...], int, str]
"""A question's id, the variants in the order in which they were shown, the number of the repeat, and the judge."""


@dataclass(frozen=True)
class Ruling:
    """What one judge said of one answer, or of two in one order; or the error that came instead.

    `key` is the hash of all that it depends on. `shown` are the variants in the order in which their answers were shown.
    `value`, `label`, `reason` and `probabilities` are as in `prompts.Opinion`; `value` is None where the reply (`text`) could
    not be read. `latency` is in seconds.
    """

    id: str
    shown: tuple[str, ...]
    judge: str
    key: str
    repeat: int = 0
    value: float | None = None
    label: str = ""
    reason: str = ""
    probabilities: dict[str, float] = field(default_factory=dict)
    text: str = ""
    latency: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    error: str | None = None

    @property
    def seat(self) -> Seat:
        """Its place among all."""
        return self.id, self.shown, self.repeat, self.judge


_FIELDS = {one.name for one in fields(Ruling)}


def answer_hash(text: str) -> str:
    """By which an answer is known again; votes know theirs by the same."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


class JudgementLog:
    """judgements.jsonl: the latest line of each seat counts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[Seat, dict[str, Any]] = {}
        for row in _rows(path):
            self._rows[_judgement(row).seat] = row

    def has(self, seat: Seat, key: str) -> bool:
        """Whether it holds a judgement, not an error, of this key."""
        row = self._rows.get(seat)
        return row is not None and row["key"] == key and row.get("error") is None

    def of(self, seat: Seat) -> Ruling | None:
        """The latest of a seat, failed ones included."""
        row = self._rows.get(seat)
        return None if row is None else _judgement(row)

    def append(self, one: Ruling) -> None:
        """Adds one, on disk when this returns."""
        row = {name: value for name, value in asdict(one).items() if value not in (None, "", {}) or name in ("id", "key")}
        json_lines.append(self.path, row, "judgements")
        self._rows[one.seat] = row

    def finish(self, seats: Collection[Seat]) -> None:
        """Rewrites the file: one line a seat, and those that count this time say so. Others stay, to be wanted again."""
        wanted = set(seats)
        for seat, row in self._rows.items():
            row.pop("counts", None)
            if seat in wanted:
                row["counts"] = True
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self._rows.values())
        workspace.write_text(self.path, text)


def counted(path: Path) -> list[Ruling]:
    """Those that count, as the comparison was last finished."""
    return [_judgement(row) for row in _rows(path) if row.get("counts") is True]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Those that are judgements."""
    for row in json_lines.read(path):
        if (
            all(isinstance(row.get(name), str) for name in ("id", "judge", "key"))
            and isinstance(row.get("shown"), list)
            and all(isinstance(name, str) for name in row["shown"])
        ):
            yield row


def _judgement(row: Mapping[str, Any]) -> Ruling:
    known = {name: value for name, value in row.items() if name in _FIELDS}
    return Ruling(**{**known, "shown": tuple(row["shown"])})
