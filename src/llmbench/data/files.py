"""Files of training rows -> conversations, each with its place (`file:line`) for messages.

A row holds `messages` (OpenAI's chat format), or `prompt` and `completion`, which become a user and an assistant turn.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmbench.errors import DataError
from llmbench.recipe import DataSource

__all__ = ["Conversation", "read", "taught"]

Conversation = list[dict[str, str]]

_ROLES = ("system", "developer", "user", "assistant", "tool")
_READS = "llmbench reads `messages`, or `prompt` and `completion`"
_OTHERS = {
    ("instruction", "output"): "Alpaca; write columns: {prompt: instruction, completion: output}",
    ("conversations",): "ShareGPT; rewrite its from/value as messages with role/content",
    ("chosen", "rejected"): "preferences, which no method here trains on yet",
    ("question", "answer"): "questions; write columns: {prompt: question, completion: answer}",
    ("text", "label"): "classification; write columns: {prompt: text, completion: label}",
    ("text",): "plain text, which has no assistant turn",
}


def taught(source: DataSource) -> tuple[list[Conversation], list[str]]:
    """The conversations that llmbench writes itself, drawn anew from their seed."""
    from itertools import islice

    from llmbench.tiny import lessons

    assert source.lessons is not None
    spec = source.lessons
    count = min(spec.conversations, source.limit or spec.conversations)
    talks = list(islice(lessons.conversations(spec.stage, spec.seed, budget=spec.characters), count))
    return talks, [f"lessons {spec.stage}: row {i}" for i in range(1, count + 1)]


def read(source: DataSource, path: Path) -> tuple[list[Conversation], list[str]]:
    """The conversations of one file and the place of each.

    Raises:
        DataError: no rows, unknown format, or a row that cannot be used; the message names the first and counts them.
    """
    conversations: list[Conversation] = []
    places: list[str] = []
    faults: list[str] = []
    for place, row in _rows(path):
        if source.limit is not None and len(conversations) + len(faults) == source.limit:
            break
        row = _renamed(row, source.columns, place)
        if not conversations and not faults:
            _check_format(row, place)
        try:
            conversations.append(_conversation(row))
            places.append(place)
        except ValueError as error:
            faults.append(f"{place}: {error}")
    if faults:
        more = f" ({len(faults) - 1:,} more rows of this file cannot be used)" if len(faults) > 1 else ""
        raise DataError(faults[0] + more)
    if not conversations:
        raise DataError(f"{path}: has no rows; {_READS}.")
    return conversations, places


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with its place."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder. Name a file: .jsonl, .json, .csv or .parquet.")
    try:
        match path.suffix.lower():
            case ".jsonl" | ".ndjson":
                yield from _jsonl(path)
            case ".json":
                yield from _json(path)
            case ".csv":
                yield from _csv(path)
            case ".parquet":
                yield from _parquet(path)
            case other:
                raise DataError(f"{path}: {other or 'no ending'} is not known. Name a .jsonl, .json, .csv or .parquet file.")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


def _jsonl(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                hint = " One row a line is needed; name the file .json if it is one list." if line.strip() in "[{" else ""
                raise DataError(f"{path}:{number}: not valid JSON: {error.msg} at column {error.colno}.{hint}") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: a row is an object with {_READS.split('reads ')[1]}, not {_kind(row)}")
            yield f"{path}:{number}", row


def _json(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        rows = json.loads(text) if text.strip() else []
    except json.JSONDecodeError as error:
        hint = " One row a line? Name it .jsonl." if error.msg == "Extra data" else ""
        raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}.{hint}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}:1: a .json file holds a list of rows, not {_kind(rows)}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise DataError(f"{path}: row {number}: a row is an object, not {_kind(row)}")
        yield f"{path}: row {number}", row


def _csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        line = 1
        try:
            for row in reader:
                start, line = line + 1, reader.line_num
                if None in row or None in row.values():
                    have = sum(value is not None for key, value in row.items() if key) + len(row.get(None) or ())
                    columns = len(reader.fieldnames or ())
                    raise DataError(f"{path}:{start}: {have} fields where the first line names {columns} columns")
                yield f"{path}:{start}", _parsed(row, f"{path}:{start}")
        except csv.Error as error:
            raise DataError(f"{path}:{line + 1}: not valid CSV: {error}") from error


def _parsed(row: dict[str, Any], place: str) -> dict[str, Any]:
    """A CSV row whose messages, written as a JSON string, are a list again."""
    result = dict(row)
    for key, value in row.items():
        if value.lstrip().startswith("[{"):
            try:
                result[key] = json.loads(value)
            except json.JSONDecodeError as error:
                if key == "messages":
                    raise DataError(f"{place}: messages is not valid JSON: {error.msg} at character {error.pos + 1}") from error
    return result


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        file = pyarrow.parquet.ParquetFile(path)
        number = 0
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}: row {number}", row
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a valid Parquet file ({str(error).splitlines()[0]})") from error


def _renamed(row: dict[str, Any], columns: dict[str, str], place: str) -> dict[str, Any]:
    """The row under the standard names."""
    for standard, name in columns.items():
        if name not in row:
            raise DataError(f"{place}: has no column {name} to take as {standard}. There are: {', '.join(map(str, row))}.")
        row = {key: value for key, value in row.items() if key not in (standard, name)} | {standard: row[name]}
    return row


def _check_format(row: dict[str, Any], place: str) -> None:
    """Raises when the first row has neither format, naming what it nearly is."""
    if "messages" in row or {"prompt", "completion"} <= row.keys():
        return
    columns = ", ".join(map(str, row)) or "none"
    near = next((text for keys, text in _OTHERS.items() if set(keys) <= row.keys()), None)
    if near is None:
        missing = next((name for name in ("prompt", "completion") if name not in row), "messages")
        one = {"prompt", "completion"} & row.keys()
        near = f"prompt/completion without its {missing}" if one else None
    hint = f" It looks like {near}." if near else " Name yours with columns: {prompt: ..., completion: ...}."
    raise DataError(f"{place}: columns are {columns}; {_READS}.{hint}")


def _conversation(row: dict[str, Any]) -> Conversation:
    """The row's turns.

    Raises:
        ValueError: what is wrong with the row.
    """
    if row.get("messages") is not None:
        turns = _messages(row["messages"], "messages")
    elif row.get("prompt") is not None and row.get("completion") is not None:
        turns = _side(row["prompt"], "prompt", "user") + _side(row["completion"], "completion", "assistant")
    else:
        missing = [name for name in ("messages", "prompt", "completion") if row.get(name) is None]
        raise ValueError(f"{' and '.join(missing)} missing; {_READS}")
    if not any(turn["role"] == "assistant" for turn in turns):
        raise ValueError("no assistant turn, so there is nothing to learn from this row")
    return turns


def _side(value: Any, name: str, role: str) -> Conversation:
    """A prompt or completion: text is one turn, a list is turns already."""
    if isinstance(value, list):
        return _messages(value, name)
    if not isinstance(value, str):
        raise ValueError(f"{name} should be text or a list of messages, not {_kind(value)}")
    return [{"role": role, "content": value}]


def _messages(value: Any, name: str) -> Conversation:
    if not isinstance(value, list):
        hint = " (in CSV: a JSON string that starts with `[{`)" if isinstance(value, str) else ""
        raise ValueError(f"{name} should be a list of {{role, content}}, not {_kind(value)}{hint}")
    turns: Conversation = []
    for i, message in enumerate(value):
        here = f"{name}[{i}]"
        if not isinstance(message, dict):
            raise ValueError(f"{here} should be {{role, content}}, not {_kind(message)}")
        if "from" in message and "value" in message:
            raise ValueError(f"{here} has from/value (ShareGPT); rename them to role/content")
        role, content = message.get("role"), message.get("content")
        if role not in _ROLES:
            raise ValueError(f"{here}.role should be one of {', '.join(_ROLES)}, not {role!r}")
        if not isinstance(content, str):
            raise ValueError(f"{here}.content should be text, not {_kind(content)}")
        others = [key for key, item in message.items() if key not in ("role", "content") and item is not None]
        if others:
            raise ValueError(f"{here} has {', '.join(map(str, others))}, which llmbench cannot train on; remove it")
        turns.append({"role": role, "content": content})
    return turns


def _kind(value: Any) -> str:
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
