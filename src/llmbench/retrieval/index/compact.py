"""Packing: the next generation holds what is alive and nothing else; a kill leaves the old one in use."""

from __future__ import annotations

from pathlib import Path

from llmbench.retrieval.store import Index, WritableIndex, layout

__all__ = ["compact", "wasted"]

WASTE = 0.3
"""The share of dead rows from which packing pays: it reads and writes everything once."""
LEAST = 2000
"""Dead rows below which it does not: 3 MB of all-MiniLM-L6-v2's vectors."""


def wasted(index: Index) -> bool:
    """Whether so many rows are dead that packing pays."""
    dead, rows = index.dead_count(), index.vectors.rows
    return dead >= LEAST and dead >= WASTE * rows


def compact(folder: Path, index: WritableIndex) -> WritableIndex:
    """Copies what is alive into the next generation, closes the old one and returns the new one.

    Searches go over to it when they used the old one; a rebuild that is not searched yet stays unsearched.
    """
    target = layout.next_generation(folder)
    index.copy(target)
    packed = WritableIndex(target)
    packed.pack(index.vectors, index.expected())
    index.close()
    if layout.current(folder) == index.path:
        layout.point(folder, target)
    packed.packed()
    layout.remove(index.path)
    return packed
