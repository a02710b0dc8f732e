"""Scores every answer, and makes the figures of it all: estimates, paired differences, quantiles, verdict."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmbench import workspace
from llmbench.compare import grid, metrics, statistics
from llmbench.compare.answers import AnswerLog, Place
from llmbench.compare.classes import classes
from llmbench.compare.factors import experiment
from llmbench.compare.measures import Measure
from llmbench.compare.result import Comparison, Row
from llmbench.compare.verdict import verdict
from llmbench.errors import DataError, EndpointError
from llmbench.provenance import versions
from llmbench.questions import Question
from llmbench.recipe import CompareRecipe, StatisticsSpec
from llmbench.sandbox import SandboxProcess
from llmbench.statistics import Difference, Estimate
from llmbench.statistics.resampling import Addends
from llmbench.statistics.words import clustering

__all__ = ["measure"]

Table = dict[str, dict[str, dict[str, float]]]
"""Metric -> variant -> question id -> value."""


def measure(
    recipe: CompareRecipe,
    asked: Sequence[Question],
    log: AnswerLog,
    listed: Mapping[str, Mapping[str, Any]],
    progress: Callable[[int, int], None] = lambda done, total: None,
    judged: Mapping[Place, float] | None = None,
) -> Comparison:
    """Scores what the log holds of these questions and variants, and compares the variants.

    Args:
        recipe: which metrics, and how sure.
        asked: the questions.
        log: their answers.
        listed: what the endpoint lists about each variant.
        progress: called with steps done and in all, two a metric.
        judged: what judging models made of each answer.

    Raises:
        EndpointError: no variant answered anything.
        DataError: no wanted metric can be measured on the answers.
    """
    spec, chosen = recipe.statistics, metrics.every(recipe)
    measures, wanted = {metric.name: metric.measure for metric in chosen}, recipe.names
    steps = _Steps(progress, 2 * len(chosen))
    rows, whole, told, notes = _scored(asked, log, recipe, chosen, steps, judged or {})
    failed = _failed(rows, wanted)
    table = _table(rows, [name for name, one in measures.items() if not one.whole], wanted)
    groups = statistics.groups(asked, spec)
    estimates, differences = _figures(table, whole, measures, spec, groups, steps)
    promised = recipe.preregistration.metric if recipe.preregistration is not None else None
    judging = [name for name in estimates if not measures[name].is_amount]
    headline = next(iter(sorted(judging, key=lambda name: name != promised)), None)
    if headline is None and recipe.judge is not None:
        raise DataError(
            f"{recipe.source}: nothing that the judge replied could be read, or all of it failed: see judgements.jsonl in "
            f"{workspace.comparisons() / recipe.name}. The answers are saved."
        )
    if headline is None:
        raise DataError(
            f"{recipe.questions.path}: none of {', '.join(one.name for one in recipe.metrics)} can be measured on these "
            "answers (value_retrieved needs passages, which only variants with RAG return). Add another of the `metrics`."
        )
    square = grid.find(listed)
    single = not measures[headline].whole
    binary = measures[headline].kind == "share"
    cells = [table[headline][cell] for cell in square.cells] if square and single else []
    pairs = [one for one in differences if one.metric == headline]
    return Comparison(
        folder=workspace.comparisons() / recipe.name,
        created=time.time(),
        endpoint=recipe.endpoint.base_url if recipe.engine == "endpoint" else "engines started one after another",
        source=recipe.questions.path.name,
        split=recipe.questions.split,
        variants=tuple(wanted),
        questions=tuple(asked),
        headline=headline,
        verdict=verdict(measures[headline], estimates[headline], pairs, 1 - spec.confidence),
        estimates=estimates,
        kinds=_kinds(asked, table[headline], spec, groups, binary=binary) if single else {},
        differences=tuple(differences),
        quantiles={name: _quantiles(table[name]) for name in ("latency", "first_token")},
        grid=square,
        interaction=statistics.interaction(cells, spec, binary=binary, groups=groups) if cells else None,
        missing=sum(row.answer.error is not None for row in rows),
        confidence=spec.confidence,
        concurrency=recipe.concurrency,
        max_tokens=recipe.max_tokens,
        listing={variant: dict(entry) for variant, entry in listed.items()},
        versions={name: version for name, version in versions().items() if name in ("python", "platform", "llmbench")},
        rows=tuple(rows),
        failed=failed,
        experiment=experiment(recipe, rows, table, {name: measures[name].kind for name in table}, listed, groups),
        notes=(*notes, *clustering([question.id for question in asked], groups, pairs or list(estimates[headline].values()))),
        measures={name: measures[name] for name in estimates},
        classes=told,
    )


class _Steps:
    """Tells how far the measuring is."""

    def __init__(self, tell: Callable[[int, int], None], total: int) -> None:
        self._tell, self._total, self._done = tell, total, 0
        tell(0, total)

    def __call__(self) -> None:
        """One more is done."""
        self._done += 1
        self._tell(self._done, self._total)


def _figures(
    table: Table,
    whole: Mapping[str, Mapping[str, Addends]],
    measures: Mapping[str, Measure],
    spec: StatisticsSpec,
    groups: Mapping[str, str],
    step: Callable[[], None],
) -> tuple[dict[str, dict[str, Estimate]], list[Difference]]:
    """Each metric's estimates by variant, and the paired differences of all.

    The best variant by the first metric is the one that many variants are compared with.
    """
    estimates: dict[str, dict[str, Estimate]] = {}
    differences: list[Difference] = []
    best: str | None = None
    for name in measures:
        of = table.get(name, {})
        kind = {"binary": measures[name].kind == "share", "bounded": measures[name].kind == "score"}
        together = whole.get(name, {})
        if measures[name].whole:
            found = {v: statistics.whole_estimate(x, spec, groups) for v, x in together.items()}
        else:
            found = {v: statistics.estimate(x, spec=spec, groups=groups, **kind) for v, x in of.items()}
        if known := {variant: one for variant, one in found.items() if one is not None}:
            estimates[name] = known
            if best is None and not measures[name].is_amount:
                ahead = min if measures[name].less_is_better else max
                best = ahead(known, key=lambda variant: known[variant].mean)
            if measures[name].whole:
                differences += statistics.whole_differences(name, together, spec, groups, best)
            else:
                differences += statistics.differences(name, of, spec=spec, groups=groups, best=best, **kind)
        step()
    return estimates, differences


def _scored(
    asked: Sequence[Question],
    log: AnswerLog,
    recipe: CompareRecipe,
    chosen: Sequence[metrics.Metric],
    step: Callable[[], None],
    judged: Mapping[Place, float],
) -> tuple[list[Row], dict[str, dict[str, Addends]], dict[str, Any], list[str]]:
    """Every answer with its scores, question by question; what variants add to metrics of all questions together; what of
    labels was told; and what a reader has to know of the judging."""
    places = [(name, repeat) for name in recipe.names for repeat in range(recipe.repeats)]
    cells = [(question, log.answer((question.id, name), repeat)) for question in asked for name, repeat in places]
    pairs = [(question, answer) for question, answer in cells if answer is not None]
    with SandboxProcess() as sandbox:
        tools = metrics.Tools(recipe.abstention, sandbox, tuple(asked), judged=judged)
        found = metrics.scores(chosen, pairs, tools, step)
        whole = {one.name: metrics.addends(one, pairs, tools) for one in chosen if one.measure.whole}
        told = classes(chosen, pairs, whole, tools)
    return [Row(question, answer, found[answer.place]) for question, answer in pairs], whole, told, tools.notes


def _failed(rows: Sequence[Row], variants: Sequence[str]) -> dict[str, str]:
    """The variants without an answer, each with its first error."""
    failed: dict[str, str] = {}
    answered = {row.answer.variant for row in rows if row.answer.error is None}
    for row in rows:
        if row.answer.variant not in answered:
            failed.setdefault(row.answer.variant, str(row.answer.error))
    if not answered:
        variant = next(iter(failed), variants[0])
        who = f"{variant} answered" if len(variants) == 1 else "No variant answered"
        which = "no" if len(variants) == 1 else "any"
        raise EndpointError(f"{who} {which} question: {failed.get(variant)} (run the same command again to retry)")
    return failed


def _kinds(
    asked: Sequence[Question],
    of: Mapping[str, Mapping[str, float]],
    spec: StatisticsSpec,
    groups: Mapping[str, str],
    *,
    binary: bool,
) -> dict[str, dict[str, Estimate]]:
    """The headline metric on answerable and on unanswerable questions alone; empty if it was measured on one kind only."""
    result: dict[str, dict[str, Estimate]] = {}
    for kind, told in (("answerable", True), ("unanswerable", False)):
        ids = {question.id for question in asked if question.answerable is told}
        some = {variant: {id: x for id, x in values.items() if id in ids} for variant, values in of.items()}
        found = {v: statistics.estimate(x, binary=binary, bounded=True, spec=spec, groups=groups) for v, x in some.items()}
        if known := {variant: one for variant, one in found.items() if one is not None}:
            result[kind] = known
    return result if len(result) == 2 else {}


def _table(rows: Sequence[Row], names: Sequence[str], variants: Sequence[str]) -> Table:
    """The means over repeats."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {name: {variant: {} for variant in variants} for name in names}
    for row in rows:
        for name, value in row.scores.items():
            if value is not None and math.isfinite(value):
                found[name][row.answer.variant].setdefault(row.question.id, []).append(value)
    return {
        name: {variant: {id: sum(x) / len(x) for id, x in values.items()} for variant, values in of.items()}
        for name, of in found.items()
    }


def _quantiles(of: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    result: dict[str, dict[str, float]] = {}
    for variant, values in of.items():
        found = {key: statistics.quantile(list(values.values()), share) for key, share in (("p50", 0.5), ("p95", 0.95))}
        result[variant] = {key: value for key, value in found.items() if value is not None}
    return result
