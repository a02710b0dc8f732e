"""Voting line by line: for a pipe, for a screen reader, and where a terminal can do no more."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

from llmbench.errors import LlmbenchError
from llmbench.shown import counted, legible

if TYPE_CHECKING:
    from llmbench.votes import Booth
    from llmbench.votes.values import Choice, Round

__all__ = ["HELP", "WORDS", "lines", "parsed"]

WORDS: dict[str, Choice] = {
    "left": "left", "l": "left", "1": "left",
    "right": "right", "r": "right", "2": "right",
    "tie": "tie", "t": "tie", "=": "tie",
    "bad": "both_bad", "b": "both_bad", "both_bad": "both_bad",
    "skip": "skip", "s": "skip",
}  # fmt: skip
"""What may be typed for a vote."""
HELP = "left, right, tie, bad (both), skip, undo, quit; then reasons and a note: left correct,concise: names the date"


def parsed(line: str) -> tuple[Choice, tuple[str, ...], str]:
    """`left correct,concise: a note` -> the choice, reasons and note.

    Raises:
        LlmbenchError: it is no vote, or a reason is unknown.
    """
    from llmbench.votes.values import REASONS

    said, _, note = line.partition(":")
    word, _, rest = said.strip().partition(" ")
    choice = WORDS.get(word.lower())
    if choice is None:
        raise LlmbenchError(f"{word[:40]!r} is not a vote. Type {HELP}")
    reasons = tuple(reason for reason in rest.replace(",", " ").lower().split())
    for reason in reasons:
        if reason not in REASONS:
            raise LlmbenchError(
                f"{reason[:40]!r} is not a reason. Reasons: {', '.join(REASONS)}. A note stands behind a colon."
            )
    return choice, reasons, note.strip()


def lines(booth: Booth, limit: int | None, *, source: TextIO = sys.stdin, out: Callable[[str], None] = print) -> int:
    """Shows and asks until all is voted on, `limit` votes are cast, or the input ends; how many were cast."""
    cast = 0
    while limit is None or cast < limit:
        round = booth.next()
        if round is None:
            out("You have voted on everything there is.")
            return cast
        _show(booth, round, out)
        began = time.monotonic()
        while True:
            out(f"Vote ({HELP}):")
            line = source.readline()
            word = line.strip().lower()
            if not line or word in ("quit", "q"):
                return cast
            if word in ("undo", "u"):
                taken = booth.undo()
                out("There is no vote to take back." if taken is None else "The last vote is taken back.")
                cast -= taken is not None
                break
            try:
                choice, reasons, note = parsed(line)
            except LlmbenchError as error:
                out(str(error))
                continue
            booth.cast(round, choice, reasons=reasons, note=note, seconds=time.monotonic() - began)
            cast += 1
            break
    return cast


def _show(booth: Booth, round: Round, out: Callable[[str], None]) -> None:
    progress = booth.progress()
    out(f"\n{counted(progress.cast, 'vote')} cast, {progress.left:,} left")
    for role, text in round.conversation:
        out(f"\n{'QUESTION' if role == 'user' else role.upper()}\n{legible(text)}")
    if round.wait:
        time.sleep(round.wait)
    times = round.latencies or (None, None)
    for side, text, seconds in (("LEFT", round.left, times[0]), ("RIGHT", round.right, times[1])):
        took = "" if seconds is None else f" ({seconds:.2f} s)"
        out(f"\n{side}{took}\n{legible(text) or '(an empty answer)'}")
    out("")
