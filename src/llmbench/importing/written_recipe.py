"""A recipe as the YAML that a person would write: fields in the order of the guide, comments where they explain a value."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from llmbench.recipe import DataSource, TrainRecipe, yaml_text

__all__ = ["text"]

_WIDTH = 126


def text(recipe: Mapping[str, Any], comments: Mapping[str, str], head: Iterable[str]) -> str:
    """The document.

    Args:
        recipe: sections and values; `data.train` and `data.eval` are lists of mappings.
        comments: by a field's dotted name, what stands behind its value.
        head: the lines before it, without `#`; long ones are broken between words.
    """
    lines = [
        f"# {part}".rstrip() for line in head for part in (textwrap.wrap(line, _WIDTH - 2, subsequent_indent="  ") or [""])
    ]
    lines.append("")
    for key in _ordered(recipe, TrainRecipe):
        value = recipe[key]
        if isinstance(value, dict) and value:
            if lines[-1]:
                lines.append("")
            lines.append(f"{key}:")
            lines += _section(key, value, comments, 1)
            lines.append("")
        else:
            lines += _line(key, value, comments.get(key, ""), 0)
    while lines[-1] == "":
        lines.pop()
    return "\n".join(lines) + "\n"


def _section(place: str, values: Mapping[str, Any], comments: Mapping[str, str], depth: int) -> list[str]:
    annotation: Any = TrainRecipe.model_fields[place].annotation if place in TrainRecipe.model_fields else None
    kinds = [kind for kind in getattr(annotation, "__args__", (annotation,)) if hasattr(kind, "model_fields")]
    lines: list[str] = []
    for key in _ordered(values, kinds[0] if kinds else None):
        value, name = values[key], f"{place}.{key}"
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(f"{'  ' * depth}{key}:")
            for i, item in enumerate(value):
                rows = [
                    line
                    for inner in _ordered(item, DataSource if place == "data" else None)
                    for line in _line(inner, item[inner], comments.get(f"{name}[{i}].{inner}", ""), depth + 2)
                ]
                first = next(n for n, row in enumerate(rows) if not row.lstrip().startswith("#"))
                rows[first] = f"{'  ' * (depth + 1)}- {rows[first].lstrip()}"
                lines += rows
        elif isinstance(value, dict) and value and place != "data" and key == "teacher":
            lines.append(f"{'  ' * depth}{key}:")
            lines += _section(name, value, comments, depth + 1)
        else:
            lines += _line(key, value, comments.get(name, ""), depth)
    return lines


def _line(key: str, value: Any, comment: str, depth: int) -> list[str]:
    indent = "  " * depth
    line = f"{indent}{key}: {yaml_text.scalar(value)}"
    if not comment:
        return [line]
    whole = f"{line}  # {comment}"
    if len(whole) <= _WIDTH:
        return [whole]
    return [*textwrap.wrap(comment, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "), line]


def _ordered(values: Mapping[str, Any], model: Any) -> list[str]:
    order = list(model.model_fields) if model is not None else []
    return sorted(values, key=lambda key: order.index(key) if key in order else len(order))
