"""The evaluation as one HTML page that needs nothing else: dots with their intervals, differences around 0, tables, notes."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from llmbench.retrieval.evaluation.metrics import HEADLINE
from llmbench.retrieval.evaluation.report import Report, Rows, pairs, rows, seen, shown, sums

__all__ = ["page"]

_STYLE = """
:root{color-scheme:light dark;--ink:#1c1c1e;--soft:#6b6b70;--line:#d8d8dc;--paper:#fff;--mark:#2563a8}
@media(prefers-color-scheme:dark){:root{--ink:#ececee;--soft:#9a9aa0;--line:#3a3a3e;--paper:#17171a;--mark:#6aa9ea}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:58rem;
margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}p,li{max-width:44rem}.soft{color:var(--soft)}
.plot{display:grid;grid-template-columns:max-content 1fr max-content;gap:.35rem 1rem;align-items:center}
.plot svg{width:100%;height:1.6rem;overflow:visible}.plot .num{font-variant-numeric:tabular-nums;color:var(--soft)}
.interval{stroke:var(--mark);stroke-width:3}.dot{fill:var(--mark)}.unsure .interval{stroke:var(--soft)}
.unsure .dot{fill:var(--paper);stroke:var(--soft);stroke-width:2}.zero{stroke:var(--ink)}.grid{stroke:var(--line)}
.curve{width:100%;height:14rem;overflow:visible}.curve path{fill:none;
stroke:var(--mark);stroke-width:2;vector-effect:non-scaling-stroke}
table{border-collapse:collapse;margin-bottom:1.5em;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}
th,td{padding:.3rem .8rem .3rem 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}
"""


def page(report: Report) -> str:
    """The whole page."""
    mine = " ".join(shown(report))
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    parts = [
        f"<h1>{escape(report.pipeline)} on {escape(report.collection)}</h1>",
        f"<p class=soft>{sums(report)}. Brackets and bars are 95% intervals "
        f"over queries.</p><p>{escape(mine)}</p><p>{escape(seen(report))}</p>",
        f"<h2>{HEADLINE}</h2>{_dots(report)}",
        f"<h2>{escape(report.reference)} minus each other</h2>{_forest(report)}" if report.differences else "",
        _curve(report.tuning["curve"]) if report.tuning else "",
        f"<h2>All figures</h2>{_table(rows(report))}{_table(pairs(report))}",
        f"<h2>Notes</h2><ul>{notes}</ul>" if notes else "",
    ]
    title = escape(f"{report.pipeline} on {report.collection}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style>{''.join(parts)}</html>\n"
    )


def _dots(report: Report) -> str:
    lines = []
    for row in report.rows:
        one = row.of[HEADLINE]
        mark = "".join(_grid(x) for x in (0, 0.25, 0.5, 0.75, 1)) + _bar(one.low, one.high) + _dot(one.mean)
        kind = "" if row.name == report.reference else "unsure"
        lines.append(_line(row.name, mark, f"{one.mean:.4f} [{one.low:.4f}, {one.high:.4f}]", kind))
    return f'<div class="plot">{"".join(lines)}</div>'


def _forest(report: Report) -> str:
    """The line of no difference stands in the middle; filled where the difference is more than chance."""
    reach = max((max(abs(one.low), abs(one.high)) for one in report.differences), default=0.0) or 1.0

    def at(x: float) -> float:
        return 0.5 + x / reach / 2

    lines = []
    for one in report.differences:
        mark = '<line class="zero" x1="50%" x2="50%" y1="0" y2="100%"/>' + _bar(at(one.low), at(one.high)) + _dot(at(one.mean))
        kind = "" if one.p_holm < 0.05 else "unsure"
        lines.append(_line(one.b, mark, f"{one.mean:+.4f} [{one.low:+.4f}, {one.high:+.4f}]", kind))
    return f'<div class="plot">{"".join(lines)}</div>'


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """The headline measure by alpha, over all queries."""
    low, high = min(y for _, y in points), max(y for _, y in points)
    reach = high - low or 1.0
    path = "M" + "L".join(f"{100 * x:.1f} {95 - 90 * (y - low) / reach:.1f}" for x, y in points)
    return (
        f'<h2>{HEADLINE} by alpha: 0 is terms, 1 is dense</h2><svg class="curve" viewBox="0 0 100 100" '
        f'preserveAspectRatio="none" role="img" aria-label="{HEADLINE} by alpha"><path d="{path}"/></svg>'
        f"<p class=soft>From {low:.4f} to {high:.4f}, over the queries that alpha was chosen on.</p>"
    )


def _table(lines: Rows) -> str:
    def cells(row: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(text)}</{tag}>" for text in row) + "</tr>"

    return f"<table>{cells(lines[0], 'th')}{''.join(cells(row, 'td') for row in lines[1:])}</table>" if lines[1:] else ""


def _line(name: str, mark: str, figures: str, kind: str) -> str:
    return f'<div>{escape(name)}</div><svg class="{kind}" aria-hidden="true">{mark}</svg><div class="num">{figures}</div>'


def _grid(x: float) -> str:
    return f'<line class="grid" x1="{100 * x:.0f}%" x2="{100 * x:.0f}%" y1="0" y2="100%"/>'


def _bar(low: float, high: float) -> str:
    return f'<line class="interval" x1="{100 * low:.2f}%" x2="{100 * high:.2f}%" y1="50%" y2="50%"/>'


def _dot(x: float) -> str:
    return f'<circle class="dot" cx="{100 * x:.2f}%" cy="50%" r="5"/>'
