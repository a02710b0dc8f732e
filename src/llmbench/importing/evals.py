"""OpenAI Evals: samples with `input` and `ideal`, one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmbench.errors import RecipeError
from llmbench.importing.drafted_questions import DraftedQuestions
from llmbench.importing.foreign import text_of

__all__ = ["draft"]

_ROLES = {"system", "user", "assistant", "developer"}


def draft(file: Path) -> DraftedQuestions:
    """The samples as questions: `input` is asked, `ideal` (one, or several) is the value, further keys are columns.

    A sample of the Evals API (`item` beside `input`) gives its item's keys. The class of the eval stands in another file, so
    the metric is `contains` (Includes); the account names what others need.

    Raises:
        RecipeError: a line is no JSON object.
    """
    made = DraftedQuestions()
    # Not splitlines(): JSON strings may hold U+2028, which it would cut at.
    for number, line in enumerate(text_of(file).split("\n"), 1):
        if line.strip():
            _sample(_object(file, number, line), f"{file.name}:{number}", made)
    made.measure({"contains": {"expected": "value", "ignore_case": False}})
    if made.rows:
        why = (
            "stands in the registry's YAML: for Match take regex with column, for JsonMatch json_equal, for FuzzyMatch squad_em"
        )
        made.leave(file.name, "class", why)
    return made


def _object(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecipeError(f"{file}:{number}: not valid JSON ({error.msg} at column {error.colno})") from error
    except RecursionError as error:
        raise RecipeError(f"{file}:{number}: nested too deeply for a sample") from error
    if not isinstance(row, dict):
        raise RecipeError(f"{file}:{number}: a sample is a JSON object, not {type(row).__name__}")
    return row


def _sample(row: dict[str, Any], where: str, made: DraftedQuestions) -> None:
    flat = {**row.pop("item"), **row} if isinstance(row.get("item"), dict) else row
    asked = flat.pop("input", flat.pop("prompt", flat.pop("question", None)))
    turns = asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
    if not turns or not all(_is_turn(turn) for turn in turns):
        made.leave(where, "input", "is neither text nor a list of {role, content} with text")
        return
    ideal = flat.pop("ideal", flat.pop("answer", None))
    values = ideal if isinstance(ideal, list) else [ideal]
    texts = [str(one) for one in values if isinstance(one, str | int | float) and str(one).strip()]
    question: Any = (
        turns[0]["content"]
        if len(turns) == 1 and turns[0]["role"] == "user"
        else [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    )
    if ideal is not None and len(texts) < len(values):
        made.leave(where, "ideal", "is not text, and stays a column")
        flat["ideal"] = ideal
    made.rows.append(
        {"id": f"sample-{len(made.rows) + 1}", "prompt": question, **({"value": texts} if texts else {}), **_columns(flat)}
    )


def _is_turn(turn: Any) -> bool:
    return (
        isinstance(turn, dict)
        and turn.get("role") in _ROLES
        and isinstance(turn.get("content"), str)
        and bool(turn["content"].strip())
    )


def _columns(flat: dict[str, Any]) -> dict[str, Any]:
    """Keys that would mean something else in a question file get a name of their own."""
    taken = {"id", "prompt", "completion", "question", "answer", "value", "source", "answerable", "split", "group"}
    return {f"sample_{key}" if key in taken else key: value for key, value in flat.items()}
