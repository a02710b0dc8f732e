"""Line charts as SVG in the page's own colours: crisp at any size, right in light and dark. page.js adds the read-out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["COLOURS", "Line", "chart"]

COLOURS = ("a", "b", "c", "d", "e", "f")
"""Names of colour tokens; line i of a page has colour i."""

_WIDTH, _HEIGHT = 480, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 30
_MOST = 400
"""Points a drawn line has at most; more are finer than the screen."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One line: its name, the token of its colour, its points in the order of x; `dashed` for held-out figures."""

    name: str
    colour: str
    points: tuple[Point, ...]
    dashed: bool = False


def chart(title: str, lines: Sequence[Line], *, x_title: str = "step", from_zero: bool = False) -> str:
    """A figure with axes, lines and legend; an empty string when no line has a finite point.

    x starts at 0; `from_zero` starts the vertical axis there too.
    """
    shown = [Line(one.name, one.colour, _thin(_finite(one.points)), one.dashed) for one in lines]
    shown = [one for one in shown if one.points]
    if not shown:
        return ""
    xs = [x for one in shown for x, _ in one.points]
    ys = [y for one in shown for _, y in one.points]
    x_low, x_high = min(0.0, *xs), max(xs)
    x_ticks = [t for t in ticks(x_low, x_high) if x_low <= t <= x_high]
    y_ticks = ticks(min(0.0, *ys) if from_zero else min(ys), max(ys))
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def place(point: Point) -> Point:
        across = (point[0] - x_low) / (x_high - x_low or 1)
        up = (point[1] - y_low) / (y_high - y_low or 1)
        return (
            round(_LEFT + across * (_WIDTH - _LEFT - _RIGHT), 1),
            round(_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM), 1),
        )

    parts = [_grid(place, x_ticks, y_ticks, (x_low, x_high)), *(_path(one, [place(p) for p in one.points]) for one in shown)]
    data = [
        {"name": one.name, "colour": one.colour, "at": [[*place(p), _label(p[0]), _label(p[1])] for p in one.points]}
        for one in shown
    ]
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    return (
        f'<figure class="chart" data-lines="{escape(json.dumps(data))}" data-x="{escape(x_title)}">'
        f"<figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="{box}" role="img" aria-label="{escape(title)}">{"".join(parts)}'
        f'<line class="cursor" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" x1="0" x2="0"/></svg>'
        f'<div class="readout" hidden></div>{_legend(shown)}</figure>'
    )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that enclose low and high."""
    if high - low <= abs(high) * 1e-9:
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def _finite(points: Sequence[Point]) -> tuple[Point, ...]:
    return tuple((x, y) for x, y in points if math.isfinite(x) and math.isfinite(y))


def _thin(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """Keeps the lowest and the highest point of each stretch, so that no spike is lost."""
    if len(points) <= _MOST:
        return points
    size = math.ceil(len(points) / (_MOST // 2))
    kept = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        ends = {min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])}
        kept += sorted(ends)
    return (points[0], *(p for p in kept if p not in (points[0], points[-1])), points[-1])


def _grid(place: Callable[[Point], Point], x_ticks: Sequence[float], y_ticks: Sequence[float], ends: Point) -> str:
    """Rules and numbers; `ends` are the ends of the horizontal axis."""
    parts = []
    for y in y_ticks:
        (left, top), (right, _) = place((ends[0], y)), place((ends[1], y))
        parts.append(f'<line class="rule" x1="{left}" x2="{right}" y1="{top}" y2="{top}"/>')
        parts.append(f'<text x="{left - 8}" y="{top + 4}" text-anchor="end">{_label(y)}</text>')
    for x in x_ticks:
        left, _ = place((x, y_ticks[0]))
        parts.append(f'<text x="{left}" y="{_HEIGHT - 8}" text-anchor="middle">{_label(x)}</text>')
    return "".join(parts)


def _path(line: Line, places: Sequence[Point]) -> str:
    colour = f'style="--line-colour: var(--{escape(line.colour)})"'
    dash = " dashed" if line.dashed else ""
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="3" {colour}/>' for x, y in places) if len(places) < 2 or line.dashed else ""
    track = " ".join(f"{x},{y}" for x, y in places)
    return f'<polyline class="track{dash}" points="{track}" {colour}/>{dots}'


def _legend(lines: Sequence[Line]) -> str:
    items = "".join(
        f'<li class="{"dashed" if one.dashed else ""}" style="--line-colour: var(--{escape(one.colour)})">'
        f"{escape(one.name)}</li>"
        for one in lines
    )
    return f'<ul class="legend">{items}</ul>' if len(lines) > 1 else ""


def _label(value: float) -> str:
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
