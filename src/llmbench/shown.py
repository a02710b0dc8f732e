"""How numbers, and names and words that somebody else wrote, are shown to people."""

from __future__ import annotations

import unicodedata

__all__ = ["counted", "legible", "printable"]

_TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Overrides and isolates of direction. What joins letters and emoji is of the same category and stays."""


def counted(count: int, what: str, many: str = "") -> str:
    """The number and the word, which where it is not one takes an s, or is another one: 1 document, 1,000 documents."""
    return f"{count:,} {what if count == 1 else many or what + 's'}"


def printable(text: str) -> str:
    r"""A text in one line, with what a terminal would obey, or not show, written as `\x1b`."""
    return "".join(
        one.encode("unicode_escape").decode() if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") else one
        for one in text
    )


def legible(text: str) -> str:
    r"""A text of several lines, with what a terminal would obey, or what turns its direction, written as `\x1b`."""
    return "".join(printable(one) if _hidden(one) else one for one in text)


def _hidden(one: str) -> bool:
    return one in _TURNING or (one not in "\n\t" and unicodedata.category(one) in ("Cc", "Cs"))
