"""What tells the variants of a comparison apart: which levels of which factors each has."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from llmbench.compare.grid import find
from llmbench.recipe import ComparedVariant, CompareRecipe

__all__ = ["Levels", "levels"]

Levels = dict[str, dict[str, str]]
"""Variant -> factor -> level; only factors that vary."""

_FIELDS = ("model", "adapter", "prompt", "pipeline", "sampling")


def levels(recipe: CompareRecipe, listed: Mapping[str, Mapping[str, Any]]) -> Levels:
    """What tells the variants apart: the grid's factors, the fields of variants that are described, or what the endpoint lists.

    Args:
        recipe: the comparison.
        listed: what is known of each variant: those without `adapter` and `rag` say nothing of themselves.

    Returns:
        Empty where fewer than two factors vary, or listed variants are no whole grid: then the pairs say all.
    """
    if not recipe.variants:
        found = {variant.name: of for variant, of in recipe.factors.cells()}
    elif not all(variant.plain for variant in recipe.variants):
        found = _described(recipe.variants)
    else:
        square = find(listed)
        found = {} if square is None else {
            name: {"adapter": adapter, "RAG": rag}
            for name, adapter, rag in zip(
                (square.base, square.adapter, square.base_rag, square.adapter_rag),
                ("without", "with", "without", "with"),
                ("without", "without", "with", "with"),
                strict=True,
            )
        }  # fmt: skip
    varying = {factor for factor in next(iter(found.values()), {}) if len({of[factor] for of in found.values()}) > 1}
    if len(varying) < 2:
        return {}
    if recipe.variants and len(found) < math.prod(len({of[factor] for of in found.values()}) for factor in varying):
        return {}  # a list that is no grid was not made to tell its factors apart
    return {name: {factor: level for factor, level in of.items() if factor in varying} for name, of in found.items()}


def _described(listed: Sequence[ComparedVariant]) -> Levels:
    """Each field that differs is a factor; its levels are called by what they say, or by a number where that is long."""
    found: Levels = {variant.name: {} for variant in listed}
    for field in _FIELDS:
        written = [_written(variant, field) for variant in listed]
        different = list(dict.fromkeys(written))
        if len(different) < 2:
            continue
        for variant, text in zip(listed, written, strict=True):
            found[variant.name][field] = text if len(text) <= 40 else f"{field} {different.index(text) + 1}"
    return found


def _written(variant: ComparedVariant, field: str) -> str:
    value = getattr(variant, field)
    if value is None:
        return "none"
    if field in ("prompt", "sampling"):
        given = value.model_dump(exclude_defaults=True)
        return json.dumps(given, ensure_ascii=False) if given else "none"
    return str(value)
