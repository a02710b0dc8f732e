"""Citations against the stretches of documents that tell the answer."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from llmbench import scoring
from llmbench.compare.answers import Answer
from llmbench.compare.metrics.grounding import same_page
from llmbench.compare.metrics.values import each
from llmbench.questions import Question
from llmbench.recipe.metric_settings import CitedSpansMetric

__all__ = ["citation_precision", "citation_recall", "fault", "has_spans"]


class _Stretch(NamedTuple):
    source: str
    start: float
    end: float


@each
def citation_recall(question: Question, answer: Answer, spec: CitedSpansMetric) -> float | None:
    """The share of the evidence's spans that overlap with a passage which the answer cites as [n]. An answer that cites nothing
    has 0."""
    wanted = _wanted(question, spec)
    if not wanted:
        return None
    cited = _cited(answer)
    return sum(any(_meet(one, other) for other in cited) for one in wanted) / len(wanted)


@each
def citation_precision(question: Question, answer: Answer, spec: CitedSpansMetric) -> float | None:
    """The share of the passages cited as [n] that overlap with a span of the evidence; each passage counts once, and a number
    that is no passage counts as wrong. An answer that cites nothing has 0."""
    wanted = _wanted(question, spec)
    if not wanted:
        return None
    numbers = set(scoring.cited(answer.text))
    cited = _cited(answer)
    return sum(any(_meet(one, other) for one in wanted) for other in cited) / len(numbers) if numbers else 0.0


def has_spans(question: Question, spec: CitedSpansMetric) -> bool:
    """Whether a question's evidence is known."""
    return bool(question.columns.get(spec.spans))


def fault(question: Question, spec: CitedSpansMetric) -> str | None:
    """What is wrong with a question's spans."""
    given = question.columns.get(spec.spans)
    if not isinstance(given, list) or any(_stretch(one) is None for one in given):
        return f"{spec.spans} must be a list of {{source, start, end}}"
    return None


def _wanted(question: Question, spec: CitedSpansMetric) -> list[_Stretch]:
    given = question.columns.get(spec.spans)
    found = (_stretch(one) for one in given) if isinstance(given, list) else ()
    return [one for one in found if one is not None]


def _cited(answer: Answer) -> list[_Stretch]:
    """The passages that an answer cites, each once."""
    numbers = {str(number) for number in scoring.cited(answer.text)}
    found = (_stretch(passage) for passage in answer.sources if str(passage.get("n")) in numbers)
    return [one for one in found if one is not None]


def _stretch(value: Any) -> _Stretch | None:
    if not isinstance(value, dict) or not isinstance(value.get("source"), str):
        return None
    start, end = value.get("start"), value.get("end")
    if start is None and end is None:
        return _Stretch(value["source"], 0.0, math.inf)
    if not isinstance(start, int | float) or not isinstance(end, int | float) or not 0 <= start < end:
        return None
    return _Stretch(value["source"], float(start), float(end))


def _meet(one: _Stretch, other: _Stretch) -> bool:
    return one.start < other.end and other.start < one.end and same_page(one.source, other.source)
