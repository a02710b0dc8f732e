"""The comparison as tables of text, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmbench.compare.result import Comparison
from llmbench.compare.verdict import LABELS, amount, interval, signed
from llmbench.statistics import Difference, p_value

if TYPE_CHECKING:
    from llmbench.compare.plan import ComparisonPlan

__all__ = [
    "SHARES", "Rows", "cell", "grid_rows", "long_rows", "markdown", "metric_rows", "pair_rows", "plan_rows", "shown_variants",
]  # fmt: skip

SHARES = ("grounded", "contains_value", "value_retrieved", "citation", "abstention", "exact_match", "squad_em", "squad_f1")
"""The metrics of 0 to 1 a question; the others are seconds and tokens."""
MOST = 20
"""Variants, and pairs, of which a table for people shows more than a line."""
Rows = list[list[str]]
"""The first row is the heading."""


def cell(comparison: Comparison, metric: str, variant: str) -> str:
    """`85.0% [78.1, 90.2]`, or a dash where the metric was not measured."""
    one = comparison.estimates[metric].get(variant)
    return f"{amount(metric, one.mean)} {interval(metric, one.low, one.high)}" if one else "-"


def shown_variants(comparison: Comparison) -> tuple[str, ...]:
    """All variants in the recipe's order, or the best of them where there are too many to read."""
    if len(comparison.variants) <= MOST:
        return comparison.variants
    of = comparison.estimates[comparison.headline]
    return tuple(sorted(of, key=lambda variant: of[variant].mean, reverse=True)[:MOST])


def metric_rows(comparison: Comparison, names: Sequence[str]) -> Rows:
    """One row a metric, one column a variant."""
    variants = shown_variants(comparison)
    rows = [[LABELS[metric], *(cell(comparison, metric, v) for v in variants)] for metric in names]
    return [["", *variants], *rows]


def long_rows(comparison: Comparison, names: Sequence[str]) -> Rows:
    """One row a metric and variant, for terminals that are narrower than `metric_rows`."""
    rows: Rows = [["", "variant", "mean", "interval"]]
    for metric in names:
        for number, variant in enumerate(shown_variants(comparison)):
            one = comparison.estimates[metric].get(variant)
            figures = [amount(metric, one.mean), interval(metric, one.low, one.high)] if one else ["-", ""]
            rows.append([LABELS[metric] if number == 0 else "", variant, *figures])
    return rows


def grid_rows(comparison: Comparison, metric: str) -> Rows:
    """The 2x2 table of one metric; empty when the variants are no 2x2."""
    if comparison.grid is None:
        return []
    rows = [[label, *(cell(comparison, metric, v) for v in variants)] for label, variants in comparison.grid.rows]
    return [[LABELS[metric], "without RAG", "with RAG"], *rows]


def pair_rows(comparison: Comparison, metric: str) -> Rows:
    """One row a pair: the difference, its interval, and whether it is more than chance.

    `wins` counts the questions that only the first and only the second has right, or has better.
    """
    heading = ["pair", "difference", "interval", "p (Holm)", "wins", "shown"]
    return [heading, *(_pair(one, comparison) for one in _first(comparison.pairs(metric)))]


def plan_rows(found: ComparisonPlan) -> Rows:
    """One row a margin and assumption: how often the questions at hand show it, and how many it takes."""
    rows: Rows = [[LABELS[found.metric], "margin", "differ", "design effect", f"power, n = {found.questions:,}", "n for 80%"]]
    for one in found.rows:
        margin = f"{100 * one.margin:g}%" if one.relative else signed(found.metric, one.margin).removeprefix("+")
        differ = f"{100 * one.differ:.1f}%" if one.differ is not None else f"sd {one.spread:.2g}"
        needed = f"{one.needed:,}" if one.needed is not None else "no number"
        rows.append(["", margin, differ, f"{one.deff:.1f}", f"{100 * one.power:.0f}%", needed])
    return rows


def markdown(comparison: Comparison) -> str:
    """The verdict, the 2x2 table of the headline metric if there is one, all metrics, and the pairs, as Markdown."""
    lines = [f"**{comparison.verdict}**", ""]
    if comparison.grid is not None:
        lines += _markdown(grid_rows(comparison, comparison.headline))
    lines += _markdown(metric_rows(comparison, list(comparison.estimates)))
    lines += _markdown([row[:4] for row in pair_rows(comparison, comparison.headline)])
    percent = f"{100 * comparison.confidence:g}%"
    n = len(comparison.questions)
    says = f"{n} questions. Brackets are {percent} intervals. Differences are paired by question."
    return "\n".join([*lines, " ".join([says, *comparison.notes])])


def _first(pairs: Sequence[Difference]) -> Sequence[Difference]:
    """All pairs, or the surest of them where there are too many to read."""
    most = MOST * (MOST - 1) // 2
    return pairs if len(pairs) <= most else sorted(pairs, key=lambda one: one.p)[:MOST]


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
        f"{one.a_only}:{one.b_only}",
        "yes" if shown else "no",
    ]
