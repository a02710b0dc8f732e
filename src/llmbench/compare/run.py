"""Asks what is not answered yet, measures what was answered, and keeps both in the comparison's folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from llmbench import workspace, written
from llmbench.compare import judging, metrics, preregistration, prompts, questions
from llmbench.compare.answers import AnswerLog, Place, Scores, scored
from llmbench.compare.ask import Endpoint, Progress
from llmbench.compare.asking import Asking, AskingWatch, Starting
from llmbench.compare.energy import EnergyMeter, NvmlMeter, used
from llmbench.compare.passages import FILE, freeze
from llmbench.compare.result import Comparison, Row
from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.questions import Question
from llmbench.recipe import CompareRecipe

if TYPE_CHECKING:
    from llmbench.compare.stopping import Stopping

__all__ = ["every", "load", "remove", "run"]

_FILES = ("answers.jsonl", "summary.json", "report.html", FILE, judging.FILE)
"""What is made anew by `fresh`."""


def run(
    recipe: CompareRecipe,
    *,
    progress: Progress | None = None,
    measuring: Callable[[int, int], None] = lambda done, total: None,
    fresh: bool = False,
    endpoint: Endpoint | None = None,
    meter: EnergyMeter | None = None,
    starting: Starting | None = None,
    say: Callable[[str], None] | None = None,
    judged: Progress | None = None,
) -> Comparison:
    """Asks what is not answered yet, measures, and writes the comparison's folder.

    Args:
        recipe: what to ask of whom.
        progress: called at the start and after each answer.
        measuring: called with steps done and in all while what was answered is measured.
        fresh: forget the answers of an earlier time.
        endpoint: another one than the recipe's URL, for tests.
        meter: another one than NVIDIA's, for tests.
        starting: with `engine: auto` called while an engine starts, with what it does and for how many seconds.
        say: told what is worth knowing of it, a line each.
        judged: called at the start and after each judgement, where the recipe has a judge.

    Raises:
        DataError: the question file cannot be used, or no wanted metric fits it.
        EndpointError: nobody answers, a variant is not served, or too many questions failed.
        RecipeError, EngineError: with `engine: auto` a model, an adapter or an engine is not fit.
        LlmbenchError: another process is writing this comparison.
    """
    if find_spec("scipy") is None:  # Told before any question is asked, not after.
        raise MissingPackage("compare", "scipy", "compare")
    from llmbench.compare.stopping import Stopping

    asked, left_out = _chosen(recipe)
    folder = workspace.comparisons() / recipe.name
    known = written.shows(folder / "summary.json", "questions", "created")
    written.check_claim(folder, "comparison", known=known, by=recipe.origin)
    with workspace.lock(folder, "comparison"):
        if fresh:
            preregistration.restarted(folder, len(scored(folder / "answers.jsonl")))
            for name in _FILES:
                (folder / name).unlink(missing_ok=True)
        resolved = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        frozen = freeze(recipe.passages, asked, folder) if recipe.passages is not None else None

        # With the first answer and not before: an endpoint that is not there leaves nothing.
        def claim() -> None:
            written.claim(folder, "comparison", known=known, by=recipe.origin)
            if frozen is not None and frozen.lines:
                workspace.write_text(folder / FILE, frozen.lines)

        log = AnswerLog(folder / "answers.jsonl", first=claim)
        stopping = Stopping(recipe, asked, log) if _sequential(recipe) else None

        def promise() -> None:
            if recipe.preregistration is not None:
                claim()
                there = sum(log.answer((question.id, name)) is not None for question in asked for name in recipe.names)
                preregistration.register(folder, recipe, asked, left_out, there)

        order, enough = (asked, None) if stopping is None else (stopping.order, stopping.enough)
        asking = Asking(recipe, order, frozen, watched=AskingWatch(progress, starting, say), endpoint=endpoint)
        meter = (meter or NvmlMeter()) if recipe.energy else None
        before, there = (meter.joules() if meter else None), log.answered
        listed = asking.fill(log, promise=promise, enough=enough)
        after = meter.joules() if meter else None
        claim()
        workspace.write_text(folder / "recipe.yaml", resolved)
        put = asked if stopping is None else _as_listed(asked, stopping.asked())
        comparison = _measured(recipe, put, log, listed, measuring, judged)
        comparison = _promised(comparison, recipe, asked, left_out, stopping)
        comparison = replace(comparison, notes=(*comparison.notes, *_changed(folder, comparison)))
        if meter is not None:
            energy, words = used(before, after, log.answered - there, recipe.names)
            comparison = replace(comparison, energy=energy, notes=(*comparison.notes, words))
        _write(comparison, log)
    return comparison


def _chosen(recipe: CompareRecipe) -> tuple[list[Question], dict[str, str]]:
    """The questions that are asked, and those that are left out with the reason; refuses what cannot be asked or measured."""
    preregistration.check(recipe)
    every_one = questions.read(recipe.questions)
    left_out = preregistration.excluded(recipe, every_one)
    asked = [question for question in every_one if question.id not in left_out]
    _check(recipe, asked)
    return asked, left_out


def _measured(
    recipe: CompareRecipe,
    put: Sequence[Question],
    log: AnswerLog,
    listed: Mapping[str, Mapping[str, Any]],
    measuring: Callable[[int, int], None],
    judged: Progress | None,
) -> Comparison:
    """Judges, where the recipe has a judge, and measures."""
    from llmbench.compare.measure import measure

    if recipe.judge is None:
        return measure(recipe, put, log, listed, measuring)
    folder = workspace.comparisons() / recipe.name
    found = judging.judge(recipe, put, log, folder, judged)
    comparison = measure(recipe, put, log, listed, measuring, found.places)
    return judging.told(comparison, found, recipe, _judging_before(folder))


def load(name: str) -> Comparison:
    """A finished comparison.

    Raises:
        LlmbenchError: there is none of this name; the message lists those there are.
    """
    folder = workspace.comparisons() / workspace.check_name(name, "comparison")
    if not (folder / "summary.json").exists():
        known = ", ".join(_names()) or "none yet"
        raise LlmbenchError(f"There is no finished comparison {name} (available: {known}). Make one: llmbench compare RECIPE")
    try:
        values = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        by_id = {question["id"]: Question.from_json(question) for question in values["questions"]}
        rows = tuple(Row(by_id[a.id], a, scores) for a, scores in scored(folder / "answers.jsonl") if a.id in by_id)
        return Comparison.from_json(folder, values, rows)
    except (ValueError, TypeError, KeyError) as error:
        raise LlmbenchError(
            f"{folder / 'summary.json'} cannot be read ({type(error).__name__}: {error}). Run llmbench compare again: the "
            f"answers are saved."
        ) from error


def remove(name: str) -> None:
    """Removes a comparison, finished or not, with its answers.

    Raises:
        LlmbenchError: there is none of this name, a process is writing it, or its folder holds something that llmbench did not
            write; nothing was changed.
    """
    folder = workspace.comparisons() / workspace.check_name(name, "comparison")
    if not (folder / "summary.json").exists() and not (folder / "answers.jsonl").exists():
        raise LlmbenchError(f"There is no comparison {name} (available: {', '.join(_names()) or 'none yet'}).")
    written.check_claim(folder, "comparison", known=written.shows(folder / "summary.json", "questions", "created"))
    with workspace.lock(folder, "comparison"):
        ours = [*_FILES, judging.LABELS, "recipe.yaml", preregistration.FILE, preregistration.RESTARTS, written.RECORD, ".lock"]
        written.refuse(folder, ours)
        written.remove(folder, ours)


def every() -> list[Comparison]:
    """All finished comparisons that can be read, the newest first."""
    found = []
    for name in _names():
        with suppress(LlmbenchError):  # One of another version must not hide the rest; `load` says what is wrong with it.
            found.append(load(name))
    return sorted(found, key=lambda comparison: comparison.created, reverse=True)


def _names() -> list[str]:
    return sorted(path.parent.name for path in workspace.comparisons().glob("*/summary.json"))


def _sequential(recipe: CompareRecipe) -> bool:
    return recipe.preregistration is not None and recipe.preregistration.stop == "sequential"


def _judging_before(folder: Path) -> Mapping[str, Any] | None:
    """What an earlier time told of the judges; None where there was none."""
    try:
        found = json.loads((folder / "summary.json").read_text(encoding="utf-8")).get("judges")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, dict) else None


def _as_listed(asked: Sequence[Question], put: Sequence[Question]) -> list[Question]:
    """The questions that were put, in the file's order."""
    known = {question.id for question in put}
    return [question for question in asked if question.id in known]


def _promised(
    comparison: Comparison,
    recipe: CompareRecipe,
    asked: Sequence[Question],
    left_out: Mapping[str, str],
    stopping: Stopping | None,
) -> Comparison:
    """The comparison with what was registered, what came otherwise, and when asking stopped."""
    found = preregistration.read(comparison.folder)
    said = preregistration.deviations(found, recipe, asked, left_out, comparison.headline, comparison.missing)
    told = None if stopping is None else stopping.told()
    return replace(comparison, preregistration=found, deviations=said, excluded=dict(left_out), stopping=told)


def _check(recipe: CompareRecipe, asked: Sequence[Question]) -> None:
    """Refuses questions that cannot be asked or measured, before anybody is asked."""
    prompts.check(asked, recipe.compared)
    metrics.check(metrics.chosen(recipe), asked, recipe.questions.path)


def _changed(folder: Path, comparison: Comparison) -> list[str]:
    """Which metrics of the user's own are others than when this comparison was last measured."""
    try:
        earlier = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["measures"]
        known = {name: one["sha256"] for name, one in earlier.items() if one["sha256"] is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # there is none, or one of another version
    changed = [name for name, one in comparison.measures.items() if one.sha256 != known.get(name, one.sha256)]
    return [f"{name} was changed since this comparison was last measured: its file is another one now." for name in changed]


def _write(comparison: Comparison, log: AnswerLog) -> None:
    from llmbench.compare.report import html

    scores: dict[Place, Scores] = {row.answer.place: row.scores for row in comparison.rows}
    log.finish(scores)
    workspace.write_text(comparison.report, html(comparison))
    workspace.write_json(comparison.summary, comparison.to_json())
