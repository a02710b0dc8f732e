"""`llmbench show`: a document fully resolved, with where each value comes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench.cli import completion
from llmbench.cli.arguments import Json, Overrides
from llmbench.cli.terminal import print_json

if TYPE_CHECKING:
    from llmbench.recipe.resolution import Resolution, Resolved

__all__ = ["register"]

_COLUMN = 60
"""Where origins stand, unless a value is longer."""


def register(cli: typer.Typer) -> None:
    """Adds `show`."""
    cli.command(epilog="Examples: `llmbench show my.yaml` · `llmbench show recipes/dpo.yaml training.seed=3 --json`")(show)


def show(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE", help="A document of any kind, such as recipes/sft-lora.yaml.", autocompletion=completion.documents
        ),
    ],
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show every value of a document as it holds, and where it comes from: file and line, override, default, or derived.

    The output is a document itself. Keys and passwords are shown as `***`. Reads no data and loads no model.
    """
    from llmbench.recipe import resolution

    found = resolution.resolve(recipe, overrides or ())
    if as_json:
        values = [
            {"field": one.field, "value": one.value, "origin": one.origin, "where": one.where or None} for one in found.values
        ]
        kind = type(found.document).__name__.removesuffix("Recipe").lower()
        print_json({"schema": "llmbench.show/1", "recipe": str(recipe), "kind": kind, "counts": found.counts, "values": values})
        return
    counts = found.counts
    print(
        f"# {recipe}: {counts['file']} values from the file, {counts['override']} overridden, {counts['derived']} derived, "
        f"{counts['default']} defaults"
    )
    print("\n".join(_lines(found)))


def _lines(found: Resolution) -> list[str]:
    """The document as YAML, each value with its origin behind it; sections that are null and that nobody wrote are left out."""
    from llmbench.recipe import yaml_text

    lines: list[str] = []
    above: tuple[str | int, ...] = ()
    for one in found.values:
        if one.value is None and one.origin == "default" and len(one.place) == 1:
            continue
        *path, name = one.place
        common = next((i for i, (a, b) in enumerate(zip(path, above, strict=False)) if a != b), min(len(path), len(above)))
        dash = ""
        for depth in range(common, len(path)):
            part = path[depth]
            if isinstance(part, int):
                dash = "- "
            else:
                lines.append(f"{_indent(path[:depth], dash)}{part}:")
                dash = ""
        lines.append(_with_origin(f"{_indent(path, dash)}{name}: {yaml_text.scalar(one.value)}", one))
        above = tuple(path)
    return lines


def _indent(path: list[str | int], dash: str) -> str:
    """Two blanks for each level; a list's item begins with a dash."""
    blanks = "  " * len(path)
    return blanks[: -len(dash)] + dash if dash else blanks


def _with_origin(line: str, one: Resolved) -> str:
    match one.origin:
        case "file":
            origin = one.where
        case "override":
            origin = f"override {one.where}"
        case "derived":
            origin = one.where
        case _:
            origin = f"default, {one.where}" if one.where else "default"
    return f"{line.ljust(_COLUMN)}  # {origin}"
