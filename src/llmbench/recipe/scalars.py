"""What one value of a YAML document is: YAML 1.2's core schema, where `no` is a word, `0512` is 512 and `1e-4` is a number.

PyYAML reads YAML 1.1. A number keeps the text it was written as, which a field that is text takes: `revision: 8e12345`.
"""

from __future__ import annotations

import os
import re
import typing
from pathlib import Path
from typing import Any

__all__ = ["FloatText", "Given", "IntText", "as_field", "environment", "plain", "wants_text"]

_INT = re.compile(r"[-+]?\d[\d_]*|0o[0-7_]+|0x[\da-fA-F_]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.\d[\d_]*|\d[\d_]*(\.[\d_]*)?)([eE][-+]?\d+)?", re.ASCII)
_SPECIAL = {"true": True, "false": False, "null": None, "~": None, "": None}
_ENDLESS = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_MAX_DIGITS = 64
_ENVIRONMENT = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)(?:,([^}]*))?\}")


class IntText(int):
    """A whole number with the text that it was written as."""

    text: str


class FloatText(float):
    """A number with the text that it was written as."""

    text: str


class Truth:
    """true or false where a field is neither: no number and no text, which pydantic would make 1 or 0 of it."""

    def __init__(self, value: bool) -> None:
        self._word = "true" if value else "false"

    def __repr__(self) -> str:
        return self._word


class Given(str):
    """A text from somewhere else than the document's own file: a relative path in it starts from `folder`."""

    folder: Path

    def __new__(cls, text: str, folder: Path) -> Given:
        """A text, and the working directory for one of the command line, an included file's folder for one of that."""
        made = super().__new__(cls, text)
        made.folder = folder
        return made


def plain(text: str) -> Any:
    """The value of a scalar without quotes.

    Raises:
        ValueError: a number of over 64 characters.
    """
    word = text.lower() if text in (text.lower(), text.upper(), text.capitalize()) else text
    if word in _SPECIAL:
        return _SPECIAL[word]
    if endless := _ENDLESS.fullmatch(text):
        return float(f"{endless[1] or ''}{(endless[2] or 'nan').lower()}")
    whole = _INT.fullmatch(text) is not None
    if not whole and not _FLOAT.fullmatch(text):
        return text
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(text):,} characters is too long (at most {_MAX_DIGITS})")
    digits = text.replace("_", "")
    if whole:
        number: IntText | FloatText = IntText(digits, 0 if digits[:2] in ("0o", "0x") else 10)
    else:
        number = FloatText(digits)
    number.text = text
    return number


def environment(text: str) -> str:
    """A text with `${env:NAME}` and `${env:NAME,default}` replaced by the environment's variables.

    Raises:
        ValueError: a variable is not set and has no default.
    """

    def of(found: re.Match[str]) -> str:
        value = os.environ.get(found[1], found[2])
        if value is None:
            raise ValueError(
                f"the environment variable {found[1]} is not set. Set it, or give a default: ${{env:{found[1]},VALUE}}"
            )
        return value

    return _ENVIRONMENT.sub(of, text)


def as_field(value: Any, annotation: Any) -> Any:
    """A value as a field of this type takes it: in one of text a number is what was written; a truth value is no number."""
    match value:
        case IntText() | FloatText():
            return value.text if wants_text(annotation) else value
        case bool():
            return value if _takes_truth(annotation) else Truth(value)
        case list():
            inner = [arg for arg in _arguments(annotation) if typing.get_origin(arg) is list]
            return [as_field(one, typing.get_args(inner[0])[0]) for one in value] if inner else value
        case dict():
            inner = [arg for arg in _arguments(annotation) if typing.get_origin(arg) is dict]
            return {key: as_field(one, typing.get_args(inner[0])[1]) for key, one in value.items()} if inner else value
    return value


def _takes_truth(annotation: Any) -> bool:
    """Whether a field takes true and false: `bool`, `Any`, or a `Literal` that lists them."""
    kinds = _arguments(annotation)
    literals = [word for kind in kinds if typing.get_origin(kind) is typing.Literal for word in typing.get_args(kind)]
    return bool in kinds or Any in kinds or any(isinstance(word, bool) for word in literals)


def wants_text(annotation: Any) -> bool:
    """Whether a field takes text and no number: `str`, `str | None`, a `Literal` of words, a path."""
    kinds = [kind for kind in _arguments(annotation) if kind is not type(None)]
    return bool(kinds) and all(_is_text(kind) for kind in kinds)


def _is_text(kind: Any) -> bool:
    if typing.get_origin(kind) is typing.Literal:
        return all(isinstance(word, str) for word in typing.get_args(kind))
    return isinstance(kind, type) and issubclass(kind, str | Path)


def _arguments(annotation: Any) -> list[Any]:
    """The types that a type is a choice of, without what `Annotated` adds to them."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _arguments(typing.get_args(annotation)[0])
    if origin is typing.Union or type(annotation).__name__ == "UnionType":
        return [kind for arg in typing.get_args(annotation) for kind in _arguments(arg)]
    return [annotation]
