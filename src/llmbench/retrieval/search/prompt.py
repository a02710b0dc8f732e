"""The prompt: passages and question put into their places, once each."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["fill"]


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replaces the first `{name}` of each value, in one pass: braces inside a value are never looked at."""
    left = dict(values)

    def value(match: re.Match[str]) -> str:
        return left.pop(match[1], match[0])

    return re.sub(r"\{(" + "|".join(map(re.escape, values)) + r")\}", value, template)
