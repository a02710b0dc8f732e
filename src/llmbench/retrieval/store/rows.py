"""Documents and passages as rows, each with a seal: a checksum over the row that is looked at before it is handed out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmbench.errors import IndexError_
from llmbench.retrieval.chunking import Chunk
from llmbench.retrieval.documents import Box, Document, Heading, Value
from llmbench.retrieval.store.filters import kept

__all__ = ["FileState", "Standing", "damaged", "facts", "of_chunk", "of_document", "seal", "to_chunk", "to_document"]

_DOCUMENT = "source, sha256, title, kind, text, metadata, marks"
UPSERT_DOCUMENT = f"""
INSERT INTO documents (file, pass, {_DOCUMENT}, seal) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (source) DO UPDATE SET file = excluded.file, pass = excluded.pass, sha256 = excluded.sha256, title = excluded.title,
    kind = excluded.kind, text = excluded.text, metadata = excluded.metadata, marks = excluded.marks, seal = excluded.seal
RETURNING number"""
SELECT_DOCUMENT = f"SELECT {_DOCUMENT}, seal FROM documents WHERE "

_CHUNK = 'id, title, text, start, "end", page, line, tokens, parent_start, parent_end, method, head'
INSERT_CHUNK = f"""
INSERT INTO chunks (vector_id, row, document, position, digest, {_CHUNK}, seal)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (vector_id) DO UPDATE SET position = excluded.position, page = excluded.page, line = excluded.line,
    parent_start = excluded.parent_start, parent_end = excluded.parent_end, seal = excluded.seal"""
_OF_CHUNK = ", ".join(f"chunks.{column}" for column in _CHUNK.split(", "))
SELECT_CHUNK = (
    f"SELECT chunks.row, documents.source, chunks.seal, {_OF_CHUNK} "
    "FROM chunks JOIN documents ON chunks.document = documents.number WHERE "
)


@dataclass(frozen=True)
class FileState:
    """What tells an unchanged file: size in bytes and time in nanoseconds, else the content's SHA-256."""

    source: str
    sha256: str
    size: int
    mtime: int
    settings: str
    """What else decides what is read of it, as JSON: the columns and the fields that the pipeline gives it."""
    skipped: str
    """What could not be read of it, in words; empty when nothing."""

    def values(self) -> tuple[str, str, int, int, str, str]:
        """In the order of the table's columns."""
        return (self.source, self.sha256, self.size, self.mtime, self.settings, self.skipped)


@dataclass(frozen=True)
class Standing:
    """What tells whose a document is: the hash of what it was read from, its file (None: a program gave it), and the pass that
    saw it last."""

    id: str
    file: str | None
    seen: int


def seal(values: tuple[Any, ...]) -> bytes:
    """Eight bytes that a changed row does not fit: BLAKE2b over its values."""
    return hashlib.blake2b(json.dumps(values, ensure_ascii=True).encode(), digest_size=8).digest()


def of_document(document: Document, file: str | None, current: int) -> tuple[Any, ...]:
    """The values of UPSERT_DOCUMENT."""
    marks = {
        "pages": document.pages,
        "headings": [[h.start, h.end, h.level, h.text] for h in document.headings],
        "lines": document.lines,
        "boxes": [list(asdict(box).values()) for box in document.boxes],
        "warnings": document.warnings,
        "first_line": document.first_line,
    }
    metadata = json.dumps(dict(document.metadata), ensure_ascii=False, sort_keys=True)
    row = (document.source, document.id, document.title, document.kind, document.text, metadata, json.dumps(marks))
    return (file, current, *row, seal(row))


def to_document(row: tuple[Any, ...], path: Path) -> Document:
    """The document of a row of SELECT_DOCUMENT.

    Raises:
        IndexError_: the row does not fit its seal.
    """
    *values, sealed = row
    if seal(tuple(values)) != sealed:
        raise damaged(path, f"document {values[0]}")
    source, identity, title, kind, text, metadata, marks = values
    found = json.loads(marks)
    return Document(
        identity,
        source,
        title,
        text,
        kind,
        json.loads(metadata),
        tuple(found["pages"]),
        tuple(Heading(*heading) for heading in found["headings"]),
        tuple(found["lines"]),
        tuple(Box(*box) for box in found["boxes"]),
        tuple(found["warnings"]),
        found["first_line"],
    )


def facts(number: int, metadata: Mapping[str, Value]) -> Iterator[tuple[int, str, float | None, str | None]]:
    """A document's fields as rows: numbers, true and false beside text; a list is a row for each value. What is no finite
    number cannot be filtered by.
    """
    for key, value in metadata.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                yield number, key, None, one
            elif (figure := kept(one)) is not None:
                yield number, key, figure, None


def of_chunk(chunk: Chunk, identity: int, row: int, document: int, position: int, digest: bytes) -> tuple[Any, ...]:
    """The values of INSERT_CHUNK."""
    first, last = chunk.parent or (None, None)
    own = (
        chunk.id,
        chunk.title,
        chunk.text,
        chunk.start,
        chunk.end,
        chunk.page,
        chunk.line,
        chunk.tokens,
        first,
        last,
        chunk.method,
        chunk.head,
    )
    return (identity, row, document, position, digest, *own, seal((chunk.source, *own)))


def to_chunk(row: tuple[Any, ...], path: Path) -> tuple[int, Chunk]:
    """The row in vectors.bin and the passage of a row of SELECT_CHUNK.

    Raises:
        IndexError_: the row does not fit its seal.
    """
    place, source, sealed, *own = row
    if seal((source, *own)) != sealed:
        raise damaged(path, f"a passage of {source}")
    identity, title, text, start, end, page, line, tokens, first, last, method, head = own
    parent = None if first is None else (first, last)
    return place, Chunk(identity, source, title, text, start, end, page, line, tokens, parent, method, head)


def damaged(path: Path, what: str) -> IndexError_:
    """The error for something in a generation's database that is not as it was written."""
    return IndexError_(f"{path / 'index.sqlite'} is damaged ({what}). Rebuild it: llmbench index build PIPELINE --rebuild")
