"""An evaluation's figures as values, as JSON and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmbench.retrieval.evaluation.metrics import HEADLINE, MEASURES
from llmbench.shown import counted
from llmbench.statistics import Difference, Estimate, p_value

__all__ = ["Report", "Row", "markdown", "narrow", "pairs", "rows", "seen", "shown", "sums"]

Rows = list[list[str]]
"""The first row is the heading."""


@dataclass(frozen=True)
class Row:
    """One way of searching: each measure's mean with its interval, seconds a query, and how many queries found nothing."""

    name: str
    of: dict[str, Estimate]
    seconds: float
    empty: int


@dataclass(frozen=True)
class Report:
    """What was asked, what came of it, and whether the differences are more than chance.

    `passage_depth` is how many passages were ranked for each query. `differences` are of the headline measure: the reference
    minus each other. `notes` are sentences that a reader has to know.
    """

    pipeline: str
    collection: str
    queries: int
    documents: int
    passage_depth: int
    reference: str
    rows: tuple[Row, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    tuning: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; what cannot be computed is null."""
        found: dict[str, Any] = _plain(asdict(self))
        return {"measure": HEADLINE, **found}


def rows(report: Report) -> Rows:
    """One row a way of searching, one column a measure."""
    lines = []
    for row in report.rows:
        cells = [f"{row.of[HEADLINE].mean:.4f} [{row.of[HEADLINE].low:.4f}, {row.of[HEADLINE].high:.4f}]"]
        cells += [f"{row.of[name].mean:.4f}" for name in MEASURES if name != HEADLINE]
        lines.append([row.name, *cells, f"{1000 * row.seconds:.1f}"])
    return [["", *MEASURES, "ms/query"], *lines]


def pairs(report: Report) -> Rows:
    """One row a difference."""
    heading = ["difference", HEADLINE, "95% interval", "better/worse", "p", "p (Holm)", "detectable"]
    return [heading, *(_pair(one) for one in report.differences)]


def narrow(table: Rows) -> list[Rows]:
    """A table as two of half the columns each, for narrow terminals."""
    middle = 1 + len(table[0]) // 3
    return [[row[:middle] for row in table], [[row[0], *row[middle:]] for row in table]]


def seen(report: Report) -> str:
    """The smallest difference that so many queries can show: `300 queries can detect a difference in nDCG@10 of 0.012 ...`"""
    sizes = [one.detectable for one in report.differences if one.detectable is not None and (one.a_only or one.b_only)]
    if not sizes:
        few = report.differences and all(one.detectable is None for one in report.differences)
        return f"{counted(report.queries, 'query is', 'queries are')} too few to detect any difference." if few else ""
    low, high = min(sizes), max(sizes)
    size = f"{high:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f} to {high:.3f} (by pair)"
    asked = counted(report.queries, "query", "queries")
    return f"{asked} can detect a difference in {HEADLINE} of {size}, in 4 of 5 repetitions at 95%."


def sums(report: Report) -> str:
    """`35 judged queries, 82 documents`."""
    return f"{counted(report.queries, 'judged query', 'judged queries')}, {counted(report.documents, 'document')}"


def shown(report: Report) -> list[str]:
    """A sentence for each difference: whether it is more than chance."""
    lines = []
    for one in report.differences:
        verb = "better" if one.mean > 0 else "worse"
        if one.p_holm < 0.05:
            told = f"{one.a} is {verb} than {one.b} by {abs(one.mean):.4f} ({p_value(one.p_holm)})."
        else:
            told = f"No difference shown between {one.a} and {one.b} ({one.mean:+.4f}, {p_value(one.p_holm)})."
        lines.append(told)
    return lines


def markdown(report: Report) -> str:
    """The tables and notes."""
    lines = [f"**{report.pipeline}** on {report.collection}: {sums(report)}", ""]
    for table in (rows(report), pairs(report)):
        lines += ["| " + " | ".join(table[0]) + " |", "|" + " --- |" * len(table[0])]
        lines += ["| " + " | ".join(row) + " |" for row in table[1:]] + [""]
    return "\n".join([*lines, *shown(report), seen(report), *report.notes])


def _pair(one: Difference) -> list[str]:
    figures = [f"{one.mean:+.4f}", f"[{one.low:+.4f}, {one.high:+.4f}]", f"{one.a_only}/{one.b_only}"]
    values = [p_value(p).removeprefix("p ").removeprefix("= ") for p in (one.p, one.p_holm)]
    return [f"{one.a} - {one.b}", *figures, *values, "-" if one.detectable is None else f"{one.detectable:.4f}"]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
