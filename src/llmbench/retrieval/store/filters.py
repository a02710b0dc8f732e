"""Filters on a document's fields, as one SQL condition: `{"year": {"$gte": 2024}, "kind": "pdf"}`.

The words are MongoDB's, which most vector stores share. A field that a document lacks matches nothing but `$ne`, `$nin`,
`$exists: false` and `$not`. `source`, `title` and `kind` are fields of every document.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmbench.errors import LlmbenchError

__all__ = ["Filter"]

_COMPARE = {"$eq": "=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OPERATORS = ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists", "$glob")
_COLUMNS = ("source", "title", "kind")


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
        return cls(_all(words, values), tuple(values))


def _all(words: Any, values: list[str | float]) -> str:
    if not isinstance(words, Mapping):
        raise _wrong(f"{words!r} is not a mapping of fields")
    return " AND ".join(_one(str(key), value, values) for key, value in words.items()) or "1"


def _one(key: str, value: Any, values: list[str | float]) -> str:
    match key:
        case "$and" | "$or":
            if not isinstance(value, Sequence) or isinstance(value, str) or not value:
                raise _wrong(f"{key} takes a list of filters")
            return "(" + (" AND " if key == "$and" else " OR ").join(f"({_all(part, values)})" for part in value) + ")"
        case "$not":
            return f"NOT ({_all(value, values)})"
    if key.startswith("$"):
        raise _wrong(f"{key} is no operator at this place: $and, $or, $not, or the name of a field")
    if not isinstance(value, Mapping):
        value = {"$eq": value}
    if not value:
        raise _wrong(f"{key} has no condition")
    return "(" + " AND ".join(_condition(key, str(operator), operand, values) for operator, operand in value.items()) + ")"


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
            values.append(field)
            return f"{'' if operand else 'NOT '}documents.number IN (SELECT document FROM facts WHERE key = ?)"
        case "$in":
            if not isinstance(operand, Sequence) or isinstance(operand, str):
                raise _wrong(f"{field}.$in takes a list")
            return "(" + (" OR ".join(_condition(field, "$eq", one, values) for one in operand) or "0") + ")"
        case "$glob":
            if not isinstance(operand, str):
                raise _wrong(f"{field}.$glob takes a pattern")
            return _compare(field, "text", "GLOB", operand, values)
        case "$eq" | "$gt" | "$gte" | "$lt" | "$lte":
            if isinstance(operand, str):
                return _compare(field, "text", _COMPARE[operator], operand, values)
            if isinstance(operand, int | float):
                if field in _COLUMNS:
                    raise _wrong(f"{field} holds text; {operand!r} is a number")
                return _compare(field, "number", _COMPARE[operator], float(operand), values)
            raise _wrong(f"{field}.{operator} takes text, a number, true or false, not {operand!r}")
    raise _wrong(f"{field}.{operator} is no operator. There are {', '.join(_OPERATORS)}")


def _compare(field: str, column: str, sign: str, operand: str | float, values: list[str | float]) -> str:
    if field in _COLUMNS:
        values.append(operand)
        return f"documents.{field} {sign} ?"
    values += [field, operand]
    return f"documents.number IN (SELECT document FROM facts WHERE key = ? AND {column} {sign} ?)"


def _wrong(what: str) -> LlmbenchError:
    return LlmbenchError(f'filter: {what}. A filter looks like {{"year": {{"$gte": 2024}}, "kind": "pdf"}}.')
