"""Files of rows, where every row is a document: JSONL, CSV, TSV and Parquet, read in batches of bounded size."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from llmbench import rows
from llmbench.retrieval.documents import Unreadable, Value, shadowed
from llmbench.retrieval.reading.clean import Cleaner
from llmbench.retrieval.reading.formats.tables import divided
from llmbench.retrieval.reading.kinds import ROWS
from llmbench.retrieval.reading.text import decode, typed

__all__ = ["batches"]

BATCH = 256
"""Rows handed on at once, or fewer where they are long."""
BYTES = 2**20
"""Characters of text after which a batch is handed on."""
LONGEST = 16 * 2**20
"""Bytes of one line."""

Row = tuple[int, Mapping[str, Any] | str]
"""The line, or the number, of a row from 1; and its columns, or why it cannot be read."""


def batches(path: Path, columns: Mapping[str, Any], largest: int, suffix: str = "") -> Iterator[list[dict[str, Any]]]:
    """The documents of a file, `{"broken": why, "line": n}` where a row is none.

    Raises:
        Unreadable: the file is not such a file, or no row of it has a column that `metadata` names.
    """
    suffix = suffix or path.suffix.lower()
    is_csv = ROWS.get(suffix) == "csv"
    unmet, noted = set(columns.get("metadata") or ()), set[str]()
    batch: list[dict[str, Any]] = []
    size = 0
    for number, row in _rows(path, suffix):
        entry: dict[str, Any] = {"broken": row, "line": number}
        if not isinstance(row, str):
            unmet -= row.keys()
            entry = _document(number, row, columns, largest, is_csv=is_csv)
            notes = [note for note in shadowed(entry.get("metadata", ())) if note not in noted]  # once a file
            noted.update(notes)
            entry.get("warnings", []).extend(notes)
        batch.append(entry)
        size += len(str(entry.get("text", "")))
        if len(batch) >= BATCH or size >= BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
    if unmet:
        raise Unreadable(f"no row has a column {sorted(unmet)[0]}, which columns.metadata names")


def _rows(path: Path, suffix: str) -> Iterator[Row]:
    kind = ROWS.get(suffix, "")
    if kind == "parquet":
        yield from _parquet(path)
        return
    with path.open("rb") as stream:
        if kind != "csv" and _is_array(stream):
            yield from _array(stream.read(LONGEST * 16 + 1))
            return
        head = stream.read(2**16)
        stream.seek(0)
        if rows.wide(head) or (kind == "csv" and b"\0" in head):
            raise Unreadable("rows in UTF-16; save the file as UTF-8")
        yield from _csv(stream, head, suffix) if kind == "csv" else _jsonl(stream)


def _is_array(stream: BinaryIO) -> bool:
    head = stream.read(4096)
    stream.seek(0)
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _array(data: bytes) -> Iterator[Row]:
    """A JSON file that is one list; rows are counted."""
    if len(data) > LONGEST * 16:
        raise Unreadable(
            f"a JSON list of more than {LONGEST // 2**16} MiB; write a JSON value a line (JSONL), which is read row by row"
        )
    try:
        values = json.loads(decode(data))
    except ValueError as error:
        raise Unreadable(f"broken JSON ({error})") from None
    for number, value in enumerate(values, 1):
        yield number, value if isinstance(value, dict) else "no JSON object"


def _jsonl(stream: BinaryIO) -> Iterator[Row]:
    for number, line in rows.lines(_lines(stream)):
        if len(line) > LONGEST:
            yield number, f"longer than {LONGEST // 2**20} MiB"
            continue
        try:
            value = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError:
            yield number, "not UTF-8"
        except (ValueError, RecursionError) as error:
            yield number, f"not JSON ({str(error).split(':')[0]})"
        else:
            yield number, value if isinstance(value, dict) else "no JSON object"


def _csv(stream: BinaryIO, head: bytes, suffix: str) -> Iterator[Row]:
    """Rows with the first row's names. Encoding and delimiter are told by the first 64 KiB."""
    encoding = _encoding(head)
    found, named = divided(head.decode(encoding, "replace"), suffix)
    names: list[str] = []
    for number, record in rows.records(_decoded(stream, encoding), found, longest=LONGEST):
        if isinstance(record, csv.Error):
            if not names:
                raise Unreadable(f"broken CSV ({record})")
            yield number, f"broken CSV ({record})"
        elif named and number == 1:
            continue
        elif not names:
            names = rows.distinct([name.strip().lstrip("\ufeff") for name in record])
        else:
            yield number, rows.by_name(record, names)


def _decoded(stream: BinaryIO, encoding: str) -> Iterator[str]:
    for line in _lines(stream):
        if len(line) > LONGEST:
            raise Unreadable(f"a line of more than {LONGEST // 2**20} MiB")
        yield line.decode(encoding, "replace")


def _encoding(head: bytes) -> str:
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            head[: head.rfind(b"\n") + 1 or None].decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines; of one that is too long the beginning, longer than LONGEST, and not the rest."""
    while line := stream.readline(LONGEST + 1):
        yield line
        while len(line) > LONGEST and not line.endswith(b"\n"):
            rest = stream.readline(LONGEST)
            if not rest or rest.endswith(b"\n"):
                break


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise Unreadable("Parquet needs pyarrow, which is not installed (pip install 'llmbench[train]')") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for number, row in rows.unpacked(file.iter_batches(batch_size=BATCH, use_threads=False)):
                yield number, "not UTF-8" if row is None else row
    except pyarrow.ArrowException as error:
        raise Unreadable(f"broken Parquet ({str(error).splitlines()[0][:120]})") from None


def _document(number: int, row: Mapping[str, Any], columns: Mapping[str, Any], largest: int, *, is_csv: bool) -> dict[str, Any]:
    """One row as a document. Its id is the SHA-256 of its columns, sorted by name: the same row has the same id in any file."""

    def named(wanted: str | None, usual: Sequence[str]) -> str:
        return wanted if wanted is not None else next((name for name in usual if name in row), "")

    def broken(why: str) -> dict[str, Any]:
        return {"broken": why, "line": number}

    text_columns = columns.get("text") or [named(None, ("text", "contents", "content"))]
    text_columns = [text_columns] if isinstance(text_columns, str) else text_columns
    missing = [name for name in text_columns if name not in row]
    if missing:
        return broken(f"no column {missing[0] or 'text or contents'} (it has {', '.join(list(row)[:8])})")
    id_column, title_column = named(columns.get("id"), ("_id", "id")), named(columns.get("title"), ("title",))
    clean = Cleaner()
    text = "\n".join(part for name in text_columns if (part := clean(_shown(row[name]).replace("\r\n", "\n")).strip()))
    title = " ".join(clean(_shown(row.get(title_column))).split())
    if not text and not title:
        return broken("no text in it")
    if len(text) > largest:
        return broken(f"longer than {largest:,} characters")
    canonical = json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode("utf-8", "replace")
    chosen = columns.get("metadata")
    others = [name for name in row if name not in {*text_columns, id_column, title_column}] if chosen is None else chosen
    metadata: dict[str, Value] = {}
    warnings: list[str] = []
    for name in others:
        value = _value(row.get(name), clean, is_csv=is_csv)
        if value is not None:
            metadata[clean(name)] = value
        elif chosen is not None and row.get(name) not in (None, "", [], {}):
            warnings.append(f"its column {name} holds what cannot be filtered by")
    return {
        "name": f"#{name}" if (name := " ".join(clean(_shown(row.get(id_column))).split())) else f":{number}",
        "id": hashlib.sha256(canonical).hexdigest(),
        "line": number,
        "title": title,
        "text": text or title,
        "metadata": metadata,
        "warnings": [*clean.warnings, *warnings],
    }


def _value(value: object, clean: Cleaner, *, is_csv: bool) -> Value | None:
    """A cell as a field to filter by; None where it is none: no objects, no infinities, integers of 64 bits, short strings.

    Cells of CSV are text, which is told from numbers by its looks. Dates become ISO text.
    """
    match value:
        case bool():
            return value
        case int():
            return value if abs(value) < 2**63 else None
        case float() | Decimal():
            return float(value) if math.isfinite(value) else None
        case date() | time():
            return value.isoformat()
        case str():
            text = clean(value)
            return None if not 0 < len(value) <= 1000 else typed(text) if is_csv else text
        case list():
            parts = [_value(part, clean, is_csv=is_csv) for part in value]
            plain = [part for part in parts if part is not None and not isinstance(part, list)]
            return plain if plain and len(plain) == len(parts) else None
    return None


def _shown(value: object) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case list() if all(isinstance(part, str) for part in value):
            return "\n".join(value)
        case dict() | list():
            return json.dumps(value, ensure_ascii=False, default=str)
        case _:
            return str(value)
