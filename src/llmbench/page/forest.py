"""Differences as rows around the line of no difference."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llmbench.page.parts import text
from llmbench.statistics import Difference, p_value
from llmbench.svg import marks
from llmbench.svg.scale import ticks

__all__ = ["forest"]


def forest(
    found: Sequence[Difference], alpha: float, *, who: Callable[[Difference], str], colour: Callable[[Difference], str]
) -> str:
    """One row a difference, with its interval and p: a filled dot where it is shown, a hollow one where it may be chance.

    Args:
        found: at least one.
        alpha: a difference is shown where p after Holm's correction is below it.
        who: what stands in front of a row, HTML.
        colour: the class of a row whose difference is shown.
    """
    at_ticks = ticks(min(0.0, *(one.low for one in found)), max(0.0, *(one.high for one in found)), 6)
    low, high = at_ticks[0], at_ticks[-1]

    def at(x: float) -> float:
        return (x - low) / (high - low)

    def row(one: Difference) -> str:
        chance = one.p_holm >= alpha
        mark = marks.interval(at(one.low), at(one.high)) + marks.dot(at(one.mean), hollow=chance)
        figures = (
            f"<b>{one.mean:+.4f}</b> <span>[{one.low:+.4f}, {one.high:+.4f}]</span> "
            f'<span class="p">{text(p_value(one.p_holm))}</span>'
        )
        track = marks.track(mark, [at(x) for x in at_ticks], zero=at(0.0))
        return marks.row(who(one), track, figures, "unsure" if chance else colour(one))

    axis = marks.axis([(at(x), f"{x:+.4g}" if x else "0") for x in at_ticks])
    return f'<div class="card plot forest">{"".join(map(row, found))}{axis}</div>'
