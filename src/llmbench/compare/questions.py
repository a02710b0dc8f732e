"""Which questions of a file a comparison asks."""

from __future__ import annotations

from llmbench import questions
from llmbench.questions import Question
from llmbench.recipe import QuestionSource

__all__ = ["read"]


def read(spec: QuestionSource) -> list[Question]:
    """The questions of the wanted split, in the file's order; `limit` spreads its picks evenly over them.

    Raises:
        DataError: faulty rows, each with file and line; no such split; or nothing left to ask.
    """
    return questions.spread(questions.of_split(questions.read(spec.path), spec.path, spec.split), spec.limit)
