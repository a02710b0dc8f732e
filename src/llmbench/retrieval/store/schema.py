"""The tables of a generation, and how its database is opened."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from llmbench.retrieval.store.words import terms

__all__ = ["PATIENCE", "SCHEMA", "connect"]

PATIENCE = 60
"""Seconds to wait for another connection."""
_WRITES = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON")

SCHEMA = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE files (             -- to know an unchanged file without reading it; sha256 is empty until all of it is in
    source TEXT PRIMARY KEY, sha256 TEXT NOT NULL, size INTEGER NOT NULL, mtime INTEGER NOT NULL, settings TEXT NOT NULL,
    skipped TEXT NOT NULL);      -- what the report must say again although the file is not read again
CREATE TABLE documents (
    number INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL UNIQUE,
    file TEXT REFERENCES files ON DELETE CASCADE,  -- null: given by a program, not read from a file
    pass INTEGER NOT NULL,       -- when it was last seen: what a pass over its file did not see is gone from it
    sha256 TEXT NOT NULL, title TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL, metadata TEXT NOT NULL,
    marks TEXT NOT NULL, seal BLOB NOT NULL);
CREATE INDEX documents_file ON documents (file);
CREATE TABLE facts (             -- metadata, to filter by; number has no type, so that whole numbers of 64 bits stay exact
    document INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE, key TEXT NOT NULL, number, text TEXT);
CREATE INDEX facts_text ON facts (key, text, document) WHERE text IS NOT NULL;
CREATE INDEX facts_number ON facts (key, number, document) WHERE number IS NOT NULL;
CREATE INDEX facts_document ON facts (document);
CREATE TABLE chunks (
    vector_id INTEGER PRIMARY KEY AUTOINCREMENT,   -- grows only: a freed number never names another passage
    row INTEGER NOT NULL UNIQUE,                   -- its place in vectors.bin
    document INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE, position INTEGER NOT NULL,
    id TEXT NOT NULL UNIQUE, title TEXT NOT NULL, text TEXT NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL,
    page INTEGER, line INTEGER, tokens INTEGER NOT NULL, parent_start INTEGER, parent_end INTEGER,
    method TEXT NOT NULL, head TEXT NOT NULL,
    digest BLOB NOT NULL,        -- of what the embedder read: the same words are embedded once
    seal BLOB NOT NULL);
CREATE INDEX chunks_document ON chunks (document, position);
CREATE INDEX chunks_digest ON chunks (digest);
CREATE TABLE dead (row INTEGER PRIMARY KEY, erased INTEGER NOT NULL);  -- rows of vectors.bin without a passage
{terms.schema("terms")}
"""


def connect(path: Path, *, create: bool = False, reading: bool = False) -> sqlite3.Connection:
    """Opens a database; one that is not there is made only on request, so that no reader leaves an empty one behind.

    Freed pages are overwritten (secure_delete), so that what was deleted cannot be read from the file. One that is only read
    may lie in a folder that cannot be written, such as a read-only volume.
    """
    try:
        return _opened(path, f"mode={'rwc' if create else 'rw'}", _WRITES)
    except sqlite3.OperationalError:
        if not reading or os.access(path.parent, os.W_OK, effective_ids=True):
            raise
    # Without its log the file is the whole of it, and whoever wrote it is done; immutable takes no locks, which need a file.
    log = Path(f"{path}-wal")
    if not log.exists() or not log.stat().st_size:
        return _opened(path, "immutable=1", ())
    try:
        return _opened(path, "mode=ro", ())
    except sqlite3.OperationalError:
        return _copied(path, log)


def _copied(path: Path, log: Path) -> sqlite3.Connection:
    """A copy with its log, which SQLite reads by way of a third file (`-shm`), and that needs a folder that can be written.

    The copy has no name any more when this returns, and is gone when the connection is closed.
    """
    with tempfile.TemporaryDirectory(prefix="llmbench-") as folder:
        copy = Path(folder, path.name)
        try:
            shutil.copyfile(path, copy)
            shutil.copyfile(log, f"{copy}-wal")
        except OSError as error:
            raise sqlite3.OperationalError(f"a copy with its log cannot be made: {error.strerror}") from error
        return _opened(copy, "mode=rw", ("journal_mode = WAL",))


def _opened(path: Path, how: str, pragmas: Sequence[str]) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"file:{quote(str(path))}?{how}", uri=True, check_same_thread=False, isolation_level=None, timeout=PATIENCE
    )
    try:
        for pragma in (*pragmas, "cache_size = -65536"):
            db.execute(f"PRAGMA {pragma}")
        db.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error:
        db.close()
        raise
    return db
