"""How numbers, and names and words that somebody else wrote, are shown to people."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["clock", "counted", "legible", "printable", "visible"]

_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls but for line ends and tabs, overrides and isolates of direction, half characters.

What joins letters and emoji is of the same category as the second and stays.
"""


def counted(count: int, what: str, many: str = "") -> str:
    """The number and the word, which where it is not one takes an s, or is another one: 1 document, 1,000 documents."""
    return f"{count:,} {what if count == 1 else many or what + 's'}"


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def printable(text: str) -> str:
    r"""A text in one line, with what a terminal would obey, or not show, written as `\x1b`."""
    return "".join(
        one.encode("unicode_escape").decode() if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") else one
        for one in text
    )


def legible(text: str) -> str:
    r"""A text of several lines, with what a terminal would obey, or what turns its direction, written as `\x1b`."""
    return _OBEYED.sub(lambda found: printable(found[0]), text)


def visible(text: str) -> str:
    r"""A text in which nothing is hidden: line ends and tabs as ↵ and ⇥, and whatever else cannot be seen as `\x1b`."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(char: str) -> str:
    match char:
        case "\n":
            return "↵\n"
        case "\t":
            return "⇥"
        case "\u3000":
            return char
        case _ if char.isprintable():
            return char
        case _:
            return char.encode("unicode_escape").decode("ascii")
