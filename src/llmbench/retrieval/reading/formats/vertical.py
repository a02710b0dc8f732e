"""Vertical writing: characters that stand under each other are columns, read downwards, the rightmost first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from llmbench.retrieval.reading.formats.layout import Piece

__all__ = ["columns", "runs"]

SHORTEST = 4
"""Characters of a column: fewer under each other are as likely a table's."""
PITCH = 2.2
"""From one character to the next, in widths of a character: with letters spaced widely, and not a list's."""

Sides = tuple[float, float, float, float]


def runs(boxes: Mapping[int, Sides]) -> dict[int, list[int]]:
    """The columns among a page's characters, by the place of the first of each.

    A page whose characters mostly stand under each other is written downwards. Of other pages, columns are those whose
    characters stand as close to each other as in a column of type, with none beside them that they would share a line with.
    """
    order = list(boxes)
    found: list[list[int]] = []
    for at in order:
        if found and _below(boxes[found[-1][-1]], boxes[at]):
            found[-1].append(at)
        else:
            found.append([at])
    columns_ = [run for run in found if len(run) >= SHORTEST]
    downwards = sum(map(len, columns_)) * 2 > len(order)
    if downwards:  # the short ends of columns are columns as well, unless they are letters of a line
        alone = [run[0] for run in found if len(run) == 1]
        across = {at for at in alone if any(_next_to(boxes[at], boxes[other]) for other in alone if other != at)}
        return {run[0]: run for run in found if run[0] not in across}
    return {run[0]: run for run in columns_ if all(_close(boxes[a], boxes[b]) for a, b in pairwise(run))}


def _below(upper: Sides, lower: Sides) -> bool:
    """Whether a character stands under another, within reach."""
    size = max(upper[2] - upper[0], upper[3] - upper[1], lower[2] - lower[0], lower[3] - lower[1], 1.0)
    middle = (upper[0] + upper[2]) / 2 - (lower[0] + lower[2]) / 2
    step = (upper[1] + upper[3]) / 2 - (lower[1] + lower[3]) / 2
    return abs(middle) < 0.45 * size and 0.4 * size < step < PITCH * size


def _next_to(one: Sides, other: Sides) -> bool:
    """Whether two characters stand in one line, near each other."""
    size = max(one[2] - one[0], one[3] - one[1], 1.0)
    level = abs((one[1] + one[3]) / 2 - (other[1] + other[3]) / 2) < 0.3 * size
    return level and abs((one[0] + one[2]) / 2 - (other[0] + other[2]) / 2) < 2 * size


def _close(upper: Sides, lower: Sides) -> bool:
    size = max(upper[2] - upper[0], upper[3] - upper[1], lower[2] - lower[0], lower[3] - lower[1], 1.0)
    return (upper[1] + upper[3]) / 2 - (lower[1] + lower[3]) / 2 < 1.3 * size


def columns(pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces of a page; its columns of vertical writing from right to left, tier by tier, where the first of them was."""
    down = [piece for piece in pieces if piece.down]
    if not down:
        return list(pieces)
    tiers: list[list[Piece]] = []
    for piece in sorted(down, key=lambda piece: piece.top):
        for tier in tiers:
            if piece.top < max(other.bottom for other in tier) - 0.5 * piece.height:
                tier.append(piece)
                break
        else:
            tiers.append([piece])
    ordered = [piece for tier in tiers for piece in sorted(tier, key=lambda piece: (-piece.right, piece.top))]
    first = next(at for at, piece in enumerate(pieces) if piece.down)
    rest = [piece for piece in pieces[first:] if not piece.down]
    return [*pieces[:first], *ordered, *rest]
