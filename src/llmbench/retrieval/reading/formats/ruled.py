"""Rows of a table whose cells are several lines high, found by the rules (drawn lines) between rows."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmbench.retrieval.reading.formats.layout import UNLIKE, Area, Piece

__all__ = ["LINES", "Rule", "bands", "between", "rows_between", "rules", "wanted", "wrapped"]

OBJECTS = 4000
"""Things on a page beyond which its drawing is a map or a chart, and not looked through."""
FEW = 300
"""Things on a page that are looked through in any case: 0.6 ms."""
TALLEST = 220
"""Points of a row: what is higher between two rules is a page's columns."""
LINES = 16
"""Lines in a cell."""
THIN = 4
"""Points below which a box is a line."""
SHORTEST = 12
"""Points of a horizontal line at least."""


@dataclass(frozen=True)
class Rule:
    """A horizontal line on a page: points from its left and top edge. A vertical one is written with the two exchanged."""

    y: float
    left: float
    right: float


def wanted(page: Any, pieces: Sequence[Piece]) -> bool:
    """Whether a page is worth looking for rules: there are few things on it, or cells, as it seems, of several lines."""
    import pypdfium2.raw as pdfium

    count = pdfium.FPDFPage_CountObjects(page.raw)
    return count <= FEW or (count <= OBJECTS and _cells_of_lines(pieces))


def _cells_of_lines(pieces: Sequence[Piece]) -> bool:
    """Whether a page has lines of words closely under each other with others at their side: cells, perhaps, that are several
    lines high.
    """
    edges: dict[int, Piece] = {}
    lows: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: piece.top):
        edge = round(piece.left / 4)
        above = edges.get(edge) or edges.get(edge - 1) or edges.get(edge + 1)
        if above is not None and -2 < piece.top - above.bottom < 0.8 * piece.height and piece.text[:1].isalpha():
            lows.append(piece)
        edges[edge] = piece
    for low in lows:
        for piece in pieces:
            if (piece.left > low.right or piece.right < low.left) and abs(piece.top - low.top) < 1.5 * low.height:
                return len(piece.text) > 3 and sum(map(str.isalpha, piece.text)) > 0.6 * len(piece.text)
    return False


def rules(page: Any, place: Any) -> tuple[list[Rule], list[Rule]]:
    """The horizontal and the vertical lines of a page, thin boxes and the edges of cells' boxes among them, joined where they
    touch. What is painted and has no edge drawn around it, as behind every other row, has no vertical lines.

    Args:
        page: pypdfium2's page.
        place: turns PDF's box into left, top, right and bottom as shown.
    """
    import pypdfium2.raw as pdfium

    across: list[Rule] = []
    down: list[Rule] = []
    sides = [ctypes.c_float() for _ in range(4)]
    fill, stroke = ctypes.c_int(), ctypes.c_int()
    for at in range(pdfium.FPDFPage_CountObjects(page.raw)):
        thing = pdfium.FPDFPage_GetObject(page.raw, at)
        if thing and pdfium.FPDFPageObj_GetType(thing) == pdfium.FPDF_PAGEOBJ_PATH:
            pdfium.FPDFPageObj_GetBounds(thing, *sides)
            left, top, right, bottom = place(tuple(side.value for side in sides))
            if bottom - top < THIN:
                if right - left >= SHORTEST:
                    across.append(Rule((top + bottom) / 2, left, right))
            elif right - left < THIN:
                if bottom - top > 2 * THIN:
                    down.append(Rule((left + right) / 2, top, bottom))
            elif bottom - top < TALLEST and right - left >= SHORTEST:
                across += [Rule(top, left, right), Rule(bottom, left, right)]
                pdfium.FPDFPath_GetDrawMode(thing, fill, stroke)
                if stroke.value:
                    down += [Rule(left, top, bottom), Rule(right, top, bottom)]
    return _joined(across), _joined(down)


def _joined(found: list[Rule]) -> list[Rule]:
    """Pieces of one line made one."""
    joined: list[Rule] = []
    for rule in sorted(found, key=lambda rule: (round(rule.y / 2), rule.left)):
        last = joined[-1] if joined else None
        if last is not None and abs(last.y - rule.y) < 3 and rule.left < last.right + 6:
            joined[-1] = replace(last, right=max(last.right, rule.right))
        else:
            joined.append(rule)
    return joined


def rows_between(pieces: Sequence[Piece], lines: Sequence[Rule], taken: Collection[int] = ()) -> dict[int, list[Piece]]:
    """The rows between rules that have a cell of several lines: by the place of its first piece, the row's pieces in order.

    The first piece of a row begins a line, that of the next cell goes on after two spaces, the next line of a cell after one.
    All places of a row's other pieces lead to an empty list. Rows whose cells are figures under each other are left as lines,
    and so is what is `taken` by tables that were found otherwise.
    """
    found: dict[int, list[Piece]] = {}
    body = _body(pieces)
    ruled = [cells for cells in (_cells(pieces, *band) for band in bands(lines)) if len(cells) > 1]
    ruled = [cells for cells in ruled if _of_text([pieces[at] for cell in cells for line in cell for at in line], body)]
    if len(ruled) < 2:
        return {}
    for cells in ruled:
        places = [at for cell in cells for line in cell for at in line]
        if max(map(len, cells)) < 2 or any(at in found or at in taken for at in places) or not wrapped(pieces, cells):
            continue
        row: list[Piece] = []
        for cell in cells:
            for number, line in enumerate(cell):
                for nth, at in enumerate(line):
                    glue = "\n" if not row else "  " if number == nth == 0 else " "
                    row.append(replace(pieces[at], glue=glue))
        found |= {at: [] for at in places}
        found[min(places)] = row
    return found


def bands(lines: Sequence[Rule]) -> list[tuple[Rule, Rule]]:
    """Rules that may be the upper and lower edge of a row."""
    lines = lines[:500]
    found = []
    for upper in lines:
        lower = next((low for low in lines if low.y > upper.y + 4 and _over(upper, low)), None)
        if lower is not None and lower.y - upper.y < TALLEST:
            found.append((upper, lower))
    return found


def between(piece: Area, lines: Sequence[tuple[Rule, Rule]]) -> bool:
    """Whether a piece lies between two rules."""
    middle = (piece.top + piece.bottom) / 2
    return any(
        upper.y < middle < lower.y and min(upper.left, lower.left) - 4 <= piece.left < max(upper.right, lower.right)
        for upper, lower in lines
    )


def _over(upper: Rule, lower: Rule) -> bool:
    """Whether two rules are of one table."""
    shared = min(upper.right, lower.right) - max(upper.left, lower.left)
    return shared > 0.6 * max(min(upper.right - upper.left, lower.right - lower.left), 1)


def _cells(pieces: Sequence[Piece], upper: Rule, lower: Rule) -> list[list[list[int]]]:
    """The cells between two rules from left to right: each its lines, each of these the places of its pieces."""
    left, right = min(upper.left, lower.left) - 4, max(upper.right, lower.right) + 4
    inside = [
        at
        for at, piece in enumerate(pieces)
        if piece.bottom > upper.y and piece.top < lower.y and left <= piece.left and piece.right <= right
        if upper.y < (piece.top + piece.bottom) / 2 < lower.y
    ]
    cells: list[tuple[Area, list[int]]] = []
    for at in sorted(inside, key=lambda at: pieces[at].left):
        piece = pieces[at]
        if cells and piece.left < cells[-1][0].right + 1:
            frame, members = cells[-1]
            cells[-1] = (replace(frame, right=max(frame.right, piece.right)), [*members, at])
        else:
            cells.append((Area(piece.left, piece.top, piece.right, piece.bottom), [at]))
    found = []
    for _, members in cells:
        lines: list[list[int]] = []
        for at in sorted(members, key=lambda at: pieces[at].top):
            if lines and pieces[at].top < pieces[lines[-1][0]].top + 0.5 * pieces[at].height:
                lines[-1].append(at)
            else:
                lines.append([at])
        found.append([sorted(line, key=lambda at: pieces[at].left) for line in lines])
    return found if all(len(lines) <= LINES for lines in found) else []


def _body(pieces: Sequence[Piece]) -> float:
    """The size of most letters."""
    sizes: Counter[float] = Counter()
    for piece in pieces:
        sizes[piece.size] += len(piece.text)
    return max(sizes, key=lambda size: sizes[size], default=0.0)


def _of_text(row: Sequence[Piece], body: float) -> bool:
    """Whether what lies between two rules is text of about one size: else it is a cover, or a page's head."""
    sizes = [piece.size for piece in row if len(piece.text) > 2 and piece.size]
    return not sizes or (max(sizes) <= UNLIKE * min(sizes) and min(sizes) <= UNLIKE * body)


def wrapped(pieces: Sequence[Piece], cells: Sequence[Sequence[Sequence[int]]]) -> bool:
    """Whether the cells of several lines are words that go on from line to line, rather than entries under each other."""
    tall = [cell for cell in cells if len(cell) > 1]
    running = 0
    for cell in tall:
        text = [" ".join(pieces[at].text for at in line) for line in cell]
        letters = sum(map(str.isalpha, "".join(text)))
        figures = sum(map(str.isdigit, "".join(text)))
        running += letters > 2 * figures and (max(map(len, text)) > 14 or len(cell) == 2)
    level = sum(len(cell) == max(map(len, cells)) for cell in tall) == len(cells)
    if level and len(cells) > 2:  # each cell has as many lines as the others: rows without rules between them
        return running == len(cells) and max(map(len, cells)) < 4
    return running * 2 > len(tall)
