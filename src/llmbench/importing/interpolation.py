"""References inside a configuration: `${key}` as OmegaConf reads it, and `${...}` where nothing would replace it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmbench.errors import RecipeError
from llmbench.importing.foreign import Foreign, Place

__all__ = ["plain", "resolved"]

_REFERENCE = re.compile(r"\$\{([^{}]+)\}")
_DEEPEST = 8


def resolved(foreign: Foreign) -> Foreign:
    """A file with `${key}` replaced by what stands there; `${oc.env:NAME,default}` becomes a recipe's `${env:NAME,default}`.

    Raises:
        RecipeError: a reference to what is not in the file, or to itself.
    """
    return replace(foreign, values={key: _filled(value, foreign, (key,)) for key, value in foreign.values.items()})


def plain(foreign: Foreign) -> Foreign:
    """The file, if it has no `${...}`, which a recipe would take for a variable of the environment.

    Raises:
        RecipeError: it has one.
    """
    for key, value in foreign.values.items():
        for text in _texts(value):
            if found := re.search(r"\$\{[^{}]*\}?", text):
                raise RecipeError(
                    f"{_where(foreign, (key,))}: {key}: {found[0][:60]} is a variable. Write its value in its place"
                )
    return foreign


def _texts(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case list():
            return [text for one in value for text in _texts(one)]
        case dict():
            return [text for key, one in value.items() for text in [str(key), *_texts(one)]]
    return []


def _filled(value: Any, foreign: Foreign, place: Place, depth: int = 0) -> Any:
    if isinstance(value, dict):
        return {key: _filled(one, foreign, (*place, key), depth) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, foreign, (*place, i), depth) for i, one in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value
    where = _where(foreign, place)
    if depth > _DEEPEST:
        raise RecipeError(f"{where}: {value[:60]} refers to itself")

    def inner(match: re.Match[str]) -> str:
        name = match[1]
        if re.fullmatch(r"oc\.env:[A-Za-z_]\w*(,[^}]*)?", name):
            return f"${{env:{name.removeprefix('oc.env:')}}}"
        found = _at(foreign.values, name)
        if found is None or isinstance(found, dict | list):
            raise RecipeError(f"{where}: {match[0]} is not set in this file. Write its value in its place")
        return str(_filled(found, foreign, place, depth + 1))

    return _REFERENCE.sub(inner, value)


def _at(values: Mapping[str, Any], name: str) -> Any:
    here: Any = values
    for part in name.split("."):
        here = here.get(part) if isinstance(here, dict) else None
    return here


def _where(foreign: Foreign, place: Place) -> str:
    while place and place not in foreign.lines:
        place = place[:-1]
    return f"{foreign.path}:{foreign.lines[place]}" if place else str(foreign.path)
