"""Long passages in pieces that a model can read whole."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

__all__ = ["Offsets", "windows"]

Offsets = Callable[[str], list[int]]
"""The character at which each token of a text begins, special tokens left out."""


def windows(text: str, room: int, offsets: Offsets) -> list[str]:
    """The text whole where it fits, else pieces that overlap by a quarter, of which none has more than `room` tokens.

    Pieces begin and end between words, except within a word that is longer than a piece. Fewer than 8 tokens are no room;
    then 8 are taken, and the model cuts.
    """
    room = max(room, 8)
    starts = offsets(text)
    if len(starts) <= room:
        return [text]
    pieces, at = [], 0
    while True:
        end = _between_words(text, at, _end(text, at, starts, room))
        # A piece may have other tokens than it had in the whole, where it begins; what is cut off begins the next.
        own = offsets(text[at:end])
        if len(own) > room:
            end = _between_words(text, at, at + own[room])
        pieces.append(text[at:end].strip())
        if end >= len(text):
            return pieces
        back = starts[max(0, bisect_left(starts, end) - room // 4)]
        begin = _between_words(text, at, back)
        # Between words, and further on than this piece began; else, in one endless word, right behind it.
        at = begin if at < begin < end else end


def _end(text: str, at: int, starts: list[int], room: int) -> int:
    """Where the token begins for which there is no room any more."""
    beyond = bisect_left(starts, at) + room
    return starts[beyond] if beyond < len(starts) else len(text)


def _between_words(text: str, start: int, end: int) -> int:
    """The last place up to `end` that is not inside a word; `end` itself where all from `start` is one word."""
    if end >= len(text) or text[end].isspace() or text[end - 1].isspace():
        return end
    found = max(text.rfind(" ", start, end), text.rfind("\n", start, end))
    return found if found > start else end
