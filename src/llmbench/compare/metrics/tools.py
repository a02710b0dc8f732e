"""Calls of tools that an answer makes, against those that are right."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llmbench.compare.answers import Answer
from llmbench.compare.metrics.structured import NONE, equal, parsed
from llmbench.compare.metrics.values import each
from llmbench.questions import Question
from llmbench.recipe.metric_settings import FieldsMetric, ToolsMetric

__all__ = ["fault", "has_calls", "tool_calls"]

_TAGGED = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_AS_IS = FieldsMetric()


class _Call(NamedTuple):
    name: str
    arguments: Mapping[str, Any]


@each
def tool_calls(question: Question, answer: Answer, spec: ToolsMetric) -> float | None:
    """The answer calls the right tools with the right arguments, and no other ones. An empty list of right calls asks for an
    answer that calls none.

    The answer's tool calls as the endpoint gives them; where it gives none, those in its text: JSON {name, arguments}, a list
    of them, what the OpenAI API calls tool calls, or <tool_call> tags. Their order counts with `ordered` only. `arguments:
    subset` allows further arguments, `names` any at all.
    """
    right = _calls(question.columns.get(spec.expected or "tool_calls"))
    if right is None:
        return None
    if answer.tool_calls:
        given: Sequence[_Call] = _calls(list(answer.tool_calls)) or [_Call("", {})] * len(answer.tool_calls)
    else:
        given = _given(answer.text)
    if len(given) != len(right):
        return 0.0
    if spec.ordered:
        return float(all(_same(a, b, spec) for a, b in zip(given, right, strict=True)))
    left = list(given)
    for one in right:
        at = next((i for i, other in enumerate(left) if _same(other, one, spec)), None)
        if at is None:
            return 0.0
        left.pop(at)
    return 1.0


def has_calls(question: Question, spec: ToolsMetric) -> bool:
    """Whether the right calls are known."""
    return question.columns.get(spec.expected or "tool_calls") is not None


def fault(question: Question, spec: ToolsMetric) -> str | None:
    """What is wrong with the right calls."""
    column = spec.expected or "tool_calls"
    return None if _calls(question.columns.get(column)) is not None else f"{column} is not a list of {{name, arguments}}"


def _given(text: str) -> Sequence[_Call]:
    tagged = _TAGGED.findall(text)
    if tagged:
        calls = [_calls(parsed(one)) for one in tagged]
        return [call for found in calls for call in (found or [_Call("", {})])]
    return _calls(parsed(text)) or ()


def _calls(value: Any) -> list[_Call] | None:
    """The calls that a JSON value is; None where it is something else."""
    if isinstance(value, str):
        value = parsed(value)
    if isinstance(value, dict) and "tool_calls" in value:
        value = value["tool_calls"]
    if isinstance(value, dict):
        value = [value]
    if value is NONE or not isinstance(value, list):
        return None
    calls = [_call(one) for one in value]
    return [call for call in calls if call is not None] if None not in calls else None


def _call(value: Any) -> _Call | None:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return None
    return _Call(value["name"], arguments) if isinstance(arguments, dict) else None


def _same(given: _Call, right: _Call, spec: ToolsMetric) -> bool:
    if given.name != right.name:
        return False
    if spec.arguments == "names":
        return True
    if spec.arguments == "equal" and given.arguments.keys() != right.arguments.keys():
        return False
    return all(key in given.arguments and equal(given.arguments[key], one, _AS_IS) for key, one in right.arguments.items())
