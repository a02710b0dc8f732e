"""What is voted on, and what was voted, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["CHOICES", "LATENCIES", "REASONS", "AnswerPair", "Ballot", "Choice", "Kind", "Latency", "Round", "Winner"]

Choice = Literal["left", "right", "tie", "both_bad", "skip"]
"""What a person says of what is shown."""
Winner = Literal["model_a", "model_b", "tie", "both_bad", "skip"]
"""What that says of the models."""
Kind = Literal["vote", "same", "nonsense"]
"""A vote on two variants; or a look at the voter: the same answer on both sides, or a real one beside shuffled words."""
Latency = Literal["hidden", "paced", "shown"]
"""Whether a voter may tell the faster one: both are there at once; both after the slower one's time; or the times are said."""

CHOICES: tuple[Choice, ...] = ("left", "right", "tie", "both_bad", "skip")
LATENCIES: tuple[Latency, ...] = ("hidden", "paced", "shown")
REASONS = ("correct", "complete", "concise", "clear", "cited", "tone", "wrong", "invented", "off-topic", "refused")
"""Why, in a word each; a voter may name several."""


@dataclass(frozen=True)
class AnswerPair:
    """Two answers to one question, of variants in the order of their names. `a` and `b` are hashes of what was answered.

    `group` is what the question shares with others, such as a page; `turn` which of a person's messages was answered, from 1.
    """

    question: str
    group: str
    model_a: str
    model_b: str
    a: str
    b: str
    turn: int = 1


@dataclass(frozen=True)
class Round:
    """What a voter is shown. `left_is` says which answer stands on the left; `wait` is for how many seconds both are held back.

    `latencies` are those of left and right, in seconds, where the voter may know them.
    """

    item: AnswerPair
    kind: Kind
    left_is: Literal["a", "b"]
    conversation: tuple[tuple[str, str], ...]
    left: str
    right: str
    wait: float = 0.0
    latencies: tuple[float, float] | None = None

    def winner(self, choice: Choice) -> Winner:
        """What a choice of a side says of the models."""
        match choice:
            case "left":
                return "model_a" if self.left_is == "a" else "model_b"
            case "right":
                return "model_b" if self.left_is == "a" else "model_a"
            case _:
                return choice


@dataclass(frozen=True)
class Ballot:
    """A vote as it was cast. `time` is in seconds since 1970, `seconds` how long the voter looked; `undone` when it was taken
    back. `shown_left` is None where nobody recorded it.
    """

    voter: str
    item: AnswerPair
    winner: Winner
    shown_left: Literal["a", "b"] | None
    kind: Kind = "vote"
    latency: Latency = "hidden"
    reasons: tuple[str, ...] = ()
    note: str = ""
    time: float = 0.0
    seconds: float = 0.0
    undone: float | None = None
    id: int = 0

    @property
    def counts(self) -> bool:
        """Whether it says something of two variants: not of the voter, not skipped, not taken back."""
        return self.kind == "vote" and self.winner != "skip" and self.undone is None

    @property
    def passed(self) -> bool | None:
        """Of a look at the voter, whether it was answered as who reads would; None for a vote and for a skip.

        Beside shuffled words a real answer is better, or, where it is wrong, both are bad.
        """
        if self.kind == "vote" or self.winner == "skip":
            return None
        return self.winner in (("tie", "both_bad") if self.kind == "same" else ("model_a", "both_bad"))
