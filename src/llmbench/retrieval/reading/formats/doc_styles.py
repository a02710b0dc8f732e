"""Which paragraphs of a binary Word file are headings: by their style, the style it builds on, or an outline level of their own
(MS-DOC 2.4.6, 2.9.271).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Styles", "styles"]

_PAGE = 512
_OUTLINE = 0x2640  # sprmPOutLvl
_SIZES = {0: 1, 1: 1, 2: 2, 3: 4, 4: 2, 5: 2, 7: 3}
"""Bytes of what a property is set to, by the top three bits of its number; 6 is told by the first byte."""
_LONG = (0xD608, 0xD606)  # sprmTDefTable and its elder, whose length has two bytes
DEEPEST = 20
"""Styles that build on each other."""


@dataclass(frozen=True)
class Styles:
    """Where each paragraph begins, in bytes of the file's main stream, and its heading level: 1 to 9, or 0."""

    starts: Sequence[int]
    levels: Sequence[int]

    def level(self, place: int) -> int:
        """The heading level of the paragraph in which a byte of the main stream lies."""
        at = bisect_right(self.starts, place) - 1
        return self.levels[at] if at >= 0 else 0


def styles(word: bytes, table: bytes) -> Styles:
    """The styles of a file's paragraphs; none where what is told of them is broken, which is no reason to lose the text."""
    try:
        found = _found(word, table)
    except IndexError:
        found = {}
    starts = sorted(found)
    return Styles(starts, [found[start] for start in starts])


def _found(word: bytes, table: bytes) -> dict[int, int]:
    """The level of each paragraph by its start."""
    sheet = _sheet(_part(word, table, 1))
    found: dict[int, int] = {}
    bins = _part(word, table, 13)  # PlcfBtePapx
    count = max(0, (len(bins) - 4) // 8)
    for n in range(count):
        number = int.from_bytes(bins[4 * (count + 1 + n) : 4 * (count + 2 + n)], "little") & 0x3FFFFF
        found |= _paragraphs(word[number * _PAGE : (number + 1) * _PAGE], sheet)
    return found


def _part(word: bytes, table: bytes, index: int) -> bytes:
    """A part of the table stream by its number in the file's head (FibRgFcLcb97)."""
    at = 0x9A + 8 * index
    start, length = int.from_bytes(word[at : at + 4], "little"), int.from_bytes(word[at + 4 : at + 8], "little")
    return table[start : start + length]


def _paragraphs(page: bytes, sheet: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Of a page of paragraph properties (PapxFkp): where each begins, and its level."""
    if len(page) < _PAGE:
        return
    count = page[-1]
    for n in range(min(count, 29)):
        start = int.from_bytes(page[4 * n : 4 * n + 4], "little")
        at = 2 * page[4 * (count + 1) + 13 * n]
        properties = b""
        if at:
            size = 2 * page[at] - 1 if page[at] else 2 * page[at + 1]
            properties = page[at + (1 if page[at] else 2) :][:size]
        own = _outline(properties[2:])
        yield start, sheet.get(int.from_bytes(properties[:2], "little"), 0) if own is None else own


def _outline(properties: bytes) -> int | None:
    """The outline level that properties set: 1 to 9, 0 for plain text; None where they set none."""
    at, found = 0, None
    while at + 2 < len(properties):
        number = int.from_bytes(properties[at : at + 2], "little")
        at += 2
        if number in _LONG:
            size = 1 + int.from_bytes(properties[at : at + 2], "little")
        elif number >> 13 == 6:
            size = 1 + properties[at]
        else:
            size = _SIZES[number >> 13]
        if number == _OUTLINE:
            found = properties[at] + 1 if properties[at] < 9 else 0
        at += size
    return found


def _sheet(data: bytes) -> dict[int, int]:
    """The heading level of each style that has one, by its number. The first nine after the plain one are headings always."""
    size = int.from_bytes(data[:2], "little")
    count, fixed = int.from_bytes(data[2:4], "little"), int.from_bytes(data[4:6], "little")
    own: dict[int, int | None] = {}
    base: dict[int, int] = {}
    at = 2 + size
    for number in range(count):
        length = int.from_bytes(data[at : at + 2], "little")
        style = data[at + 2 : at + 2 + length]
        at += 2 + length + length % 2
        if len(style) < 10:
            continue
        kind = int.from_bytes(style[:2], "little") & 0xFFF
        base[number] = int.from_bytes(style[2:4], "little") >> 4
        match kind:
            case _ if 1 <= kind <= 9:
                own[number] = kind
            case 62:  # Title
                own[number] = 1
            case _:
                own[number] = _set(style[fixed:]) if style[2] & 0xF == 1 else None  # of paragraphs
    found = {}
    for number in own:
        at, steps = number, 0
        while own.get(at) is None and at in base and steps < DEEPEST:
            at, steps = base[at], steps + 1
        if level := own.get(at):
            found[number] = level
    return found | {number: number for number in range(1, 10) if number not in own}


def _set(rest: bytes) -> int | None:
    """The outline level of a paragraph style, by what stands behind its name."""
    name = 2 + 2 * int.from_bytes(rest[:2], "little") + 2
    size = int.from_bytes(rest[name : name + 2], "little")
    return _outline(rest[name + 4 : name + 2 + size])
