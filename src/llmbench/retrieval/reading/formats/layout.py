"""From the stretches of text on a page to its lines: what stands side by side in a table's row becomes one line."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

__all__ = ["Area", "Piece", "rows"]

BACK = 12
"""How many lines back a cell may find its row: tables are written cell by cell, columns of prose one after another."""
PROSE = 45
"""Two stretches of more characters than this side by side are columns of prose, not cells."""
UNLIKE = 1.7
"""Words so many times as large as others at their side are a title or a decoration, and no cell of their row."""
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{4}")
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")


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
    """Text with its box, the size of its letters in points (0: not known) and whether they are heavy.

    `down`: a column of vertical writing. `glue` is what stands between it and the piece before it in the text: a line end,
    spaces where both are parts of a row or a heading, or the bars between cells. `table`: from 1, of which drawn table.
    """

    text: str
    size: float = 0.0
    bold: bool = False
    down: bool = False
    glue: str = "\n"
    table: int = 0

    @property
    def turned_words(self) -> bool:
        """Whether it is a line of words that runs up or down the page: a letter alone may be as narrow."""
        return self.tall and len(self.text) > 2


def side_by_side(pieces: Sequence[Piece]) -> dict[int, int]:
    """The columns of prose that stand beside each other, however short: by the place of a piece, the number of its column.

    A column is three lines or more under each other that share their left edge and read on from line to line, or two or more
    of few words at the side of a long one. What lies within its edges, such as the indented first line of a paragraph, belongs
    to it.
    """
    runs = [(run, _frame([pieces[at] for at in run])) for run in _runs(pieces)]
    near = [(run, frame) for run, frame in runs if len(run) > 2 and _has_neighbour(run, frame, runs)]  # most pages have none
    prose = [(run, frame) for run, frame in near if _reads_on([pieces[at] for at in run])]
    long = [(run, frame) for run, frame in prose if len(run) > 4]
    labels = [
        (run, frame)
        for run, frame in (runs if long else ())
        if (run, frame) not in prose and _has_neighbour(run, frame, long) and _label([pieces[at] for at in run])
    ]
    runs = prose + labels
    found: dict[int, int] = {}
    for number, (run, frame) in enumerate(runs):
        pitch = (frame.bottom - frame.top) / len(run)
        if _has_neighbour(run, frame, runs):
            found |= dict.fromkeys(run, number)
            for at, piece in enumerate(pieces):
                if frame.left - 2 <= piece.left and piece.right <= frame.right + pitch and at not in found:
                    middle = (piece.top + piece.bottom) / 2
                    if frame.top - 2 * pitch < middle < frame.bottom + 2 * pitch:
                        found[at] = number
    return found


def _has_neighbour(run: Sequence[int], frame: Area, runs: Sequence[tuple[Sequence[int], Area]]) -> bool:
    """Whether another run stands beside one, for two lines at least."""
    reach = 1.5 * (frame.bottom - frame.top) / len(run)
    return any(
        (other.left >= frame.right - 1 or other.right <= frame.left + 1)
        and min(frame.bottom, other.bottom) - max(frame.top, other.top) > reach
        for _, other in runs
    )


def _runs(pieces: Sequence[Piece]) -> list[list[int]]:
    """Pieces of one left edge that follow each other down the page, two at least."""
    open_: dict[int, list[int]] = {}
    found: list[list[int]] = []
    for at in sorted(range(len(pieces)), key=lambda at: pieces[at].top):
        piece = pieces[at]
        edge = round(piece.left / 4)
        run = next((open_[key] for key in (edge, edge - 1, edge + 1) if key in open_), None)
        last = pieces[run[-1]] if run else None
        if run and last and abs(piece.left - last.left) < 3 and -2 < piece.top - last.bottom < 0.9 * last.height:
            run.append(at)
        else:
            run = [at]
            found.append(run)
        open_[edge] = run
    return [run for run in found if len(run) > 1]


def _frame(pieces: Sequence[Piece]) -> Area:
    return Area(
        min(p.left for p in pieces), min(p.top for p in pieces), max(p.right for p in pieces), max(p.bottom for p in pieces)
    )


def _reads_on(lines: Sequence[Piece]) -> bool:
    """Whether lines are those of prose: words, which go on from line to line, as small first letters or full lines tell."""
    text = " ".join(line.text for line in lines)
    letters = sum(map(str.isalpha, text))
    if letters < 0.6 * len(text) - text.count(" "):
        return False
    close = max(line.right for line in lines) - min(line.left for line in lines)
    if _UNSPACED.search(text):
        full = sum(line.right > lines[0].left + 0.85 * close for line in lines[:-1])
        return full > 0.6 * (len(lines) - 1) and len(text) > 7 * len(lines)
    if text.count(" ") < 2.5 * len(lines):
        return False
    small = sum(line.text[:1].islower() for line in lines[1:])
    open_ended = sum(line.right > lines[0].left + 0.75 * close and line.text[-1:] not in ".:;!?" for line in lines[:-1])
    return small > 0.4 * (len(lines) - 1) or open_ended > 0.6 * (len(lines) - 1)


def _label(lines: Sequence[Piece]) -> bool:
    """Whether lines are a few words that go on from line to line, as in the margin."""
    text = "".join(line.text for line in lines)
    small = sum(line.text[:1].islower() for line in lines[1:])
    return small > 0.4 * (len(lines) - 1) and sum(map(str.isalpha, text)) > 0.7 * len(text) and len(text) < PROSE * len(lines)


def rows(pieces: Sequence[Piece], finished: Mapping[int, Sequence[Piece]] | None = None) -> list[Piece]:
    """The lines of a page, in the order in which it was written.

    `finished` are rows that were found otherwise: by the place of the first piece, all pieces of the row in order; the places
    of its other pieces lead to none.

    A piece that stands at the height of one of the last lines, beside it, is part of that line: cells of a table are
    written one by one, also those of a row whose other cells are two lines high. Columns of prose stay apart.
    """
    finished = finished or {}
    free = [at for at in range(len(pieces)) if at not in finished] if finished else range(len(pieces))
    column = {free[at]: own for at, own in side_by_side([pieces[at] for at in free]).items()}
    lines: list[list[Piece]] = []
    heights: list[tuple[float, float]] = []  # what all pieces of a line share, from top to bottom
    of: list[int | None] = []  # the column that a line belongs to
    whole: set[int] = set()
    for at in _gathered(pieces, column):
        piece, own = pieces[at], column.get(at)
        if at in finished:
            if finished[at]:
                whole.add(len(lines))
                lines.append(list(finished[at]))
                heights.append((0, 0))
                of.append(None)
            continue
        top, bottom = piece.top, piece.bottom
        for back in range(len(lines) - 1, max(len(lines) - BACK, 0) - 1, -1):
            high, low = heights[back]
            if top >= low or bottom <= high or back in whole:
                continue
            if (own is None or of[back] is None or own == of[back]) and _beside(piece, lines[back]):
                lines[back].append(piece)
                heights[back] = max(high, top), min(low, bottom)
                break
        else:
            lines.append([piece])
            heights.append((top, bottom))
            of.append(own)
    return [piece for line in _wrapped_rows(lines, whole) for piece in line]


def _wrapped_rows(lines: Sequence[Sequence[Piece]], whole: Collection[int]) -> Iterator[Sequence[Piece]]:
    """The lines of a page, those of one row of a table together: a cell goes on in the next line where that stands closer
    to its row than the rows to each other. The lines at the places of `whole` are finished.
    """
    at = 0
    while at < len(lines):
        stop = at + 1
        if at in whole:
            yield lines[at]
        else:
            while (
                len(lines[at]) > 1
                and stop < len(lines)
                and stop not in whole
                and _under(lines[stop], lines[stop - 1], lines[at])
            ):
                stop += 1
            if stop > at + 1 and _closer(lines, at, stop):
                yield _row(lines[at:stop])
            else:
                stop = at + 1
                yield [_joined(lines[at])]
        at = stop


def _under(line: Sequence[Piece], upper: Sequence[Piece], row: Sequence[Piece]) -> bool:
    """Whether a line goes on with some cells of a row: small first letters under words, closely. Figures and the points of a
    list are no such cells.
    """
    if len(line) >= len(row) or not all(piece.text[:1].islower() for piece in line) or not all(map(_worded, row)):
        return False
    if not -2 < _top(line) - _bottom(upper) < 0.8 * line[0].height or any(piece.turned_words or piece.down for piece in row):
        return False
    return all(sum(_aligned(piece, cell) for cell in row) == 1 for piece in line)


def _worded(cell: Piece) -> bool:
    return cell.text.isdigit() or (len(cell.text) > 1 and any(map(str.isalnum, cell.text)))


def _aligned(lower: Piece, upper: Piece) -> bool:
    shared = min(lower.right, upper.right) - max(lower.left, upper.left)
    sides = lower.left - upper.left, lower.right - upper.right, (lower.left + lower.right - upper.left - upper.right) / 2
    return shared > 0.5 * min(lower.right - lower.left, upper.right - upper.left) and min(map(abs, sides)) < 3


def _closer(lines: Sequence[Sequence[Piece]], start: int, stop: int) -> bool:
    """Whether lines stand closer together than to the rows above and below, one of which there is."""
    inner = max(_top(lower) - _bottom(upper) for upper, lower in pairwise(lines[start:stop]))
    outer = [_top(lines[at]) - _bottom(lines[at - 1]) for at in (start, stop) if 0 < at < len(lines)]
    near = [len(lines[at]) > 1 for at in (start - 1, stop) if 0 <= at < len(lines)]
    gaps = [gap for gap, cells in zip(outer, near, strict=True) if cells and -2 < gap < 4 * lines[start][0].height]
    return bool(gaps) and min(gaps) > 1.4 * max(inner, 0) + 1.5


def _top(line: Sequence[Piece]) -> float:
    return min(piece.top for piece in line)


def _bottom(line: Sequence[Piece]) -> float:
    return max(piece.bottom for piece in line)


def _row(lines: Sequence[Sequence[Piece]]) -> list[Piece]:
    """The pieces of a row whose cells have several lines, cell by cell."""
    found: list[Piece] = []
    for cell in sorted(lines[0], key=lambda piece: piece.left):
        rest = [piece for line in lines[1:] for piece in line if _aligned(piece, cell)]
        found += [replace(cell, glue="  " if found else "\n"), *(replace(piece, glue=" ") for piece in rest)]
    return found


def _gathered(pieces: Sequence[Piece], column: Mapping[int, int]) -> list[int]:
    """The places of pieces in their order, each column as a whole where its first piece is."""
    if not column:
        return list(range(len(pieces)))
    members: dict[int, list[int]] = {}
    for at in range(len(pieces)):
        if at in column:
            members.setdefault(column[at], []).append(at)
    order: list[int] = []
    for at in range(len(pieces)):
        if at not in column:
            order.append(at)
        elif members[column[at]][0] == at:
            order += members[column[at]]
    return order


def _beside(piece: Piece, line: Sequence[Piece]) -> bool:
    """Whether a piece continues a line: same height, no overlap, and not both of them prose."""
    for other in line:
        if piece.top >= other.bottom or other.top >= piece.bottom:
            return False
        shared = min(piece.bottom, other.bottom) - max(piece.top, other.top)
        if shared < 0.6 * min(piece.height, other.height):
            return False
        if min(piece.right, other.right) - max(piece.left, other.left) > 0.3 * piece.height:
            return False
        if len(piece.text) > PROSE and len(other.text) > PROSE:
            return False
        if piece.down or other.down or piece.turned_words or other.turned_words:
            return False
        if max(piece.size, other.size) > UNLIKE * min(piece.size, other.size) > 0 and min(len(piece.text), len(other.text)) > 2:
            return False
    return True


def _joined(line: Sequence[Piece]) -> Piece:
    """One piece of several, from left to right, or from right to left where that is how they read; a wide gap stays visible
    as two spaces.
    """
    if len(line) == 1:
        return line[0]
    foreign = [piece for piece in line if not piece.text.isascii() and _RIGHT_TO_LEFT.search(piece.text)]
    backwards = len(foreign) * 2 > len(line)
    ordered = sorted(line, key=lambda piece: -piece.right if backwards else piece.left)
    text = ordered[0].text
    for before, piece in pairwise(ordered):
        gap = before.left - piece.right if backwards else piece.left - before.right
        text += ("" if gap < 0.1 * piece.height else " " if gap < piece.height else "  ") + piece.text
    sides = (min(p.left for p in line), min(p.top for p in line), max(p.right for p in line), max(p.bottom for p in line))
    worded = [piece for piece in line if not piece.bold or piece.size != line[0].size]  # most often none
    if worded:  # a number may be set otherwise than the heading behind it
        worded = [piece for piece in line if any(map(str.isalpha, piece.text))] or list(line)
        return Piece(*sides, text, max(piece.size for piece in worded), all(piece.bold for piece in worded))
    return Piece(*sides, text, line[0].size, True)
