"""A gate's verdict in words, and as tables of text."""

from __future__ import annotations

from llmbench.compare.verdict import amount, interval, signed
from llmbench.gate.values import Gate, MetricVerdict
from llmbench.statistics import p_value

__all__ = ["Rows", "explained", "more", "rows", "rule", "sentence", "word"]

Rows = list[list[str]]
"""The first row is the heading."""


def word(gate: Gate, one: MetricVerdict) -> str:
    """What is said of a metric in a table."""
    match one.outcome:
        case "shown":
            return "better" if gate.superior else "not worse"
        case "worse":
            return "worse"
        case other:
            return other


def sentence(gate: Gate) -> str:
    """The verdict in one sentence."""
    decisive = next((one for one in gate.metrics if one.outcome == gate.outcome), gate.metrics[0])
    figures = _figures(gate, decisive)
    pair = gate.candidate, gate.baseline
    match gate.outcome:
        case "shown" if gate.superior:
            return f"{pair[0]} is better than {pair[1]}: {'; '.join(_figures(gate, one) for one in gate.metrics)}."
        case "shown" if len(gate.metrics) > 1:
            each = "; ".join(f"by {_by(one)} or more, {_figures(gate, one)}" for one in gate.metrics)
            return f"{pair[0]} is not worse than {pair[1]} in any of {len(gate.metrics)} metrics: {each}."
        case "shown":
            return f"{pair[0]} is not worse than {pair[1]} by {_by(decisive)} or more: {figures}."
        case "worse":
            by = "" if gate.superior else f" by more than {_by(decisive)}"
            return f"{pair[0]} is worse than {pair[1]}{by}: {figures}."
        case _:
            what = "better" if gate.superior else f"worse by {_by(decisive)}"
            return f"Undecided whether {pair[0]} is {what} than {pair[1]}: {figures}. {more(gate, decisive)}"


def more(gate: Gate, one: MetricVerdict) -> str:
    """How many more questions it takes to decide, and what is assumed in that."""
    if (needed := one.needed) is None:
        return ""
    least = "At least a" if gate.sequential else "A"
    differ = f"{100 * max(one.wins + one.losses, 1) / max(one.n, 10):.1f}% of questions"
    how = f"differ on {differ}" if not one.less_is_better else "vary as much as here"
    if needed.alike is not None and needed.alike > one.n:
        return (
            f"{least}bout {needed.alike - one.n:,} more questions would decide with a power of 80% if the two are truly alike "
            f"and {how}."
        )
    for total, wording in ((needed.as_seen, "would show it"), (needed.worse, "would show that it is worse")):
        if total is not None and total > one.n:
            return (
                f"{least}bout {total - one.n:,} more questions {wording} with a power of 80% if the true difference is the one "
                "seen."
            )
    if gate.superior and needed.as_seen is None:
        return "No number of questions shows that it is better if the true difference is the one seen."
    return (
        f"{one.n:,} questions decide with a power of 80% under what was seen; it lies too near the margin this time. Ask about "
        f"{max(one.n, 10):,} more."
    )


def rule(gate: Gate) -> str:
    """By which rule the verdict is reached."""
    each = f"{100 * gate.alpha / 2:g}%"
    if gate.sequential:
        return f"Decided by bounds that hold at every moment of asking; an error has a chance of at most {each} on each side."
    one = f"Paired by question; a candidate that is worse by just the margin passes in at most {each} of gates."
    if len(gate.metrics) == 1:
        return one
    if gate.several == "holm":
        return f"{one} Several metrics: all must be shown, by p-values after Holm's correction."
    return f"{one} Several metrics: a fixed sequence, each judged only if all before it are shown."


def explained(gate: Gate) -> list[str]:
    """What stands below the table, a sentence each."""
    return [rule(gate), *gate.notes]


def rows(gate: Gate) -> Rows:
    """One row a metric."""
    percent = f"{100 * (1 - gate.alpha):g}%"
    several = gate.several == "holm" and len(gate.metrics) > 1
    heading = ["metric", gate.baseline, gate.candidate, "difference", f"interval, {percent}", "margin", "n", "won:lost"]
    return [[*heading, "p (Holm)" if several else "p", "verdict"], *(_row(gate, one) for one in gate.metrics)]


def _row(gate: Gate, one: MetricVerdict) -> list[str]:
    p = one.p_adjusted
    return [
        one.measure.label,
        amount(one.measure, one.baseline),
        amount(one.measure, one.candidate),
        signed(one.measure, one.mean),
        _interval(one),
        "-" if gate.superior else _limit(one),
        f"{one.n:,}",
        f"{one.wins}:{one.losses}",
        "-" if p is None else p_value(p).removeprefix("p ").removeprefix("= "),
        word(gate, one),
    ]


def _figures(gate: Gate, one: MetricVerdict) -> str:
    p = "" if one.p_adjusted is None else f", {p_value(one.p_adjusted)}"
    return f"{one.measure.label} {signed(one.measure, one.mean)} {_interval(one)}{p}, n = {one.n:,}"


def _interval(one: MetricVerdict) -> str:
    """In the metric's unit; as parts of the baseline's mean where the margin is one."""
    if one.relative is not None:
        if one.part_low is None or one.part_high is None:
            return "no limits"
        return f"[{100 * one.part_low:+.1f}%, {100 * one.part_high:+.1f}%]"
    if one.low is None or one.high is None:
        return "no limits"
    return interval(one.measure, one.low, one.high, sign=True)


def _by(one: MetricVerdict) -> str:
    return f"{100 * one.relative:g}%" if one.relative is not None else signed(one.measure, one.margin).removeprefix("+")


def _limit(one: MetricVerdict) -> str:
    """The side on which it is, as the interval has it."""
    sign = "+" if one.less_is_better else "-"
    return f"{sign}{_by(one)}"
