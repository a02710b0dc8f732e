"""The file of captured conversations: written by one gateway's thread, read and pruned by `llmbench capture`.

SQLite and not Parquet: records come one by one, must be whole after a kill, and are deleted singly, by age, request or user.
`llmbench capture export` writes Parquet.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from llmbench import workspace
from llmbench.errors import LlmbenchError

__all__ = ["Record", "RecordStore", "default_path"]

_VERSION = 1
_PATIENCE = 10.0
"""Seconds to wait for another process that writes."""
_DAY = 86_400


def default_path() -> Path:
    """The workspace's file."""
    return workspace.home() / "capture.sqlite"


@dataclass(frozen=True)
class Record:
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

    def as_json(self) -> dict[str, Any]:
        """As plain values, messages and sources read."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        sources = None if self.sources is None else json.loads(self.sources)
        return plain | {"messages": json.loads(self.messages), "sources": sources}


_NAMES = [field.name for field in fields(Record)]
_COLUMNS = ", ".join(_NAMES)
_SCHEMA = (
    "CREATE TABLE records (number INTEGER PRIMARY KEY, request TEXT NOT NULL, at REAL NOT NULL, conversation TEXT NOT NULL, "
    "user TEXT, key TEXT NOT NULL, asked TEXT NOT NULL, variant TEXT NOT NULL, messages TEXT NOT NULL, sources TEXT, "
    "answer TEXT NOT NULL, finish_reason TEXT, complete INTEGER NOT NULL, redacted INTEGER NOT NULL, input_tokens INTEGER, "
    "output_tokens INTEGER, seconds REAL NOT NULL, first_seconds REAL, retrieval_seconds REAL, engine_seconds REAL, "
    "trace TEXT)",
    "CREATE INDEX by_time ON records (at)",
    "CREATE INDEX by_request ON records (request)",
    "CREATE INDEX by_user ON records (user)",
    "CREATE TABLE secret (salt BLOB NOT NULL)",
)
_INSERT = f"INSERT INTO records ({_COLUMNS}) VALUES ({', '.join('?' * len(_NAMES))})"  # noqa: S608 - its own names
_SELECT = f"SELECT {_COLUMNS} FROM records"  # noqa: S608 - likewise


class RecordStore:
    """The file. A connection is used by one thread at a time.

    Raises (every method):
        LlmbenchError: the file cannot be read or written, or is something else.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file, and makes it where it is missing, readable by its owner alone."""
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            path.chmod(0o600)
        except OSError as error:
            raise LlmbenchError(f"{path}: cannot be written ({error.strerror}). Name another file.") from error
        with self._explained():
            self._db = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            self._prepare()
            self._salt: bytes = self._db.execute("SELECT salt FROM secret").fetchone()[0]

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def number(self, *parts: str) -> int:
        """A number from 0 to 2**64 - 1 that depends on some texts and this file alone; the texts cannot be found from it."""
        text = json.dumps(parts).encode()
        return int.from_bytes(hmac.digest(self._salt, text, hashlib.sha256)[:8])

    def user(self, name: str) -> str:
        """What stands for a user in this file."""
        return f"{self.number('user', name):016x}"

    def add(self, records: Sequence[Record]) -> None:
        """Writes some records, all of them or none."""
        with self._writing():
            self._db.executemany(_INSERT, [tuple(getattr(record, name) for name in _NAMES) for record in records])

    def newest(self, limit: int) -> list[Record]:
        """The last records, the newest first."""
        with self._explained():
            return [_record(row) for row in self._db.execute(f"{_SELECT} ORDER BY at DESC, number DESC LIMIT ?", (limit,))]

    def every(self) -> Iterator[Record]:
        """All records, the oldest first."""
        with self._explained():
            for row in self._db.execute(f"{_SELECT} ORDER BY at, number"):
                yield _record(row)

    def count(self) -> int:
        """How many there are."""
        with self._explained():
            return int(self._db.execute("SELECT count(*) FROM records").fetchone()[0])

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
        with self._writing():
            count = self._db.execute(statement, (value,)).rowcount
        if count:
            with self._explained():
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # earlier pages would stay readable there
        return count

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LlmbenchError(
                f"{self.path}: it cannot be used for captured conversations ({error}). Move it away, or name another file."
            ) from error

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.execute("BEGIN IMMEDIATE")
        try:
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                for statement in _SCHEMA:
                    self._db.execute(statement)
                self._db.execute("INSERT INTO secret VALUES (?)", (secrets.token_bytes(32),))
                self._db.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION or not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'records'").fetchone():
                raise sqlite3.DatabaseError("it is another program's, or of another version of llmbench")
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise


def _record(row: Sequence[Any]) -> Record:
    values = dict(zip(_NAMES, row, strict=True))
    return Record(**values | {"complete": bool(values["complete"]), "redacted": bool(values["redacted"])})
