"""promptfoo's asserts as metrics: what a test asks of an answer goes into columns of its row."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmbench.importing.drafted_questions import DraftedQuestions

__all__ = ["VARIABLE", "Asserts", "filled"]

VARIABLE = re.compile(r"\{\{-?\s*([A-Za-z_][\w.]*)\s*-?\}\}")
"""`{{name}}`, the only part of a template that is filled in."""

_JUDGES = ("llm-rubric", "model-graded", "factuality", "answer-relevance", "context-", "similar", "g-eval", "classifier",
           "moderation", "select-best", "pi", "search-rubric", "conversation-relevance")  # fmt: skip
_CODE = ("javascript", "python", "ruby", "webhook")
_EXACT = {"ignore_case": False}
_MEASURED = {"latency": "latency", "cost": "cost"}
_SCORES = {"rouge-n": "rouge", "bleu": "bleu", "gleu": "bleu", "meteor": "rouge", "levenshtein": "edit_similarity"}


class Asserts:
    """Puts asserts into rows, and gathers the metrics that read them."""

    def __init__(self, made: DraftedQuestions) -> None:
        """Args:
        made: what grows.
        """
        self._made = made
        self._everywhere: dict[str, int] = {}
        self._handlers: dict[str, Callable[[str, dict[str, Any], Any], str | None]] = {
            "equals": self._equals,
            "contains": lambda where, row, value: self._texts(row, value, "contains", {"ignore_case": False, "every": True}),
            "icontains": lambda where, row, value: self._texts(row, value, "icontains", {"every": True}),
            "contains-all": lambda where, row, value: self._texts(
                row, value, "contains", {"ignore_case": False, "every": True}
            ),
            "icontains-all": lambda where, row, value: self._texts(row, value, "icontains", {"every": True}),
            "contains-any": lambda where, row, value: self._any(row, value, "contains_any", {"ignore_case": False}),
            "icontains-any": lambda where, row, value: self._any(row, value, "icontains_any", {}),
            "not-contains": lambda where, row, value: self._texts(row, value, "not_contains", _EXACT | {"absent": True}),
            "not-icontains": lambda where, row, value: self._texts(row, value, "not_icontains", {"absent": True}),
            "not-contains-any": lambda where, row, value: self._texts(row, value, "not_contains", _EXACT | {"absent": True}),
            "not-icontains-any": lambda where, row, value: self._texts(row, value, "not_icontains", {"absent": True}),
            "starts-with": lambda where, row, value: self._pattern(row, rf"\A{re.escape(str(value))}", "starts_with", {}),
            "regex": lambda where, row, value: self._pattern(row, str(value), "regex", {}),
            "not-regex": lambda where, row, value: self._pattern(row, str(value), "not_regex", {"absent": True}),
            "is-json": self._json,
            "contains-json": self._json,
            "not-is-refusal": self._no_refusal,
        }

    def add(self, where: str, wanted: Sequence[Any], row: dict[str, Any], variables: Mapping[str, Any]) -> None:
        """Puts the asserts of a test into its row; the others are left, each with a reason."""
        for one in wanted:
            if not isinstance(one, dict) or not isinstance(one.get("type"), str):
                self._made.leave(where, str(one)[:60], "is not an assert with a type")
                continue
            if one["type"] == "assert-set":
                inner = one.get("assert")
                self.add(where, inner if isinstance(inner, list) else [], row, variables)
                continue
            why = self._one(where, one, row, variables)
            if why is not None:
                self._made.leave(where, one["type"], why)
            for key in ("weight", "transform", "threshold", "contextTransform"):
                if why is None and one.get(key) is not None:
                    self._made.leave(where, f"{one['type']}.{key}", "has no counterpart")

    def finish(self) -> None:
        """A test of JSON that every row has is of whole answers; one that some have is of what stands in them."""
        rows = self._made.rows
        if rows and self._everywhere.get("is-json", 0) == len(rows):
            self._made.measure("json_valid")

    def _one(self, where: str, one: dict[str, Any], row: dict[str, Any], variables: Mapping[str, Any]) -> str | None:
        kind, value = one["type"], one.get("value")
        if isinstance(value, str):
            if value.startswith(("file://", "package:")):
                return "its value is a file, which is not read: write it into the test"
            value = filled(value, variables)
        if kind.removeprefix("not-").startswith(_JUDGES):
            return "needs a judging model"
        if kind.removeprefix("not-") in _CODE:
            return "is code, which is not run. Write it as a metric of your own: metric: file.py:function"
        if kind in _MEASURED:
            return f"{_MEASURED[kind]} is measured as an amount; its threshold is not kept"
        if kind in _SCORES:
            return f"its threshold is not kept; add {_SCORES[kind]}: {{expected: COLUMN}} for the score"
        handler = self._handlers.get(kind)
        if handler is None:
            return "has no counterpart"
        return handler(where, row, value)

    def _equals(self, where: str, row: dict[str, Any], value: Any) -> str | None:
        if value is None:
            return "has no value"
        if isinstance(value, dict | list):
            return self._once(row, "equals_json", value if isinstance(value, dict) else [value], "json_equal", {})
        return self._once(row, "equals", str(value), "exact_match", {"strict": True})

    def _once(self, row: dict[str, Any], column: str, value: Any, metric: str, settings: dict[str, Any]) -> str | None:
        if column in row and row[column] != value:
            return "stands twice in one test with different values; the first one counts"
        row[column] = value
        self._made.measure({metric: {"expected": column, **settings, "as": column}})
        return None

    def _texts(self, row: dict[str, Any], value: Any, column: str, settings: dict[str, Any]) -> str | None:
        texts = [str(one) for one in (value if isinstance(value, list) else [value]) if one is not None and str(one)]
        if not texts:
            return "has no value"
        row[column] = [*row.get(column, []), *texts]
        self._made.measure({"contains": {"expected": column, **settings, "as": column}})
        return None

    def _any(self, row: dict[str, Any], value: Any, column: str, settings: dict[str, Any]) -> str | None:
        if column in row:
            return "stands twice in one test; the first one counts"
        return self._texts(row, value, column, settings)

    def _pattern(self, row: dict[str, Any], pattern: str, column: str, settings: dict[str, Any]) -> str | None:
        try:
            re.compile(pattern)
        except re.error as error:
            return f"Python does not read the pattern ({error})"
        if column in row and row[column] != pattern:
            return "stands twice in one test; the first one counts"
        row[column] = pattern
        self._made.measure({"regex": {"column": column, **settings, "as": column}})
        return None

    def _json(self, where: str, row: dict[str, Any], value: Any) -> str | None:
        if isinstance(value, str) and value.strip():
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return "its schema is not JSON"
        self._everywhere["is-json"] = self._everywhere.get("is-json", 0) + ("json_form" not in row)
        row["json_form"] = value if isinstance(value, dict) else {}
        self._made.measure({"json_schema": {"column": "json_form", "as": "json_form"}})
        return None

    def _no_refusal(self, where: str, row: dict[str, Any], value: Any) -> str | None:
        self._made.measure("refusal")
        return None


def filled(template: str, variables: Mapping[str, Any]) -> str:
    """A template with its variables in place; one that is not known stays as it is."""

    def value(found: re.Match[str]) -> str:
        at: Any = variables
        for part in found[1].split("."):
            if not isinstance(at, Mapping) or part not in at:
                return found[0]
            at = at[part]
        return at if isinstance(at, str) else json.dumps(at, ensure_ascii=False)

    return VARIABLE.sub(value, template)
