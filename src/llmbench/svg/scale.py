"""Round numbers for axes, figures for people, and fewer points where there are more than a screen shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["Point", "label", "thin", "ticks"]

Point = tuple[float, float]

_MOST = 400
"""Points a drawn line has at most; more are finer than the screen."""


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that enclose low and high."""
    if high - low <= abs(high) * 1e-9:
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def thin(points: Sequence[Point]) -> tuple[Point, ...]:
    """The finite points, or of more than 400 the lowest and the highest of each stretch, so that no spike is lost."""
    found = tuple((x, y) for x, y in points if math.isfinite(x) and math.isfinite(y))
    if len(found) <= _MOST:
        return found
    size = math.ceil(len(found) / (_MOST // 2))
    kept: list[Point] = []
    for start in range(0, len(found), size):
        stretch = found[start : start + size]
        kept += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return (found[0], *(p for p in kept if p not in (found[0], found[-1])), found[-1])


def label(value: float) -> str:
    """A number in at most six signs."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    if size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:.4g}"
