"""Questions x variants -> answers -> metrics -> paired statistics -> verdict and report.

outputs/comparisons/NAME/
├── recipe.yaml     the recipe as resolved, every default written out
├── answers.jsonl   every answer with its scores
├── summary.json    the figures, for programs
└── report.html     the figures, for people
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, TypeVar

import yaml

from llmbench import workspace
from llmbench.compare import ask, grid, metrics, questions
from llmbench.compare.answers import AnswerLog, Scores, scored
from llmbench.compare.ask import Endpoint, Progress, Tally
from llmbench.compare.questions import Question
from llmbench.compare.result import Comparison, Difference, Estimate, Row
from llmbench.endpoint import HttpEndpoint
from llmbench.errors import DataError, EndpointError, LlmbenchError, MissingPackage
from llmbench.recipe import CompareRecipe, StatisticsSpec
from llmbench.runs import versions

__all__ = ["Comparison", "Difference", "Estimate", "Progress", "Question", "Row", "Tally", "every", "load", "run"]

T = TypeVar("T")
Table = dict[str, dict[str, dict[str, float]]]
"""Metric -> variant -> question id -> value."""


def run(
    recipe: CompareRecipe, *, progress: Progress | None = None, fresh: bool = False, endpoint: Endpoint | None = None
) -> Comparison:
    """Asks what is not answered yet, measures, and writes the comparison's folder.

    Args:
        recipe: what to ask of whom.
        progress: called at the start and after each answer.
        fresh: forget the answers of an earlier time.
        endpoint: another one than the recipe's URL, for tests.

    Raises:
        DataError: the question file cannot be used.
        EndpointError: nobody answers, a variant is not served, or too many questions failed.
        LlmbenchError: another process is writing this comparison.
    """
    if find_spec("scipy") is None:  # Told before any question is asked, not after.
        raise MissingPackage("compare", "scipy", "compare")
    asked = questions.read(recipe.questions)
    folder = workspace.comparisons() / recipe.name
    with workspace.lock(folder, "comparison"):
        if fresh:
            for name in ("answers.jsonl", "summary.json", "report.html"):
                (folder / name).unlink(missing_ok=True)
        resolved = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        log = AnswerLog(folder / "answers.jsonl")
        listed = _wait_for(_answers(recipe, asked, log, progress, endpoint))
        workspace.write_text(folder / "recipe.yaml", resolved)  # Not before: an endpoint that is not there leaves nothing.
        comparison = _measure(recipe, asked, log, listed)
        _write(comparison, log)
    return comparison


def load(name: str) -> Comparison:
    """A finished comparison.

    Raises:
        LlmbenchError: there is none of this name; the message lists those there are.
    """
    folder = workspace.comparisons() / workspace.check_name(name, "comparison")
    if not (folder / "summary.json").exists():
        known = ", ".join(_names()) or "none yet"
        raise LlmbenchError(f"There is no finished comparison {name} (there are: {known}). Make one: llmbench compare RECIPE")
    try:
        values = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        by_id = {question["id"]: Question.from_json(question) for question in values["questions"]}
        rows = tuple(Row(by_id[a.id], a, scores) for a, scores in scored(folder / "answers.jsonl") if a.id in by_id)
        return Comparison.from_json(folder, values, rows)
    except (ValueError, TypeError, KeyError) as error:
        raise LlmbenchError(
            f"{folder / 'summary.json'} cannot be read ({type(error).__name__}: {error}). Run llmbench compare again: "
            "the answers are kept."
        ) from error


def every() -> list[Comparison]:
    """All finished comparisons that can be read, the newest first."""
    found = []
    for name in _names():
        with suppress(LlmbenchError):  # One of another version must not hide the rest; `load` says what is wrong with it.
            found.append(load(name))
    return sorted(found, key=lambda comparison: comparison.created, reverse=True)


def _names() -> list[str]:
    return sorted(path.parent.name for path in workspace.comparisons().glob("*/summary.json"))


def _wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Runs it to its end; in a thread of its own where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()


async def _answers(
    recipe: CompareRecipe, asked: Sequence[Question], log: AnswerLog, progress: Progress | None, endpoint: Endpoint | None
) -> dict[str, dict[str, Any]]:
    """Fills the log, and returns what the endpoint lists about each variant."""
    spec = recipe.endpoint
    async with HttpEndpoint(spec.base_url, api_key=os.environ.get(spec.api_key_env), timeout=spec.timeout) as http:
        listed = await ask.entries(endpoint or http, recipe.variants)
        await ask.ask(
            endpoint or http,
            asked,
            listed,
            log,
            base_url=spec.base_url,
            max_tokens=recipe.max_tokens,
            concurrency=recipe.concurrency,
            seed=recipe.statistics.seed,
            progress=progress,
        )
    return listed


def _measure(
    recipe: CompareRecipe, asked: Sequence[Question], log: AnswerLog, listed: Mapping[str, Mapping[str, Any]]
) -> Comparison:
    """Scores every answer, and the statistics of it all."""
    from llmbench.compare import statistics
    from llmbench.compare.verdict import verdict

    spec, names = recipe.statistics, [*recipe.metrics, *metrics.COST]
    rows = []
    for question in asked:
        for variant in recipe.variants:
            answer = log.answer((question.id, variant))
            if answer is not None:
                rows.append(Row(question, answer, metrics.score(question, answer, names, recipe.abstention)))
    _someone_answered(rows, recipe.variants)
    table = _table(rows, names, recipe.variants)
    estimates: dict[str, dict[str, Estimate]] = {}
    differences: list[Difference] = []
    for name, of in table.items():
        binary = name in metrics.QUALITY
        found = {v: statistics.estimate(x, binary=binary, spec=spec, salt=f"{name}/{v}") for v, x in of.items()}
        known = {variant: one for variant, one in found.items() if one is not None}
        if known:
            estimates[name] = known
            differences += statistics.differences(name, of, binary=binary, spec=spec)
    headline = next((name for name in recipe.metrics if name in estimates), None)
    if headline is None:
        raise DataError(
            f"{recipe.questions.path}: none of {', '.join(recipe.metrics)} can be measured on these questions. "
            "Give them an `answer`, a `value` or a `source`, or add abstention to `metrics`."
        )
    square = grid.find(listed)
    pairs = [one for one in differences if one.metric == headline]
    return Comparison(
        folder=workspace.comparisons() / recipe.name,
        created=time.time(),
        endpoint=recipe.endpoint.base_url,
        source=recipe.questions.path.name,
        split=recipe.questions.split,
        variants=tuple(recipe.variants),
        questions=tuple(asked),
        headline=headline,
        verdict=verdict(headline, estimates[headline], pairs, 1 - spec.confidence),
        estimates=estimates,
        kinds=_kinds(asked, table[headline], spec, binary=headline in metrics.QUALITY),
        differences=tuple(differences),
        quantiles={name: _quantiles(table[name]) for name in ("latency", "first_token") if name in estimates},
        grid=square,
        interaction=statistics.interaction([table[headline][cell] for cell in square.cells], spec) if square else None,
        missing=sum(row.answer.error is not None for row in rows),
        confidence=spec.confidence,
        concurrency=recipe.concurrency,
        max_tokens=recipe.max_tokens,
        listing={variant: dict(entry) for variant, entry in listed.items()},
        versions={name: version for name, version in versions().items() if name in ("python", "platform", "llmbench")},
        rows=tuple(rows),
    )


def _kinds(
    asked: Sequence[Question], of: Mapping[str, Mapping[str, float]], spec: StatisticsSpec, *, binary: bool
) -> dict[str, dict[str, Estimate]]:
    """The headline metric on answerable and on unanswerable questions alone; empty if it was measured on one kind only."""
    from llmbench.compare.statistics import estimate

    result: dict[str, dict[str, Estimate]] = {}
    for kind, told in (("answerable", True), ("unanswerable", False)):
        ids = {question.id for question in asked if question.answerable is told}
        found = {
            v: estimate({i: x for i, x in values.items() if i in ids}, binary=binary, spec=spec) for v, values in of.items()
        }
        if known := {variant: one for variant, one in found.items() if one is not None}:
            result[kind] = known
    return result if len(result) == 2 else {}


def _someone_answered(rows: Sequence[Row], variants: Sequence[str]) -> None:
    for variant in variants:
        of = [row.answer for row in rows if row.answer.variant == variant]
        if all(answer.error is not None for answer in of):
            raise EndpointError(f"{variant} answered no question: {of[0].error} (run the same command to ask again)")


def _table(rows: Sequence[Row], names: Sequence[str], variants: Sequence[str]) -> Table:
    table: Table = {name: {variant: {} for variant in variants} for name in names}
    for row in rows:
        for name, value in row.scores.items():
            if value is not None:
                table[name][row.answer.variant][row.question.id] = value
    return table


def _quantiles(of: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    from llmbench.compare.statistics import quantile

    result: dict[str, dict[str, float]] = {}
    for variant, values in of.items():
        found = {key: quantile(list(values.values()), share) for key, share in (("p50", 0.5), ("p95", 0.95))}
        result[variant] = {key: value for key, value in found.items() if value is not None}
    return result


def _write(comparison: Comparison, log: AnswerLog) -> None:
    from llmbench.compare.report import html

    scores: dict[tuple[str, str], Scores] = {row.answer.cell: row.scores for row in comparison.rows}
    log.finish(scores)
    workspace.write_text(comparison.report, html(comparison))
    workspace.write_json(comparison.summary, comparison.to_json())
