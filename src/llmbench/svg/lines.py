"""Line charts as SVG in a page's own colours: right in light and dark. The app's script adds the read-out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape

from llmbench.svg.scale import Point, label, thin, ticks

__all__ = ["COLOURS", "Line", "chart"]

COLOURS = ("a", "b", "c", "d", "e", "f", "g", "h")
"""Names of colour tokens: eight that people with any kind of colour vision tell apart."""
_MARKS = (
    "M{x} {y}m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z", "M{x} {y}m-3.2-3.2h6.4v6.4h-6.4z", "M{x} {y}m0-4.2l4 7.2h-8z",
    "M{x} {y}m0-4.6l4.6 4.6l-4.6 4.6l-4.6-4.6z", "M{x} {y}m0 4.2l4-7.2h-8z", "M{x} {y}m-4-1h3v-3h2v3h3v2h-3v3h-2v-3h-3z",
)  # fmt: skip
"""Shapes on the lines, so that no two of 24 lines differ by their colour alone."""
_MARKS_A_LINE = 6

_WIDTH, _HEIGHT = 480, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 10, 30


@dataclass(frozen=True)
class Line:
    """One line: its name, the token of its colour, its points in the order of x; `dashed` for held-out figures."""

    name: str
    colour: str
    points: tuple[Point, ...]
    dashed: bool = False
    mark: int | None = None
    """Which shape stands on it; None for a line that is alone."""


def chart(title: str, lines: Sequence[Line], *, x_title: str = "step", from_zero: bool = False) -> str:
    """A figure with axes, lines and legend; an empty string when no line has a finite point.

    x starts at 0; `from_zero` starts the vertical axis there too.
    """
    shown = [replace(one, points=thin(one.points)) for one in lines]
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
        {"name": one.name, "colour": one.colour, "at": [[*place(p), label(p[0]), label(p[1])] for p in one.points]}
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


def _grid(place: Callable[[Point], Point], x_ticks: Sequence[float], y_ticks: Sequence[float], ends: Point) -> str:
    """Rules and numbers; `ends` are the ends of the horizontal axis."""
    parts = []
    for y in y_ticks:
        (left, top), (right, _) = place((ends[0], y)), place((ends[1], y))
        parts.append(f'<line class="rule" x1="{left}" x2="{right}" y1="{top}" y2="{top}"/>')
        parts.append(f'<text x="{left - 8}" y="{top + 4}" text-anchor="end">{label(y)}</text>')
    for x in x_ticks:
        left, _ = place((x, y_ticks[0]))
        parts.append(f'<text x="{left}" y="{_HEIGHT - 8}" text-anchor="middle">{label(x)}</text>')
    return "".join(parts)


def _path(line: Line, places: Sequence[Point]) -> str:
    colour = f'style="--line-colour: var(--{escape(line.colour)})"'
    dash = " dashed" if line.dashed else ""
    few = len(places) < 2 or (line.dashed and line.mark is None)
    dots = "".join(f'<circle cx="{x}" cy="{y}" r="3" {colour}/>' for x, y in places) if few and line.mark is None else ""
    if line.mark is not None:
        step = max(len(places) // _MARKS_A_LINE, 1)
        dots = "".join(_shape(line, *place) for place in places[step // 2 :: step])
    track = " ".join(f"{x},{y}" for x, y in places)
    return f'<polyline class="track{dash}" points="{track}" {colour}/>{dots}'


def _shape(line: Line, x: float, y: float) -> str:
    path = _MARKS[(line.mark or 0) % len(_MARKS)].format(x=x, y=y)
    hollow = " hollow" if line.dashed else ""
    return f'<path class="mark{hollow}" d="{path}" style="--line-colour: var(--{escape(line.colour)})"/>'


def _legend(lines: Sequence[Line]) -> str:
    """Each line as it is drawn: with its shape, dashed, or as the one point that it is."""
    items = []
    for one in lines:
        stroke = f'<polyline class="track{" dashed" if one.dashed else ""}" points="0,6 26,6"/>' if len(one.points) > 1 else ""
        shape = _shape(one, 13, 6) if one.mark is not None else '<circle cx="13" cy="6" r="3"/>' if not stroke else ""
        items.append(
            f'<li style="--line-colour: var(--{escape(one.colour)})">'
            f'<svg viewBox="0 0 26 12" width="26" height="12" aria-hidden="true">{stroke}{shape}</svg>'
            f'<span title="{escape(one.name)}">{escape(one.name)}</span></li>'
        )
    return f'<ul class="legend">{"".join(items)}</ul>' if len(lines) > 1 else ""
