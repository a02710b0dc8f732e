"""The tables of a generation, and how its database is opened."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from llmbench.retrieval.store import terms

__all__ = ["PATIENCE", "SCHEMA", "connect"]

PATIENCE = 60
"""Seconds to wait for another connection."""

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
    method TEXT NOT NULL,
    digest BLOB NOT NULL,        -- of what the embedder read: the same words are embedded once
    seal BLOB NOT NULL);
CREATE INDEX chunks_document ON chunks (document, position);
CREATE INDEX chunks_digest ON chunks (digest);
CREATE TABLE dead (row INTEGER PRIMARY KEY, erased INTEGER NOT NULL);  -- rows of vectors.bin without a passage
{terms.schema("terms")}
"""


def connect(path: Path, *, create: bool = False) -> sqlite3.Connection:
    """Opens a database; one that is not there is made only on request, so that no reader leaves an empty one behind.

    Freed pages are overwritten (secure_delete), so that what was deleted cannot be read from the file.
    """
    mode = "rwc" if create else "rw"
    db = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}", uri=True, check_same_thread=False, isolation_level=None, timeout=PATIENCE
    )
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA cache_size = -65536")
    except sqlite3.Error:
        db.close()
        raise
    return db
