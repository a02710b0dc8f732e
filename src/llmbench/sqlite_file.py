"""A SQLite file of one program: readable by its owner alone, with a schema that is looked at before anything is written."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from llmbench.errors import LlmbenchError

__all__ = ["SqliteFile"]

_PATIENCE = 10.0
"""Seconds to wait for another process that writes."""


class SqliteFile:
    """The file, made where it is missing. A connection is used by one thread at a time.

    Args:
        path: where it is.
        schema: the statements that make its tables.
        table: one of them, by which the file is known.
        version: of the schema.
        pragmas: settings of the connection, such as `synchronous = NORMAL`.
        earlier: for each earlier version, the statements that make a file of it one of this version.

    Raises (every method):
        LlmbenchError: the file cannot be read or written, or is something else.
    """

    purpose = ""
    """As errors say it, such as `as a key file`."""

    def __init__(
        self,
        path: Path,
        schema: Sequence[str],
        *,
        table: str,
        version: int,
        pragmas: Sequence[str],
        earlier: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            path.chmod(0o600)
        except OSError as error:
            raise LlmbenchError(f"{path}: cannot be written ({error.strerror}). Name another file.") from error
        with self.explained():
            self.db = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
            try:
                self._known(table, version, earlier or {})  # before the journal of another program's file is changed
                for pragma in ("journal_mode = WAL", *pragmas):
                    self.db.execute(f"PRAGMA {pragma}")
                with self.writing():
                    self._prepare(schema, table, version, earlier or {})
            except BaseException:
                self.db.close()
                raise

    def close(self) -> None:
        """Closes the file."""
        self.db.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction: all of the block, or nothing where it fails."""
        with self.explained():
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                self.db.execute("ROLLBACK")
                raise

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Has SQLite's errors name the file, and what to do."""
        try:
            yield
        except sqlite3.Error as error:
            raise LlmbenchError(f"{self.path}: {self._trouble(error)}") from error

    def _trouble(self, error: sqlite3.Error) -> str:
        """What an error means, and what to do."""
        text = str(error)
        if "locked" in text:
            return f"another process has been writing it for {_PATIENCE:.0f} s. Try again."
        if "full" in text:
            return "the disk is full. Free some space."
        return f"it cannot be used {self.purpose} ({text}). Move it away, or name another file."

    def _prepare(self, schema: Sequence[str], table: str, version: int, earlier: Mapping[int, Sequence[str]]) -> None:
        found = self._known(table, version, earlier)
        if found != version:
            for statement in earlier.get(found, schema):
                self.db.execute(statement)
            self.db.execute(f"PRAGMA user_version = {version}")

    def _known(self, table: str, version: int, earlier: Mapping[int, Sequence[str]]) -> int:
        """The version that the file is of; 0 for an empty one."""
        found: int = self.db.execute("PRAGMA user_version").fetchone()[0]
        tables = {name for (name,) in self.db.execute("SELECT name FROM sqlite_master")}
        if (found == 0 and not tables) or (found in (version, *earlier) and table in tables):
            return found
        raise sqlite3.DatabaseError("it is another program's, or of another version of llmbench")
