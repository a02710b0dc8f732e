"""A file of its own with panels over each other that share their x: right in light and dark, without a page around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from llmbench.svg.scale import Point, label, thin, ticks

__all__ = ["Curve", "Panel", "draw"]

_WIDTH, _LEFT, _RIGHT, _TOP, _BETWEEN, _BOTTOM = 720, 64, 16, 34, 22, 40
_STYLE = """
svg { background: #fff; color: #1f2430; font: 12px system-ui, sans-serif; --grid: #e3e6ec; --a: #2563eb; --b: #c2410c;
  --c: #0f766e; --d: #7c3aed; --e: #a16207; --quiet: #64748b; }
@media (prefers-color-scheme: dark) { svg { background: #14171f; color: #e6e9f0; --grid: #2c3340; --a: #7aa7ff; --b: #fb923c;
  --c: #5eead4; --d: #c4b5fd; --e: #facc15; --quiet: #94a3b8; } }
text { fill: currentColor } .rule { stroke: var(--grid) } .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round }
.faint { opacity: .35; stroke-width: 1 } .at { stroke: currentColor; stroke-dasharray: 2 3 }
"""


@dataclass(frozen=True)
class Curve:
    """A line: its points in the order of x, a colour's name (a to e, quiet), and its name in the legend, if it has one."""

    points: Sequence[Point]
    colour: str
    name: str = ""
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Panel:
    """One of the charts: the words beside its y, its curves, how high it is, and what y must reach."""

    words: str
    curves: Sequence[Curve]
    height: int = 120
    reaches: Sequence[float] = ()
    """Values of y that are on the axis whatever the curves are, such as 0."""


def draw(title: str, panels: Sequence[Panel], *, x: str = "step", at: tuple[float, str] | None = None) -> str:
    """The file's text.

    Args:
        title: stands above all.
        panels: from top to bottom; those without a finite point are left out.
        x: the words below.
        at: a place on x that a dotted line in the first panel marks, and its words in the legend.
    """
    shown = [(one, [(curve, thin(curve.points)) for curve in one.curves]) for one in panels]
    shown = [(one, found) for one, curves in shown if (found := [(curve, points) for curve, points in curves if points])]
    xs = [point[0] for _, curves in shown for _, points in curves for point in points] or [0.0, 1.0]
    marks = [mark for mark in ticks(min(xs), max(xs), 7) if min(xs) <= mark <= max(xs)]
    span = max(xs) - min(xs) or 1.0

    def across(value: float) -> float:
        return round(_LEFT + (value - min(xs)) / span * (_WIDTH - _LEFT - _RIGHT), 1)

    parts, top = [f'<text x="{_LEFT}" y="20" font-weight="bold">{escape(title)}</text>'], _TOP
    for number, (one, curves) in enumerate(shown):
        ys = [point[1] for _, points in curves for point in points]
        rules = ticks(min(*ys, *one.reaches, ys[0]), max(*ys, *one.reaches, ys[0]), 5 if one.height > 150 else 3)
        bottom = top + one.height

        def up(
            value: float, low: float = rules[0], high: float = rules[-1], bottom: int = bottom, size: int = one.height
        ) -> float:
            return round(bottom - (value - low) / (high - low) * size, 1)

        for rule in rules:
            parts.append(f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{up(rule)}" y2="{up(rule)}"/>')
            parts.append(f'<text x="{_LEFT - 8}" y="{up(rule) + 4}" text-anchor="end">{label(rule)}</text>')
        middle = (top + bottom) / 2
        parts.append(f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(one.words)}</text>')
        if at is not None and number == 0:
            parts.append(f'<line class="at" x1="{across(at[0])}" x2="{across(at[0])}" y1="{top}" y2="{bottom}"/>')
        for curve, points in curves:
            track = " ".join(f"{across(px)},{up(py)}" for px, py in points)
            faint = " faint" if curve.faint else ""
            parts.append(f'<polyline class="curve{faint}" stroke="var(--{curve.colour})" points="{track}"/>')
            if curve.dots or len(points) == 1:
                parts += [f'<circle cx="{across(px)}" cy="{up(py)}" r="3" fill="var(--{curve.colour})"/>' for px, py in points]
        words = [(curve.name, f"var(--{curve.colour})") for curve, _ in curves if curve.name]
        if at is not None and number == 0:
            words.append((at[1], "currentColor"))
        parts += _legend(words, top)
        top = bottom + _BETWEEN
    foot = top - _BETWEEN
    parts += [f'<text x="{across(mark)}" y="{foot + 18}" text-anchor="middle">{label(mark)}</text>' for mark in marks]
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{foot + 34}" text-anchor="middle">{escape(x)}</text>')
    box = f'viewBox="0 0 {_WIDTH} {foot + _BOTTOM}" width="{_WIDTH}" height="{foot + _BOTTOM}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f"{''.join(parts)}</svg>\n"
    )


def _legend(words: Sequence[tuple[str, str]], top: int) -> list[str]:
    """Names at the right, each behind a stroke of its colour."""
    parts, right = [], _WIDTH - _RIGHT
    for number, (name, colour) in enumerate(words):
        y = top + 10 + 16 * number
        parts.append(f'<line x1="{right - 24}" x2="{right - 4}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{right - 30}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
    return parts
