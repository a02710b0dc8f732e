"""The file of captured conversations: written by one gateway's thread, read and pruned by `llmbench capture`.

SQLite and not Parquet: records come one by one, must be whole after a kill, and are deleted singly, by age, request or user.
`llmbench capture export` writes Parquet.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from llmbench import workspace
from llmbench.errors import LlmbenchError
from llmbench.gateway.api.feedback import METRICS, Metric
from llmbench.sqlite_file import SqliteFile

__all__ = ["CaptureStore", "CapturedRequest", "default_path"]

_VERSION = 2
_DAY = 86_400


def default_path() -> Path:
    """The workspace's file."""
    return workspace.home() / "capture.sqlite"


@dataclass(frozen=True)
class CapturedRequest:
    """One request with its answer. Seconds are since the request's head, but for `at`, which is since 1970."""

    request: str
    """The id in the answer's `x-request-id`."""
    at: float
    conversation: str
    """The same for all requests of one conversation, or of one user where clients name users; no name can be read from it."""
    user: str | None
    """The same for all requests of one user; None where the client named none."""
    key: str
    asked: str
    variant: str
    messages: str
    """JSON: what was asked, before passages."""
    sources: str | None
    """JSON: the passages; None for a variant without documents."""
    answer: str
    finish_reason: str | None
    complete: bool
    redacted: bool
    input_tokens: int | None
    output_tokens: int | None
    seconds: float
    first_seconds: float | None
    retrieval_seconds: float | None
    engine_seconds: float | None
    trace: str | None
    vote: bool | None = None
    """Whether the answer was found good, by the last vote of POST /v1/feedback; None without one."""
    vote_comment: str | None = None
    judge: float | None = None
    """The last score, 0 to 1."""
    judge_comment: str | None = None

    def as_json(self) -> dict[str, Any]:
        """As plain values, messages and sources read."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        sources = None if self.sources is None else json.loads(self.sources)
        return plain | {"messages": json.loads(self.messages), "sources": sources}


_NAMES = [field.name for field in fields(CapturedRequest)]
_COLUMNS = ", ".join(_NAMES)
_SCHEMA = (
    "CREATE TABLE records (number INTEGER PRIMARY KEY, request TEXT NOT NULL, at REAL NOT NULL, conversation TEXT NOT NULL, "
    "user TEXT, key TEXT NOT NULL, asked TEXT NOT NULL, variant TEXT NOT NULL, messages TEXT NOT NULL, sources TEXT, "
    "answer TEXT NOT NULL, finish_reason TEXT, complete INTEGER NOT NULL, redacted INTEGER NOT NULL, input_tokens INTEGER, "
    "output_tokens INTEGER, seconds REAL NOT NULL, first_seconds REAL, retrieval_seconds REAL, engine_seconds REAL, "
    "trace TEXT, vote REAL, vote_comment TEXT, judge REAL, judge_comment TEXT)",
    "CREATE INDEX by_time ON records (at)",
    "CREATE INDEX by_request ON records (request)",
    "CREATE INDEX by_user ON records (user)",
    "CREATE TABLE secret (salt BLOB NOT NULL)",
)
_FEEDBACK = tuple(
    f"ALTER TABLE records ADD COLUMN {column}" for metric in METRICS for column in (f"{metric} REAL", f"{metric}_comment TEXT")
)
"""What makes a file of version 1 one of version 2."""
_MARK = {
    metric: f"UPDATE records SET {metric} = ?, {metric}_comment = ? WHERE number = "  # noqa: S608 - its own names
    "(SELECT max(number) FROM records WHERE request = ? AND key = ?)"
    for metric in METRICS
}
_INSERT = f"INSERT INTO records ({_COLUMNS}) VALUES ({', '.join('?' * len(_NAMES))})"  # noqa: S608 - its own names
_SELECT = f"SELECT {_COLUMNS} FROM records"  # noqa: S608 - likewise


class CaptureStore(SqliteFile):
    """The file. A connection is used by one thread at a time.

    Raises (every method):
        LlmbenchError: the file cannot be read or written, or is something else.
    """

    purpose = "for captured conversations"

    def __init__(self, path: Path) -> None:
        """Opens the file, and makes it where it is missing, readable by its owner alone."""
        salt = f"INSERT INTO secret VALUES (x'{secrets.token_hex(32)}')"  # noqa: S608 - digits alone
        pragmas = ("synchronous = NORMAL", "secure_delete = ON")
        super().__init__(path, (*_SCHEMA, salt), table="records", version=_VERSION, pragmas=pragmas, earlier={1: _FEEDBACK})
        with self.explained():
            self._salt: bytes = self.db.execute("SELECT salt FROM secret").fetchone()[0]

    def number(self, *parts: str) -> int:
        """A number from 0 to 2**64 - 1 that depends on some texts and this file alone; the texts cannot be found from it."""
        text = json.dumps(parts).encode()
        return int.from_bytes(hmac.digest(self._salt, text, hashlib.sha256)[:8])

    def user(self, name: str) -> str:
        """What stands for a user in this file."""
        return f"{self.number('user', name):016x}"

    def add(self, records: Sequence[CapturedRequest]) -> None:
        """Writes some records, all of them or none."""
        with self.writing():
            self.db.executemany(_INSERT, [tuple(getattr(record, name) for name in _NAMES) for record in records])

    def mark(self, request: str, key: str, metric: Metric, value: float, comment: str | None) -> None:
        """Writes a vote or a score into the last record of a request, where there is one."""
        with self.writing():
            self.db.execute(_MARK[metric], (value, comment, request, key))

    def newest(self, limit: int) -> list[CapturedRequest]:
        """The last records, the newest first."""
        with self.explained():
            return [_record(row) for row in self.db.execute(f"{_SELECT} ORDER BY at DESC, number DESC LIMIT ?", (limit,))]

    def every(self) -> Iterator[CapturedRequest]:
        """All records, the oldest first."""
        with self.explained():
            for row in self.db.execute(f"{_SELECT} ORDER BY at, number"):
                yield _record(row)

    def count(self) -> int:
        """How many there are."""
        with self.explained():
            return int(self.db.execute("SELECT count(*) FROM records").fetchone()[0])

    def prune(self, days: float) -> int:
        """Deletes what is older; returns how many that were."""
        return self._delete("DELETE FROM records WHERE at < ?", time.time() - days * _DAY)

    def delete_request(self, id: str) -> int:
        """Deletes a request's records; returns how many there were."""
        return self._delete("DELETE FROM records WHERE request = ?", id)

    def delete_user(self, name: str) -> int:
        """Deletes the records of a user, as the client named them; returns how many there were."""
        return self._delete("DELETE FROM records WHERE user = ?", self.user(name))

    def _delete(self, statement: str, value: Any) -> int:
        with self.writing():
            count = self.db.execute(statement, (value,)).rowcount
        with self.explained():
            busy = self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]  # earlier pages would stay readable there
        if busy and count:
            raise LlmbenchError(f"{self.path}: deleted, but another process reads the file, so old bytes remain. Try again.")
        return count


def _record(row: Sequence[Any]) -> CapturedRequest:
    values = dict(zip(_NAMES, row, strict=True))
    truths = {name: bool(values[name]) for name in ("complete", "redacted", "vote") if values[name] is not None}
    return CapturedRequest(**values | truths)
