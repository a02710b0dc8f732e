"""The report's plots: what is drawn, with which figures and colours; how, is `svg`'s."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from llmbench.compare.measures import Measure, known
from llmbench.compare.verdict import amount, interval, signed
from llmbench.page import text
from llmbench.statistics import Difference, Estimate, p_value
from llmbench.svg import curves as curve
from llmbench.svg import marks
from llmbench.svg.scale import ticks

__all__ = ["curves", "dots", "forest", "meter", "name"]


def dots(metric: str | Measure, of: Mapping[str, Estimate], colours: Mapping[str, int]) -> str:
    """One line a variant on a scale from 0 to 100%: a dot at the share, a bar for its interval."""
    scale = [0.0, 0.25, 0.5, 0.75, 1.0]
    rows = []
    for variant, one in of.items():
        figures = f"<b>{amount(metric, one.mean)}</b> <span>{interval(metric, one.low, one.high)}</span>"
        mark = marks.interval(one.low, one.high) + marks.dot(one.mean)
        rows.append(marks.row(name(variant, colours), marks.track(mark, scale), figures, f"v{colours[variant]}"))
    return f'<div class="plot">{"".join(rows)}{marks.axis([(x, f"{100 * x:.0f}%") for x in scale[::2]])}</div>'


def forest(metric: str | Measure, pairs: Sequence[Difference], colours: Mapping[str, int], alpha: float) -> str:
    """One line a pair around the line of no difference: filled where the difference is shown, hollow where it is not."""
    low, high = min(0.0, *(one.low for one in pairs)), max(0.0, *(one.high for one in pairs))
    if high == low:  # Every pair is equal to the last digit: an axis of one point either way.
        low, high = low - 0.01, high + 0.01
    at_ticks = ticks(low, high, 6)
    low, high = at_ticks[0], at_ticks[-1]

    def at(x: float) -> float:
        return (x - low) / (high - low)

    rows = []
    for one in pairs:
        shown = one.p_holm < alpha
        who = f'{name(one.a, colours)} <span class="minus">minus</span> {name(one.b, colours)}'
        mark = marks.interval(at(one.low), at(one.high)) + marks.dot(at(one.mean), hollow=not shown)
        figures = (
            f"<b>{signed(metric, one.mean)}</b> <span>{interval(metric, one.low, one.high)}</span> "
            f'<span class="p">{p_value(one.p_holm)}</span>'
        )
        ahead = one.a if one.mean > 0 else one.b
        kind = f"v{colours[ahead]}" if shown else "unsure"
        rows.append(marks.row(who, marks.track(mark, [at(x) for x in at_ticks], zero=at(0.0)), figures, kind))
    labels = [(at(x), _tick(metric, x)) for x in at_ticks]
    return f'<div class="plot forest">{"".join(rows)}{marks.axis(labels)}</div>'


def meter(one: Estimate) -> str:
    """A share and its interval on one line, for a cell of the 2x2 table."""
    return marks.track(marks.interval(one.low, one.high) + marks.dot(one.mean), [])


def curves(of: Mapping[str, Sequence[float]], colours: Mapping[str, int]) -> str:
    """Seconds along x, share of answers that are done by then along y; one stepped line a variant."""
    together = sorted(x for values in of.values() for x in values) or [0.0]
    # A few stragglers must not press all the rest against the left edge; the table below has them.
    end = together[min(len(together) - 1, math.floor(0.99 * len(together)))]
    seconds_at = ticks(0.0, end or 1.0, 7)
    end = seconds_at[-1]
    lines = [(f"v{colours[variant]}", curve.climbing(values, end)) for variant, values in of.items()]
    seconds = [(x / end, f"{_short(x)} s") for x in seconds_at]
    shares = [(x, f"{100 * x:.0f}%") for x in (0.0, 0.25, 0.5, 0.75, 1.0)]
    legend = " ".join(name(variant, colours) for variant in of)
    return f'<div class="legend">{legend}</div>{curve.box("Share of answers by seconds", lines, x=seconds, y=shares)}'


def name(variant: str, colours: Mapping[str, int]) -> str:
    """A variant's name behind a dot of its colour."""
    return f'<span class="name"><i class="v{colours[variant]}"></i><bdi>{text(variant)}</bdi></span>'


def _tick(metric: str | Measure, value: float) -> str:
    measure = known(metric) if isinstance(metric, str) else metric
    if measure.is_amount:
        return f"{_short(value)} s" if measure.unit == "s" else _short(value)
    return f"{100 * value:+.0f}" if value else "0"


def _short(value: float) -> str:
    return f"{value:.6g}"
