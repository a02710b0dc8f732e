"""Bars in percent of the width, so that they stretch with the page and the letters do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Bar", "histogram"]

_HEIGHT = 150
_TALLEST = 0.88 * _HEIGHT
"""What is above it is for the figure of the tallest bar."""


@dataclass(frozen=True)
class Bar:
    """How many of what was counted lie between two whole numbers, both included."""

    first: int
    last: int
    count: int


def histogram(title: str, bars: Sequence[Bar], *, x: str, what: str, limit: tuple[int, str] | None = None) -> str:
    """Bars as high as their counts, over an axis of the numbers that they begin at.

    Args:
        title: for those who hear the page.
        bars: at least one, neighbours of one width, in order; the last may be longer.
        x: the unit of the axis, such as tokens.
        what: what is counted, such as rows.
        limit: a number that a line marks, with its words; bars from there on are in the colour of what is lost.
    """
    step, most = 100 / len(bars), max(1, *(one.count for one in bars))
    drawn = [f'<line class="base" x1="0" x2="100%" y1="{_HEIGHT}" y2="{_HEIGHT}"/>']
    for i, one in enumerate(bars):
        height = max(_TALLEST * one.count / most, 1 if one.count else 0)
        kind = ' class="beyond"' if limit and one.first >= limit[0] else ""
        top, left, wide, middle = _HEIGHT - height, (i + 0.06) * step, step * 0.88, (i + 0.5) * step
        drawn.append(
            f'<rect{kind} x="{left:.2f}%" width="{wide:.2f}%" y="{top:.1f}" height="{height:.1f}" rx="2">'
            f"<title>{escape(f'{one.first:,} to {one.last:,} {x}: {one.count:,} {what}')}</title></rect>"
        )
        if one.count:
            drawn.append(f'<text class="count" x="{middle:.2f}%" y="{top - 5:.1f}" text-anchor="middle">{one.count:,}</text>')
    edges = "".join(
        f'<text class="edge{"" if i else " least"}" x="{i * step:.2f}%" y="{_HEIGHT + 18}">{one.first:,}</text>'
        for i, one in enumerate(bars)
    )
    axis = f'<text x="100%" y="{_HEIGHT + 36}" text-anchor="end">{escape(x)}</text>'
    line = _limit(bars, *limit) if limit else ""
    return f'<svg class="bars" role="img" aria-label="{escape(title)}">{"".join(drawn)}<g>{edges}</g>{axis}{line}</svg>'


def _limit(bars: Sequence[Bar], at: int, words: str) -> str:
    """A line with its words, on the side that has more room; nothing where it is off the axis."""
    width = bars[1].first - bars[0].first if len(bars) > 1 else bars[0].last - bars[0].first + 1
    place = (at - bars[0].first) / (width * len(bars)) * 100
    if not 0 <= place <= 100:
        return ""
    anchor, aside = ("end", -6) if place > 70 else ("start", 6)
    return (
        f'<line x1="{place:.2f}%" x2="{place:.2f}%" y1="0" y2="{_HEIGHT}"/><text class="mark" x="{place:.2f}%" y="8" '
        f'dx="{aside}" text-anchor="{anchor}">{escape(words)}</text>'
    )
