"""What is wrong with a document, one line a fault: file, line, dotted place, and the key that was meant where one is near."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from llmbench.recipe.sections import Unfit
from llmbench.recipe.yaml_lines import Lines, Place

__all__ = ["faults"]

_SHOWN = 60
"""Characters of a key that a message repeats."""


def faults(error: ValidationError, kind: type[BaseModel], path: str | Path, lines: Lines, given: dict[Place, str]) -> list[str]:
    """One line for each fault, in the file's order; those of overrides last, each with its override."""
    result, told = [], set()
    for fault in _each(error):
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
                hint = f" Did you mean {near[0]}?" if near else f" Fields: {', '.join(_fields(kind, place[:-1]))}."
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
        if place and place in told:
            continue  # one place, one line: what is next is seen when that is put right
        told.add(place)
        if place in given:
            message = message.removeprefix(f"{dotted}: ")  # the override names it already
        shown = re.sub(r"://\S*@", "://***@", f"{override or where}: {message}")  # no password of a URL
        result.append((override is not None, line or 0, shown))
    return [message for *_, message in sorted(result, key=lambda item: item[:2])]


def _each(error: ValidationError) -> Iterator[dict[str, Any]]:
    """The faults of an error, one for each line of what does not go together."""
    for fault in error.errors(include_url=False):
        reason = fault.get("ctx", {}).get("error")
        if isinstance(reason, Unfit):
            yield from ({**fault, "ctx": {"error": line}} for line in reason.lines)
        else:
            yield dict(fault)


def _named(fault: Any) -> Place:
    """The place that the text of a fault in several sections at once begins with: `lora.use_dora: ...`, `routes[0]: ...`."""
    text = str(fault["ctx"]["error"]) if "ctx" in fault else fault["msg"]
    found = re.match(r"[a-z_0-9]+(\[\d+\])?(\.[a-z_0-9]+(\[\d+\])?)*(?=: )", text)
    return tuple(int(part) if part.isdigit() else part for part in re.findall(r"[a-z_0-9]+", found[0])) if found else ()


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
