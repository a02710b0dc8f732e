"""From the stretches of text on a page to its lines: what stands side by side in a table's row becomes one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Area", "Piece", "rows"]

BACK = 12
"""How many lines back a cell may find its row: tables are written cell by cell, columns of prose one after another."""
PROSE = 45
"""Two stretches of more characters than this side by side are columns of prose, not cells."""


@dataclass(frozen=True)
class Area:
    """A rectangle on a page as it is shown: points from its left and top edge."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def height(self) -> float:
        """Points from top to bottom."""
        return max(self.bottom - self.top, 1.0)

    @property
    def tall(self) -> bool:
        """Whether it is a line of words that runs down or up the page."""
        return self.bottom - self.top > 2 * (self.right - self.left)

    @property
    def turned(self) -> Area:
        """The same with across and down exchanged."""
        return Area(self.top, self.left, self.bottom, self.right)


@dataclass(frozen=True)
class Piece(Area):
    """Text with its box."""

    text: str


def rows(pieces: Sequence[Piece]) -> list[Piece]:
    """The lines of a page, in the order in which it was written.

    A piece that stands at the height of one of the last lines, beside it, is part of that line: cells of a table are
    written one by one, also those of a row whose other cells are two lines high.
    """
    lines: list[list[Piece]] = []
    for piece in pieces:
        for line in reversed(lines[-BACK:]):
            if _beside(piece, line):
                line.append(piece)
                break
        else:
            lines.append([piece])
    return [_joined(line) for line in lines]


def _beside(piece: Piece, line: Sequence[Piece]) -> bool:
    """Whether a piece continues a line: same height, no overlap, and not both of them prose."""
    for other in line:
        shared = min(piece.bottom, other.bottom) - max(piece.top, other.top)
        if shared < 0.6 * min(piece.height, other.height):
            return False
        if min(piece.right, other.right) - max(piece.left, other.left) > 0.3 * piece.height:
            return False
        if len(piece.text) > PROSE and len(other.text) > PROSE:
            return False
    return True


def _joined(line: Sequence[Piece]) -> Piece:
    """One piece of several, from left to right; a wide gap stays visible as two spaces."""
    if len(line) == 1:
        return line[0]
    ordered = sorted(line, key=lambda piece: piece.left)
    text = ordered[0].text
    for before, piece in pairwise(ordered):
        gap = piece.left - before.right
        text += ("" if gap < 0.1 * piece.height else " " if gap < piece.height else "  ") + piece.text
    return Piece(ordered[0].left, min(p.top for p in line), max(p.right for p in line), max(p.bottom for p in line), text)
