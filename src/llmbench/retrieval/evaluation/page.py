"""The evaluation as one HTML page: dots with their intervals, differences around 0, the tuned weight, tables, notes."""

from __future__ import annotations

from typing import Any

from llmbench.page import document, facts, forest, header, notes, section, table, text
from llmbench.retrieval.evaluation.metrics import HEADLINE
from llmbench.retrieval.evaluation.report import Report, Rows, pairs, rows, seen, shown
from llmbench.svg import curves, marks
from llmbench.svg.scale import label, ticks

__all__ = ["page"]

_KIND = "retrieval evaluation"
_ALPHA = 0.05
_OWN, _OTHER = "v3", "v0"
"""The colours of the pipeline as its recipe has it, and of every other way to search."""


def page(report: Report) -> str:
    """The whole page; every name in it is escaped."""
    body = [
        _head(report),
        section(HEADLINE, _dots(report), lead=f"Dots are means over queries, bars their 95% intervals. {_own(report)}"),
        _differences(report) if report.differences else "",
        _tuning(report.tuning) if report.tuning else "",
        section("All figures", _table(rows(report)) + _table(pairs(report))),
    ]
    return document(f"{report.pipeline} on {report.collection}", _KIND, "".join(body))


def _own(report: Report) -> str:
    """Which line is the pipeline's own, and its name where that does not say so."""
    named = "" if report.reference == "pipeline" else f": {text(report.reference)}"
    return f"Green is the pipeline as its recipe has it{named}."


def _head(report: Report) -> str:
    values = {
        "Queries": f"{report.queries:,}",
        "Documents": f"{report.documents:,}",
        "Passages ranked for each query": f"{report.passage_depth:,}",
    }
    more = [f'<p class="figures">{text(line)}</p>' for line in (" ".join(shown(report)), seen(report)) if line]
    said = notes(("note", f'<p dir="auto">{text(note)}</p>') for note in report.notes)
    return header(_KIND, report.pipeline, text(f"{report.pipeline} on {report.collection}"), *more, facts(values), said)


def _dots(report: Report) -> str:
    """One line for each way to search, on a scale from 0 to 1."""
    scale = [0.0, 0.25, 0.5, 0.75, 1.0]
    lines = []
    for row in report.rows:
        one = row.of[HEADLINE]
        mark = marks.interval(one.low, one.high) + marks.dot(one.mean)
        figures = f"<b>{one.mean:.4f}</b> <span>[{one.low:.4f}, {one.high:.4f}]</span>"
        kind = _OWN if row.name == report.reference else _OTHER
        lines.append(marks.row(_name(row.name), marks.track(mark, scale), figures, kind))
    return f'<div class="card plot">{"".join(lines)}{marks.axis([(x, f"{x:g}") for x in scale])}</div>'


def _differences(report: Report) -> str:
    """One line for each other way around the line of no difference."""
    lead = (
        f"In {HEADLINE}, query by query. A filled dot is a difference that this evaluation shows (p below {_ALPHA:g} after "
        "Holm's correction over the pairs); a hollow one may be chance."
    )
    plot = forest(
        report.differences,
        _ALPHA,
        who=lambda one: f'{_name(one.a)} <span class="minus">minus</span> {_name(one.b)}',
        colour=lambda one: _OWN if one.mean > 0 else _OTHER,
    )
    return section("Differences", plot, lead=lead)


def _tuning(tuned: dict[str, Any]) -> str:
    """The headline measure by alpha, over the queries that it was chosen on."""
    found = [(float(alpha), float(mean)) for alpha, mean in tuned["curve"]]
    at_ticks = ticks(min(mean for _, mean in found), max(mean for _, mean in found))
    low, high = at_ticks[0], at_ticks[-1]
    shares = [(alpha, (mean - low) / (high - low)) for alpha, mean in found]
    best = next(place for place in shares if place[0] == tuned["alpha"])
    drawing = curves.box(
        f"{HEADLINE} by alpha",
        [(_OWN, curves.straight(shares)), (f"{_OWN} point", curves.point(*best))],
        x=[(x, words) for x, words in ((0.0, "0: terms"), (0.25, "0.25"), (0.5, "0.5"), (0.75, "0.75"), (1.0, "1: dense"))],
        y=[((mean - low) / (high - low), label(mean)) for mean in at_ticks],
    )
    lead = (
        f"{HEADLINE} by alpha, the weight of dense search, over the queries that alpha was chosen on, which makes it a "
        f"little too good. The dot is the best alpha, {tuned['alpha']:g}."
    )
    return section("Tuning", f'<figure class="card">{drawing}</figure>', lead=lead)


def _name(name: str) -> str:
    return f"<bdi>{text(name)}</bdi>"


def _table(lines: Rows) -> str:
    heads, *others = ([text(cell) for cell in line] for line in lines)
    return table(heads, others) if others else ""
