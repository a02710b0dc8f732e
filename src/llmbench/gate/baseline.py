"""A baseline in a file: each question's values, and the hashes of all that they depend on."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmbench import workspace, written
from llmbench.compare import Comparison, measures, metrics, preregistration
from llmbench.errors import DataError
from llmbench.questions import Question
from llmbench.recipe import CompareRecipe

__all__ = ["Baseline", "check", "check_fresh", "means", "notes", "of", "read", "write"]

_FORMAT = 1
_MARK = r'"llmbench_baseline": \d+'
_NAMED = 3
_SPEED = ("latency", "first_token")
"""What depends on the server's load and machine."""


@dataclass(frozen=True)
class Baseline:
    """What one variant answered, as figures: `values` is metric -> question -> value.

    `questions` is question -> hash of what is asked and what is right, `definitions` metric -> hash of what it measures,
    `settings` what the answers depend on beside the variant, and `entry` what the endpoint listed about it.
    """

    variant: str
    comparison: str
    saved: str
    values: dict[str, dict[str, float]]
    questions: dict[str, str]
    definitions: dict[str, str]
    settings: dict[str, Any]
    entry: dict[str, Any]
    recipe_hash: str
    versions: dict[str, str]


def of(comparison: Comparison, variant: str, recipe: CompareRecipe) -> Baseline:
    """What is saved of a variant of a finished comparison."""
    each = {name: means(comparison, variant, name) for name in metrics.measures_of(recipe)}
    values = {name: of_questions for name, of_questions in each.items() if of_questions}
    return Baseline(
        variant=variant,
        comparison=comparison.name,
        saved=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(comparison.created)),
        values=values,
        questions={question.id: preregistration.question_hash(question) for question in comparison.questions},
        definitions={metric: definition(metric, recipe) for metric in values},
        settings=settings(recipe),
        entry=comparison.listing.get(variant, {}),
        recipe_hash=_hash(recipe.model_dump(mode="json")),
        versions=comparison.versions,
    )


def means(comparison: Comparison, variant: str, metric: str) -> dict[str, float]:
    """Question -> value of one variant: the mean, where it was asked several times."""
    found: dict[str, list[float]] = {}
    for row in comparison.rows:
        value = row.scores.get(metric)
        if row.answer.variant == variant and row.answer.error is None and value is not None and math.isfinite(value):
            found.setdefault(row.question.id, []).append(value)
    return {id: sum(values) / len(values) for id, values in found.items()}


def definition(metric: str, recipe: CompareRecipe) -> str:
    """The hash of what a metric measures: its definition and settings, and the pattern that tells an answer which abstains."""
    measure = metrics.measures_of(recipe).get(metric)
    settings = [one.model_dump(mode="json", exclude_none=True) for one in recipe.metrics if one.name == metric]
    return _hash([measure.definition if measure else "", settings, measure.sha256 if measure else None, recipe.abstention])[:16]


def settings(recipe: CompareRecipe) -> dict[str, Any]:
    """What answers and their times depend on beside the variant."""
    return {"max_tokens": recipe.max_tokens, "concurrency": recipe.concurrency}


def check(path: Path) -> None:
    """Looks whether a baseline may be saved under this name.

    Raises:
        LlmbenchError: something else has it.
    """
    written.check_file(path, _MARK)


def write(path: Path, baseline: Baseline) -> None:
    """Saves a baseline, over an earlier one or where nothing is.

    Raises:
        LlmbenchError: something else has that name, or it cannot be written.
    """
    check(path)
    workspace.write_json(path, {"llmbench_baseline": _FORMAT} | asdict(baseline))


def read(path: Path) -> Baseline:
    """A saved baseline.

    Raises:
        DataError: it is none, or damaged, or of a later llmbench.
    """
    again = "Save one: llmbench gate RECIPE --save-baseline FILE"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        form = values.pop("llmbench_baseline")
        if form != _FORMAT:
            raise DataError(f"{path}: a baseline of format {form}, and this llmbench reads {_FORMAT}. Update llmbench.")
        found = Baseline(**values)
        for metric, of_questions in found.values.items():
            kind = measures.KNOWN.get(metric)
            most = 1.0 if kind is not None and not kind.is_amount else sys.float_info.max
            if not all(type(one) in (int, float) and 0 <= one <= most for one in of_questions.values()):
                raise ValueError(f"{metric} has values that it cannot have")
            if metric not in found.definitions:
                raise ValueError(f"{metric} has no definition")
        if not all(isinstance(one, str) for one in (found.variant, found.saved)) or not found.values:
            raise ValueError("no values in it")
        if any(not of_questions.keys() <= found.questions.keys() for of_questions in found.values.values()):
            raise ValueError("values of questions that it does not name")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}). {again}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a baseline of llmbench ({type(error).__name__}: {error}). {again}") from error
    return found


def check_fresh(
    path: Path, baseline: Baseline, questions: Sequence[Question], recipe: CompareRecipe, wanted: Sequence[str]
) -> None:
    """Looks whether a baseline that was saved earlier can be compared with.

    Raises:
        DataError: it is stale: other questions, another definition of a metric, or other settings.
    """
    now = {question.id: preregistration.question_hash(question) for question in questions}
    faults = [*_of_questions(baseline.questions, now), *_of_settings(baseline, recipe, wanted)]
    if faults:
        raise DataError(
            f"{path} is stale: {'; '.join(faults)} (saved {baseline.saved}). Save it again: "
            f"llmbench gate {recipe.source} --candidate {baseline.variant} --save-baseline {path}"
        )


def notes(path: Path, baseline: Baseline, comparison: Comparison, wanted: Sequence[str]) -> tuple[str, ...]:
    """What a reader has to know about a baseline that was saved earlier."""
    said = [f"The baseline is {baseline.variant} as of {baseline.saved}, from {path}."]
    added = sorted({question.id for question in comparison.questions} - baseline.questions.keys())
    if added:
        were = "1 question was" if len(added) == 1 else f"{len(added):,} questions were"
        said.append(f"{were} added since ({_list(added)}) and left out: only questions that both answered are compared.")
    if any(metric in _SPEED for metric in wanted):
        said.append("Its times were measured on another occasion: they tell of the server's load as much as of the variant.")
    other = [name for name, one in baseline.versions.items() if one != comparison.versions.get(name)]
    if other:
        said.append(f"It was saved with another version: {', '.join(f'{name} {baseline.versions[name]}' for name in other)}.")
    return tuple(said)


def _of_questions(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    changed = sorted(id for id in before.keys() & now.keys() if before[id] != now[id])
    gone = sorted(before.keys() - now.keys())
    return [
        f"{len(ids):,} of its {len(before):,} questions {'is' if len(ids) == 1 else 'are'} {word} ({_list(ids)})"
        for word, ids in (("another now", changed), ("not asked any more", gone))
        if ids
    ]


def _of_settings(baseline: Baseline, recipe: CompareRecipe, wanted: Sequence[str]) -> list[str]:
    said = []
    for metric in wanted:
        if metric not in baseline.values:
            said.append(f"it has no {metric}")
        elif baseline.definitions.get(metric) != definition(metric, recipe):
            said.append(f"{metric} is defined otherwise now")
    timed = any(metric in _SPEED for metric in wanted)
    for name, value in settings(recipe).items():
        if baseline.settings.get(name) != value and (name != "concurrency" or timed):
            said.append(f"{name} was {baseline.settings.get(name)} and is {value}")
    return said


def _list(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_NAMED]) + (", ..." if len(ids) > _NAMED else "")


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode()).hexdigest()
