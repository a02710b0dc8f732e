"""JSON at machine speed, and strictly: what a lenient parser would quietly change is an error that says so."""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

__all__ = ["parse"]

_KEY = re.compile(rb'(?<!\\)"\s*:')
_KEY_TEXT = re.compile(r'(?<!\\)"\s*:')
_LONG_NUMBER = re.compile(rb"[\[:,\s-]\d{19}")
_LONG_NUMBER_TEXT = re.compile(r"[\[:,\s-]\d{19}")


def parse(text: bytes | str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: not JSON, NaN or Infinity, half of a character, a key that stands twice, too deeply nested.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(_reason(text, error)) from None
    key, number = (_KEY, _LONG_NUMBER) if isinstance(text, bytes) else (_KEY_TEXT, _LONG_NUMBER_TEXT)
    # The fast parser keeps the last of two equal keys, and rounds whole numbers beyond 64 bits.
    if len(key.findall(text)) > _keys(value) or number.search(text):  # type: ignore[arg-type]
        return _strict(text)
    return value


def _keys(value: Any) -> int:
    """How many keys a value has, at all depths."""
    if isinstance(value, dict):
        return len(value) + sum(_keys(item) for item in value.values() if isinstance(item, (dict, list)))
    if isinstance(value, list):
        return sum(_keys(item) for item in value if isinstance(item, (dict, list)))
    return 0


def _strict(text: bytes | str) -> Any:
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} appears twice in one object")
    return result


def _reason(text: bytes | str, error: json.JSONDecodeError) -> str:
    """The parser's words where they are plain, else what it means."""
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as wrong:
            return (
                f"byte 0x{text[wrong.start]:02x} at column {wrong.start + 1} is not UTF-8. Write encoding: latin-1 "
                f"(or what it is) next to the path, or save the file as UTF-8"
            )
    here = f"at line {error.lineno}, column {error.colno}" if "\n" in text.strip() else f"at column {error.colno}"
    if re.match(r"-?(NaN|Infinity|inf|nan)", text[error.pos :]):
        return f"NaN and Infinity are no JSON, write null instead, {here}"
    if "surrogate" in error.msg:
        return f"half of a character (a lone surrogate such as \\ud83d), remove it, {here}"
    if "depth" in error.msg:
        return f"nested more than 1,000 deep, {here}"
    return f"{error.msg} {here}"
