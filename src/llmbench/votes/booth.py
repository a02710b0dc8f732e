"""Where a person votes: what is shown next, blind and on sides by chance, and what becomes of the choice."""

from __future__ import annotations

import getpass
import hashlib
import platform
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from random import Random

from llmbench import compare
from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.votes import items as making
from llmbench.votes.store import VoteStore, answer_hash, path
from llmbench.votes.tally import pair_votes
from llmbench.votes.values import CHOICES, AnswerPair, Ballot, Choice, Kind, Latency, Round

__all__ = ["NONSENSE", "Booth", "Plan", "VotingProgress", "anonymous"]

NONSENSE = "llmbench:shuffled-words"
"""The model that shuffled words are said to be of."""
_RATERS = 3
"""How many voters an item has at most where voters are to overlap."""
_WORDS = 6
"""Words that an answer needs for their order to mean anything."""
_SOONEST = 3
"""Rounds of a voter before the first look at the voter."""
_LONGEST = 64
_PATIENCE = 10.0
"""Seconds that answers are held back at most."""


@dataclass(frozen=True)
class Plan:
    """How votes are asked for.

    `overlap` is the share of rounds, 0 to 1, with items that others have voted on, by which agreement is known; `checks` the
    share that looks at the voter. `latency` says what a voter may know of the time that answers took.
    """

    overlap: float = 0.2
    checks: float = 0.05
    latency: Latency = "hidden"


@dataclass(frozen=True)
class VotingProgress:
    """How far a voter is: votes cast, with skips and looks at the voter; items not voted on by this voter; votes of all."""

    cast: int
    left: int
    all: int
    voters: int


def anonymous() -> str:
    """A name for who gives none, the same for one user of one machine, so that voting can be resumed."""
    try:
        who = getpass.getuser()
    except (KeyError, OSError):
        who = "unknown"
    return f"anonymous-{hashlib.sha256(f'{who}@{platform.node()}'.encode()).hexdigest()[:8]}"


class Booth:
    """One voter before the answers of one comparison. All that is not yet cast is drawn anew, but alike, when it is reopened.

    Raises:
        LlmbenchError: there is no finished comparison of this name, nothing in it can be voted on, or the voter's name is not
            allowed.
        MissingPackage: of several pairs the next is chosen with numpy, which is not installed.
    """

    def __init__(self, name: str, voter: str | None = None, plan: Plan = Plan()) -> None:
        self.voter = _checked(voter)
        self.plan = plan
        self.comparison = compare.load(name)
        self.votable = making.votable(self.comparison)
        if len(self.votable.models) > 2 and find_spec("scipy") is None:  # told before the first vote, not after
            raise MissingPackage("vote", "scipy", "compare")
        self.file = path(name)
        with VoteStore(self.file) as store:
            self._salt = str(store.fact("salt"))
            store.note({"comparison": name})

    def next(self) -> Round | None:
        """What to show: the same until it is voted on. None when this voter has voted on everything."""
        with VoteStore(self.file) as store:
            ballots = [one for one in store.ballots() if one.undone is None]
        own = [one for one in ballots if one.voter == self.voter]
        rng = Random(f"{self._salt}/{self.voter}/{len(own)}")
        left = self._left(own)
        if not left:
            return None
        kind: Kind = "vote"
        if len(own) >= _SOONEST and rng.random() < self.plan.checks:
            kind = rng.choice(("same", "nonsense"))
        item = self._chosen(left, ballots, own, rng)
        return self._round(item, kind, rng)

    def cast(
        self, round: Round, choice: Choice, *, reasons: Sequence[str] = (), note: str = "", seconds: float = 0.0
    ) -> Ballot:
        """Records a choice; it is on disk when this returns.

        Raises:
            LlmbenchError: it is none of `CHOICES`, or cannot be written.
        """
        if choice not in CHOICES:
            raise LlmbenchError(f"{choice!r} is not a vote. Choose one of: {', '.join(CHOICES)}.")
        ballot = Ballot(
            self.voter, round.item, round.winner(choice), round.left_is, round.kind, self.plan.latency,
            tuple(dict.fromkeys(reasons)), note.strip()[:2000], time.time(), seconds,
        )  # fmt: skip
        real = replace(round.item, model_b=round.item.model_a, b=round.item.a) if round.kind != "vote" else round.item
        texts = {answer_hash(text): text for text in (round.left, round.right)}
        with VoteStore(self.file) as store:
            making.keep(store, self.comparison, [real], texts)
            store.keep(answers=texts.values())
            store.cast([ballot])
        return ballot

    def undo(self) -> Ballot | None:
        """Takes the last vote back, so that `next` asks for it again; None where there is none."""
        with VoteStore(self.file) as store:
            return store.undo(self.voter)

    def progress(self) -> VotingProgress:
        """How far the voting is."""
        with VoteStore(self.file) as store:
            ballots = [one for one in store.ballots() if one.undone is None]
        own = [one for one in ballots if one.voter == self.voter]
        counting = [one for one in ballots if one.counts]
        return VotingProgress(len(own), len(self._left(own)), len(counting), len({one.voter for one in counting}))

    def _left(self, own: Sequence[Ballot]) -> list[AnswerPair]:
        """What this voter has not voted on. Of several pairs of one question each is an item."""
        done = {one.item for one in own if one.kind == "vote"}
        return [item for item in self.votable.items if item not in done]

    def _chosen(self, left: Sequence[AnswerPair], ballots: Sequence[Ballot], own: Sequence[Ballot], rng: Random) -> AnswerPair:
        voters: dict[AnswerPair, set[str]] = defaultdict(set)
        for one in ballots:
            if one.kind == "vote":
                voters[one.item].add(one.voter)
        begun = [item for item in left if 0 < len(voters[item]) < _RATERS]
        fresh = [item for item in left if not voters[item]]
        if begun and (not fresh or rng.random() < self.plan.overlap):
            fewest = min(len(voters[item]) for item in begun)
            return rng.choice([item for item in begun if len(voters[item]) == fewest])
        pool = fresh or list(left)
        pool = self._deciding(pool, ballots, rng)
        # Few votes on each question, and those of few voters, tell the most.
        asked = Counter(one.item.group for one in ballots if one.counts)
        fewest = min(asked[item.group] for item in pool)
        return rng.choice([item for item in pool if asked[item.group] == fewest])

    def _deciding(self, pool: Sequence[AnswerPair], ballots: Sequence[Ballot], rng: Random) -> list[AnswerPair]:
        """The items of the pair that narrows the deciding interval most."""
        pairs = {(item.model_a, item.model_b) for item in pool}
        if len(pairs) == 1:
            return list(pool)
        from llmbench.statistics import rating

        votes = pair_votes(ballots, self.votable.current)
        gains = rating.gains(votes, self.votable.models)
        most = max(gains[pair] for pair in pairs)
        best = rng.choice(sorted(pair for pair in pairs if gains[pair] >= most * (1 - 1e-9)))
        return [item for item in pool if (item.model_a, item.model_b) == best]

    def _round(self, item: AnswerPair, kind: Kind, rng: Random) -> Round:
        texts, seconds = self.votable.texts, self.votable.seconds
        a, b = texts[item.a], texts[item.b]
        words = a.split()
        if kind == "nonsense" and len(set(words)) < _WORDS:
            kind = "same"
        shown = item
        if kind == "same":
            b, shown = a, replace(item, model_b=item.model_a, b=item.a)
        elif kind == "nonsense":
            b = " ".join(_shuffled(words, rng))
            shown = replace(item, model_b=NONSENSE, b=answer_hash(b))
        took = tuple(
            seconds[item.question, model] for model in (item.model_a, item.model_b if kind == "vote" else item.model_a)
        )
        left_is = "a" if rng.random() < 0.5 else "b"
        if left_is == "b":
            a, b, took = b, a, took[::-1]
        return Round(
            item=shown,
            kind=kind,
            left_is="a" if left_is == "a" else "b",
            conversation=self.votable.conversations[item.question],
            left=a,
            right=b,
            wait=min(_PATIENCE, max(took)) if self.plan.latency == "paced" else 0.0,
            latencies=(took[0], took[1]) if self.plan.latency == "shown" else None,
        )


def _shuffled(words: list[str], rng: Random) -> list[str]:
    """The words in another order; few by chance stay beside the one that they followed."""
    drawn = rng.sample(words, len(words))
    return drawn if drawn != words else words[::-1]


def _checked(voter: str | None) -> str:
    if voter is None:
        return anonymous()
    name = voter.strip()
    if not name or len(name) > _LONGEST or not name.isprintable():
        raise LlmbenchError(f"--rater {voter[:80]!r}: a name is up to {_LONGEST} characters that can be printed.")
    return name
