"""The report's plots: SVG whose x is in percent of the width, so that lines stretch with the page and text and dots do not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from llmbench.compare.verdict import amount, interval, p_value, signed
from llmbench.statistics import Difference, Estimate

__all__ = ["curves", "dots", "forest", "meter", "name", "ticks"]


def dots(metric: str, of: Mapping[str, Estimate], colours: Mapping[str, int]) -> str:
    """One line a variant on a scale from 0 to 100%: a dot at the share, a bar for its interval."""
    scale = [0.0, 0.25, 0.5, 0.75, 1.0]
    rows = []
    for variant, one in of.items():
        figures = f"<b>{amount(metric, one.mean)}</b> <span>{interval(metric, one.low, one.high)}</span>"
        mark = _interval(one.low, one.high) + _dot(one.mean)
        rows.append(_row(name(variant, colours), _track(mark, scale), figures, f"v{colours[variant]}"))
    return f'<div class="plot">{"".join(rows)}{_axis([(x, f"{100 * x:.0f}%") for x in scale[::2]])}</div>'


def forest(metric: str, pairs: Sequence[Difference], colours: Mapping[str, int], alpha: float) -> str:
    """One line a pair around the line of no difference: filled where the difference is shown, hollow where it is not."""
    low, high = min(0.0, *(one.low for one in pairs)), max(0.0, *(one.high for one in pairs))
    marks = ticks(low, high)
    low, high = min(low, marks[0]), max(high, marks[-1])
    if high == low:  # Every pair is equal to the last digit: an axis of one point either way.
        low, high, marks = low - 0.01, high + 0.01, [low - 0.01, 0.0, high + 0.01]

    def at(x: float) -> float:
        return (x - low) / (high - low)

    rows = []
    for one in pairs:
        shown = one.p_holm < alpha
        who = f'{name(one.a, colours)} <span class="minus">minus</span> {name(one.b, colours)}'
        mark = _interval(at(one.low), at(one.high)) + _dot(at(one.mean), hollow=not shown)
        figures = (
            f"<b>{signed(metric, one.mean)}</b> <span>{interval(metric, one.low, one.high)}</span> "
            f'<span class="p">{p_value(one.p_holm)}</span>'
        )
        ahead = one.a if one.mean > 0 else one.b
        kind = f"v{colours[ahead]}" if shown else "unsure"
        rows.append(_row(who, _track(mark, [at(x) for x in marks], zero=at(0.0)), figures, kind))
    labels = [(at(x), _tick(metric, x)) for x in marks]
    return f'<div class="plot forest">{"".join(rows)}{_axis(labels)}</div>'


def meter(one: Estimate) -> str:
    """A share and its interval on one line, for a cell of the 2x2 table."""
    return f'<svg class="meter" aria-hidden="true">{_interval(one.low, one.high)}{_dot(one.mean)}</svg>'


def curves(of: Mapping[str, Sequence[float]], colours: Mapping[str, int]) -> str:
    """Seconds along x, share of answers that are done by then along y; one stepped line a variant."""
    together = sorted(x for values in of.values() for x in values) or [0.0]
    # A few stragglers must not press all the rest against the left edge; the table below has them.
    end = together[min(len(together) - 1, math.floor(0.99 * len(together)))]
    marks = ticks(0.0, end or 1.0, wanted=6)
    end = marks[-1]
    lines = []
    for variant, values in of.items():
        n, path = len(values), "M0 100"
        for i, x in enumerate(sorted(x for x in values if x <= end), 1):
            path += f"H{100 * x / end:.2f}V{100 - 100 * i / n:.2f}"
        lines.append(f'<path class="v{colours[variant]}" d="{path}H100"/>')
    grid = "".join(f'<path class="grid" d="M0 {y}H100"/>' for y in (0, 25, 50, 75))
    shares = "".join(f'<span style="top:{y}%">{100 - y}%</span>' for y in (0, 25, 50, 75, 100))
    seconds = "".join(f'<span style="left:{100 * x / end:.2f}%">{_short(x)} s</span>' for x in marks)
    legend = " ".join(name(variant, colours) for variant in of)
    return (
        f'<div class="legend">{legend}</div><div class="curves"><div class="ys">{shares}</div>'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="Share of answers by seconds">'
        f'{grid}{"".join(lines)}</svg><div class="xs">{seconds}</div></div>'
    )


def name(variant: str, colours: Mapping[str, int]) -> str:
    """A variant's name behind a dot of its colour."""
    return f'<span class="name"><i class="v{colours[variant]}"></i><bdi>{escape(variant)}</bdi></span>'


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """About `wanted` round numbers, the first at or below `low` and the last at or above `high`."""
    raw = (high - low or 1.0) / wanted
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def _row(who: str, track: str, figures: str, kind: str) -> str:
    return f'<div class="line {kind}"><div class="who">{who}</div>{track}<div class="num">{figures}</div></div>'


def _track(mark: str, marks: Sequence[float], zero: float | None = None) -> str:
    lines = "".join(f'<line class="grid" x1="{100 * x:.2f}%" x2="{100 * x:.2f}%" y1="0" y2="100%"/>' for x in marks)
    if zero is not None:
        lines += f'<line class="zero" x1="{100 * zero:.2f}%" x2="{100 * zero:.2f}%" y1="0" y2="100%"/>'
    return f'<svg class="track" aria-hidden="true">{lines}{mark}</svg>'


def _axis(labels: Sequence[tuple[float, str]]) -> str:
    text = "".join(f'<text x="{100 * x:.2f}%" y="13" text-anchor="middle">{escape(label)}</text>' for x, label in labels)
    return f'<div class="line axis"><div class="who"></div><svg class="track">{text}</svg><div class="num"></div></div>'


def _interval(low: float, high: float) -> str:
    return f'<line class="interval" x1="{100 * low:.2f}%" x2="{100 * high:.2f}%" y1="50%" y2="50%"/>'


def _dot(x: float, *, hollow: bool = False) -> str:
    return f'<circle class="{"hollow" if hollow else "dot"}" cx="{100 * x:.2f}%" cy="50%" r="6"/>'


def _tick(metric: str, value: float) -> str:
    if metric in ("latency", "first_token"):
        return f"{_short(value)} s"
    if metric in ("prompt_tokens", "completion_tokens"):
        return _short(value)
    return f"{100 * value:+.0f}" if value else "0"


def _short(value: float) -> str:
    return f"{value:.6g}"
