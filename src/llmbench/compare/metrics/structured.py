"""Answers in JSON: whether they are, whether they fit a schema, and which of their fields are right."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from llmbench.compare.answers import Answer
from llmbench.compare.metrics.texts import SECONDS, too_long
from llmbench.compare.metrics.values import Pair, Tools, each, expected
from llmbench.errors import MissingPackage
from llmbench.questions import Question
from llmbench.recipe.metric_settings import FieldsMetric, NamedMetric, SchemaMetric
from llmbench.sandbox import SandboxProcess

__all__ = [
    "NONE",
    "equal",
    "fields_fault",
    "has_schema",
    "json_equal",
    "json_fields",
    "json_schema",
    "json_valid",
    "parsed",
    "schema_fault",
    "schema_tried",
]

NONE = object()
"""What an answer holds that holds no JSON."""
_FENCE = re.compile(r"```[\w-]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_DEEPEST = 200


@each
def json_valid(question: Question, answer: Answer, spec: NamedMetric) -> float | None:
    """The answer is one JSON value and nothing else, apart from spaces and a fence of three backticks around it."""
    return float(parsed(answer.text, search=False) is not NONE)


def json_schema(pairs: Sequence[Pair], spec: SchemaMetric, tools: Tools) -> list[float | None]:
    """The answer holds a JSON value that fits the schema (draft 2020-12, or what its `$schema` names). The value is the whole
    answer, what stands in its first fence of three backticks, or the first object or list in it. Schemas are checked in a
    confined process; no `$ref` is fetched."""
    schemas = [_schema(question, spec) for question, _ in pairs]
    values = [parsed(answer.text) for _, answer in pairs]
    wanted = [(s, v) for s, v in zip(schemas, values, strict=True) if s is not None and v is not NONE]
    found = iter(list(tools.sandbox.each("schema", ({"schema": s, "value": v} for s, v in wanted), SECONDS)))
    scores: list[float | None] = []
    late = 0
    for schema, value in zip(schemas, values, strict=True):
        if schema is None:
            scores.append(None)
        elif value is NONE:
            scores.append(0.0)
        else:
            outcome = next(found)
            late += outcome.limit is not None
            scores.append(None if outcome.limit is not None else float(bool(outcome.value)))
    too_long(tools, spec.called or "json_schema", late)
    return scores


@each
def json_equal(question: Question, answer: Answer, spec: FieldsMetric) -> float | None:
    """The answer's JSON value is a right one: the same keys and values in whatever order of keys; 1 is 1.0, and true is not
    1. With `fields`, those alone must be equal. The value is found as for `json_schema`."""
    right = _rights(question, spec)
    if not right:
        return None
    value = parsed(answer.text)
    return float(any(all(_fields(value, one, spec)) for one in right))


@each
def json_fields(question: Question, answer: Answer, spec: FieldsMetric) -> float | None:
    """The share of fields that the answer's JSON value has right, the best of the right answers: those of `fields`, or every
    key of the right object. Compared as by `json_equal`."""
    right = [found for one in _rights(question, spec) if (found := _fields(parsed(answer.text), one, spec, each=True))]
    return max(sum(found) / len(found) for found in right) if right else None


def parsed(text: str, *, search: bool = True) -> Any:
    """The JSON value of an answer, or NONE.

    Args:
        text: the answer.
        search: whether the first object or list inside a longer text counts too.
    """
    stripped = text.strip()
    fence = _FENCE.search(stripped)
    whole = fence is not None and fence.span() == (0, len(stripped))
    candidates = [fence[1]] if fence is not None and (whole or search) else []
    for candidate in [stripped, *candidates]:
        try:
            return _bounded(json.loads(candidate))
        except (ValueError, RecursionError):
            continue
    return _first(stripped) if search else NONE


def has_schema(question: Question, spec: SchemaMetric) -> bool:
    """Whether a question's answer has a schema to fit."""
    return spec.column is None or question.columns.get(spec.column) is not None


def schema_fault(question: Question, spec: SchemaMetric) -> str | None:
    """What is wrong with a question's schema, by its kind; whether it is a schema is seen when it is used."""
    try:
        return None if isinstance(_schema(question, spec), dict | bool) else "a JSON schema is an object"
    except ValueError as error:
        return f"the schema is not valid JSON ({error})"


def schema_tried(asked: Sequence[Question], spec: SchemaMetric, sandbox: SandboxProcess) -> list[str | None]:
    """What is wrong with schemas, as their own rules have it."""
    if find_spec("jsonschema") is None:
        raise MissingPackage("compare", "jsonschema", "compare")
    found = sandbox.each("schema", ({"schema": _schema(question, spec)} for question in asked), SECONDS)
    return [one.fault or one.limit for one in found]


def fields_fault(question: Question, spec: FieldsMetric) -> str | None:
    """What is wrong with a right answer that is no JSON, or that lacks a field."""
    for one in expected(question, spec.expected):
        value = _json(one)
        if value is NONE:
            return f"the right answer {str(one)[:40]!r} is not valid JSON"
        missing = [name for name in spec.fields or () if _at(value, name) is NONE]
        if missing:
            return f"the right answer has no field {missing[0]}"
    return None


def equal(a: Any, b: Any, spec: FieldsMetric) -> bool:
    """Whether two JSON values say the same."""
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
        return a is b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return a == b or abs(a - b) <= spec.tolerance
    if isinstance(a, str) and isinstance(b, str):
        return a.strip().casefold() == b.strip().casefold() if spec.ignore_case else a == b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key], spec) for key in a)
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return _same_items(a, b, spec) if spec.ignore_order else all(equal(x, y, spec) for x, y in zip(a, b, strict=True))
    return False


def _same_items(a: Sequence[Any], b: Sequence[Any], spec: FieldsMetric) -> bool:
    left = list(b)
    for one in a:
        at = next((i for i, other in enumerate(left) if equal(one, other, spec)), None)
        if at is None:
            return False
        left.pop(at)
    return True


def _rights(question: Question, spec: FieldsMetric) -> list[Any]:
    found = (_json(one) for one in expected(question, spec.expected))
    return [one for one in found if one is not NONE]


def _json(value: Any) -> Any:
    """A column's value as it is; a text as the JSON in it."""
    return parsed(value, search=False) if isinstance(value, str) else value


def _fields(value: Any, right: Any, spec: FieldsMetric, *, each: bool = False) -> list[bool]:
    """Which fields are right; all together are one where none are named and `each` does not ask for single ones."""
    names = spec.fields
    if names is None and each and isinstance(right, dict) and right:
        return [isinstance(value, dict) and key in value and equal(value[key], one, spec) for key, one in right.items()]
    if names is None:
        return [value is not NONE and equal(value, right, spec)]
    return [(found := _at(value, name)) is not NONE and equal(found, _at(right, name), spec) for name in names]


def _at(value: Any, name: str) -> Any:
    """What stands at a dotted name; numbers count into lists."""
    for part in name.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return NONE
    return value


def _schema(question: Question, spec: SchemaMetric) -> Any:
    if spec.column is None:
        return spec.definition if spec.path is None else json.loads(spec.path.read_text(encoding="utf-8"))
    given = question.columns.get(spec.column)
    return json.loads(given) if isinstance(given, str) else given


def _bounded(value: Any) -> Any:
    """The value, unless it is deeper than anything that was asked for, or holds NaN or a number beyond floats."""
    level = [value]
    for _ in range(_DEEPEST):
        if any(isinstance(one, float) and not math.isfinite(one) for one in level):
            raise ValueError("a number that JSON does not have")
        level = [x for one in level if isinstance(one, dict | list) for x in (one.values() if isinstance(one, dict) else one)]
        if not level:
            return value
    raise RecursionError


def _first(text: str) -> Any:
    """The first object or list in a text; the first few places where one could begin are tried."""
    decoder = json.JSONDecoder()
    for found in list(re.finditer(r"[\[{]", text))[:20]:
        try:
            return _bounded(decoder.raw_decode(text, found.start())[0])
        except (ValueError, RecursionError):
            continue
    return NONE
