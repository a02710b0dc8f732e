"""The language of an answer."""

from __future__ import annotations

from collections.abc import Sequence

from llmbench.compare.metrics.values import Pair, Tools
from llmbench.errors import MissingPackage
from llmbench.questions import Question
from llmbench.recipe.metric_settings import LanguageMetric
from llmbench.sandbox import SandboxProcess

__all__ = ["fault", "language", "tried"]

_SHORTEST = 20
_LONGEST = 10_000


def language(pairs: Sequence[Pair], spec: LanguageMetric, tools: Tools) -> list[float | None]:
    """The answer is in the right language: that of the settings, of a column, or else the one of its question, as py3langid
    tells it. Answers of fewer than 20 characters say too little and are not measured; nor are such questions, where they
    decide."""
    import py3langid

    def told(text: str) -> str | None:
        found: str = py3langid.classify(text[:_LONGEST])[0]
        return found if len(text.strip()) >= _SHORTEST else None

    asked: dict[str, str | None] = {}
    scores: list[float | None] = []
    for question, answer in pairs:
        if question.id not in asked:
            asked[question.id] = _wanted(question, spec) or told(question.question)
        wanted, found = asked[question.id], told(answer.text)
        scores.append(None if wanted is None or found is None else float(found == wanted))
    return scores


def tried(asked: Sequence[Question], spec: LanguageMetric, sandbox: SandboxProcess) -> list[str | None]:
    """Makes sure that languages can be told, before anything is asked."""
    try:
        import py3langid  # noqa: F401
    except ImportError as error:
        raise MissingPackage("compare", "py3langid", "compare") from error
    return [None] * len(asked)


def fault(question: Question, spec: LanguageMetric) -> str | None:
    """What is wrong with a column that names a language."""
    wanted = None if spec.column is None else question.columns.get(spec.column)
    if wanted is None or (isinstance(wanted, str) and len(wanted.strip()) == 2):
        return None
    return f"{spec.column} must be a code of two letters, such as en, not {str(wanted)[:20]!r}"


def _wanted(question: Question, spec: LanguageMetric) -> str | None:
    if spec.language is not None:
        return spec.language
    given = None if spec.column is None else question.columns.get(spec.column)
    return given.strip().lower() if isinstance(given, str) else None
