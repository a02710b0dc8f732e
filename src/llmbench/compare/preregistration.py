"""What was promised before the first answer, and what came otherwise."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from llmbench import workspace
from llmbench.compare import metrics
from llmbench.compare.measures import known
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.questions import Question
from llmbench.recipe import CompareRecipe, Margin

__all__ = ["FILE", "RESTARTS", "check", "deviations", "excluded", "question_hash", "read", "register", "restarted"]

FILE = "preregistration.json"
"""In the comparison's folder; written once and never again."""
RESTARTS = "restarts.json"
"""Beside it: how many answers were thrown away to start over, each time."""
_NAMED = 3
"""Ids that a message lists."""
_SETTINGS = {
    "metric": "the primary metric",
    "margin": "the margin",
    "alpha": "alpha",
    "stop": "the stop rule",
    "baseline": "the baseline",
    "candidate": "the candidate",
}
"""What is told when it is another now, and how it is called."""


def check(recipe: CompareRecipe) -> None:
    """Looks whether the recipe can keep what it promises.

    Raises:
        RecipeError: it measures another metric, asks no such variant, or would stop by a metric without bounds.
    """
    if (spec := recipe.preregistration) is None:
        return
    measured = metrics.measures_of(recipe)
    where = f"{recipe.source}: preregistration"
    if spec.metric not in measured:
        raise RecipeError(f"{where}.metric: {spec.metric} is not measured (measured are: {', '.join(measured)}).")
    for name in (spec.baseline, spec.candidate):
        if name is not None and name not in recipe.names:
            raise RecipeError(f"{where}: there is no variant {name} in the recipe (variants: {', '.join(recipe.names)}).")
    margin = Margin.parse(spec.margin)
    measure = measured[spec.metric]
    if not measure.is_amount and (margin.relative or margin.value >= 1):
        raise RecipeError(f"{where}.margin: {spec.metric} lies between 0 and 1. Write 0.02 for 2 points, not {spec.margin}.")
    if spec.stop == "sequential" and (measure.is_amount or measure.whole):
        raise RecipeError(
            f"{where}.stop: no bound is known for {spec.metric}, so that it cannot be looked at after each answer. "
            "Choose a metric that gives each question 0 to 1, or stop: all."
        )


def excluded(recipe: CompareRecipe, asked: Sequence[Question]) -> dict[str, str]:
    """Question -> why it is left out.

    Raises:
        RecipeError: an exclusion names no question of the file, or leaves none.
    """
    found: dict[str, str] = {}
    spec = recipe.preregistration
    for number, one in enumerate(spec.exclude if spec is not None else []):
        if one.ids is not None:
            wanted, known = set(one.ids), {question.id for question in asked}
            if missing := sorted(wanted - known):
                raise RecipeError(
                    f"{recipe.source}: preregistration.exclude[{number}]: no question has the id {_list(missing)}. "
                    "Correct it, or take it out."
                )
            hit = [question.id for question in asked if question.id in wanted]
        else:
            values = {str(value) for value in one.values or ()}
            hit = [question.id for question in asked if str(_column(question, str(one.column))) in values]
            if not hit:
                raise RecipeError(
                    f"{recipe.source}: preregistration.exclude[{number}]: no question has {one.column} "
                    f"{' or '.join(sorted(values))}. Correct it, or take it out."
                )
        found |= {id: one.reason for id in hit if id not in found}
    if asked and len(found) == len(asked):
        raise RecipeError(f"{recipe.source}: preregistration.exclude leaves no question.")
    return found


def question_hash(question: Question) -> str:
    """What is asked and what is right, as 16 hex digits: a question of another hash is another question."""
    values = {key: value for key, value in question.to_json().items() if key not in ("id", "split", "columns")}
    return _hash(values)[:16]


def register(folder: Path, recipe: CompareRecipe, asked: Sequence[Question], left_out: Mapping[str, str], answers: int) -> None:
    """Writes what the recipe promises, unless something was promised before.

    Args:
        folder: the comparison's.
        recipe: one with a `preregistration`; without one, nothing is written.
        asked: the questions, without those left out.
        left_out: question -> why it is left out.
        answers: answers of these variants that are there already.
    """
    path = folder / FILE
    if recipe.preregistration is None or path.exists():
        return
    plan = _plan(recipe, asked, left_out)
    workspace.write_json(
        path,
        {
            "registered": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "hash": _hash(plan),
            "answers": answers,
            "llmbench": version("llmbench"),
            "plan": plan,
        },
    )


def restarted(folder: Path, answers: int) -> None:
    """Notes that answers are about to be thrown away although something was promised about them."""
    if answers and (folder / FILE).exists():
        workspace.write_json(folder / RESTARTS, [*_restarts(folder), answers])


def _restarts(folder: Path) -> list[int]:
    try:
        found = json.loads((folder / RESTARTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [one for one in found if isinstance(one, int)] if isinstance(found, list) else []


def read(folder: Path) -> dict[str, Any] | None:
    """What was promised; None where nothing was.

    Raises:
        LlmbenchError: the file cannot be read.
    """
    path = folder / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found["plan"]["questions"], dict) or not isinstance(found["hash"], str):
            raise ValueError("no plan in it")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LlmbenchError(
            f"{path} cannot be read ({type(error).__name__}: {error}). It was written before the first answer: restore it, or "
            "give the comparison another name."
        ) from error
    return dict(found) | ({"restarts": again} if (again := _restarts(folder)) else {})


def deviations(
    found: Mapping[str, Any] | None,
    recipe: CompareRecipe,
    asked: Sequence[Question],
    left_out: Mapping[str, str],
    headline: str,
    missing: int,
) -> tuple[str, ...]:
    """What came otherwise than it was promised, a sentence each.

    Args:
        found: what `read` gave.
        recipe: as it is now.
        asked: the questions as they are now, without those left out.
        left_out: question -> why it is left out.
        headline: the metric that the verdict is about.
        missing: answers that failed.
    """
    if found is None:
        return ()
    plan = found["plan"]
    said = []
    if found["answers"]:
        were = "1 answer was" if found["answers"] == 1 else f"{found['answers']:,} answers were"
        said.append(f"It was registered when {were} there already.")
    if again := found.get("restarts"):
        times = "once" if len(again) == 1 else f"{len(again):,} times"
        said.append(f"It was started over {times} (--fresh), and {sum(again):,} answers were thrown away.")
    if _hash(plan) != found["hash"]:
        said.append(f"{FILE} was edited after it was written: its hash is another.")
    if recipe.preregistration is None:
        return (*said, "The recipe has no preregistration any more.")
    now = _plan(recipe, asked, left_out)
    said += [
        f"{words[0].upper()}{words[1:]} is {_value(now[key])}; registered was {_value(plan.get(key))}."
        for key, words in _SETTINGS.items()
        if now[key] != plan.get(key)
    ]
    if headline != plan.get("metric") and not known(str(plan.get("metric"))).is_amount:
        said.append(f"The verdict is about {headline}; registered was {plan.get('metric')}.")
    if abs(1 - recipe.statistics.confidence - now["alpha"]) > 1e-9:
        said.append(
            f"Intervals are those of alpha {1 - recipe.statistics.confidence:g}; the recipe registers {now['alpha']:g}."
        )
    if now["exclude"] != plan.get("exclude"):
        left = "1 question is" if len(left_out) == 1 else f"{len(left_out):,} questions are"
        said.append(f"The exclusions were changed: {left} left out now.")
    if changed := _changes(plan["questions"], now["questions"], left_out):
        said.append(f"The questions were changed: {changed}.")
    if missing and now["stop"] == "all":
        are = "1 answer is" if missing == 1 else f"{missing:,} answers are"
        said.append(f"{are} missing, although all questions were to be answered.")
    return tuple(said)


def _plan(recipe: CompareRecipe, asked: Sequence[Question], left_out: Mapping[str, str]) -> dict[str, Any]:
    assert recipe.preregistration is not None
    promised = recipe.preregistration.model_dump(mode="json")
    return promised | {
        "cluster": recipe.statistics.cluster,
        "variants": list(recipe.names),
        "excluded": len(left_out),
        "questions": {question.id: question_hash(question) for question in asked},
    }


def _changes(before: Mapping[str, str], now: Mapping[str, str], left_out: Mapping[str, str]) -> str:
    """`2 added, 1 removed (q7), 1 changed (q3)`."""
    found = {
        "added": sorted(now.keys() - before.keys()),
        "removed": sorted(before.keys() - now.keys() - left_out.keys()),
        "changed": sorted(id for id in before.keys() & now.keys() if before[id] != now[id]),
    }
    return ", ".join(f"{len(ids):,} {word} ({_list(ids)})" for word, ids in found.items() if ids)


def _column(question: Question, name: str) -> Any:
    """A column of the question's row: one of its fields, or one that has no meaning of its own."""
    fields = question.to_json()
    columns = fields.pop("columns", None) or getattr(question, "columns", {})
    return fields.get(name, columns.get(name))


def _value(value: Any) -> str:
    return "none" if value is None else str(value)


def _list(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_NAMED]) + (", ..." if len(ids) > _NAMED else "")


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
