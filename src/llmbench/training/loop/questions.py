"""The questions that a training is asked: the user's own, from a file, or the held-out rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbench import data
from llmbench.errors import DataError, RecipeError
from llmbench.recipe import TrainRecipe

__all__ = ["Question", "read"]

_READS = '{"question": ..., "answer": ...} or {"prompt": ..., "completion": ...}'
_IGNORED = -100


@dataclass(frozen=True)
class Question:
    """One question: where it stands, the tokens that the model is given, their text, and what is expected.

    `value` is the fact that the answer must hold; None where there is none to look for.
    """

    place: str
    ids: list[int]
    text: str
    answer: str | None
    value: str | None


def read(recipe: TrainRecipe, rows: data.Rows, tokenizer: Any, context: int | None) -> list[Question]:
    """The questions of a recipe's evaluation section; `limit` spreads its picks evenly over them.

    Raises:
        DataError: faulty rows, each with file and line, or none at all.
        RecipeError: a question and its answer together are longer than the model's context.
    """
    spec = recipe.evaluation
    assert spec is not None
    found = list(_own(spec.questions, tokenizer) if spec.questions is not None else _held_out(rows, tokenizer))
    if spec.limit is not None and spec.limit < len(found):
        found = [found[i * len(found) // spec.limit] for i in range(spec.limit)]
    for question in found:
        if context is not None and len(question.ids) + spec.max_new_tokens > context:
            raise RecipeError(
                f"evaluation.max_new_tokens: {question.place} has {len(question.ids):,} tokens, and "
                f"{spec.max_new_tokens:,} more pass the model's {context:,}. Lower it, or take the question out."
            )
    return found


def _held_out(rows: data.Rows, tokenizer: Any) -> Iterator[Question]:
    """Each held-out row up to its last learned stretch, which is the answer that is expected."""
    assert rows.eval is not None
    for number, row in enumerate(rows.eval, 1):
        ids, labels = list(row["input_ids"]), list(row["labels"])
        end = max(i for i, label in enumerate(labels) if label != _IGNORED) + 1
        start = next((i + 1 for i in range(end - 1, -1, -1) if labels[i] == _IGNORED), 0)
        if start == 0:
            continue  # plain text has no question before it
        answer = tokenizer.decode(ids[start:end], skip_special_tokens=True).strip()
        text = tokenizer.decode(ids[:start], skip_special_tokens=False)
        yield Question(f"held-out row {number}", ids[:start], text, answer, answer or None)


def _own(path: Path, tokenizer: Any) -> Iterator[Question]:
    faults, count = [], 0
    for place, row in _rows(path):
        try:
            question = _question(place, row, tokenizer)
        except ValueError as error:
            faults.append(f"{place}: {error}")
            continue
        count += 1
        yield question
    if faults:
        more = f" ({len(faults) - 1:,} more rows of this file cannot be used)" if len(faults) > 1 else ""
        raise DataError(faults[0] + more)
    if not count:
        raise DataError(f"{path}: no questions in it. Write one JSON object a line: {_READS}")


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # not splitlines(): JSON strings may hold U+2028
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). Name a file with one JSON object a line.") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise DataError(f"{path}:{number}: not valid JSON ({getattr(error, 'msg', 'nested too deeply')})") from error


def _question(place: str, row: Any, tokenizer: Any) -> Question:
    """Checks one row and writes it as the model reads it.

    Raises:
        ValueError: what is wrong with it.
    """
    if not isinstance(row, dict) or not ("question" in row or "prompt" in row):
        raise ValueError(f"a row is {_READS}")
    asked, answered = ("question", "answer") if "question" in row else ("prompt", "completion")
    turns = _turns(row, asked, "user")
    answer = " ".join(turn["content"] for turn in _turns(row, answered, "assistant")) if row.get(answered) is not None else None
    if answer is None and row.get("value") is None:
        raise ValueError(f"{answered} is missing, so nothing can be compared")
    value = row.get("value", answer)  # null: there is no such fact
    if value is not None and not (isinstance(value, (str, int, float)) and str(value).strip()):
        raise ValueError(f"value must be text, not {value!r}")
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        text = "\n".join(turn["content"] for turn in turns)
        ids = tokenizer(text)["input_ids"]
    return Question(place, list(ids), text, answer, None if value is None else str(value))


def _turns(row: dict[str, Any], key: str, role: str) -> list[dict[str, str]]:
    """A text as one turn, or a list of turns as it is."""
    value = row[key]
    turns = value if isinstance(value, list) else [{"role": role, "content": value}]
    for turn in turns:
        if not (isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)):
            raise ValueError(f"{key} must be text or a list of {{role, content}}")
        if not turn["content"].strip():
            raise ValueError(f"{key} is empty")
    if not turns:
        raise ValueError(f"{key} is empty")
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]
