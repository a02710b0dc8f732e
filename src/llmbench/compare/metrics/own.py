"""A metric that a user wrote: a function in a file that the recipe names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llmbench import own_code
from llmbench.compare.metrics.values import Pair, Tools
from llmbench.errors import LlmbenchError
from llmbench.questions import Question
from llmbench.recipe.metric_settings import OwnMetric

__all__ = ["known_of", "own"]


def own(pairs: Sequence[Pair], spec: OwnMetric, tools: Tools) -> list[float | None]:
    """What the user's function gives for the answer's text and its question: a number of 0 to 1, more is better, or None
    where it does not apply; with `at_least`, whether the number is that high."""
    function, path = own_code.load(spec.function)
    name = spec.function.rpartition(":")[2]
    scores = []
    for question, answer in pairs:
        try:
            given = function(answer.text, known_of(question))
        except Exception as error:
            where = own_code.line(error, path)
            raise LlmbenchError(
                f"{where}: {name} failed on the answer of {answer.variant} to {question.id} ({type(error).__name__}: {error}). "
                "The answers are saved."
            ) from error
        score = _score(given)
        if score is not None and not 0 <= score <= 1:
            raise LlmbenchError(
                f"{path}: {name} returned {given!r:.60} for the answer of {answer.variant} to {question.id}; it should return "
                "a number of 0 to 1, or None. The answers are saved."
            )
        scores.append(score if score is None or spec.at_least is None else float(score >= spec.at_least))
    return scores


def known_of(question: Question) -> Mapping[str, Any]:
    """What a user's function is told of a question: its columns, and id, question, answer, value, values, source,
    answerable."""
    return {
        **question.columns,
        "id": question.id,
        "question": question.question,
        "answer": question.answer,
        "value": question.value,
        "values": list(question.wordings),
        "source": question.source,
        "answerable": question.answerable,
    }


def _score(given: Any) -> float | None:
    """The number; one that is out of range stands for what is none."""
    if given is None:
        return None
    if isinstance(given, bool | int | float) or hasattr(given, "__float__"):
        number = float(given)
        return number if math.isfinite(number) else -1.0
    return -1.0
