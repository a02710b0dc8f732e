"""What the votes on a comparison say: the rating, how far the voters agree, and how they voted."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmbench import compare
from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.shown import counted
from llmbench.statistics import p_value
from llmbench.statistics.ratings import Agreement, Rating
from llmbench.votes import items as making
from llmbench.votes import tally
from llmbench.votes.store import VoteStore, path
from llmbench.votes.values import Ballot

__all__ = ["VoteResult", "Voter", "current_answers", "result"]

_ALPHA = 0.05
_FEW = 0.4
"""Alpha below which voters are said to agree little (Landis and Koch's `fair`)."""
_MOST = 0.75
"""Share of pairs of votes that agree from which a low alpha says only that nearly all votes are alike."""
_NAMED = 4
"""Voters up to which each two are compared."""
_LOOKS = 3
"""Looks at a voter from which half of them failed is worth a word."""


@dataclass(frozen=True)
class Voter:
    """How one person voted. `left` is the share of decided votes for the left side; `seconds` the median look."""

    name: str
    votes: int
    ties: int
    skips: int
    undone: int
    left: float | None
    passed: int
    failed: int
    seconds: float | None


@dataclass(frozen=True)
class VoteResult:
    """What the votes on a comparison, or of an imported file, say.

    `rating` is None before the first vote that counts. `agreement` has `fleiss` and `alpha` where items have several voters,
    and of up to four voters, Cohen's kappa of each two that share twenty items. `reasons` is winner -> reason -> votes. `stale`
    counts votes on answers that have been replaced since, which do not count; `alike` pairs of answers that are word for word
    the same.
    """

    name: str
    rating: Rating | None
    agreement: dict[str, Agreement]
    voters: tuple[Voter, ...]
    reasons: dict[str, dict[str, int]]
    counted: int
    cast: int
    stale: int
    alike: int
    items: int | None
    styles: tuple[str, ...]
    sides: dict[str, int]
    confidence: float
    file: str
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        values = {**vars(self), "verdict": self.verdict()}
        values["rating"] = self.rating.to_json() if self.rating else None
        values["voters"] = [asdict(one) for one in self.voters]
        values["agreement"] = {
            name: {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(one).items()}
            for name, one in self.agreement.items()
        }
        return values

    def verdict(self) -> str:
        """The one sentence: who is preferred, how often, how surely; or how many more votes it takes."""
        lead = self.rating.decisive if self.rating else None
        if self.rating is None or lead is None:
            return f"No vote on {self.name} counts yet."
        share, low, high = (100 * x for x in lead.share)
        who = f"{counted(self.counted, 'vote')} of {_people(self.voters)}"
        if math.isinf(lead.high):
            figures = f"it lost no vote that would bound its lead: at least {low:.0f}% of decided votes, {p_value(lead.p_holm)}"
        else:
            figures = f"it wins {share:.0f}% of decided votes [{low:.0f}, {high:.0f}], {p_value(lead.p_holm)}"
        if lead.p_holm < _ALPHA:
            return f"{lead.a} is preferred to {lead.b}: {figures}, {who}."
        votes = "" if not lead.more else f"About {_round(lead.more):,} more {'vote' if lead.more == 1 else 'votes'}"
        told = f" {votes} like these would show a difference of this size." if votes else ""
        return f"No preference shown between {lead.a} and {lead.b}: {lead.a} ahead, {figures}, {who}.{told}"


def result(
    name: str,
    *,
    by: Sequence[str] = ("voter", "question"),
    styles: Sequence[str] = (),
    without: Collection[str] = (),
    bootstrap: int = 0,
    confidence: float = 0.95,
) -> VoteResult:
    """The figures of all votes there are.

    Args:
        name: of a comparison that was voted on, or of imported votes.
        by: what makes votes alike: `voter`, `question`.
        styles: of `tally.STYLES`, what is held equal.
        without: voters whose votes do not count.
        bootstrap: draws of voters for the intervals; 0: none, they are in closed form.
        confidence: of every interval.

    Raises:
        LlmbenchError: there are no votes of this name, or no such voter or style.
        MissingPackage: numpy or scipy is not installed.
    """
    _check_packages()
    from llmbench.statistics import rating as rates

    with VoteStore(path(name), new=False) as store:
        every, texts = store.ballots(), store.answers()
        compared = store.fact("comparison")
    unknown = sorted(set(without) - {one.voter for one in every})
    if unknown:
        known = ", ".join(sorted({one.voter for one in every})) or "none"
        raise LlmbenchError(f"--without {unknown[0]}: nobody of that name voted on {name} (voters: {known}).")
    ballots = [one for one in every if one.voter not in without]
    votable = _votable(compared)
    now = votable.current if votable else None
    counting = tally.current(ballots, now)
    votes = tally.pair_votes(counting, styles=styles, texts=texts)
    rating = rates.rate(votes, confidence=confidence, by=by, styles=styles, bootstrap=bootstrap) if votes else None
    found = VoteResult(
        name=name,
        rating=rating,
        agreement=_agreement(counting, confidence),
        voters=_voters(ballots),
        reasons=_reasons(counting),
        counted=len(counting),
        cast=len(every),
        stale=sum(one.counts for one in ballots) - len(counting),
        alike=votable.alike if votable else 0,
        items=len(votable.items) if votable else None,
        styles=tuple(styles),
        sides=_sides(ballots),
        confidence=confidence,
        file=str(path(name)),
    )
    return VoteResult(**{**vars(found), "notes": tuple(_notes(found, by))})


def current_answers(compared: str | None) -> set[tuple[str, str, str]] | None:
    """Question, variant and hash of the answers of a comparison as they are now; None where it is gone or was never here."""
    votable = _votable(compared)
    return votable.current if votable else None


def _check_packages() -> None:
    from importlib.util import find_spec

    if find_spec("scipy") is None:
        raise MissingPackage("votes", "scipy", "compare")


def _votable(compared: str | None) -> making.Votable | None:
    """The comparison as it is now; None where it is gone, or has nothing left to vote on."""
    if compared is None:
        return None
    try:
        return making.votable(compare.load(compared))
    except LlmbenchError:
        return None


def _agreement(counting: Sequence[Ballot], confidence: float) -> dict[str, Agreement]:
    from itertools import combinations

    from llmbench.statistics import agreement

    labels = tally.labels(counting)
    found = {
        "fleiss": agreement.fleiss(labels, confidence=confidence),
        "alpha": agreement.alpha(labels, confidence=confidence),
    }
    voters = sorted({one.voter for one in counting})
    for a, b in combinations(voters, 2) if len(voters) <= _NAMED else ():
        if sum(a in of and b in of for of in labels.values()) >= 20:
            found[f"{a} and {b}"] = agreement.cohen(labels, a, b, confidence=confidence)
    return {name: one for name, one in found.items() if one is not None}


def _voters(ballots: Sequence[Ballot]) -> tuple[Voter, ...]:
    by: dict[str, list[Ballot]] = {}
    for one in ballots:
        by.setdefault(one.voter, []).append(one)
    made = []
    for name, of in by.items():
        real = [one for one in of if one.counts]
        decided = [one for one in real if one.winner in ("model_a", "model_b") and one.shown_left is not None]
        lefts = sum((one.winner == "model_a") == (one.shown_left == "a") for one in decided)
        checks = [one.passed for one in of if one.undone is None and one.passed is not None]
        times = [one.seconds for one in real if one.seconds > 0]
        made.append(
            Voter(
                name=name,
                votes=len(real),
                ties=sum(one.winner in ("tie", "both_bad") for one in real),
                skips=sum(one.kind == "vote" and one.winner == "skip" and one.undone is None for one in of),
                undone=sum(one.undone is not None for one in of),
                left=lefts / len(decided) if decided else None,
                passed=sum(checks),
                failed=len(checks) - sum(checks),
                seconds=statistics.median(times) if times else None,
            )
        )
    return tuple(sorted(made, key=lambda one: (-one.votes, one.name)))


def _sides(ballots: Sequence[Ballot]) -> dict[str, int]:
    """What was said where both sides were the same."""
    found = Counter[str]()
    for one in ballots:
        if one.kind == "same" and one.undone is None and one.winner != "skip":
            left = (one.winner == "model_a") == (one.shown_left == "a")
            found["tie" if one.winner in ("tie", "both_bad") else "left" if left else "right"] += 1
    return dict(found)


def _reasons(counting: Sequence[Ballot]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter[str]] = {}
    for one in counting:
        winner = {"model_a": one.item.model_a, "model_b": one.item.model_b}.get(one.winner, one.winner)
        for reason in one.reasons:
            found.setdefault(winner, Counter())[reason] += 1
    return {winner: dict(of.most_common()) for winner, of in found.items()}


def _notes(found: VoteResult, by: Sequence[str]) -> list[str]:
    """What a reader has to know about the figures."""
    notes = []
    rating = found.rating
    if rating is not None:
        voters = sum(one.votes > 0 for one in found.voters)
        if "voter" in by and "voter" not in rating.clustered and rating.votes > 1:
            whose = "this voter" if voters == 1 else "these voters"
            notes.append(
                f"{_people(found.voters)} voted: too few to say what others would prefer. The intervals are about {whose}."
            )
        if rating.apart:
            notes.append(f"No vote joins {', '.join(rating.apart)} to the others: nothing says how they compare.")
        if rating.separated:
            notes.append(
                "Some variant won, or lost, every vote that joins it to others, so its strength has no finite estimate: "
                "leads over it are given from below."
            )
        if "left" in rating.untold and rating.votes > 1:
            notes.append(
                "The advantage of a side cannot be told: sides were not recorded, never swapped, or decided every vote."
            )
        if styles := [name for name in rating.untold if name != "left"]:
            notes.append(
                f"{', '.join(styles)}: not held equal, since the votes cannot tell it from the variants (each has its own, or "
                "none has any)."
            )
        elif "left" in rating.effects and rating.effects["left"].p < _ALPHA:
            side = "left" if rating.effects["left"].value > 0 else "right"
            notes.append(f"Voters favour the {side} side ({p_value(rating.effects['left'].p)}); the ratings are without it.")
    kappa = found.agreement.get("alpha")
    if kappa is not None and kappa.high < _FEW and kappa.observed < _MOST:
        notes.append(f"Voters agree little (alpha {kappa.value:.2f}): ask a plainer question, or name what counts.")
    for one in found.voters:
        if one.passed + one.failed >= _LOOKS and one.failed * 2 >= one.passed + one.failed:
            notes.append(
                f"{one.name} failed {one.failed} of {one.passed + one.failed} attention checks. "
                f"Look at the votes, or leave them out: --without {one.name}"
            )
    if found.stale:
        notes.append(f"{counted(found.stale, 'vote')} on answers that have been replaced since do not count.")
    if found.alike:
        notes.append(f"{counted(found.alike, 'pair')} of answers word for word the same: not voted on.")
    return notes


def _people(voters: Sequence[Voter]) -> str:
    count = sum(one.votes > 0 for one in voters)
    return f"{count:,} {'person' if count == 1 else 'people'}"


def _round(count: int) -> int:
    """Two digits: it is an estimate."""
    digits = max(0, len(str(count)) - 2)
    scale = int(10**digits)
    return -(-count // scale) * scale
