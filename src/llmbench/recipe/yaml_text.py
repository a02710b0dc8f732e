"""The text of YAML: values written as a person would, with quotes only where needed, and what is wrong with a text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from llmbench.errors import RecipeError

__all__ = ["invalid", "scalar"]

_WORD = re.compile(r"[A-Za-z_./~][\w./@+-]*")
_NOT_TEXT = {"true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"}


def scalar(value: Any) -> str:
    """A value in YAML's flow style, as llmbench reads it back."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            short = f"{value:.12g}" if float(f"{value:.12g}") == value else repr(value)
            mantissa, e, exponent = short.partition("e")
            if not e:
                return short if "." in short else f"{short}.0"
            return f"{mantissa if '.' in mantissa else f'{mantissa}.0'}e{int(exponent)}"
        case list():
            return f"[{', '.join(map(scalar, value))}]"
        case dict():
            return f"{{{', '.join(f'{scalar(str(key))}: {scalar(inner)}' for key, inner in value.items())}}}"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    """A text without quotes where it cannot be taken for anything else."""
    if _WORD.fullmatch(text) and text.lower() not in _NOT_TEXT and not re.fullmatch(r"\.?\d.*|\.(inf|nan)|\.", text, re.I):
        return text
    return str(yaml.safe_dump(text, default_style='"', width=10**9, allow_unicode=True)).rstrip("\n")


def invalid(error: yaml.YAMLError, text: str, path: str | Path) -> RecipeError:
    """What PyYAML found wrong with a text, as one line with file and line number."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text[: error.position].count("\n") + 1
        return RecipeError(f"{path}:{line}: not valid YAML: the character {error.character:#x} is not allowed")
    mark = getattr(error, "problem_mark", None)
    where = f"{path}:{mark.line + 1}" if mark else str(path)
    problem = str(getattr(error, "problem", None) or error)
    if "another document" in problem:
        problem = "a second document begins here (---); leave one of them"
    elif mark and re.search(r"[{,:]\s*\$\{", "".join(text.splitlines()[mark.line : mark.line + 1])):
        problem += ". Put values with ${...} in quotes"
    return RecipeError(f"{where}: not valid YAML: {problem}")
