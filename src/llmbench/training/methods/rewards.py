"""The reward functions of a GRPO recipe, as TRL calls them: every answer of a round at once, one number for each."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from llmbench import own_code
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.recipe import RewardFunction

__all__ = ["functions"]

Reward = Callable[..., list[float | None]]
_GIVEN = {"prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric"}
"""What TRL passes to every function beside the data's columns."""


def functions(specs: Sequence[RewardFunction], columns: Sequence[str]) -> list[Reward]:
    """The functions of a recipe, each with a name of its own; files of the user's are loaded here and nowhere else.

    Args:
        specs: the recipe's `grpo.reward_functions`.
        columns: what the rows have beside `prompt`.

    Raises:
        RecipeError: a column that is not there, a schema that is none.
        LlmbenchError: a user's file that does not load, or a function that asks for what is not there.
    """
    made: list[Reward] = []
    for spec in specs:
        if spec.column is not None and spec.column not in columns:
            known = ", ".join(columns) or "none except prompt"
            raise RecipeError(f"grpo.reward_functions: {spec.name} reads the column {spec.column}. The data has: {known}.")
        function = _function(spec, columns)
        same = sum(other.__name__.partition("-")[0] == spec.name for other in made)
        function.__name__ = f"{spec.name}-{same + 1}" if same else spec.name
        made.append(function)
    return made


def _function(spec: RewardFunction, columns: Sequence[str]) -> Reward:
    if spec.exact_match is not None:
        column, fold = spec.exact_match.column, spec.exact_match.ignore_case
        return _each(lambda text, _, row: float(_plain(text, fold) == _plain(row[column], fold)))
    if spec.regex is not None:
        pattern, group, against = re.compile(spec.regex.pattern), spec.regex.group, spec.regex.column
        return _each(lambda text, _, row: _found(pattern, group, text, None if against is None else str(row[against])))
    if spec.json_schema is not None:
        return _schema(spec.json_schema)
    if spec.length is not None:
        target, tolerance = spec.length.target, spec.length.tolerance
        return _each(lambda _, tokens, __: 1 - min(max(abs(tokens - target) - tolerance, 0) / target, 1.0))
    assert spec.function is not None
    return _own(spec.function, columns)


def _each(judge: Callable[[str, int, dict[str, Any]], float]) -> Reward:
    """A function of one answer (its text, its tokens, its row's columns) for all of them."""

    def reward(*, completions: list[Any], completion_ids: list[list[int]], **columns: Any) -> list[float | None]:
        lists = {name: values for name, values in columns.items() if isinstance(values, list)}
        return [
            judge(completion[0]["content"], len(ids), {name: values[i] for name, values in lists.items()})
            for i, (completion, ids) in enumerate(zip(completions, completion_ids, strict=True))
        ]

    return reward


def _plain(value: Any, fold: bool) -> str:
    text = str(value).strip()
    return text.casefold() if fold else text


def _found(pattern: re.Pattern[str], group: int, text: str, wanted: str | None) -> float:
    """1 when the pattern is in the text, and finds there what it finds in `wanted` (or what `wanted` is)."""
    found = pattern.search(text)
    if found is None or wanted is None:
        return float(found is not None)
    there = pattern.search(wanted)
    return float(_plain(found[group], False) == _plain(there[group] if there else wanted, False))


def _schema(schema: dict[str, Any]) -> Reward:
    from jsonschema import Draft202012Validator, SchemaError  # type: ignore[import-untyped]
    from referencing import Registry

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise RecipeError(f"grpo.reward_functions: json_schema is not a JSON schema ({error.message}).") from error
    validator = Draft202012Validator(schema, registry=Registry())  # an empty registry: no $ref is fetched from a network

    def judge(text: str, _: int, __: dict[str, Any]) -> float:
        try:
            value = json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            return 0.0
        return 1.0 if validator.is_valid(value) else 0.2

    return _each(judge)


def _own(reference: str, columns: Sequence[str]) -> Reward:
    """A function from a file of the user's, given of what TRL passes the names that it takes."""
    function, path = own_code.load(reference)
    name = function.__name__
    takes = inspect.signature(function).parameters
    every = any(parameter.kind is parameter.VAR_KEYWORD for parameter in takes.values())
    needed = [
        parameter.name
        for parameter in takes.values()
        if parameter.default is parameter.empty and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    missing = [name for name in needed if name not in _GIVEN and name not in columns]
    if missing:
        known = ", ".join([*sorted(_GIVEN), *columns])
        raise LlmbenchError(f"{path}: {name} needs {', '.join(missing)}, which the data does not have. Available: {known}.")

    def reward(**given: Any) -> list[float | None]:
        count = len(given["completions"])
        try:
            values = function(**(given if every else {key: value for key, value in given.items() if key in takes}))
        except Exception as error:
            raise LlmbenchError(f"{own_code.line(error, path)}: {name} failed ({type(error).__name__}: {error}).") from error
        if not isinstance(values, (list, tuple)) or len(values) != count:
            what = f"{len(values)} values" if isinstance(values, (list, tuple)) else f"a {type(values).__name__}"
            raise LlmbenchError(f"{path}: {name} returned {what}; it should return a list of {count} numbers, one per answer.")
        try:
            numbers = [None if value is None else float(value) for value in values]
        except (TypeError, ValueError) as error:
            raise LlmbenchError(f"{path}: {name} returned what is not a number ({error}).") from error
        if any(number is not None and not math.isfinite(number) for number in numbers):
            raise LlmbenchError(f"{path}: {name} returned a number that is not finite. Return None to skip an answer.")
        return numbers

    return reward
