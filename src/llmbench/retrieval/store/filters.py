"""Filters on a document's fields, as one SQL condition: `{"year": {"$gte": 2024}, "kind": "pdf"}`.

The words are MongoDB's, which most vector stores share. A field that a document lacks matches nothing but `$ne`, `$nin`,
`$exists: false` and `$not`; one that holds a list fits where one of its values does. `source`, `title` and `kind` are fields of
every document; one of its metadata of such a name is `metadata.source`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmbench.errors import LlmbenchError

__all__ = ["Filter", "asked", "kept"]

_COMPARE = {"$eq": "=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$glob")
_COLUMNS = ("source", "title", "kind")

DEEPEST = 40
"""How deep filters may lie in each other: SQLite takes expressions up to 1000 deep, Python calls likewise."""
MOST = 5000
"""How many conditions a filter may have; the values of `$in` count as one. SQLite takes 32,766 places for values."""


@dataclass(frozen=True)
class Filter:
    """A condition on `documents.number`, with its values. Two filters are equal when they say the same."""

    sql: str
    values: tuple[str | float, ...]

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Filter:
        """Reads a filter.

        Raises:
            LlmbenchError: an unknown operator, or a value of a kind that it cannot take.
        """
        values: list[str | float] = []
        sql = _all(words, values, 0)
        if len(values) > 2 * MOST:
            raise _wrong(f"it has over {MOST} conditions; $in takes any number of values at once")
        return cls(sql, tuple(values))

    @property
    def fits_all(self) -> bool:
        """Whether it has no condition."""
        return self.sql == "1"


def asked(words: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The metadata fields that a valid filter compares, each with the kind of its value: `text` or `numbers`."""
    for key, value in words.items():
        if key in ("$and", "$or"):
            for one in value:
                yield from asked(one)
        elif key == "$not":
            yield from asked(value)
        elif key not in _COLUMNS:
            operands = [one for how, one in value.items() if how != "$exists"] if isinstance(value, Mapping) else [value]
            for operand in operands:
                for one in [operand] if isinstance(operand, str) or not isinstance(operand, Sequence) else operand:
                    yield _name(key), "text" if isinstance(one, str) else "numbers"


def _all(words: Any, values: list[str | float], depth: int) -> str:
    if not isinstance(words, Mapping):
        raise _wrong(f"{words!r} is not a mapping of fields")
    if depth > DEEPEST:
        raise _wrong(f"filters are nested more than {DEEPEST} deep")
    return _joined("AND", [_one(str(key), value, values, depth) for key, value in words.items()]) if words else "1"


def _joined(sign: str, parts: Sequence[str]) -> str:
    """Conditions as one, in halves of halves: written in a row, a thousand of them are an expression a thousand deep."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return f"({_joined(sign, parts[:half])} {sign} {_joined(sign, parts[half:])})"


def _one(key: str, value: Any, values: list[str | float], depth: int) -> str:
    match key:
        case "$and" | "$or":
            if not isinstance(value, Sequence) or isinstance(value, str) or not value:
                raise _wrong(f"{key} takes a list of filters")
            return _joined(key[1:].upper(), [_all(part, values, depth + 1) for part in value])
        case "$not":
            return f"NOT ({_all(value, values, depth + 1)})"
    if key.startswith("$"):
        raise _wrong(f"{key} is not an operator here. Use $and, $or, $not, or the name of a field")
    _text(key)
    if not isinstance(value, Mapping):
        value = {"$eq": value}
    if not value:
        raise _wrong(f"{key} has no condition")
    return _joined("AND", [_condition(key, str(operator), operand, values) for operator, operand in value.items()])


def _condition(field: str, operator: str, operand: Any, values: list[str | float]) -> str:
    match operator:
        case "$ne":
            return f"NOT {_condition(field, '$eq', operand, values)}"
        case "$nin":
            return f"NOT {_condition(field, '$in', operand, values)}"
        case "$exists":
            if not isinstance(operand, bool):
                raise _wrong(f"{field}.$exists takes true or false")
            if field in _COLUMNS:
                return "1" if operand else "0"
            values += [_name(field)] * 2  # one question of each partial index
            texts, numbers = (
                f"SELECT document FROM facts WHERE key = ? AND {column} IS NOT NULL" for column in ("text", "number")
            )
            return f"{'' if operand else 'NOT '}documents.number IN ({texts} UNION ALL {numbers})"
        case "$in":
            if not isinstance(operand, Sequence) or isinstance(operand, str):
                raise _wrong(f"{field}.$in takes a list")
            return _among(field, operand, values)
        case "$glob":
            if not isinstance(operand, str):
                raise _wrong(f"{field}.$glob takes a pattern")
            return _compare(field, "text", "GLOB ?", _value(field, operator, operand), values)
        case "$eq" | "$gt" | "$gte" | "$lt" | "$lte":
            value = _value(field, operator, operand)
            column = "text" if isinstance(value, str) else "number"
            return _compare(field, column, f"{_COMPARE[operator]} ?", value, values)
    raise _wrong(f"{field}.{operator} is not an operator. Available: {', '.join(_OPERATORS)}")


def _among(field: str, operand: Sequence[Any], values: list[str | float]) -> str:
    """`$in`: all texts as one value, all numbers as another, since lists of permitted documents are long."""
    wanted = [_value(field, "$in", one) for one in operand]
    parts = []
    for column, kind in (("text", str), ("number", int)):
        some = [value for value in wanted if isinstance(value, kind) and not _single(value)]
        if some:
            parts.append(_compare(field, column, "IN (SELECT value FROM json_each(?))", json.dumps(some), values))
    for value in wanted:
        if _single(value):
            parts.append(_compare(field, "text" if isinstance(value, str) else "number", "= ?", value, values))
    return _joined("OR", parts) if parts else "0"


def _single(value: str | float) -> bool:
    """What SQLite's JSON does not keep as it is: it rounds decimals once more, and ends a text at a zero byte."""
    return isinstance(value, float) or (isinstance(value, str) and "\0" in value)


def _compare(field: str, column: str, condition: str, operand: str | float, values: list[str | float]) -> str:
    if field in _COLUMNS:
        values.append(operand)
        return f"documents.{field} {condition}"
    values += [_name(field), operand]
    return f"documents.number IN (SELECT document FROM facts WHERE key = ? AND {column} {condition})"


def _name(field: str) -> str:
    """A field as metadata name it."""
    return field.removeprefix("metadata.")


def _value(field: str, operator: str, operand: Any) -> str | float:
    """What a field is compared with, as the database keeps it."""
    if isinstance(operand, str):
        return _text(operand)
    if isinstance(operand, int | float):
        if field in _COLUMNS:
            raise _wrong(f"{field} contains text, but {operand!r} is a number")
        number = kept(operand)
        if number is not None:
            return number
    raise _wrong(f"{field}.{operator} takes text, a number, true or false, not {operand!r}")


def _text(words: str) -> str:
    try:
        words.encode()
    except UnicodeEncodeError as error:
        raise _wrong(f"{words!r} is not text: it contains an unpaired surrogate") from error
    return words


def kept(number: float) -> float | None:
    """A number as the database keeps it: whole ones of up to 64 bits exactly, as ids are; None for what is not finite."""
    if isinstance(number, int):  # true and false are 1 and 0
        return int(number) if -(2**63) <= number < 2**63 else float(number) if abs(number) < 2**1023 else None
    return number if math.isfinite(number) else None


def _wrong(what: str) -> LlmbenchError:
    return LlmbenchError(f'filter: {what}. A filter looks like {{"year": {{"$gte": 2024}}, "kind": "pdf"}}.')
