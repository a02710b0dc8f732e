"""The comparison as tables of text, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from llmbench.compare.result import Comparison, Difference
from llmbench.compare.verdict import LABELS, amount, interval, p_value, signed

__all__ = ["SHARES", "Rows", "cell", "grid_rows", "markdown", "pair_rows", "variant_rows"]

SHARES = ("grounded", "contains_value", "citation", "abstention", "exact_match")
"""The metrics that are shares of questions; the others are seconds and tokens."""
Rows = list[list[str]]
"""The first row is the heading."""


def cell(comparison: Comparison, metric: str, variant: str) -> str:
    """`85.0% [78.1, 90.2]`, or a dash where the metric was not measured."""
    one = comparison.estimates[metric].get(variant)
    return f"{amount(metric, one.mean)} {interval(metric, one.low, one.high)}" if one else "-"


def variant_rows(comparison: Comparison, names: Sequence[str]) -> Rows:
    """One row a variant, one column a metric."""
    heading = ["variant", *(LABELS[metric] for metric in names)]
    return [heading, *([v, *(cell(comparison, m, v) for m in names)] for v in comparison.variants)]


def grid_rows(comparison: Comparison, metric: str) -> Rows:
    """The 2x2 table of one metric; empty when the variants are no 2x2."""
    if comparison.grid is None:
        return []
    rows = [[label, *(cell(comparison, metric, v) for v in variants)] for label, variants in comparison.grid.rows]
    return [["", "without RAG", "with RAG"], *rows]


def pair_rows(comparison: Comparison, metric: str) -> Rows:
    """One row a pair: the difference, its interval, and whether it is more than chance."""
    heading = ["pair", "difference", "interval", "p (Holm)", "only first right", "only second right", "shown"]
    return [heading, *(_pair(one, comparison) for one in comparison.pairs(metric))]


def markdown(comparison: Comparison) -> str:
    """The verdict, the 2x2 tables or the variants' table, and the pairs, as Markdown."""
    lines = [f"**{comparison.verdict}**", ""]
    if comparison.grid is not None:
        for metric in [m for m in comparison.estimates if m in SHARES]:
            rows = grid_rows(comparison, metric)
            lines += _markdown([[LABELS[metric], *rows[0][1:]], *rows[1:]])
    else:
        lines += _markdown(variant_rows(comparison, list(comparison.estimates)))
    lines += _markdown([row[:4] for row in pair_rows(comparison, comparison.headline)])
    percent = f"{100 * comparison.confidence:g}%"
    n = len(comparison.questions)
    return "\n".join([*lines, f"{n} questions; brackets are {percent} intervals; differences are in points, paired by question."])


def _markdown(rows: Rows) -> list[str]:
    def line(row: list[str]) -> str:
        return "| " + " | ".join(text.replace("|", "\\|") for text in row) + " |"

    return [line(rows[0]), "|" + " --- |" * len(rows[0]), *map(line, rows[1:]), ""]


def _pair(one: Difference, comparison: Comparison) -> list[str]:
    shown = one.p_holm < 1 - comparison.confidence
    return [
        f"{one.a} - {one.b}",
        signed(one.metric, one.mean),
        interval(one.metric, one.low, one.high),
        p_value(one.p_holm).removeprefix("p ").removeprefix("= "),
        str(one.a_only),
        str(one.b_only),
        "yes" if shown else "no",
    ]
