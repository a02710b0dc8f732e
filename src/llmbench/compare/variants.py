"""Which variants a recipe means: those that it lists, or the cells of its grid; and which levels of which factors each has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from llmbench.compare.grid import find
from llmbench.recipe import AskedSampling, ComparedVariant, CompareRecipe, FactorsSpec, PromptSpec

__all__ = ["Levels", "levels", "variants"]

Levels = dict[str, dict[str, str]]
"""Variant -> factor -> level; only factors that vary."""

_FIELDS = {"models": "model", "adapters": "adapter", "prompts": "prompt", "pipelines": "pipeline", "sampling": "sampling"}
"""A factor of the grid -> the field of a variant that it sets."""
_NOTHING = ("none", "default")


def variants(recipe: CompareRecipe) -> list[ComparedVariant]:
    """The variants in the order of the recipe; those of a grid are named by their levels, such as `tiny+sft-lora+brief`."""
    return list(recipe.variants) if recipe.variants else [variant for variant, _ in _cells(recipe.factors)]


def levels(recipe: CompareRecipe, listed: Mapping[str, Mapping[str, Any]]) -> Levels:
    """What tells the variants apart: the grid's factors, the fields of variants that are described, or what the endpoint lists.

    Args:
        recipe: the comparison.
        listed: what is known of each variant: those without `adapter` and `rag` say nothing of themselves.

    Returns:
        Empty where fewer than two factors vary: then the pairs say all.
    """
    if not recipe.variants:
        found = {variant.name: {_FIELDS[name]: of[name] for name in of} for variant, of in _cells(recipe.factors)}
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
    return {name: {factor: level for factor, level in of.items() if factor in varying} for name, of in found.items()}


def _cells(spec: FactorsSpec) -> list[tuple[ComparedVariant, dict[str, str]]]:
    """The cells of the grid that are asked, each with its levels."""
    factors = [factor for factor in _FIELDS if getattr(spec, factor)]
    found: list[tuple[dict[str, Any], dict[str, str]]] = []
    for chosen in product(*(getattr(spec, factor) for factor in factors)):
        of = {factor: level.name for factor, level in zip(factors, chosen, strict=True)}
        if not spec.only or any(wanted.items() <= of.items() for wanted in spec.only):
            found.append((dict(zip(factors, chosen, strict=True)), of))
    varying = [factor for factor in factors if len({of[factor] for _, of in found}) > 1]
    names = [_name([of[factor] for factor in varying]) for _, of in found]
    if len(set(names)) < len(names):  # `none` of one factor was dropped where another has a level of the same name
        names = ["+".join(of[factor] for factor in varying) for _, of in found]
    return [(_variant(name, chosen), of) for name, (chosen, of) in zip(names, found, strict=True)]


def _name(parts: Sequence[str]) -> str:
    return "+".join(part for part in parts if part not in _NOTHING) or "plain"


def _variant(name: str, chosen: Mapping[str, Any]) -> ComparedVariant:
    """A cell as a variant that could have been described. Its paths were found from the document's folder already."""
    update: dict[str, Any] = {}
    for factor, level in chosen.items():
        match factor:
            case "prompts":
                update["prompt"] = PromptSpec(system=level.system, template=level.template)
            case "sampling":
                update["sampling"] = AskedSampling(**level.model_dump(exclude={"name"}))
            case _:
                update[_FIELDS[factor]] = getattr(level, _FIELDS[factor])
    return ComparedVariant(name=name).model_copy(update=update)


def _described(listed: Sequence[ComparedVariant]) -> Levels:
    """Each field that differs is a factor; its levels are called by what they say, or by a number where that is long."""
    found: Levels = {variant.name: {} for variant in listed}
    for field in _FIELDS.values():
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
