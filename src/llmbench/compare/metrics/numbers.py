"""The metric of numbers."""

from __future__ import annotations

from llmbench.compare.answers import Answer
from llmbench.compare.metrics import quantities
from llmbench.compare.metrics.quantities import Quantity
from llmbench.compare.metrics.values import each, expected
from llmbench.questions import Question
from llmbench.recipe.metric_settings import NumericMetric

__all__ = ["fault", "numeric"]


@each
def numeric(question: Question, answer: Answer, spec: NumericMetric) -> float | None:
    """The answer's number is one of the right ones, within the tolerance.

    Which number counts: the one behind `####` or in `\\boxed{}`, else the last (or what `pick` says). Numbers are read in
    English notation: 1,234.5, 2/3, 1 1/2, 5e-3, 12 %, $40; a percentage may stand for a hundredth or for its bare number.
    With `unit`, the unit must be right too; those of length, mass, time, volume and data are converted into each other. An
    answer without a number is wrong.
    """
    right = [one for value in expected(question, spec.expected) if isinstance(one := quantities.of_value(value), Quantity)]
    if not right:
        return None
    given = _picked(answer.text, spec.pick)
    if given is None:
        return 0.0
    return float(any(quantities.same(given, one, spec.tolerance, relative=spec.relative, unit=spec.unit) for one in right))


def fault(question: Question, spec: NumericMetric) -> str | None:
    """What is wrong with a right answer that is no number."""
    wrong = [one for value in expected(question, spec.expected) if isinstance(one := quantities.of_value(value), str)]
    return wrong[0] if wrong else None


def _picked(text: str, pick: str) -> Quantity | None:
    if (mark := quantities.marked(text)) is not None:
        return mark
    numbers = list(quantities.found(text))
    if not numbers or (pick == "only" and len(set(numbers)) > 1):
        return None
    return numbers[0] if pick == "first" else numbers[-1]
