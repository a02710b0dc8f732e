"""Votes as the statistics take them: who was left, who won, and how the answers differ in style."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from llmbench.statistics.ratings import PairVote
from llmbench.votes.values import Ballot

__all__ = ["STYLES", "current", "labels", "pair_votes"]

STYLES = ("length", "lists", "headers", "bold")
"""What of an answer's looks can be held equal: words, items of lists, headings, and words in bold."""
_SIGNS = {
    "length": re.compile(r"\S+"),
    "lists": re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE),
    "headers": re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+\S", re.MULTILINE),
    "bold": re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
}


def current(ballots: Iterable[Ballot], answers: Collection[tuple[str, str, str]] | None) -> list[Ballot]:
    """The votes that count; where the answers as they are now are known, only those on them."""
    known = None if answers is None else set(answers)
    return [one for one in ballots if one.counts and (known is None or _answers(one) <= known)]


def _answers(one: Ballot) -> set[tuple[str, str, str]]:
    item = one.item
    return {(item.question, item.model_a, item.a), (item.question, item.model_b, item.b)}


def pair_votes(
    ballots: Iterable[Ballot],
    answers: Collection[tuple[str, str, str]] | None = None,
    *,
    styles: Sequence[str] = (),
    texts: Mapping[str, str] | None = None,
) -> list[PairVote]:
    """Votes that count, left against right. Both bad is a tie. Where nobody recorded sides, a stands for left."""
    return [_pair_vote(one, styles, texts or {}) for one in current(ballots, answers)]


def labels(ballots: Iterable[Ballot]) -> dict[str, dict[str, str]]:
    """AnswerPair -> voter -> what was said, for agreement; whoever voted twice on an item counts with the last."""
    found: dict[str, dict[str, str]] = {}
    for one in ballots:
        if one.counts:
            item = one.item
            key = "\x1f".join((item.question, str(item.turn), item.model_a, item.model_b, item.a, item.b))
            found.setdefault(key, {})[one.voter] = one.winner
    return found


def _pair_vote(one: Ballot, styles: Sequence[str], texts: Mapping[str, str]) -> PairVote:
    item = one.item
    sides = ((item.model_a, item.a), (item.model_b, item.b))
    (left, left_text), (right, right_text) = sides[::-1] if one.shown_left == "b" else sides
    winner = {"model_a": item.model_a, "model_b": item.model_b}.get(one.winner)
    return PairVote(
        left=left,
        right=right,
        outcome=0 if winner is None else 1 if winner == left else -1,
        voter=one.voter,
        question=item.group,
        sided=one.shown_left is not None,
        styles=tuple(_difference(style, texts[left_text], texts[right_text]) for style in styles),
    )


def _difference(style: str, left: str, right: str) -> float:
    """(a - b) / (a + b) of a count, as the arenas have it; 0 where neither has any."""
    a, b = (sum(1 for _ in _SIGNS[style].finditer(text)) for text in (left, right))
    return (a - b) / (a + b) if a + b else 0.0
