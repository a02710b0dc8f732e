"""A round of votes to HTML: two answers without names, the choices, and what is kept in the meantime on this side."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from html import escape

from llmbench import votes
from llmbench.votes import Booth, VoteResult

from . import render

__all__ = ["Desk", "drawn", "finished", "said", "summary"]

_CHOICES = (
    ("left", "1", "Left is better"), ("right", "2", "Right is better"), ("tie", "3", "Tie"), ("both_bad", "4", "Both bad"),
    ("skip", "5", "Skip"),
)  # fmt: skip
_SAID = {
    "left": "left is better", "right": "right is better", "tie": "a tie", "both_bad": "both bad", "skip": "skipped",
}  # fmt: skip


@dataclass
class Desk:
    """One browser tab's voting. What stands on which side is known here and nowhere in the browser."""

    booth: Booth | None = None
    round: votes.values.Round | None = None
    number: int = 0
    """Of the round that is shown; a click on an earlier one, as of a key pressed twice, says nothing."""
    began: float = field(default_factory=time.monotonic)

    def turn(self) -> None:
        """The next round."""
        self.round = self.booth.next() if self.booth else None
        self.number += 1
        self.began = time.monotonic()


def drawn(desk: Desk) -> str:
    """The round of a desk."""
    if desk.booth is None or desk.round is None:
        return ""
    round, progress = desk.round, desk.booth.progress()
    held = f' data-held="{round.wait:.2f}"' if round.wait else ""
    times = round.latencies or (None, None)
    halves = "".join(
        _half(side, text, took) for side, text, took in zip(("Left", "Right"), (round.left, round.right), times, strict=True)
    )
    buttons = "".join(
        f'<button type="button" data-cast="{choice}" aria-keyshortcuts="{key}"><kbd>{key}</kbd> {words}</button>'
        for choice, key, words in _CHOICES
    )
    return (
        f'<section class="ballot" data-round="{desk.number}"{held}>'
        f'<header><h2 tabindex="-1">{render.plain(desk.booth.comparison.name)}</h2>'
        f'<p class="aside">{progress.cast:,} cast · {progress.left:,} left</p>'
        f'<button type="button" class="quiet-link" data-undo="1" aria-keyshortcuts="u"{"" if progress.cast else " disabled"}>'
        "<kbd>u</kbd> Undo</button></header>"
        f'{_asked(round)}<div class="pair">{halves}</div>'
        f'<div class="choices" role="group" aria-label="Which answer is better?">{buttons}</div>{_reasons()}</section>'
    )


def said(choice: str, desk: Desk) -> str:
    """What a screen reader is told after a vote."""
    assert desk.booth is not None
    progress = desk.booth.progress()
    left = f"{progress.left:,} left." if desk.round else "Nothing is left to vote on."
    return f"Saved: {_SAID[choice]}. {progress.cast:,} cast, {left}"


def finished(desk: Desk) -> str:
    """What stands there when all is voted on."""
    assert desk.booth is not None
    progress = desk.booth.progress()
    undo = '<p><button type="button" class="quiet-link" data-undo="1"><kbd>u</kbd> Undo the last vote</button></p>'
    return (
        f'<section class="ballot" data-round="{desk.number}"><header><h2 tabindex="-1">'
        f"You have voted on everything there is</h2></header><p>{progress.cast:,} votes of yours, "
        f"{progress.all:,} of all voters count.</p>{undo}</section>"
    )


def summary(found: VoteResult) -> str:
    """What the votes say: the verdict, ratings, pairs and voters."""
    tables = votes.tables
    parts = [f'<section class="card result-card"><h2>What the votes say</h2><p>{render.plain(found.verdict())}</p>']
    for caption, rows in (
        ("Ratings", tables.strengths(found)),
        ("Pairs", tables.leads(found)),
        ("Voters", tables.voters(found)),
    ):
        if rows[1:]:
            parts.append(_table(caption, rows))
    lines = [*tables.lines(found), *found.notes]
    parts.append("".join(f'<p class="aside">{render.plain(line)}</p>' for line in lines))
    return "".join(parts) + "</section>"


def _asked(round: votes.values.Round) -> str:
    several = len(round.conversation) > 1
    turns = "".join(
        f'<p class="question" dir="auto">{f"<b>{escape(role.capitalize())}</b> " if several else ""}{render.plain(text)}</p>'
        for role, text in round.conversation
    )
    return f'<div class="asked" aria-label="Question" role="group">{turns}</div>'


def _half(side: str, text: str, took: float | None) -> str:
    figure = "" if took is None else f' <span class="aside">{took:.2f} s</span>'
    answer = render.prose(text) if text.strip() else '<p class="aside">The answer is empty.</p>'
    return (
        f'<article class="half" aria-label="{side} answer"><h3>{side}{figure}</h3>'
        f'<p class="aside holding" role="status">The answers are being written.</p>'
        f'<div class="answer" dir="auto" tabindex="0" role="group" aria-label="{side} answer, text">{answer}</div></article>'
    )


def _reasons() -> str:
    boxes = "".join(
        f'<label><input type="checkbox" data-reason="{escape(reason)}"> {escape(reason)}</label>'
        for reason in votes.values.REASONS
    )
    return (
        f'<fieldset class="reasons"><legend><kbd>r</kbd> Why, if you like (before the vote)</legend>{boxes}</fieldset>'
        '<label class="note-line"><span><kbd>n</kbd> Note</span><input type="text" data-note maxlength="2000"></label>'
    )


def _table(caption: str, rows: list[list[str]]) -> str:
    head = "".join(f'<th scope="col">{render.plain(cell)}</th>' for cell in rows[0])
    body = "".join(
        f'<tr><th scope="row" title="{escape(row[0])}">{render.plain(row[0])}</th>'
        + "".join(f"<td>{render.plain(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows[1:]
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{caption}"><table><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
