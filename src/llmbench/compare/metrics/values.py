"""What a metric is: how it judges answers, which questions it fits, and what is wrong with one that it cannot use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any

from llmbench.compare.answers import Answer, Place
from llmbench.compare.measures import Measure
from llmbench.questions import Question
from llmbench.recipe.metric_settings import NamedMetric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmbench.sandbox import SandboxProcess

__all__ = ["Judge", "Metric", "Pair", "Prepare", "Tools", "Totals", "Whole", "each", "expected", "has"]

Pair = tuple[Question, Answer]
"""A question with one answer to it that did not fail."""


@dataclass
class Tools:
    """What judging may use beside an answer."""

    abstention: str
    """The pattern of an answer that abstains."""
    sandbox: SandboxProcess
    """A confined process for patterns, schemas, queries and programs."""
    asked: tuple[Question, ...] = ()
    """Every question of the comparison, whether it was answered or not."""
    notes: list[str] = field(default_factory=list)
    """Sentences about the figures that a reader has to know; judging adds to them."""
    judged: Mapping[Place, float] = field(default_factory=dict)
    """What judging models made of each answer, 0 to 1."""


Judge = Callable[[Sequence[Pair], Any, Tools], list[float | None]]
"""Answers, settings, tools -> one number an answer, None where the metric does not apply. Its docstring is the definition."""


@dataclass(frozen=True)
class Totals:
    """A metric of all questions together, as a function of sums over questions: so every resample is one product of matrices.

    `rows` has shape (answers, k), one row of addends each; `value` takes sums of rows, shape (..., k), to values, shape (...).
    """

    rows: NDArray[np.float64]
    value: Callable[[NDArray[np.float64]], NDArray[np.float64]]


Whole = Callable[[Sequence[Pair], Any, Tools], Totals]
"""Answers that the metric applies to, settings, tools -> addends. The answers of all variants must come together."""
Prepare = Callable[[Sequence[Question], Any, "SandboxProcess"], Sequence[str | None]]
"""Questions, settings, sandbox -> what is wrong with each, seen by trying it out."""


def _fine(question: Question, spec: Any) -> str | None:
    return None


@dataclass(frozen=True)
class Metric:
    """One metric of a recipe.

    `applies` says whether a question can be judged at all, `fault` what is wrong with one that should be, in words.
    `columns` are the columns of the question file that it reads. A metric with `whole` has no `judge`.
    """

    measure: Measure
    spec: NamedMetric
    applies: Callable[[Question, Any], bool]
    judge: Judge | None = None
    whole: Whole | None = None
    fault: Callable[[Question, Any], str | None] = _fine
    prepare: Prepare | None = None
    columns: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.measure.name


def each(one: Callable[[Question, Answer, Any], float | None]) -> Judge:
    """The judge of all answers that one of a single answer makes."""

    @wraps(one)
    def judge(pairs: Sequence[Pair], spec: Any, tools: Tools) -> list[float | None]:
        return [one(question, answer, spec) for question, answer in pairs]

    return judge


def expected(question: Question, where: str | None) -> tuple[Any, ...]:
    """Every right answer of a question: texts, or whatever JSON values its column has; none where it is not known.

    Args:
        question: whose.
        where: `answer`, `value` or a column; None takes the value's wordings, else the answer.
    """
    match where:
        case None:
            return question.wordings or (() if question.answer is None else (question.answer,))
        case "answer" if question.answer is not None or "answer" not in question.columns:
            return () if question.answer is None else (question.answer,)
        case "value":
            return question.wordings
    found = question.columns.get(where)
    if found is None:
        return ()
    return tuple(found) if isinstance(found, list) else (found,)


def has(question: Question, spec: Any) -> bool:
    """Whether a right answer is known, for metrics that compare with one."""
    return bool(expected(question, spec.expected))
