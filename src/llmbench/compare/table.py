"""The comparison as tables of text, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from llmbench.compare.result import Comparison
from llmbench.compare.verdict import amount, interval, signed
from llmbench.statistics import Difference, FactorEffect, p_value

__all__ = [
    "Rows",
    "cell",
    "effect_name",
    "effect_rows",
    "grid_rows",
    "judge_notes",
    "long_rows",
    "markdown",
    "metric_rows",
    "noise_rows",
    "pair_rows",
    "shown_variants",
]

MOST = 20
"""Variants, and pairs, of which a table for people shows more than a line."""
Rows = list[list[str]]
"""The first row is the heading."""


def cell(comparison: Comparison, metric: str, variant: str) -> str:
    """`85.0% [78.1, 90.2]`, or a dash where the metric was not measured."""
    one = comparison.estimates[metric].get(variant)
    measure = comparison.measure(metric)
    return f"{amount(measure, one.mean)} {interval(measure, one.low, one.high)}" if one else "-"


def shown_variants(comparison: Comparison) -> tuple[str, ...]:
    """All variants in the recipe's order, or the best of them where there are too many to read."""
    if len(comparison.variants) <= MOST:
        return comparison.variants
    of = comparison.estimates[comparison.headline]
    less = comparison.measure(comparison.headline).less_is_better
    return tuple(sorted(of, key=lambda variant: of[variant].mean, reverse=not less)[:MOST])


def metric_rows(comparison: Comparison, names: Sequence[str]) -> Rows:
    """One row a metric, one column a variant."""
    variants = shown_variants(comparison)
    rows = [[comparison.measure(metric).label, *(cell(comparison, metric, v) for v in variants)] for metric in names]
    return [["", *variants], *rows]


def long_rows(comparison: Comparison, names: Sequence[str]) -> Rows:
    """One row a metric and variant, for terminals that are narrower than `metric_rows`."""
    rows: Rows = [["", "variant", "mean", "interval"]]
    for metric in names:
        measure = comparison.measure(metric)
        for number, variant in enumerate(shown_variants(comparison)):
            one = comparison.estimates[metric].get(variant)
            figures = [amount(measure, one.mean), interval(measure, one.low, one.high)] if one else ["-", ""]
            rows.append([measure.label if number == 0 else "", variant, *figures])
    return rows


def grid_rows(comparison: Comparison, metric: str) -> Rows:
    """The 2x2 table of one metric; empty when the variants are no 2x2."""
    if comparison.grid is None:
        return []
    rows = [[label, *(cell(comparison, metric, v) for v in variants)] for label, variants in comparison.grid.rows]
    return [[comparison.measure(metric).label, "without RAG", "with RAG"], *rows]


def pair_rows(comparison: Comparison, metric: str) -> Rows:
    """One row a pair: the difference, its interval, and whether it is more than chance.

    `wins` counts the questions that only the first and only the second has right, or has better.
    """
    heading = ["pair", "difference", "interval", "p (Holm)", "wins", "shown"]
    return [heading, *(_pair(one, comparison) for one in _first(comparison.pairs(metric)))]


def effect_rows(comparison: Comparison, metric: str) -> Rows:
    """One row an effect of a factor, or of two together; empty when the variants make no grid.

    An interval is of its effect alone and excludes 0 where p is below alpha; `shown` is by Holm's correction over all effects.
    """
    rows: Rows = [["effect", "difference", "interval", "p", "p (Holm)", "shown"]]
    alpha = 1 - comparison.confidence
    for one in comparison.experiment.of(metric):
        p, holm = (p_value(x).removeprefix("p ").removeprefix("= ") for x in (one.p, one.p_holm))
        figures = [signed(one.metric, one.mean), interval(one.metric, one.low, one.high)]
        rows.append([effect_name(one), *figures, p, holm, "yes" if one.p_holm < alpha else "no"])
    return rows if rows[1:] else []


def effect_name(one: FactorEffect) -> str:
    """`adapter: sft-lora - none`, or `adapter x prompt: sft-lora, brief` for what both bring beyond the sum of the two."""
    if len(one.factors) == 1:
        return f"{one.factors[0]}: {one.levels[0]} - {one.references[0]}"
    return f"{' x '.join(one.factors)}: {', '.join(one.levels)}"


def noise_rows(comparison: Comparison, metric: str) -> Rows:
    """One row a variant that was asked more than once: what its own repeats differ by."""
    of = comparison.experiment.noise.get(metric, {})
    rows: Rows = [["variant", "repeats differ", "two runs within", "variance by sampling"]]
    for variant, one in of.items():
        rows.append([variant, f"{one.flips:.1%}", signed(metric, one.floor).replace("+", "±"), f"{one.share:.0%}"])
    return rows if of else []


def judge_notes(comparison: Comparison) -> list[str]:
    """Sentences about the judges that a reader has to know; those that labels tell first."""
    told = comparison.judges
    if told is None:
        return []
    return [*(told["calibration"]["notes"] if told["calibration"] else ()), *told["notes"]]


def markdown(comparison: Comparison) -> str:
    """The verdict, the 2x2 table of the headline metric if there is one, all metrics, and the pairs, as Markdown."""
    lines = [f"**{comparison.verdict}**", ""]
    if comparison.grid is not None:
        lines += _markdown(grid_rows(comparison, comparison.headline))
    lines += _markdown(metric_rows(comparison, list(comparison.estimates)))
    lines += _markdown([row[:4] for row in pair_rows(comparison, comparison.headline)])
    for rows in (effect_rows(comparison, comparison.headline), noise_rows(comparison, comparison.headline)):
        lines += _markdown(rows) if rows else []
    percent = f"{100 * comparison.confidence:g}%"
    n = len(comparison.questions)
    says = f"{n} questions. Brackets are {percent} intervals. Differences are paired by question."
    told = [comparison.experiment.passages, *comparison.experiment.notes, *judge_notes(comparison)]
    return "\n".join([*lines, " ".join([says, *comparison.notes, *(note for note in told if note)])])


def _first(pairs: Sequence[Difference]) -> Sequence[Difference]:
    """All pairs, or the surest of them where there are too many to read."""
    most = MOST * (MOST - 1) // 2
    return pairs if len(pairs) <= most else sorted(pairs, key=lambda one: one.p)[:MOST]


def _markdown(rows: Rows) -> list[str]:
    def line(row: list[str]) -> str:
        return "| " + " | ".join(text.replace("|", "\\|") for text in row) + " |"

    return [line(rows[0]), "|" + " --- |" * len(rows[0]), *map(line, rows[1:]), ""]


def _pair(one: Difference, comparison: Comparison) -> list[str]:
    shown, measure = one.p_holm < 1 - comparison.confidence, comparison.measure(one.metric)
    return [
        f"{one.a} - {one.b}",
        signed(measure, one.mean),
        interval(measure, one.low, one.high),
        p_value(one.p_holm).removeprefix("p ").removeprefix("= "),
        "-" if measure.whole else f"{one.a_only}:{one.b_only}",
        "yes" if shown else "no",
    ]
