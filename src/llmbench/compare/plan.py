"""What a comparison can show, and costs, before anything is asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from llmbench.compare import metrics, preregistration, questions, statistics
from llmbench.compare.measures import Measure
from llmbench.compare.result import Comparison
from llmbench.errors import RecipeError
from llmbench.questions import Question
from llmbench.recipe import CompareRecipe, Margin
from llmbench.statistics import Kind, intervals, power
from llmbench.statistics.clusters import ALIKE, clusters

__all__ = ["ComparisonPlan", "PlanRow", "plan"]

_MARGINS = (0.01, 0.02, 0.05, 0.1)
"""Looked at where none was promised."""
_DIFFER = (0.02, 0.05, 0.1, 0.2)
"""Shares of questions on which two variants differ, where nothing is known of them yet."""
_SPREADS = (0.1, 0.2, 0.3)
"""Likewise, standard deviations of a difference of scores."""
_LETTERS = 4.0
"""Letters of a token, roughly."""


@dataclass(frozen=True)
class PlanRow:
    """One margin under one assumption: how often the questions show it, if both are alike, and how many it takes.

    `differ` is the share of questions on which the two differ; `spread` in its place the standard deviation of a difference.
    `needed` is the number of questions for a power of 80 %; None where ten million do not have it.
    """

    margin: float
    relative: bool
    differ: float | None
    spread: float | None
    deff: float
    power: float
    needed: int | None


@dataclass(frozen=True)
class ComparisonPlan:
    """`tokens` are those that are read, those that are written at most, and both as in the earlier comparison, if there is one.

    `known` says whether the assumptions are those of an earlier comparison of the name; `notes` say what is assumed.
    """

    name: str
    metric: str
    measure: Measure
    questions: int
    pages: int
    excluded: int
    variants: int
    pairs: int
    alpha: float
    known: bool
    rows: tuple[PlanRow, ...]
    tokens: dict[str, int | None]
    notes: tuple[str, ...]
    repeats: int = 1

    def to_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        return asdict(self)


def plan(recipe: CompareRecipe, earlier: Comparison | None = None) -> ComparisonPlan:
    """Plans the recipe's comparison; asks nothing and needs no endpoint.

    Args:
        recipe: what is to be compared.
        earlier: a finished comparison of the same questions or like ones, from which rates and tokens are taken.

    Raises:
        DataError: the question file cannot be used.
        RecipeError: the preregistration cannot be kept.
    """
    preregistration.check(recipe)
    every = questions.read(recipe.questions)
    left_out = preregistration.excluded(recipe, every)
    asked = [question for question in every if question.id not in left_out]
    spec = recipe.preregistration
    metric = spec.metric if spec is not None else recipe.metrics[0].name
    measure = metrics.measures_of(recipe)[metric]
    if measure.whole:
        raise RecipeError(f"{recipe.source}: {metric} is known of all questions together; no power is known for it.")
    alpha = spec.alpha if spec is not None else round(1 - recipe.statistics.confidence, 12)
    groups = statistics.groups(asked, recipe.statistics)
    together = clusters([question.id for question in asked], groups)
    pages = len(together.sizes)
    known = None if earlier is None else _seen(earlier, recipe, measure, groups)
    assumed = [known] if known is not None else _guessed(measure, len(asked) / together.effective)
    mean = known.mean if known is not None else None
    margins = [Margin.parse(spec.margin)] if spec is not None else [Margin(one) for one in _MARGINS]
    if spec is None and measure.is_amount:
        margins = [Margin(one, relative=True) for one in (0.05, 0.1, 0.2)]
    rows = [_row(one, margin, len(asked), pages, alpha, mean) for one in assumed for margin in margins]
    return ComparisonPlan(
        name=recipe.name,
        metric=metric,
        measure=measure,
        questions=len(asked),
        pages=pages,
        excluded=len(left_out),
        variants=len(recipe.names),
        pairs=math.comb(len(recipe.names), 2),
        alpha=alpha,
        known=known is not None,
        rows=tuple(row for row in rows if row is not None),
        tokens=_tokens(asked, recipe, earlier),
        notes=_notes(recipe, known, len(asked), pages, measure),
        repeats=recipe.repeats,
    )


@dataclass(frozen=True)
class _Assumption:
    """What is known or guessed of the difference of two variants: a share that differs, or a spread; the baseline's mean."""

    differ: float | None
    spread: float | None
    deff: float
    mean: float | None = None
    pair: tuple[str, str] | None = None
    n: int = 0


def _seen(earlier: Comparison, recipe: CompareRecipe, measure: Measure, groups: Mapping[str, str]) -> _Assumption | None:
    """From the earlier answers: of the promised pair, else of the pair that differs most."""
    values: dict[str, dict[str, float]] = {}
    for row in earlier.rows:
        value = row.scores.get(measure.name)
        if value is not None and math.isfinite(value):
            values.setdefault(row.answer.variant, {})[row.question.id] = value
    spec = recipe.preregistration
    promised = (spec.candidate, spec.baseline) if spec is not None and spec.candidate and spec.baseline else None
    names = [name for name in recipe.names if name in values]
    pairs = [promised] if promised is not None else [(a, b) for i, b in enumerate(names) for a in names[i + 1 :]]
    found = [_of_pair(values, pair, measure.kind, groups) for pair in pairs if pair[0] in values and pair[1] in values]
    return max((one for one in found if one is not None), key=lambda one: one.differ or one.spread or 0.0, default=None)


def _of_pair(
    values: Mapping[str, Mapping[str, float]], pair: tuple[str, str], kind: Kind, groups: Mapping[str, str]
) -> _Assumption | None:
    a, b = (values[name] for name in pair)
    ids = sorted(a.keys() & b.keys())
    if len(ids) < 2:
        return None
    d = np.array([a[id] - b[id] for id in ids], dtype=np.float64)
    together = clusters(ids, groups)
    mean = float(np.mean([b[id] for id in ids]))
    if kind == "share":
        deff = intervals.difference(d, together, "share", 0.95).deff
        # One question more than was seen: none that differs is no proof that none ever does.
        return _Assumption(max(float((d != 0).sum()), 1.0) / len(ids), None, deff, mean, pair, len(ids))
    found = intervals.difference(d, together, kind, 0.95)
    spread = found.error * math.sqrt(len(ids)) or float(np.abs(d).max()) or 1e-9
    return _Assumption(None, spread, 1.0, mean, pair, len(ids))


def _guessed(measure: Measure, size: float) -> list[_Assumption]:
    deff = 1 + (size - 1) * ALIKE
    if measure.kind == "share":
        return [_Assumption(one, None, deff) for one in _DIFFER]
    if measure.kind == "score":
        return [_Assumption(None, one * math.sqrt(deff), 1.0) for one in _SPREADS]
    return []


def _row(one: _Assumption, margin: Margin, n: int, pages: int, alpha: float, mean: float | None) -> PlanRow | None:
    value = margin.value * mean if margin.relative and mean is not None else margin.value
    size = n / pages
    half = (one.differ or 0.0) / 2
    of = power.Assumed(half, half, spread=one.spread, deff=one.deff, size=size)
    if not value:
        return None
    return PlanRow(
        margin.value, margin.relative, one.differ, one.spread, one.deff,
        power.passes(n, value, alpha, of), power.fewest(lambda k: power.passes(k, value, alpha, of)),
    )  # fmt: skip


def _tokens(asked: Sequence[Question], recipe: CompareRecipe, earlier: Comparison | None) -> dict[str, int | None]:
    letters = sum(len(text) for question in asked for _, text in question.conversation)
    several = len(recipe.names) * recipe.repeats
    most = sum(variant.sampling.max_tokens or recipe.max_tokens for variant in recipe.compared)
    found: dict[str, int | None] = {
        "read": round(several * letters / _LETTERS),
        "written_at_most": len(asked) * recipe.repeats * most,
        "as_earlier": None,
    }
    if earlier is not None:
        answers = [row.answer for row in earlier.rows if row.answer.error is None and row.answer.prompt_tokens]
        if answers:
            each = sum(answer.prompt_tokens + answer.completion_tokens for answer in answers) / len(answers)
            found["as_earlier"] = round(each * several * len(asked))
    return found


def _notes(recipe: CompareRecipe, known: _Assumption | None, n: int, pages: int, measure: Measure) -> tuple[str, ...]:
    said = ["Power is that of a gate: how often it passes, if both variants are truly alike."]
    if known is not None and known.pair is not None:
        a, b = known.pair
        how = f"differ on {100 * known.differ:.1f}% of questions" if known.differ is not None else "vary as they did"
        said.append(f"Assumed from the earlier comparison ({a} and {b}, {known.n:,} questions): they {how}.")
    elif measure.is_amount:
        said.append(f"How much {measure.name} varies is not known before the first comparison: nothing is planned for it.")
    else:
        what = "On how many questions two variants differ" if measure.kind == "share" else "How much scores differ"
        said.append(f"{what} is not known yet: look at the row that is likely, or ask a few questions first.")
    if pages < n:
        about = f"{n:,} questions are about {pages:,} pages"
        said.append(
            f"{about}; more questions are taken to be about more pages of the same size."
            + ("" if known is not None else f" Those of a page are assumed to be alike with a correlation of {ALIKE:g}.")
        )
    if recipe.preregistration is not None and recipe.preregistration.stop == "sequential":
        said.append("Asking ends as soon as a confidence sequence decides; where that is late, it takes more questions.")
    said.append("Read tokens are the questions' letters divided by four; passages and templates come on top.")
    return tuple(said)
