"""The figures of a comparison as an experiment: the effects of its factors, the noise of its repeats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from llmbench.compare.result import Row
from llmbench.compare.told import Experiment
from llmbench.compare.variants import Levels, levels
from llmbench.recipe import CompareRecipe
from llmbench.statistics import FactorEffect, Kind, Noise

__all__ = ["experiment"]

Table = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Metric -> variant -> question -> value, the mean over its repeats."""


def experiment(
    recipe: CompareRecipe,
    rows: Sequence[Row],
    table: Table,
    kinds: Mapping[str, Kind],
    listed: Mapping[str, Mapping[str, Any]],
    groups: Mapping[str, str],
) -> Experiment:
    """The effects of all factors on every metric, and the noise of every variant that was asked more than once.

    Args:
        recipe: what was asked of whom.
        rows: the answers with their scores.
        table: those as means over repeats.
        kinds: metric -> what one question gives.
        listed: what is known of each variant.
        groups: the clusters of the questions.
    """
    from llmbench.statistics import effects

    spec, of = recipe.statistics, levels(recipe, listed)
    found: list[FactorEffect] = []
    if of:
        for name, values in table.items():
            found += effects.effects(name, values, of, kinds[name], confidence=spec.confidence, groups=groups)
    noise = _noise(rows, table, spec.confidence) if recipe.repeats > 1 else {}
    return Experiment(
        levels=of,
        effects=tuple(found),
        noise=noise,
        repeats=recipe.repeats,
        passages=_passages(recipe, listed),
        engines=_engines(rows),
        notes=tuple(_notes(recipe, rows, of, found)),
    )


def _noise(rows: Sequence[Row], table: Table, confidence: float) -> dict[str, dict[str, Noise]]:
    from llmbench.statistics import effects

    values: dict[str, dict[str, dict[str, list[float]]]] = {name: {} for name in table}
    for row in rows:
        for name, value in row.scores.items():
            if value is not None and math.isfinite(value) and name in values:
                values[name].setdefault(row.answer.variant, {}).setdefault(row.question.id, []).append(value)
    found = {
        name: {v: one for v, x in of.items() if (one := effects.noise(x, confidence=confidence)) is not None}
        for name, of in values.items()
    }
    return {name: of for name, of in found.items() if of}


def _passages(recipe: CompareRecipe, listed: Mapping[str, Mapping[str, Any]]) -> str:
    if recipe.passages is not None:
        from llmbench.compare.passages import origin

        return (
            f"Every variant was given the same passages, from {origin(recipe.passages)}: retrieval is no part of what differs."
        )
    if any(entry.get("rag") for entry in listed.values()):
        return "Variants with RAG searched by themselves: what differs is retrieval and reading together."
    return ""


def _engines(rows: Sequence[Row]) -> tuple[str, ...]:
    found = {
        f"{about['name']} {about['version']}"
        for row in rows
        if isinstance(about := row.answer.manifest.get("engine"), dict) and about.keys() >= {"name", "version"}
    }
    return tuple(sorted(found))


def _notes(recipe: CompareRecipe, rows: Sequence[Row], of: Levels, found: Sequence[FactorEffect]) -> list[str]:
    notes = []
    models = {str(row.answer.manifest.get("base", "")) for row in rows}
    if recipe.engine == "auto" and len(models) > 1:
        notes.append(
            "The engines of different models ran one after another, so that their latencies were not measured at the same time."
        )
    if of and not found:
        notes.append("The variants do not tell the effects of their factors apart.")
    elif of and not any(len(one.factors) > 1 for one in found):
        notes.append(
            "This fraction of the grid does not tell interactions apart: the effects of the factors are taken to add up."
        )
    if recipe.repeats > 1 and rows and all(_alike(rows, recipe)):
        notes.append(
            f"All {recipe.repeats} repeats of every question gave the same answer: at temperature 0 nothing is drawn. Set "
            "`sampling.temperature` to see how much sampling adds."
        )
    return notes


def _alike(rows: Sequence[Row], recipe: CompareRecipe) -> list[bool]:
    texts: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        if row.answer.error is None:
            texts.setdefault(row.answer.cell, set()).add(row.answer.text)
    return [len(one) == 1 for one in texts.values()]
