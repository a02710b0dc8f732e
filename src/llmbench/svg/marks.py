"""Rows of a plot whose x is in percent of the width, so that lines stretch with the page and text and dots do not."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

__all__ = ["axis", "dot", "interval", "row", "track"]


def row(who: str, track: str, figures: str, kind: str) -> str:
    """One line of a plot: a name, its track, its figures."""
    return f'<div class="line {kind}"><div class="who">{who}</div>{track}<div class="num">{figures}</div></div>'


def track(mark: str, marks: Sequence[float], zero: float | None = None) -> str:
    """A mark over rules at shares of the width, one of them the line of no difference."""
    lines = "".join(f'<line class="grid" x1="{100 * x:.2f}%" x2="{100 * x:.2f}%" y1="0" y2="100%"/>' for x in marks)
    if zero is not None:
        lines += f'<line class="zero" x1="{100 * zero:.2f}%" x2="{100 * zero:.2f}%" y1="0" y2="100%"/>'
    return f'<svg class="track" aria-hidden="true">{lines}{mark}</svg>'


def axis(labels: Sequence[tuple[float, str]]) -> str:
    """The last line of a plot: words at shares of the width."""
    text = "".join(f'<text x="{100 * x:.2f}%" y="13" text-anchor="middle">{escape(label)}</text>' for x, label in labels)
    return f'<div class="line axis"><div class="who"></div><svg class="track">{text}</svg><div class="num"></div></div>'


def interval(low: float, high: float) -> str:
    """A bar from one share of the width to another."""
    return f'<line class="interval" x1="{100 * low:.2f}%" x2="{100 * high:.2f}%" y1="50%" y2="50%"/>'


def dot(x: float, *, hollow: bool = False) -> str:
    """A dot at a share of the width."""
    return f'<circle class="{"hollow" if hollow else "dot"}" cx="{100 * x:.2f}%" cy="50%" r="6"/>'
