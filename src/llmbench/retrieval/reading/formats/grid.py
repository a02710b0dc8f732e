"""Tables whose cells are drawn: rules across and down the page make a grid, and a cell may span rows and columns of it."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from llmbench.retrieval.reading.formats.layout import Area, Piece
from llmbench.retrieval.reading.formats.ruled import LINES, Rule, wrapped

__all__ = ["Grid", "grids", "placed"]

MOST = 250
"""Rules of one direction on a page beyond which it is a drawing."""
LONGEST = 700
"""Characters of a cell; more is a page's text in a frame."""
SHORT = 40
"""Characters of what may be a cell at the side of a grid; a column of prose is wider."""
NEAR = 3.0
"""Points between the ends of rules that meet."""
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")

Cell = list[list[int]]
"""The lines of a cell, each the places of its pieces."""


@dataclass(frozen=True)
class Grid:
    """The rules of one table: where its columns and its rows begin and end, in points, and which rules these are."""

    xs: list[float]
    ys: list[float]
    across: list[Rule]
    down: list[Rule]

    def cuts(self, piece: Area) -> list[float]:
        """Where rules run down through a piece, in points from the left: its words belong to several cells."""
        middle = (piece.top + piece.bottom) / 2
        if not self.ys[0] < middle < self.ys[-1]:
            return []
        return [rule.y for rule in self.down if piece.left + 1 < rule.y < piece.right - 1 and rule.left <= middle <= rule.right]


def grids(across: Sequence[Rule], down: Sequence[Rule]) -> list[Grid]:
    """The grids of two columns and two rows at least that rules make. A rule down is one with across and down exchanged."""
    if len(down) > MOST or len(across) > MOST:
        return []
    found = []
    for rows_, columns in _meeting(across, down):
        xs = _places([*(rule.y for rule in columns)], min(r.left for r in rows_), max(r.right for r in rows_))
        ys = _places([*(rule.y for rule in rows_)], min(r.left for r in columns), max(r.right for r in columns))
        if len(xs) > 2 and len(ys) > 2 and len(xs) * len(ys) <= 4000:
            found.append(Grid(xs, ys, rows_, columns))
    return found


def _meeting(across: Sequence[Rule], down: Sequence[Rule]) -> list[tuple[list[Rule], list[Rule]]]:
    """Rules that meet, directly or by way of others."""
    sets: list[tuple[set[int], list[Rule]]] = []  # places of rules across, and the rules down
    for rule in down:
        met = {
            at
            for at, row in enumerate(across)
            if row.left - NEAR <= rule.y <= row.right + NEAR and rule.left - NEAR <= row.y <= rule.right + NEAR
        }
        if not met:
            continue
        columns = [rule]
        apart = []
        for rows_, others in sets:
            if met.isdisjoint(rows_):
                apart.append((rows_, others))
            else:
                met, columns = met | rows_, others + columns
        sets = [*apart, (met, columns)]
    return [([across[at] for at in sorted(rows_)], columns) for rows_, columns in sets]


def _places(places: Sequence[float], first: float, last: float) -> list[float]:
    """Places in order, those that nearly agree as one; the outer ends too, where a table is open at its sides."""
    found: list[float] = []
    for place in sorted(places):
        if not found or place > found[-1] + NEAR:
            found.append(place)
    if first < found[0] - 2 * NEAR:
        found.insert(0, first)
    if last > found[-1] + 2 * NEAR:
        found.append(last)
    return found


def placed(pieces: Sequence[Piece], found: Sequence[Grid]) -> tuple[list[Piece], dict[int, list[Piece]]]:
    """The pieces of a page with each table where it stands, whenever it was written; and its rows, as `layout.rows` takes them.

    Cells are divided by bars. What spans rows is said in each of them. A grid that is no table, such as a frame around
    paragraphs, is left alone.
    """
    blocks: dict[int, list[list[Piece]]] = {}  # by the place after which a table stands
    taken: set[int] = set()
    for number, grid in enumerate(found, 1):
        members, rows_ = _table(pieces, grid)
        if rows_ and not taken.intersection(members):
            taken |= members
            anchor = _above(pieces, grid, taken)
            blocks.setdefault(anchor, []).extend(_pieces(pieces, row, number) for row in rows_)
    if not blocks:
        return list(pieces), {}
    ordered: list[Piece] = []
    finished: dict[int, list[Piece]] = {}
    for at in range(-1, len(pieces)):
        if at >= 0 and at not in taken:
            ordered.append(pieces[at])
        for row in blocks.get(at, ()):
            finished |= {len(ordered) + n: row if n == 0 else [] for n in range(len(row))}
            ordered += row
    return ordered, finished


def _above(pieces: Sequence[Piece], grid: Grid, taken: set[int]) -> int:
    """The place of the last piece of the line over a table; of the table's first piece where nothing stands over it."""
    above = [
        at
        for at, piece in enumerate(pieces)
        if at not in taken and piece.bottom < grid.ys[0] + 4 and piece.left < grid.xs[-1] and piece.right > grid.xs[0]
    ]
    if not above:
        return min(taken) - 1
    lowest = pieces[max(above, key=lambda at: pieces[at].bottom)]
    return max(at for at in above if pieces[at].bottom > lowest.bottom - 0.6 * lowest.height)


def _table(pieces: Sequence[Piece], grid: Grid) -> tuple[set[int], list[list[Cell]]]:
    """The places of a table's pieces, and its rows, each with all of its cells, from first to last as they are read."""
    owner, spans = _cells(grid)
    inside: dict[tuple[int, int], list[int]] = {}
    for at, piece in enumerate(pieces):
        column = bisect_right(grid.xs, (piece.left + piece.right) / 2) - 1
        row = bisect_right(grid.ys, (piece.top + piece.bottom) / 2) - 1
        if 0 <= row < len(grid.ys) - 1 and 0 <= column < len(grid.xs) - 1:
            inside.setdefault(owner[row, column], []).append(at)
    members = {at for places in inside.values() for at in places}
    backwards = 2 * sum(bool(_RIGHT_TO_LEFT.search(pieces[at].text)) for at in members) > len(members)
    cells = {cell: _lines(pieces, places, backwards) for cell, places in inside.items()}
    for cell, lines in cells.items():
        if len(lines) > LINES or sum(len(pieces[at].text) for at in inside[cell]) > LONGEST or _holds_rows(pieces, lines):
            return set(), []
    rows_: list[list[Cell]] = []
    for row in range(len(grid.ys) - 1):
        order = list(dict.fromkeys(owner[row, column] for column in range(len(grid.xs) - 1)))
        if any(spans[cell] == row and cell in cells for cell in order):
            rows_ += _divided(pieces, [cells.get(cell, []) for cell in (reversed(order) if backwards else order)])
    while rows_ and all(row and not row[0] for row in rows_):  # a double line at the side
        rows_ = [row[1:] for row in rows_]
    if sum(sum(map(bool, row)) > 1 for row in rows_) < 2 or any(pieces[at].down for at in members):
        return set(), []
    if 2 * _beside(pieces, grid, members) > len(rows_):
        return set(), []
    return members, rows_


def _beside(pieces: Sequence[Piece], grid: Grid, members: set[int]) -> int:
    """How many short pieces stand at the side of a grid at the height of its words: a frame around some columns of a table."""
    heights = [(pieces[at].top + pieces[at].bottom) / 2 for at in members]
    return sum(
        any(piece.top < height < piece.bottom for height in heights)
        for at, piece in enumerate(pieces)
        if at not in members and len(piece.text) < SHORT and grid.ys[0] < piece.bottom and piece.top < grid.ys[-1]
    )


def _cells(grid: Grid) -> tuple[dict[tuple[int, int], tuple[int, int]], dict[tuple[int, int], int]]:
    """By row and column, which cell a field of the grid belongs to (the first field of it); and the first row of each cell."""
    owner: dict[tuple[int, int], tuple[int, int]] = {}

    def first(field: tuple[int, int]) -> tuple[int, int]:
        while owner[field] != field:
            field = owner[field]
        return field

    for row in range(len(grid.ys) - 1):
        high = (grid.ys[row] + grid.ys[row + 1]) / 2
        walls = [rule.y for rule in grid.down if rule.left <= high <= rule.right]
        for column in range(len(grid.xs) - 1):
            wide = (grid.xs[column] + grid.xs[column + 1]) / 2
            owner[row, column] = (row, column)
            if column and not any(abs(x - grid.xs[column]) <= NEAR for x in walls):
                owner[row, column] = first((row, column - 1))
            if row and not any(abs(r.y - grid.ys[row]) <= NEAR and r.left <= wide <= r.right for r in grid.across):
                one, other = sorted((first((row - 1, column)), first((row, column))))
                owner[other] = one
    owner = {field: first(field) for field in owner}
    return owner, {cell: cell[0] for cell in owner.values()}


def _lines(pieces: Sequence[Piece], places: Sequence[int], backwards: bool) -> Cell:
    """The lines of a cell, one under the other."""
    lines: Cell = []
    for at in sorted(places, key=lambda at: pieces[at].top):
        if lines and pieces[at].top < pieces[lines[-1][0]].top + 0.5 * pieces[at].height:
            lines[-1].append(at)
        else:
            lines.append([at])
    return [sorted(line, key=lambda at: -pieces[at].right if backwards else pieces[at].left) for line in lines]


def _holds_rows(pieces: Sequence[Piece], lines: Cell) -> bool:
    """Whether a cell has rows of its own: several of its lines are wide open, as those of a form in a frame are."""
    wide = sum(any(pieces[b].left - pieces[a].right > pieces[a].height for a, b in pairwise(line)) for line in lines)
    return wide > 1


def _divided(pieces: Sequence[Piece], row: list[Cell]) -> list[list[Cell]]:
    """One row, or several where most cells have entries under each other at the same heights with no rules between them."""
    deepest = max(map(len, row))
    tall = [cell for cell in row if len(cell) == deepest]
    full = [cell for cell in row if cell]
    if deepest < 2 or len(tall) < 2 or any(1 < len(cell) < deepest for cell in row):
        return [row]
    if not (deepest > 2 and len(tall) > 2 and len(tall) == len(full)) and wrapped(pieces, full):  # text that goes on
        return [row]
    middles = [[(pieces[line[0]].top + pieces[line[0]].bottom) / 2 for line in cell] for cell in tall]
    if any(max(level) - min(level) > 0.5 * pieces[tall[0][0][0]].height for level in zip(*middles, strict=True)):
        return [row]
    return [[[cell[n]] if len(cell) == deepest else cell for cell in row] for n in range(deepest)]


def _pieces(pieces: Sequence[Piece], row: Sequence[Cell], number: int) -> list[Piece]:
    """The pieces of a row in order, each with what stands between it and the one before it."""
    found: list[Piece] = []
    waiting = ""
    for nth, cell in enumerate(row):
        waiting += " | " if nth else ""
        for at in (at for line in cell for at in line):
            piece = pieces[at]
            if not found:
                lead = " ".join(waiting.split())
                found.append(replace(piece, text=f"{lead} {piece.text}" if lead else piece.text, glue="\n", table=number))
            else:
                found.append(replace(piece, glue=waiting or " ", table=number))
            waiting = ""
    return found
