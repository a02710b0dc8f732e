"""Files -> rows, each with its number and its place (`file:line`) for messages. What a row means is in formats.

A row that is broken comes out as a fault, so that the reader may name it, count it or pass over it.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llmbench import rows
from llmbench.data.json_rows import parse
from llmbench.data.packed import PACKED, ending, opened
from llmbench.errors import DataError

__all__ = ["Fault", "Row", "kind", "read_file"]

_BATCH = 1000
_BINARY = (".parquet", ".arrow", ".feather", ".ipc")
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_LISTS = ("input_ids", "labels", "completion_mask", "assistant_masks", "history")


class Fault(NamedTuple):
    """Why a row cannot be used: a fixed phrase to count by, and the words for this row."""

    reason: str
    detail: str


class Row(NamedTuple):
    """One row of a source: its line (or its position, from 1), where that is, and its columns, or what is wrong with it."""

    number: int
    place: str
    values: dict[str, Any]
    fault: Fault | None = None
    filled: bool = False
    """Whether nulls inside its objects may stand for keys that other rows have, as in Parquet and Arrow."""


def read_file(path: Path, *, encoding: str = "utf-8", field: str | None = None) -> Iterator[Row]:
    """Each row of a file.

    Args:
        path: its ending tells what it holds.
        encoding: of text.
        field: of a .json file, the key under which its rows are.

    Raises:
        DataError: the file cannot be read at all, or its ending is not known.
    """
    try:
        _check_unicode(path, encoding)
        match ending(path):
            case ".jsonl" | ".ndjson":
                yield from _jsonl(path, encoding)
            case ".json":
                yield from _json(path, encoding, field)
            case ".csv":
                yield from _csv(path, encoding, ",")
            case ".tsv":
                yield from _csv(path, encoding, "\t")
            case ".parquet" | ".arrow" | ".feather" | ".ipc" if path.suffix.lower() in PACKED:
                raise DataError(
                    f"{path}: {ending(path)} files are packed inside already. Unpack it: its name ends with {ending(path)}."
                )
            case ".parquet":
                yield from _parquet(path)
            case ".arrow" | ".feather" | ".ipc":
                yield from _arrow(path)
            case ".txt":
                with _text(path, encoding) as file:
                    yield Row(1, str(path), {"text": file.read()})
            case other:
                known = "a .jsonl, .json, .csv, .tsv, .parquet, .arrow, .txt or .sqlite file"
                what = f"{other} files are not read" if other else "its name has no extension that says what it holds"
                raise DataError(f"{path}: {what}. Name {known}.")
    except UnicodeDecodeError as error:
        raise DataError(_undecodable(path, encoding, error)) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


def _check_unicode(path: Path, encoding: str) -> None:
    """Raises where text that is taken for UTF-8 is UTF-16: by its mark, or by the zero byte of its first letter."""
    if _signed(encoding) != "utf-8-sig" or ending(path) in _BINARY:
        return
    with opened(path) as file:
        name = rows.wide(file.read(4))
    if name is not None:
        raise DataError(f"{path}: is UTF-16, not UTF-8. Write encoding: {name} next to its path, or save it as UTF-8.")


def _jsonl(path: Path, encoding: str) -> Iterator[Row]:
    text: Any = opened(path) if _signed(encoding) == "utf-8-sig" else _text(path, encoding)
    with text as file:
        for number, line in rows.lines(file):
            place = f"{path}:{number}"
            try:
                row = parse(line)
            except ValueError as error:
                brackets = ("[", "{", b"[", b"{")
                hint = " Each row should be on one line." if line.strip() in brackets else ""
                if line.strip() in (brackets[0], brackets[2]):
                    hint += " If the file is one list, name it .json."
                if (b"\r" if isinstance(line, bytes) else "\r") in line.strip():
                    hint = r" Its lines end with CR alone, as on an old Macintosh: save it with LF (tr '\r' '\n')."
                yield Row(number, place, {}, Fault("not valid JSON", f"not valid JSON: {error}.{hint}"))
                continue
            if isinstance(row, dict):
                yield Row(number, place, row)
            else:
                yield Row(number, place, {}, Fault("not an object", _no_row(row)))


def _json(path: Path, encoding: str, field: str | None) -> Iterator[Row]:
    """A list of rows; or an object that holds it under `field`; or an object of rows, each under its own key."""
    with opened(path) as file:
        text = file.read().removeprefix(b"\xef\xbb\xbf").decode(encoding)
    try:
        found = parse(text) if text.strip() else []
    except ValueError as error:
        message = str(error)
        line = re.search(r"at line (\d+)", message)
        hint = " One row a line? Name it .jsonl." if _lines_of_json(text) else ""
        where = f"{path}:{line[1]}" if line else str(path)
        raise DataError(f"{where}: not valid JSON: {message}.{hint}") from error
    if field is not None:
        if not isinstance(found, dict) or field not in found:
            have = ", ".join(found) if isinstance(found, dict) else kind(found)
            raise DataError(f"{path}: has no field {field}. There are: {_short(have)}.")
        found = found[field]
    if _by_column(found):
        raise DataError(f"{path}: {_BY_COLUMN}")
    if isinstance(found, dict) and found and all(isinstance(row, dict) for row in found.values()):
        for number, (key, row) in enumerate(found.items(), 1):
            yield Row(number, f"{path}: {_short(key, 40)}", row)
        return
    if not isinstance(found, list):
        raise DataError(f"{path}:1: a .json file holds a list of rows, not {kind(found)}.{_where_rows_are(found)}")
    for number, row in enumerate(found, 1):
        place = f"{path}: row {number}"
        if isinstance(row, dict):
            yield Row(number, place, row)
        else:
            yield Row(number, place, {}, Fault("not an object", f"a row is an object, not {kind(row)}"))


_BY_COLUMN = "holds columns, each with all its values, not rows. Save it by rows: in pandas to_json(path, orient='records')."


def _by_column(value: Any) -> bool:
    """Whether an object holds columns, as pandas writes them: lists of one length, or values under the same row numbers."""
    if not isinstance(value, dict) or len(value) < 2:
        return False
    columns = list(value.values())
    if all(isinstance(column, list) for column in columns):
        return len({len(column) for column in columns}) == 1 and not any(isinstance(one, dict) for one in columns[0][:1])
    if not all(isinstance(column, dict) and column for column in columns):
        return False
    keys = [str(i) for i in range(len(columns[0]))]
    return all(list(column) == keys for column in columns)


def _where_rows_are(value: Any) -> str:
    if not isinstance(value, dict):
        return ""
    lists = [key for key, item in value.items() if isinstance(item, list) and (not item or isinstance(item[0], dict))]
    lists.sort(key=lambda key: not value[key])
    if lists:
        return f" Its rows may be under {lists[0]}: write field: {lists[0]} next to its path."
    return " If the object is the only row, put it in [ ]." if value else ""


def _no_row(value: Any) -> str:
    """What a line holds that is no row."""
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return "the line holds a list of rows; name the file .json"
    return f"a row is an object with columns, not {kind(value)}"


def _lines_of_json(text: str) -> bool:
    """Whether the first line is a whole JSON object, as in a .jsonl file."""
    first = text.lstrip().split("\n", 1)[0].strip()
    try:
        return isinstance(parse(first), dict)
    except ValueError:
        return False


def _csv(path: Path, encoding: str, delimiter: str) -> Iterator[Row]:
    dialect = type("_Strict", (csv.excel,), {"strict": True, "delimiter": delimiter})
    names: list[str] = []
    with _text(path, encoding, newline="") as file:
        for number, record in rows.records(file, dialect, longest=sys.maxsize):
            if isinstance(record, csv.Error):
                raise DataError(f"{path}:{number}: not valid CSV: {record}") from record
            if not names:
                names = record  # spaces around a name count: a recipe's columns that miss one are told which differs
                _check_header(path, number, names, delimiter)
                continue
            place, values = f"{path}:{number}", rows.by_name(record, names)
            if isinstance(values, str):
                yield Row(number, place, {}, Fault("wrong number of fields", values))
                continue
            try:
                yield Row(number, place, _cells(values))
            except ValueError as error:
                yield Row(number, place, {}, Fault("not valid JSON", str(error)))


def _check_header(path: Path, line: int, names: list[str], delimiter: str) -> None:
    """Raises for columns of one name, and for a first line that another sign separates."""
    if twice := rows.repeated(names):
        raise DataError(f"{path}:{line}: the column {twice} is there twice. Rename one of them.")
    other = next((sign for sign in _DELIMITERS if len(names) == 1 and sign != delimiter and sign in names[0]), None)
    if other is not None:
        way = "name it .tsv" if other == "\t" else "name it .csv" if other == "," else "save it with commas"
        raise DataError(
            f"{path}:{line}: its columns are separated by {_DELIMITERS[other]}, not {_DELIMITERS[delimiter]}: {way}."
        )


def _cells(row: dict[str, str]) -> dict[str, Any]:
    """A CSV row whose messages, written as a JSON string, are a list again."""
    result: dict[str, Any] = dict(row)
    for key, value in row.items():
        if value.lstrip().startswith("[{") or (key in _LISTS and value.startswith("[")):
            try:
                result[key] = parse(value)
            except ValueError as error:
                if key in ("messages", "conversations"):
                    raise ValueError(f"{key} is not valid JSON: {error}") from error
    return result


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        yield from _batches(path, pyarrow.parquet.ParquetFile(path).iter_batches(_BATCH))
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a valid Parquet file ({str(error).splitlines()[0]})") from error


def _arrow(path: Path) -> Iterator[Row]:
    """An Arrow file (Feather) or an Arrow stream, as data sets on disk have it."""
    import pyarrow
    import pyarrow.ipc

    try:
        with pyarrow.memory_map(str(path)) as file:
            try:
                reader = pyarrow.ipc.open_file(file)
                batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
            except pyarrow.ArrowInvalid:
                file.seek(0)
                batches = iter(pyarrow.ipc.open_stream(file))
            yield from _batches(path, (part for batch in batches for part in _slices(batch)))
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a valid Arrow file ({str(error).splitlines()[0]})") from error


def _slices(batch: Any) -> Iterator[Any]:
    for start in range(0, batch.num_rows, _BATCH):
        yield batch.slice(start, _BATCH)


def _batches(path: Path, batches: Iterator[Any]) -> Iterator[Row]:
    """The rows of record batches; one whose text is not UTF-8 is a fault of its own."""
    for number, row in rows.unpacked(batches):
        place = f"{path}: row {number}"
        if row is None:
            yield Row(number, place, {}, Fault("not UTF-8", "its text is not UTF-8; write the file again, or skip the row"))
        else:
            yield Row(number, place, row, filled=True)


def _text(path: Path, encoding: str, *, newline: str | None = None) -> io.TextIOWrapper:
    return io.TextIOWrapper(opened(path), encoding=_signed(encoding), newline=newline)


def _signed(encoding: str) -> str:
    """UTF-8 with or without a byte order mark."""
    return "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding


def _undecodable(path: Path, encoding: str, error: UnicodeDecodeError) -> str:
    """The line and the byte that are not text in this encoding."""
    what = f"byte 0x{error.object[error.start]:02x}"
    place = str(path)
    if "16" not in encoding and "32" not in encoding:
        with opened(path) as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode(encoding)
                except UnicodeDecodeError as here:
                    place, what = f"{path}:{number}", f"byte 0x{line[here.start]:02x} at column {here.start + 1}"
                    break
    name = "UTF-8" if encoding == "utf-8" else encoding
    return (
        f"{place}: is not {name} text ({what}). Write encoding: latin-1 (or what it is) next to its path, or save it as UTF-8."
    )


def kind(value: Any) -> str:
    """The value's type in JSON's words, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return type(value).__name__


def _short(text: str, length: int = 100) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
