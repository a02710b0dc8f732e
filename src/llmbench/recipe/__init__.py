"""The typed documents, and `load`, the only reader of YAML.

A fault in a document is one line with file, line number, dotted place and, where one is near, the key that was meant.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from llmbench import assets
from llmbench.errors import RecipeError
from llmbench.recipe.adapter import LoraSpec, QuantizationSpec
from llmbench.recipe.compare import CompareRecipe, EndpointSpec, QuestionSource, StatisticsSpec
from llmbench.recipe.data import DataSource, DataSpec
from llmbench.recipe.evaluation import EvaluationSpec
from llmbench.recipe.fields import Document
from llmbench.recipe.methods import DistillationSpec, DpoSpec, GrpoSpec, KtoSpec, OrpoSpec, RewardSpec, TeacherSpec
from llmbench.recipe.model import ModelSpec
from llmbench.recipe.optimization import TrainingSpec
from llmbench.recipe.rag import (
    ChunkingSpec,
    ColumnsSpec,
    ContextSpec,
    EmbedderSpec,
    ExpandSpec,
    MmrSpec,
    RagRecipe,
    RerankSpec,
    SearchSpec,
    SourceSpec,
    Stage,
)
from llmbench.recipe.rewards import RewardFunction
from llmbench.recipe.scalars import Given
from llmbench.recipe.serve import MAX_STOPS, EngineSpec, GatewaySpec, Sampling, ServeRecipe, Variant
from llmbench.recipe.train import TrainRecipe
from llmbench.recipe.yaml_lines import Lines, Place, read
from llmbench.recipe.yaml_lines import value as yaml_value

__all__ = [
    "MAX_STOPS",
    "ChunkingSpec",
    "ColumnsSpec",
    "CompareRecipe",
    "ContextSpec",
    "DataSource",
    "DataSpec",
    "DistillationSpec",
    "Document",
    "DpoSpec",
    "EmbedderSpec",
    "EndpointSpec",
    "EngineSpec",
    "EvaluationSpec",
    "ExpandSpec",
    "GatewaySpec",
    "GrpoSpec",
    "KtoSpec",
    "LoraSpec",
    "MmrSpec",
    "ModelSpec",
    "OrpoSpec",
    "QuantizationSpec",
    "QuestionSource",
    "RagRecipe",
    "RerankSpec",
    "RewardFunction",
    "RewardSpec",
    "Sampling",
    "SearchSpec",
    "ServeRecipe",
    "SourceSpec",
    "Stage",
    "StatisticsSpec",
    "TeacherSpec",
    "TrainRecipe",
    "TrainingSpec",
    "Variant",
    "load",
    "load_any",
]

D = TypeVar("D", bound=Document)

_SHOWN = 60
"""Characters of a key that a message repeats."""
_VERBS: dict[type[Document], str] = {TrainRecipe: "train", RagRecipe: "index", ServeRecipe: "serve", CompareRecipe: "compare"}


def load(path: str | Path, kind: type[D], overrides: Sequence[str] = ()) -> D:
    """Reads and checks one document of a given kind.

    Args:
        path: a file, or the name of a bundled one such as `rag/handbook.yaml`.
        kind: TrainRecipe, RagRecipe, ServeRecipe or CompareRecipe.
        overrides: `dotted.key=value`, the value read as YAML; they win over the file.

    Raises:
        RecipeError: every fault found, one a line.
    """
    file = assets.named(str(path), Path.cwd()) or Path(path)
    values, lines = read(file, path)
    found = _kind_of(values)
    if found is not None and found is not kind:
        raise RecipeError(
            f"{path} is a document for `llmbench {_VERBS[found]}`, not for `llmbench {_VERBS[kind]}`. "
            f"Run: llmbench {_VERBS[found]} {path}"
        )
    given = {_apply(values, override): override for override in overrides}
    try:
        document = kind.model_validate(values, context={"folder": str(file.absolute().parent)})
    except ValidationError as error:
        raise RecipeError("\n".join(_faults(error, kind, path, lines, given))) from None
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
            f"{path}: neither a train, rag, serve nor compare document (no data, documents, variants or questions)"
        )
    return load(path, kind)


def _kind_of(values: dict[str, Any]) -> type[Document] | None:
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


def _faults(
    error: ValidationError, kind: type[BaseModel], path: str | Path, lines: Lines, given: dict[Place, str]
) -> list[str]:
    """One line for each fault, in the file's order; those of overrides last, each with its override."""
    result = []
    for fault in error.errors(include_url=False):
        place = tuple(part for part in fault["loc"] if not (isinstance(part, str) and part.startswith("function-")))
        place = _named(fault) if not place and fault["type"] == "value_error" else _untagged(kind, place)
        line, where = lines.nearest(place), lines.where(place, path)
        override = next((text for set_, text in given.items() if place[: len(set_)] == set_), None)
        if override is None and fault["type"] == "extra_forbidden" and place not in lines.of:  # trainin.max_steps=2
            override = next((text for set_, text in given.items() if set_[: len(place)] == place), None)
        dotted = _dotted(place)
        match fault["type"]:
            case "extra_forbidden":
                near = difflib.get_close_matches(str(place[-1]), _fields(kind, place[:-1]), n=1, cutoff=0.5)
                hint = f" Did you mean {near[0]}?" if near else f" There are: {', '.join(_fields(kind, place[:-1]))}."
                message = f"{dotted} is not a field.{hint}"
            case "missing":
                message = f"{dotted} is missing."
            case "value_error":
                text = str(fault["ctx"]["error"]) if "ctx" in fault else fault["msg"]
                message = text if not dotted or text.startswith(f"{dotted}: ") else f"{dotted}: {text}"
            case "union_tag_not_found" | "union_tag_invalid":
                message = f"{dotted}.type is missing or unknown: it is one of {_tags(kind, place)}"
            case _:
                message = f"{dotted} {_should_be(fault['type'], fault['msg'])}, not {_short(fault['input'])}"
        if place in given:
            message = message.removeprefix(f"{dotted}: ")  # the override names it already
        result.append((override is not None, line or 0, f"{override or where}: {message}"))
    return [message for *_, message in sorted(result, key=lambda item: item[:2])]


def _named(fault: Any) -> Place:
    """The place that the text of a fault in several sections at once begins with: `lora.use_dora: ...`."""
    found = re.match(r"[a-z_0-9]+(\.[a-z_0-9]+)*(?=: )", str(fault["ctx"]["error"]) if "ctx" in fault else fault["msg"])
    return tuple(found[0].split(".")) if found else ()


def _untagged(kind: type[BaseModel], place: Place) -> Place:
    """A place without the tags that pydantic puts behind a section of several types: adapter.oft.r -> adapter.r."""
    if (
        len(place) > 1
        and isinstance(place[0], str)
        and place[0] in kind.model_fields
        and repr(place[1]) in _tags(kind, place[:1])
    ):
        return (place[0], *place[2:])
    return place


def _tags(kind: type[BaseModel], place: Place) -> str:
    """The values of `type` of the sections that may stand at a place of the top level, in quotes."""
    field = kind.model_fields.get(str(place[0])) if place else None
    sections = _sections(field.annotation) if field else []
    tags = [typing.get_args(s.model_fields["type"].annotation)[0] for s in sections if "type" in s.model_fields]
    return ", ".join(map(repr, tags))


def _should_be(fault: str, message: str) -> str:
    """pydantic's words for a wrong type or value, in the words of a person who writes YAML."""
    match fault:
        case "model_type" | "model_attributes_type" | "dict_type":
            return "should be a section of `key: value` lines"
        case "int_type" | "int_parsing" | "int_from_float":
            return "should be a whole number"
        case "float_type" | "float_parsing":
            return "should be a number"
        case "bool_type" | "bool_parsing":
            return "should be true or false"
        case "string_type":
            return "should be text (in quotes, if it looks like something else)"
        case "list_type":
            return "should be a list"
        case _:
            return message.replace("Input should", "should")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _dotted(place: tuple[str | int, ...]) -> str:
    """`data.train[0].path`."""
    text = ""
    for part in place:
        name = str(part) if len(str(part)) <= _SHOWN else f"{str(part)[:_SHOWN]}..."
        text += f"[{part}]" if isinstance(part, int) else f".{name}" if text else name
    return text


def _fields(kind: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    """The fields of the section at a place; of one that has several types, those of all."""
    models: list[type[BaseModel]] = [kind]
    for part in place:
        if isinstance(part, int):
            continue
        models = [s for model in models if part in model.model_fields for s in _sections(model.model_fields[part].annotation)]
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The sections inside `Section`, `Section | None`, `list[Section]` or `Section | Section`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for inner in typing.get_args(annotation) for section in _sections(inner)]
