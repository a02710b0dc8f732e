"""Judging: which questions a recipe's metrics fit, and every answer's scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmbench.compare.answers import Answer, Place
from llmbench.compare.metrics.catalogue import every
from llmbench.compare.metrics.values import Metric, Pair, Tools
from llmbench.errors import DataError, LlmbenchError
from llmbench.questions import Question
from llmbench.recipe import CompareRecipe
from llmbench.sandbox import SandboxFailed, SandboxProcess

__all__ = ["addends", "check", "one_by_one", "scores"]

if TYPE_CHECKING:
    from llmbench.statistics.resampling import Addends

_SHOWN = 10


def check(metrics: Sequence[Metric], asked: Sequence[Question], path: Path) -> None:
    """Makes sure, before anything is asked, that the questions can be judged.

    Raises:
        DataError: no metric fits any question; a column that no question has; or faults of questions, each with its place.
    """
    known = list(dict.fromkeys(name for question in asked for name in question.columns))
    for metric in metrics:
        for column in metric.columns:
            if column not in known:
                there = ", ".join(known) or "none"
                raise DataError(f"{path}: {metric.name} reads the column {column}, which no row has (columns: {there}).")
    if not any(metric.applies(question, metric.spec) for metric in metrics for question in asked):
        raise DataError(
            f"{path}: none of {', '.join(one.name for one in metrics)} can be measured on these questions. "
            "Give them an `answer`, a `value` or a `source`, or add abstention to `metrics`."
        )
    if all(metric.measure.is_amount for metric in metrics):
        raise DataError(f"{', '.join(one.name for one in metrics)} says nothing of right or wrong. Add a metric that does.")
    faults = [line for metric in metrics for line in _faults(metric, asked)]
    if faults:
        more = [f"... and {len(faults) - _SHOWN} more faults"] if len(faults) > _SHOWN else []
        raise DataError("\n".join(faults[:_SHOWN] + more))


def one_by_one(recipe: CompareRecipe, name: str, asked: Sequence[Question]) -> Callable[[Question, Answer], float | None]:
    """What gives single answers their score by one metric of a recipe, as they come.

    Args:
        recipe: whose metric.
        name: of the metric, one that judges single answers.
        asked: every question that may be asked.
    """
    metric = next(one for one in every(recipe) if one.name == name)
    tools = Tools(recipe.abstention, SandboxProcess(), tuple(asked))

    def score(question: Question, answer: Answer) -> float | None:
        return scores([metric], [(question, answer)], tools)[answer.place][name]

    return score


def addends(metric: Metric, pairs: Sequence[Pair], tools: Tools) -> dict[str, Addends]:
    """What each variant's answers add to a metric of all questions together; variants without such an answer are left out.

    Args:
        metric: one with `whole`.
        pairs: every question with an answer.
        tools: what may be used; `notes` grows.
    """
    import numpy as np

    from llmbench.statistics.resampling import Addends

    assert metric.whole is not None
    given = [(question, answer) for question, answer in pairs if answer.error is None and metric.applies(question, metric.spec)]
    if not given:
        return {}
    made = metric.whole(given, metric.spec, tools)
    found = {}
    for variant in dict.fromkeys(answer.variant for _, answer in given):
        # An answer that adds nothing, such as one that states no confidence, was not measured.
        places: dict[str, list[int]] = {}
        for i, (question, answer) in enumerate(given):
            if answer.variant == variant and made.rows[i].any():
                places.setdefault(question.id, []).append(i)
        if places:  # of a question that was asked several times, the mean
            rows = np.array([made.rows[which].mean(axis=0) for which in places.values()])
            found[variant] = Addends(tuple(places), rows, made.value)
    return found


def _faults(metric: Metric, asked: Sequence[Question]) -> list[str]:
    """What is wrong with the questions that a metric should judge, a line each, with the place."""
    fitting = [question for question in asked if metric.applies(question, metric.spec)]
    told = [metric.fault(question, metric.spec) for question in fitting]
    if metric.prepare is not None and not any(told):
        with SandboxProcess() as sandbox:
            told = list(metric.prepare(fitting, metric.spec, sandbox))
    return [f"{question.place}: {metric.name}: {words}" for question, words in zip(fitting, told, strict=True) if words]


def scores(
    metrics: Sequence[Metric], pairs: Sequence[Pair], tools: Tools, step: Callable[[], None] = lambda: None
) -> Mapping[Place, dict[str, float | None]]:
    """Each answer's scores by metric; an answer that failed has None for all.

    Args:
        metrics: those that judge single answers; others are passed over.
        pairs: every question with an answer.
        tools: what they may use; `notes` grows.
        step: called after each metric.

    Raises:
        LlmbenchError: this machine cannot judge so.
    """
    table: dict[Place, dict[str, float | None]] = {answer.place: {} for _, answer in pairs}
    given = [(question, answer) for question, answer in pairs if answer.error is None]
    for metric in metrics:
        if metric.judge is not None:
            for _, answer in pairs:
                table[answer.place][metric.name] = None
            try:
                found = metric.judge(given, metric.spec, tools)
            except SandboxFailed as error:
                raise LlmbenchError(f"{metric.name}: {error}. Leave it out of `metrics`; the answers are saved.") from error
            for (_, answer), value in zip(given, found, strict=True):
                table[answer.place][metric.name] = value
        step()
    return table
