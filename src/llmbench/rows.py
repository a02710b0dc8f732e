"""Rows of text and Arrow files as both training data and documents understand them: lines, CSV records, UTF-16, record batches.

What each makes of a row, and how strict it is, is its own (docs/decisions/017-rows.md). It imports the standard library alone,
because the process that reads documents starts with it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

__all__ = ["by_name", "distinct", "lines", "records", "repeated", "unpacked", "wide"]

Text = TypeVar("Text", str, bytes)


def lines(file: Iterable[Text]) -> Iterator[tuple[int, Text]]:
    """The lines that hold more than spaces, numbered from 1, without the byte order marks that joined files have among them."""
    for number, line in enumerate(file, 1):
        line = line.removeprefix(b"\xef\xbb\xbf") if isinstance(line, bytes) else line.removeprefix("\ufeff")
        if line.strip():
            yield number, line


def wide(first: bytes) -> str | None:
    """The encoding of a text of two bytes a character, by its first four: their mark, or the zero byte of the first letter."""
    if first[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if len(first) >= 4 and 0 in first[:4] and first[:4].count(0) < 3 and (first[0] == 0) != (first[1] == 0):
        return "utf-16-le" if first[1] == 0 else "utf-16-be"
    return None


def records(text: Iterable[str], dialect: type[csv.Dialect], *, longest: int) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """The records of a CSV file, each with the line on which it begins; those whose fields are all empty are left out.

    Args:
        text: its lines with their ends.
        dialect: the delimiter, and whether quotes must be as they should (`strict`).
        longest: characters of a field.

    A record that is no CSV comes as its error, and the next one follows.
    """
    csv.field_size_limit(longest)
    reader = csv.reader(text, dialect)
    while True:
        number = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, error
            continue
        if any(record):
            yield number, record


def by_name(record: Sequence[str], names: Sequence[str]) -> dict[str, str] | str:
    """A record by its columns, or why it has not as many fields as there are columns."""
    if len(record) != len(names):
        return f"{len(record)} fields where the first line names {len(names)} columns"
    return dict(zip(names, record, strict=True))


def repeated(names: Sequence[str]) -> str | None:
    """The first name that is there twice, if any; empty ones do not count."""
    return next((name for i, name in enumerate(names) if name and name in names[:i]), None)


def distinct(names: Sequence[str]) -> list[str]:
    """The names with a number behind each that was there before: `note`, `note 2`. Empty ones stay."""
    found: list[str] = []
    for name in names:
        number, new = 1, name
        while name and new in found:
            number += 1
            new = f"{name} {number}"
        found.append(new)
    return found


def unpacked(batches: Iterable[Any]) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The rows of Arrow record batches, numbered from 1; None for one whose text is not UTF-8."""
    number = 0
    for batch in batches:
        try:
            found = batch.to_pylist()
        except UnicodeDecodeError:
            found = [_decoded(batch.slice(i, 1)) for i in range(batch.num_rows)]
        for row in found:
            number += 1
            yield number, row


def _decoded(row: Any) -> dict[str, Any] | None:
    try:
        values: dict[str, Any] = row.to_pylist()[0]
    except UnicodeDecodeError:
        return None
    return values
