"""Lines in a box that stretches with the page: the letters stand beside it, at shares of its sides, and keep their size."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from llmbench.svg.scale import Point

__all__ = ["box", "climbing", "point", "straight"]


def box(title: str, lines: Sequence[tuple[str, str]], *, x: Sequence[tuple[float, str]], y: Sequence[tuple[float, str]]) -> str:
    """A chart with rules and labels.

    Args:
        title: for those who hear the page.
        lines: each with its class, by which it has its colour, and its path from `straight`, `climbing` or `point`.
        x: labels at shares of the width.
        y: labels at shares of the height, from the bottom; each has a rule.
    """
    rules = "".join(f'<path class="grid" d="M0 {100 - 100 * share:.2f}H100"/>' for share, _ in y)
    drawn = "".join(f'<path class="{kind}" d="{path}"/>' for kind, path in lines)
    left = "".join(f'<span style="top:{100 - 100 * share:.2f}%">{escape(label)}</span>' for share, label in y)
    below = "".join(f'<span style="left:{100 * share:.2f}%">{escape(label)}</span>' for share, label in x)
    return (
        f'<div class="curves"><div class="ys">{left}</div><svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(title)}">{rules}{drawn}</svg><div class="xs">{below}</div></div>'
    )


def straight(points: Sequence[Point]) -> str:
    """A line through points, each as shares of the width and, from the bottom, of the height."""
    return "M" + "L".join(f"{100 * x:.2f} {100 - 100 * y:.2f}" for x, y in points)


def climbing(values: Sequence[float], end: float) -> str:
    """The share of values that lie at or below each x from 0 to `end`, as steps."""
    path = "M0 100"
    for i, x in enumerate(sorted(x for x in values if x <= end), 1):
        path += f"H{100 * x / end:.2f}V{100 - 100 * i / len(values):.2f}"
    return f"{path}H100"


def point(x: float, y: float) -> str:
    """A dot, as a stroke without length: a circle would be stretched. Its class sets the width."""
    return f"M{100 * x:.2f} {100 - 100 * y:.2f}h0"
