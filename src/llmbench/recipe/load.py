"""The only reader of YAML: a file and overrides become one of the typed documents, or a list of what is wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
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
from llmbench.recipe.yaml_lines import Lines, Place, read, read_text
from llmbench.recipe.yaml_lines import value as yaml_value

__all__ = ["Opened", "checked", "kind_of", "load", "load_any", "load_text", "opened"]

D = TypeVar("D", bound=Document)


_VERBS: dict[type[Document], str] = {
    TrainRecipe: "train",
    RagRecipe: "index",
    ServeRecipe: "serve",
    CompareRecipe: "compare",
    SweepRecipe: "sweep",
}


@dataclass(frozen=True)
class Opened:
    """A document as it was read: what stands where, and what the command line adds; nothing of it is checked yet."""

    file: Path
    path: str | Path
    """The file as the user named it."""
    kind: type[Document] | None
    """What its keys say it is."""
    values: dict[str, Any]
    lines: Lines
    given: dict[Place, str]
    """The overrides by the place that each sets; `values` has them already."""


def opened(path: str | Path, overrides: Sequence[str] = ()) -> Opened:
    """Reads a document and applies overrides.

    Raises:
        RecipeError: it cannot be read, or an override is none.
    """
    file = assets.named(str(path), Path.cwd()) or Path(path)
    values, lines = read(file, path)
    kind = _kind_of(values)
    return Opened(file, path, kind, values, lines, {_apply(values, override): override for override in overrides})


def checked(opened: Opened, kind: type[D]) -> D:
    """The document that it is.

    Raises:
        RecipeError: every fault found, one a line.
    """
    file, path = opened.file, opened.path
    document = _checked(opened.values, kind, file, path, opened.lines, opened.given)
    document._source = file if Path(path) != file and not Path(path).exists() else Path(path)
    return document


def kind_of(opened: Opened) -> type[Document]:
    """What the keys of a document say it is.

    Raises:
        RecipeError: they do not say.
    """
    if opened.kind is None:
        raise RecipeError(
            f"{opened.path}: not a recipe for train, index, serve, compare or sweep "
            "(it has none of data, documents, variants, questions, space)"
        )
    return opened.kind


def load(path: str | Path, kind: type[D], overrides: Sequence[str] = ()) -> D:
    """Reads and checks one document of a given kind.

    Args:
        path: a file, or the name of a bundled one such as `rag/handbook.yaml`.
        kind: TrainRecipe, RagRecipe, ServeRecipe, CompareRecipe or SweepRecipe.
        overrides: `dotted.key=value`, the value read as YAML; they win over the file.

    Raises:
        RecipeError: every fault found, one a line.
    """
    found = opened(path)
    if found.kind is not None and found.kind is not kind:
        raise RecipeError(
            f"{path} is a recipe for `llmbench {_VERBS[found.kind]}`, not for `llmbench {_VERBS[kind]}`. "
            f"Run: llmbench {_VERBS[found.kind]} {path}"
        )
    found.given.update({_apply(found.values, override): override for override in overrides})
    return checked(found, kind)


def load_text(text: str, path: Path, kind: type[D]) -> D:
    """As `load`, of a text that is to be written to `path`: relative paths start from its folder.

    Raises:
        RecipeError: every fault found, one a line.
    """
    values, lines = read_text(text, path)
    return _checked(values, kind, path, path, lines, {})


def _checked(values: dict[str, Any], kind: type[D], file: Path, path: str | Path, lines: Lines, given: dict[Place, str]) -> D:
    try:
        return kind.model_validate(values, context={"folder": str(file.absolute().parent)})
    except ValidationError as error:
        raise RecipeError("\n".join(faults(error, kind, path, lines, given))) from None


def load_any(path: str | Path) -> Document:
    """Reads a document of whichever kind its keys say it is.

    Raises:
        RecipeError: as `load`, or the kind cannot be told.
    """
    found = opened(path)
    return checked(found, kind_of(found))


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
