"""Numbers in texts, as people and models write them in English, with their units."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["Quantity", "found", "marked", "of_value", "same"]


class Quantity(NamedTuple):
    """A number with the unit behind (or the currency before) it; no unit is an empty text."""

    value: float
    unit: str


_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>[-+\u2212]\s?)?(?P<money>[$\u20ac\u00a3]\s?)?(?P<late>[-\u2212])?"
    rf"(?:(?P<whole>\d+)[ ](?P<over>\d+)/(?P<under>\d+)(?![\d/])|(?P<top>\d+)\s?/\s?(?P<bottom>\d+)(?![\d/])"
    rf"|(?P<plain>{_DIGITS})(?P<power>[eE][-+]?\d{{1,3}}(?!\w))?)"
    r"(?P<unit>\s?%|\s?[^\W\d_]+(?:/[^\W\d_]+)?|\s?\u00b0[CF]?)?"
)
_MARK = re.compile(r"####(.*)")
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_LATEX = (("\\$", "$"), ("\\%", "%"), ("{,}", ","), ("\\!", ""), ("\\,", ""))
_LATEX = (("\\$", "$"), ("\\%", "%"), ("{,}", ","), ("\\!", ""), ("\\,", ""))
_LONGEST = 200_000
_CURRENCIES = {"$": "usd", "\u20ac": "eur", "\u00a3": "gbp", "dollar": "usd", "euro": "eur", "pound sterling": "gbp"}
_FACTORS = {
    "length": {"mm": 1e-3, "cm": 1e-2, "m": 1, "km": 1e3, "inch": 0.0254, "in": 0.0254, "ft": 0.3048, "foot": 0.3048,
               "feet": 0.3048, "yard": 0.9144, "yd": 0.9144, "mile": 1609.344, "mi": 1609.344, "metre": 1, "meter": 1,
               "kilometre": 1e3, "kilometer": 1e3, "centimetre": 1e-2, "centimeter": 1e-2, "millimetre": 1e-3,
               "millimeter": 1e-3},
    "mass": {"mg": 1e-6, "g": 1e-3, "gram": 1e-3, "kg": 1, "kilogram": 1, "t": 1e3, "tonne": 1e3, "lb": 0.45359237,
             "pound": 0.45359237, "oz": 0.028349523125, "ounce": 0.028349523125},
    "time": {"ms": 1e-3, "s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hr": 3600, "hour": 3600,
             "day": 86400, "week": 604800},
    "volume": {"ml": 1e-3, "cl": 1e-2, "l": 1, "litre": 1, "liter": 1, "millilitre": 1e-3, "milliliter": 1e-3},
    "data": {"b": 1, "byte": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 2**10, "mib": 2**20, "gib": 2**30},
}  # fmt: skip
_UNITS = {unit: (what, factor) for what, units in _FACTORS.items() for unit, factor in units.items()}


def found(text: str) -> Iterator[Quantity]:
    """Every number of a text: 1,234.5, -3, 2/3, 1 1/2, 5e-3, 12 %, $40, 150 grams. What is part of a word, a version or a date
    with dots is none."""
    for match in _NUMBER.finditer(_plain(text)):
        value = _value(match)
        if value is not None and math.isfinite(value):
            yield Quantity(value, _unit((match["money"] or "").strip() or (match["unit"] or "").strip()))


def marked(text: str) -> Quantity | None:
    """The number that an answer marks as its last word: behind `####`, or in the last `\\boxed{}`; None where it marks none."""
    for places in (_MARK.findall(text[-_LONGEST:]), _BOXED.findall(text[-_LONGEST:])):
        if places and (inside := next(found(places[-1]), None)):
            return inside
    return None


def of_value(value: Any) -> Quantity | str:
    """The number that is right, or what is wrong with it, in words."""
    if isinstance(value, bool):
        return "a number is expected, not true or false"
    if isinstance(value, int | float):
        return Quantity(float(value), "")
    if not isinstance(value, str):
        return f"a number is expected, not {type(value).__name__}"
    if (mark := marked(value)) is not None:
        return mark
    numbers = list(found(value))
    if len(numbers) != 1:
        return f"one number is expected, and {value[:40]!r} has {len(numbers) or 'none'}"
    return numbers[0]


def same(given: Quantity, right: Quantity, tolerance: float, *, relative: bool, unit: bool) -> bool:
    """Whether two numbers are equal within a tolerance, and with `unit` whether they are of the same thing.

    A percentage is a hundredth; where units do not count it may also stand for its bare number.
    """
    if unit:
        a, b = _based(given), _based(right)
        return a.unit == b.unit and _near(a.value, b.value, tolerance, relative)
    if _near(given.value, right.value, tolerance, relative):
        return True
    a, b = (Quantity(one.value / 100, "") if one.unit == "%" else one for one in (given, right))
    return "%" in (given.unit, right.unit) and _near(a.value, b.value, tolerance, relative)


def _near(a: float, b: float, tolerance: float, relative: bool) -> bool:
    return abs(a - b) <= (tolerance * abs(b) if relative else tolerance) + 1e-9 * max(1e-6, abs(b))


def _plain(text: str) -> str:
    """Without the marks of LaTeX around numbers."""
    text = _FRACTION.sub(r"\1/\2", text[-_LONGEST:])
    for mark, plain in _LATEX:
        text = text.replace(mark, plain)
    return text


def _value(match: re.Match[str]) -> float | None:
    sign = -1.0 if (match["sign"] or "").strip() in ("-", "\u2212") or match["late"] else 1.0
    if match["whole"]:
        return sign * (float(match["whole"]) + float(match["over"]) / float(match["under"])) if float(match["under"]) else None
    if match["top"]:
        return sign * float(match["top"]) / float(match["bottom"]) if float(match["bottom"]) else None
    return sign * float(match["plain"].replace(",", "") + (match["power"] or ""))


def _unit(word: str) -> str:
    word = word.casefold()
    if word in _CURRENCIES:
        return _CURRENCIES[word]
    single = word[:-2] if word in ("inches",) else word.removesuffix("s") if len(word) > 2 else word
    return _CURRENCIES.get(single, single if single in _UNITS or word not in _UNITS else word)


def _based(one: Quantity) -> Quantity:
    """In the base unit of what is measured; a percentage as a share."""
    if one.unit == "%":
        return Quantity(one.value / 100, "")
    what, factor = _UNITS.get(one.unit, (one.unit, 1.0))
    return Quantity(one.value * factor, what)
