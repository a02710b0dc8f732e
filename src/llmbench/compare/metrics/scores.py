"""Judging: which questions a recipe's metrics fit, and every answer's scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from llmbench.compare.answers import Cell
from llmbench.compare.metrics.values import Metric, Pair, Tools
from llmbench.errors import DataError, LlmbenchError
from llmbench.questions import Question
from llmbench.sandbox import SandboxFailed

__all__ = ["check", "scores"]

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
    faults = [
        f"{question.place}: {metric.name}: {words}"
        for metric in metrics
        for question in asked
        if metric.applies(question, metric.spec) and (words := metric.fault(question, metric.spec))
    ]
    if faults:
        more = [f"... and {len(faults) - _SHOWN} more faults"] if len(faults) > _SHOWN else []
        raise DataError("\n".join(faults[:_SHOWN] + more))


def scores(
    metrics: Sequence[Metric], pairs: Sequence[Pair], tools: Tools, step: Callable[[], None] = lambda: None
) -> Mapping[Cell, dict[str, float | None]]:
    """Each answer's scores by metric; an answer that failed has None for all.

    Args:
        metrics: those that judge single answers; others are passed over.
        pairs: every question with an answer.
        tools: what they may use; `notes` grows.
        step: called after each metric.

    Raises:
        LlmbenchError: this machine cannot judge so.
    """
    table: dict[Cell, dict[str, float | None]] = {answer.cell: {} for _, answer in pairs}
    given = [(question, answer) for question, answer in pairs if answer.error is None]
    for metric in metrics:
        if metric.judge is not None:
            for _, answer in pairs:
                table[answer.cell][metric.name] = None
            try:
                found = metric.judge(given, metric.spec, tools)
            except SandboxFailed as error:
                raise LlmbenchError(f"{metric.name}: {error}. Leave it out of `metrics`; the answers are saved.") from error
            for (_, answer), value in zip(given, found, strict=True):
                table[answer.cell][metric.name] = value
        step()
    return table
