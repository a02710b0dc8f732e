"""Parallel coordinates: an axis for each setting, and a line for each thing that has them. Right in light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Axis", "Strand", "parallel"]

_WIDTH, _HEIGHT, _TOP, _BOTTOM, _SIDE = 1000, 320, 34, 18, 70
_LONGEST = 22
"""Characters of an axis' name that are shown; its tooltip has them all."""


@dataclass(frozen=True)
class Axis:
    """A setting: its name, and labels at shares of its height, from the bottom."""

    name: str
    labels: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Strand:
    """A line: its place on each axis as a share of the height (None: it has no such setting), its class, its tooltip."""

    places: tuple[float | None, ...]
    kind: str
    words: str


def parallel(title: str, axes: Sequence[Axis], strands: Sequence[Strand]) -> str:
    """The chart, at least two axes; later strands are drawn over earlier ones. A strand has a gap where it has no place."""
    step = (_WIDTH - 2 * _SIDE) / (len(axes) - 1)
    parts = []
    for strand in strands:
        path, pen = "", "M"
        for number, place in enumerate(strand.places):
            if place is None:
                pen = "M"
                continue
            path += f"{pen}{_SIDE + number * step:.1f} {_up(place):.1f}"
            pen = "L"
        parts.append(f'<path class="{escape(strand.kind)}" d="{path}"><title>{escape(strand.words)}</title></path>')
    for number, axis in enumerate(axes):
        x = _SIDE + number * step
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        name = axis.name if len(axis.name) <= _LONGEST else f"…{axis.name[1 - _LONGEST :]}"
        parts.append(
            f'<text class="name" x="{x:.1f}" y="16" text-anchor="middle">{escape(name)}'
            f"<title>{escape(axis.name)}</title></text>"
        )
        side, aside = ("end", -8) if number + 1 == len(axes) else ("start", 8)
        parts += [
            f'<text x="{x + aside:.1f}" y="{_up(share) + 4:.1f}" text-anchor="{side}">{escape(label)}</text>'
            for share, label in axis.labels
        ]
    return (
        f'<svg class="parallel" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _up(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)
