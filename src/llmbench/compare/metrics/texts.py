"""Metrics of an answer's text alone. Each docstring is the definition that the report prints."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmbench import scoring
from llmbench.compare.answers import Answer
from llmbench.compare.metrics.grounding import without_citations
from llmbench.compare.metrics.values import Pair, Tools, each, expected
from llmbench.questions import Question
from llmbench.recipe.metric_settings import (
    ContainsMetric,
    ExactMetric,
    LengthMetric,
    RefusalMetric,
    RegexMetric,
    RepetitionMetric,
)
from llmbench.sandbox import SandboxProcess

__all__ = [
    "REFUSALS", "contains", "exact", "has_pattern", "length", "length_within", "patterns_tried", "refusal", "regex",
    "repetition", "too_long",
]  # fmt: skip

SECONDS = 2.0
"""Processor time for a pattern on one answer."""
REFUSALS = (
    r"\b(i('m| am)? (sorry|afraid|unable)|i (can('|no)t|can not|won't|will not|am not able to|am unable to)|as an ai\b|"
    r"unable to (help|assist|comply|provide)|(can't|cannot|can not) (help|assist|comply|provide|answer|fulfil))"
)
"""Common English wordings of a refusal, in the first 200 characters of an answer."""


@each
def exact(question: Question, answer: Answer, spec: ExactMetric) -> float | None:
    """The answer is one of the right ones, apart from case, spaces, final punctuation and citations; with `strict`, in every
    character but the spaces around it."""
    right = [str(one) for one in expected(question, spec.expected)]
    if not right:
        return None
    if spec.strict:
        return float(answer.text.strip() in {one.strip() for one in right})
    text = without_citations(answer.text)
    return float(any(scoring.same_sentence(text, without_citations(one)) for one in right))


@each
def contains(question: Question, answer: Answer, spec: ContainsMetric) -> float | None:
    """The answer holds one of the wanted texts (with `every`: all of them), as they stand; with `absent`, it does not."""
    wanted = list(spec.texts or map(str, expected(question, spec.expected)))
    if not wanted:
        return None
    text = answer.text
    if spec.ignore_case:
        text, wanted = text.casefold(), [one.casefold() for one in wanted]
    found = (all if spec.every else any)(one in text for one in wanted)
    return float(found != spec.absent)


def regex(pairs: Sequence[Pair], spec: RegexMetric, tools: Tools) -> list[float | None]:
    """The pattern is found in the answer (with `absent`: it is not). With `group`, what that group of the last find holds is
    one of the right answers, apart from spaces around it. Patterns run in a confined process, for two seconds an answer at
    most; answers on which that is too little are not measured, and the report counts them."""
    fitting = [pair for pair in pairs if has_pattern(pair[0], spec)]
    requests = [
        {"pattern": _pattern(q, spec), "flags": spec.flags, "group": spec.group, "text": answer.text} for q, answer in fitting
    ]
    answers = tools.sandbox.each("search", requests, SECONDS)
    scores: list[float | None] = []
    late = 0
    for question, _ in pairs:
        if not has_pattern(question, spec):
            scores.append(None)
            continue
        found = next(answers)
        late += found.limit is not None
        if found.limit is not None:
            scores.append(None)
        elif spec.group is None:
            scores.append(float((found.value is not None) != spec.absent))
        else:
            right = {str(one).strip() for one in expected(question, spec.expected)}
            scores.append(float((found.value or "").strip() in right) if right else None)
    too_long(tools, spec.called or "regex", late)
    return scores


def has_pattern(question: Question, spec: RegexMetric) -> bool:
    """Whether there is a pattern for a question, and a right answer where one is needed."""
    known = spec.column is None or question.columns.get(spec.column) is not None
    return known and (spec.group is None or bool(expected(question, spec.expected)))


def patterns_tried(asked: Sequence[Question], spec: RegexMetric, sandbox: SandboxProcess) -> list[str | None]:
    """What is wrong with patterns of a column."""
    requests = [
        {"pattern": _pattern(question, spec), "flags": spec.flags, "group": spec.group, "text": ""} for question in asked
    ]
    return [one.fault for one in sandbox.each("search", requests, SECONDS)]


def _pattern(question: Question, spec: RegexMetric) -> str:
    return str(question.columns.get(spec.column)) if spec.column is not None else str(spec.pattern)


def too_long(tools: Tools, name: str, count: int) -> None:
    """Notes how many answers could not be judged within the limits."""
    if count:
        which, are = ("1 answer takes", "is") if count == 1 else (f"{count:,} answers take", "are")
        tools.notes.append(f"{name}: {which} more time or memory to judge than allowed, and {are} left out.")


@each
def length(question: Question, answer: Answer, spec: LengthMetric) -> float | None:
    """How long the answer is, in words between spaces, in characters, or in tokens as the server counted them."""
    return _length(answer, spec)


@each
def length_within(question: Question, answer: Answer, spec: LengthMetric) -> float | None:
    """The answer is neither shorter than `least` nor longer than `most`, in the unit of the settings."""
    found = _length(answer, spec)
    return None if found is None else float(spec.least <= found <= (spec.most or found))


def _length(answer: Answer, spec: LengthMetric) -> float | None:
    match spec.unit:
        case "words":
            return float(len(answer.text.split()))
        case "characters":
            return float(len(answer.text))
    return float(answer.completion_tokens) if answer.prompt_tokens else None


def refusal(pairs: Sequence[Pair], spec: RefusalMetric, tools: Tools) -> list[float | None]:
    """The answer refuses: it is empty, or the pattern (by default: common English wordings) is found in its first 200
    characters. Less is better."""
    starts = [answer.text.strip()[:200].replace("\u2019", "'") for _, answer in pairs]
    if spec.pattern is None:
        return [float(not start or re.search(REFUSALS, start, re.IGNORECASE) is not None) for start in starts]
    requests = [{"pattern": spec.pattern, "flags": "i", "text": start} for start in starts]
    found = list(tools.sandbox.each("search", requests, SECONDS))
    too_long(tools, spec.called or "refusal", sum(one.limit is not None for one in found))
    return [
        None if one.limit is not None else float(not start or one.value is not None)
        for start, one in zip(starts, found, strict=True)
    ]


@each
def repetition(question: Question, answer: Answer, spec: RepetitionMetric) -> float | None:
    """1 minus distinct runs of `n` words over all of them: 0 where nothing is said twice, near 1 where an answer turns in
    circles. Answers of fewer than `n` words count 0."""
    words = answer.text.casefold().split()
    runs = [tuple(words[i : i + spec.n]) for i in range(len(words) - spec.n + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
