"""A gate from its recipe to its verdict: the comparison and the baseline are found or read, and each metric is judged."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from llmbench import compare
from llmbench.compare import Comparison, metrics, preregistration, questions, statistics
from llmbench.errors import DataError, EndpointError, LlmbenchError, RecipeError
from llmbench.gate import baseline as saved
from llmbench.gate import judging
from llmbench.gate.baseline import Baseline
from llmbench.gate.values import Gate, GatedMetric, Several
from llmbench.recipe import CompareRecipe, Margin
from llmbench.statistics import words
from llmbench.statistics.sequential import Bounds

__all__ = ["GateRequest", "candidate_of", "check", "finished", "judge", "save"]

_NAMED = 3


@dataclass(frozen=True)
class GateRequest:
    """What a gate is asked: `baseline` is a variant of the recipe or a saved one, `metrics` those of the preregistration or the
    comparison's headline where there are none."""

    baseline: str | Baseline
    candidate: str
    metrics: tuple[tuple[str, Margin | None], ...] = ()
    margin: Margin | None = None
    superior: bool = False
    several: Several = "fixed-sequence"
    baseline_file: Path | None = None


def finished(recipe: CompareRecipe) -> Comparison:
    """The comparison as it was finished, if it is still the one that the recipe describes.

    Raises:
        LlmbenchError: there is none, or the recipe or its questions are others now.
    """
    found = compare.load(recipe.name)
    asked = questions.read(recipe.questions)
    left_out = preregistration.excluded(recipe, asked)
    now = {one.id: preregistration.question_hash(one) for one in asked if one.id not in left_out}
    then = {one.id: preregistration.question_hash(one) for one in found.questions}
    other = []
    stopped = found.stopping is not None
    if now != then and not (stopped and then.items() <= now.items()):
        other.append("questions")
    if tuple(recipe.names) != found.variants:
        other.append("variants")
    if recipe.max_tokens != found.max_tokens:
        other.append("max_tokens")
    scored, now_scored = _scored_by(found), recipe.model_dump(mode="json")
    if scored.get("abstention", recipe.abstention) != recipe.abstention:
        other.append("abstention")
    if missing := [one.name for one in recipe.metrics if not any(one.name in row.scores for row in found.rows)]:
        other.append(f"metrics ({', '.join(missing)} not measured)")
    elif any(one not in scored.get("metrics", now_scored["metrics"]) for one in now_scored["metrics"]):
        other.append("settings of metrics")
    if other:
        raise LlmbenchError(
            f"{found.folder}: the finished comparison has other {' and '.join(other)} than {recipe.source}. "
            "Leave out --finished to ask what is missing."
        )
    return found


def _scored_by(comparison: Comparison) -> dict[str, Any]:
    """The recipe that its answers were scored by; nothing where it cannot be read."""
    try:
        resolved = yaml.safe_load((comparison.folder / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return resolved if isinstance(resolved, dict) else {}


def candidate_of(recipe: CompareRecipe, baseline: str | None, given: str | None) -> str:
    """The variant that is judged: the one that was named, the preregistered one, or the only one there is.

    Raises:
        RecipeError: there is no such variant, or several could be meant.
    """
    promised = recipe.preregistration.candidate if recipe.preregistration is not None else None
    chosen = given or promised
    others = [name for name in recipe.names if name != baseline]
    if chosen is None and len(others) == 1:
        chosen = others[0]
    if chosen is None:
        raise RecipeError(f"Which variant is judged? Name one with --candidate: {', '.join(others)}.")
    if chosen not in recipe.names:
        raise RecipeError(f"There is no variant {chosen} in {recipe.source} (variants: {', '.join(recipe.names)}).")
    if chosen == baseline:
        raise RecipeError(f"{chosen} is the baseline and the candidate. Name two variants.")
    return chosen


def check(asked: GateRequest, recipe: CompareRecipe) -> None:
    """Looks, before anything is asked, whether the gate can be judged.

    Raises:
        LlmbenchError: the baseline is stale, or a metric is not measured or has no margin.
    """
    wanted = _wanted(asked, recipe, recipe.metrics[0].name)
    for one in wanted:
        judging.check_margin(one)
    if isinstance(asked.baseline, Baseline):
        assert asked.baseline_file is not None
        every = questions.read(recipe.questions)
        left_out = preregistration.excluded(recipe, every)
        kept = [question for question in every if question.id not in left_out]
        saved.check_fresh(asked.baseline_file, asked.baseline, kept, recipe, [one.metric for one in wanted])


def judge(asked: GateRequest, comparison: Comparison, recipe: CompareRecipe) -> Gate:
    """Judges the candidate.

    Raises:
        LlmbenchError: as `check`; or answers are missing, or no question has a value for both.
    """
    check(asked, recipe)
    wanted = _wanted(asked, recipe, comparison.headline)
    names = [one.metric for one in wanted]
    of_candidate = _values(comparison, asked.candidate, names)
    notes: list[str] = []
    if isinstance(asked.baseline, Baseline):
        assert asked.baseline_file is not None
        notes += saved.notes(asked.baseline_file, asked.baseline, comparison, names)
        name, of_baseline, entry = asked.baseline.variant, asked.baseline.values, asked.baseline.entry
    else:
        name = asked.baseline
        of_baseline, entry = _values(comparison, name, names), comparison.listing.get(name, {})
    if _same(entry, comparison.listing.get(asked.candidate, {})):
        notes.append("Baseline and candidate are the same model with the same adapter and the same documents.")
    alpha = _alpha(comparison, recipe)
    groups = statistics.groups(comparison.questions, recipe.statistics)
    bounds = _bounds(asked, wanted, comparison)
    found = judging.judge(
        wanted,
        {one: (of_candidate[one], of_baseline[one]) for one in names},
        groups,
        alpha=alpha,
        several=asked.several,
        superior=asked.superior,
        bounds=bounds,
    )
    if bounds is not None and comparison.stopping is not None:  # Of the questions up to the decision, as the bounds are.
        found = (replace(found[0], n=comparison.stopping["n"], mean=comparison.stopping["mean"] or 0.0),)
    notes += [] if bounds is not None else _unpaired(found[0].n, len(comparison.questions), names[0])
    notes += words.clustering([question.id for question in comparison.questions], groups, list(comparison.differences))
    return Gate(
        name=comparison.name,
        candidate=asked.candidate,
        baseline=name,
        saved=asked.baseline.saved if isinstance(asked.baseline, Baseline) else None,
        superior=asked.superior,
        several=asked.several,
        alpha=alpha,
        sequential=bounds is not None,
        metrics=found,
        notes=(*notes, *(f"Deviation: {one}" for one in _deviations(asked, wanted, comparison))),
        created=time.time(),
        report=str(comparison.report),
    )


def save(path: Path, comparison: Comparison, recipe: CompareRecipe, variant: str) -> Baseline:
    """Saves a variant's values as a baseline for later.

    Raises:
        LlmbenchError: the file is somebody else's, or answers are missing.
    """
    _whole(comparison, variant)
    made = saved.of(comparison, variant, recipe)
    saved.write(path, made)
    return made


def _wanted(asked: GateRequest, recipe: CompareRecipe, headline: str) -> tuple[GatedMetric, ...]:
    spec = recipe.preregistration
    given = asked.metrics or ((spec.metric if spec is not None else headline, None),)
    measured = metrics.measures_of(recipe)
    found = []
    for metric, own in given:
        if metric not in measured:
            raise RecipeError(
                f"{recipe.source} does not measure {metric} (it does: {', '.join(measured)}). Add it to `metrics`."
            )
        measure = measured[metric]
        if measure.whole:
            raise RecipeError(f"{metric} is known of all questions together, and a gate is about each. Name another metric.")
        promised = Margin.parse(spec.margin) if spec is not None and metric == spec.metric else None
        common = asked.margin if not measure.is_amount or len(given) == 1 else None
        margin = Margin(0.0) if asked.superior else own or common or promised
        if margin is None:
            unit = "10%" if measure.is_amount else "0.02"
            raise RecipeError(
                f"By how much may {metric} be worse? Say so beforehand: "
                + (f"--margin {unit}" if len(given) == 1 else f"--metric {metric}={unit}")
            )
        found.append(GatedMetric(measure, margin))
    return tuple(found)


def _values(comparison: Comparison, variant: str, names: Sequence[str]) -> dict[str, dict[str, float]]:
    _whole(comparison, variant)
    return {name: saved.means(comparison, variant, name) for name in names}


def _whole(comparison: Comparison, variant: str) -> None:
    """Raises where answers of a variant are missing: what is left out could be just what it cannot answer."""
    rows = [row for row in comparison.rows if row.answer.variant == variant]
    failed = list(dict.fromkeys(row.question.id for row in rows if row.answer.error is not None))
    there = {row.question.id for row in rows}
    failed += [question.id for question in comparison.questions if question.id not in there]
    if failed:
        named = ", ".join(failed[:_NAMED]) + (", ..." if len(failed) > _NAMED else "")
        why = next((f" ({row.answer.error.rstrip('.')})" for row in rows if row.answer.error is not None), "")
        raise EndpointError(
            f"{variant} did not answer {len(failed):,} of {len(comparison.questions):,} questions: {named}{why}. Run the same "
            "command again to ask them; what cannot be answered at all is left out by preregistration.exclude, with a reason."
        )


def _alpha(comparison: Comparison, recipe: CompareRecipe) -> float:
    return recipe.preregistration.alpha if recipe.preregistration is not None else round(1 - comparison.confidence, 12)


def _bounds(asked: GateRequest, wanted: Sequence[GatedMetric], comparison: Comparison) -> Bounds | None:
    """The bounds of a sequential comparison, which alone hold after it has stopped when it liked."""
    if (stop := comparison.stopping) is None:
        return None
    pair = (stop["candidate"], stop["baseline"])
    if [one.metric for one in wanted] != [stop["metric"]] or (asked.candidate, asked.baseline) != pair:
        raise DataError(
            f"{comparison.name} was asked sequentially, until {stop['metric']} of {' and '.join(pair)} was decided: only that "
            "can be judged on its answers. For more, ask all questions (preregistration.stop: all)."
        )
    return Bounds(stop["low"], stop["high"])


def _unpaired(n: int, asked: int, metric: str) -> list[str]:
    if n == asked:
        return []
    return [f"{metric} has a value for both variants in {n:,} of {asked:,} questions; the others are not compared."]


def _same(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether two entries of the endpoint's listing describe the same, where they describe anything."""
    known = {"adapter", "rag"}
    return (
        bool(one)
        and known <= one.keys()
        and {k: v for k, v in one.items() if k not in ("id", "created")}
        == {k: v for k, v in other.items() if k not in ("id", "created")}
    )


def _deviations(asked: GateRequest, wanted: Sequence[GatedMetric], comparison: Comparison) -> list[str]:
    """The comparison's, and those of the gate itself."""
    said = list(comparison.deviations)
    if comparison.preregistration is None:
        return said
    plan = comparison.preregistration["plan"]
    if plan["metric"] not in [one.metric for one in wanted]:
        said.append(f"The gate is about {wanted[0].metric}; registered was {plan['metric']}.")
    of = next((one.margin for one in wanted if one.metric == plan["metric"]), None)
    if of is not None and not asked.superior and of != Margin.parse(plan["margin"]):
        said.append(f"The gate's margin is {of}; registered was {plan['margin']}.")
    name = asked.baseline.variant if isinstance(asked.baseline, Baseline) else asked.baseline
    for word, now in (("baseline", name), ("candidate", asked.candidate)):
        if plan.get(word) is not None and plan[word] != now:
            said.append(f"The gate's {word} is {now}; registered was {plan[word]}.")
    return list(dict.fromkeys(said))
