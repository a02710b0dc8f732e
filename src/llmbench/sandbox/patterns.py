"""Regular expressions, which may take for ever. Python's engine looks for signals, and so can be stopped."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from llmbench.sandbox.refusal import Faulty

__all__ = ["search"]

_FLAGS = {"a": re.ASCII, "i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}


def search(request: dict[str, Any]) -> str | None:
    """What a pattern finds in a text: the first find, or one group of the last one; None where it finds nothing.

    Args:
        request: `text`, `pattern`, `flags` (letters of Python's), and `group`, a number or None.
    """
    pattern = _compiled(request["pattern"], request.get("flags", ""))
    group = request.get("group")
    if group is None:
        first = pattern.search(request["text"])
        return None if first is None else first[0][:100]
    if group > pattern.groups:
        raise Faulty(f"the pattern has no group {group}")
    last: str | None = None
    for found in pattern.finditer(request["text"]):
        last = found[group] if found[group] is not None else last
    return last


@lru_cache(maxsize=64)
def _compiled(pattern: str, flags: str) -> re.Pattern[str]:
    together = re.NOFLAG
    for letter in flags:
        together |= _FLAGS[letter]
    try:
        return re.compile(pattern, together)
    except re.error as error:
        raise Faulty(f"not a regular expression: {error}") from error
