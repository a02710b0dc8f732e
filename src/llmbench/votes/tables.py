"""What votes say, as rows of a table; the first row is the heading."""

from __future__ import annotations

import math

from llmbench.statistics import p_value
from llmbench.statistics.ratings import Lead, points
from llmbench.votes.result import VoteResult

__all__ = ["leads", "lines", "strengths", "voters"]

_MOST = 12
"""Variants whose every pair is shown; of more, only the best against each."""


def strengths(found: VoteResult) -> list[list[str]]:
    """Each variant's rating in Elo's points, the best first; empty but for the heading where no strength is finite."""
    rows = [["Variant", "Rating", "95% interval", "Rank", "Best", "Won", "Lost", "Tie"]]
    for one in found.rating.strengths if found.rating else ():
        rank = f"{one.rank_low}" if one.rank_low == one.rank_high else f"{one.rank_low}-{one.rank_high}"
        rows.append(
            [one.model, f"{points(one.value):.0f}", f"[{points(one.low):.0f}, {points(one.high):.0f}]", rank,
             f"{100 * one.best:.0f}%", f"{one.wins:,}", f"{one.losses:,}", f"{one.ties:,}"]
        )  # fmt: skip
    return rows


def leads(found: VoteResult) -> list[list[str]]:
    """Each pair, the stronger one first: how often it wins a decided vote shown on no side."""
    rows = [["Preferred", "Wins decided votes", "Won", "Lost", "Tie", "p (Holm)"]]
    rating = found.rating
    for one in _shown(rating.leads, rating.order) if rating else ():
        value, low, high = (100 * x for x in one.share)
        figures = f"at least {low:.0f}%" if math.isinf(one.high) else f"{value:.0f}% [{low:.0f}, {high:.0f}]"
        rows.append(
            [f"{one.a} over {one.b}", figures, f"{one.wins:,}", f"{one.losses:,}", f"{one.ties:,}",
             p_value(one.p_holm).removeprefix("p ").removeprefix("= ")]
        )  # fmt: skip
    return rows


def _shown(every: tuple[Lead, ...], order: tuple[str, ...]) -> list[Lead]:
    rank = {model: i for i, model in enumerate(order)}
    some = every if len(order) <= _MOST else tuple(one for one in every if one.a == order[0])
    return sorted(some, key=lambda one: (rank[one.a], rank[one.b]))


def voters(found: VoteResult) -> list[list[str]]:
    """How each person voted, whoever cast most first."""
    rows = [["Voter", "Votes", "Ties", "Skipped", "Left", "Checks passed", "Median time"]]
    for one in found.voters[:20]:
        looks = one.passed + one.failed
        rows.append(
            [one.name, f"{one.votes:,}", f"{one.ties:,}", f"{one.skips:,}",
             "-" if one.left is None else f"{100 * one.left:.0f}%", f"{one.passed} of {looks}" if looks else "-",
             "-" if one.seconds is None else f"{one.seconds:.0f} s"]
        )  # fmt: skip
    return rows


def lines(found: VoteResult) -> list[str]:
    """Sides, styles, ties, agreement and reasons, a sentence each."""
    told = []
    rating = found.rating
    for name, one in rating.effects.items() if rating else ():
        what = "Left side" if name == "left" else f"More {name}"
        told.append(f"{what}: {one.value:+.2f} logits [{one.low:+.2f}, {one.high:+.2f}], {p_value(one.p)}.")
    if found.sides:
        same = ", ".join(f"{name} {count}" for name, count in sorted(found.sides.items()))
        told.append(f"Same answer on both sides: {same}.")
    for name, of in found.agreement.items():
        what = {"fleiss": "Fleiss's kappa", "alpha": "Krippendorff's alpha"}.get(name, f"Cohen's kappa of {name}")
        ends = "" if math.isnan(of.low) else f" [{of.low:.2f}, {of.high:.2f}]"
        value = "not defined" if math.isnan(of.value) else f"{of.value:.2f}{ends}"
        told.append(f"{what}: {value}; {100 * of.observed:.0f}% of pairs of votes agree, on {of.items:,} shared items.")
    for winner, counts in found.reasons.items():
        told.append(f"Reasons for {winner}: {', '.join(f'{reason} {count}' for reason, count in counts.items())}.")
    return told
