"""Signs around the words of a row, by which they are found again in what a template wrote; no text holds them."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["CLOSE", "CODED", "HIDDEN", "NEXT", "OPEN", "PRIVATE", "Spans", "Turn", "common", "found", "parted", "wrapped"]

OPEN, CLOSE = "\ufdd0", "\ufdd1"
"""Stand around what a template marks with `{% generation %}`; Unicode says that no text holds them."""
FIRST, HIDDEN, CODED = 0x100000, 0xF0000, 0xF8000
"""Private characters: pairs around each content; control tokens in a content; control tokens of the template."""
NEXT = "\U0010fffc"
"""The words of the turn that is put behind one to see what closes it."""
PRIVATE = re.compile("[\U000f0000-\U0010ffff]")
_SIGNS = re.compile("([\ufdd0\ufdd1\U00100000-\U0010fffb])")

Turn = dict[str, Any]
Spans = list[list[int]]


def wrapped(turn: Turn, i: int) -> Turn:
    """A turn whose content has a sign before and behind, space at its ends left outside so that a trim finds it."""
    content = turn["content"]
    core = content.strip() if content else ""
    if not core or i > 30000:
        return turn
    start = content.index(core)
    first, last = chr(FIRST + 2 * i), chr(FIRST + 2 * i + 1)
    return turn | {"content": f"{content[:start]}{first}{core}{last}{content[start + len(core) :]}"}


def parted(text: str) -> tuple[str, Spans, dict[int, list[int]]]:
    """A text without its signs, the spans of the marks, and the span of each content whose two signs are there once."""
    pieces: list[str] = []
    marks: Spans = []
    signs: dict[int, list[int]] = {}
    at = 0
    for piece in _SIGNS.split(text):
        if len(piece) == 1 and _SIGNS.match(piece):
            if piece == OPEN:
                marks.append([at, at])
            elif piece == CLOSE:
                marks[-1][1] = at
            else:
                signs.setdefault(ord(piece) - FIRST, []).append(at)
        else:
            pieces.append(piece)
            at += len(piece)
    places = {}
    for sign, where in signs.items():
        other = signs.get(sign + 1, [])
        if sign % 2 == 0 and len(where) == len(other) == 1 and where[0] <= other[0]:
            places[sign // 2] = [where[0], other[0]]
    return "".join(pieces), [span for span in marks if span[1] > span[0]], places


def found(core: str, text: str, cursor: int) -> list[int]:
    """Where words are, looked for from a place on, and then from the beginning."""
    start = text.find(core, cursor)
    start = start if start >= 0 else text.find(core)
    return [start, start + len(core)]


def common(a: str, b: str) -> int:
    """How many characters two texts begin with together."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
