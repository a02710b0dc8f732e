"""Values as YAML that llmbench reads back as they are, in the style of a person: no quotes where none are needed."""

from __future__ import annotations

import re
from typing import Any

import yaml

__all__ = ["scalar"]

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
