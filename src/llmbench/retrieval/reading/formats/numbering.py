"""The numbers of list items, as they are written: 3, c, C, iii, III."""

from __future__ import annotations

__all__ = ["ordinal"]

_ROMAN = (
    *((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"), (9, "ix")),
    *((5, "v"), (4, "iv"), (1, "i")),
)


def ordinal(number: int, style: str) -> str:
    """A number in the style of HTML's `type`: `1`, `a`, `A`, `i` or `I`; what has no such form is written in digits."""
    if style in ("a", "A") and number > 0:
        letters = ""
        while number:
            number, place = divmod(number - 1, 26)
            letters = chr(ord("a") + place) + letters
        return letters if style == "a" else letters.upper()
    if style in ("i", "I") and 0 < number < 4000:
        written = ""
        for value, sign in _ROMAN:
            count, number = divmod(number, value)
            written += sign * count
        return written if style == "i" else written.upper()
    return str(number)
