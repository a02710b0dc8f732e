"""The only reader of YAML: a file and overrides become one of the typed documents, or a list of what is wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from llmbench import assets
from llmbench.errors import RecipeError
from llmbench.recipe.compare import CompareRecipe
from llmbench.recipe.faults import faults
from llmbench.recipe.fields import Document
from llmbench.recipe.rag import RagRecipe
from llmbench.recipe.scalars import Given
from llmbench.recipe.serve import ServeRecipe
from llmbench.recipe.sweep import SweepRecipe
from llmbench.recipe.train import TrainRecipe
from llmbench.recipe.yaml_lines import Place, read
from llmbench.recipe.yaml_lines import value as yaml_value

__all__ = ["load", "load_any"]

D = TypeVar("D", bound=Document)


_VERBS: dict[type[Document], str] = {
    TrainRecipe: "train",
    RagRecipe: "index",
    ServeRecipe: "serve",
    CompareRecipe: "compare",
    SweepRecipe: "sweep",
}


def load(path: str | Path, kind: type[D], overrides: Sequence[str] = ()) -> D:
    """Reads and checks one document of a given kind.

    Args:
        path: a file, or the name of a bundled one such as `rag/handbook.yaml`.
        kind: TrainRecipe, RagRecipe, ServeRecipe, CompareRecipe or SweepRecipe.
        overrides: `dotted.key=value`, the value read as YAML; they win over the file.

    Raises:
        RecipeError: every fault found, one a line.
    """
    file = assets.named(str(path), Path.cwd()) or Path(path)
    values, lines = read(file, path)
    found = _kind_of(values)
    if found is not None and found is not kind:
        raise RecipeError(
            f"{path} is a recipe for `llmbench {_VERBS[found]}`, not for `llmbench {_VERBS[kind]}`. "
            f"Run: llmbench {_VERBS[found]} {path}"
        )
    given = {_apply(values, override): override for override in overrides}
    try:
        document = kind.model_validate(values, context={"folder": str(file.absolute().parent)})
    except ValidationError as error:
        raise RecipeError("\n".join(faults(error, kind, path, lines, given))) from None
    document._source = file if Path(path) != file and not Path(path).exists() else Path(path)
    return document


def load_any(path: str | Path) -> Document:
    """Reads a document of whichever kind its keys say it is.

    Raises:
        RecipeError: as `load`, or the kind cannot be told.
    """
    file = assets.named(str(path), Path.cwd()) or Path(path)
    values, _ = read(file, path)
    kind = _kind_of(values)
    if kind is None:
        raise RecipeError(
            f"{path}: not a recipe for train, index, serve, compare or sweep "
            "(it has none of data, documents, variants, questions, space)"
        )
    return load(path, kind)


def _kind_of(values: dict[str, Any]) -> type[Document] | None:
    if "space" in values:
        return SweepRecipe
    if "documents" in values:  # before questions, which a pipeline may have too
        return RagRecipe
    if "questions" in values:
        return CompareRecipe
    if "variants" in values:
        return ServeRecipe
    if "data" in values:
        return TrainRecipe
    return None


def _apply(values: dict[str, Any], override: str) -> Place:
    """Sets `a.b.0.c=value` in nested values and returns the place that was set."""
    key, equals, text = override.partition("=")
    key = re.sub(r"\[(\d+)\]", r".\1", key.strip())  # data.train[0].path, as messages write places
    if not equals or not key:
        raise RecipeError(f"{override!r} is not an override. Write key=value, such as training.learning_rate=1e-4")
    if key.startswith("-"):
        raise RecipeError(f"{override!r} is not an option. Write fields without dashes: {override.lstrip('-')}")
    try:
        value = yaml_value(text) if text != "-" else text  # standard input, which YAML takes for a list
    except RecipeError as error:
        raise RecipeError(f"{override!r}: {error}") from None
    *path, last = key.split(".")
    here: Any = values
    place: list[str | int] = []
    for part in path:
        place.append(_position(here, part, key) if isinstance(here, list) else part)
        if isinstance(here, dict) and not isinstance(here.get(part), (dict, list)):
            here[part] = {}
        here = here[place[-1]]
    place.append(_position(here, last, key) if isinstance(here, list) else last)
    here[place[-1]] = _given(value)
    return tuple(place)


def _given(value: Any) -> Any:
    """A value of the command line, its texts marked as such."""
    match value:
        case str():
            return Given(value, Path.cwd())
        case list():
            return [_given(one) for one in value]
        case dict():
            return {key: _given(one) for key, one in value.items()}
    return value


def _position(here: list[Any], part: str, key: str) -> int:
    if not part.isdecimal() or int(part) >= len(here):
        raise RecipeError(f"{key}: {part} is not a position in a list of {len(here)} (counted from 0)")
    return int(part)
