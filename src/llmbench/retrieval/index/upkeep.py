"""Keeps the files of postings up with the passages: makes what is missing, merges small ones, drops what was deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmbench.errors import IndexError_
from llmbench.retrieval.store import WritableIndex, layout
from llmbench.retrieval.store.words import BrokenPostings, Segment, postings, postings_build

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["update"]


def update(index: WritableIndex, *, purge: bool) -> None:
    """Brings the postings up to date. Each step is whole or not there: a kill between them costs the rest only.

    Args:
        index: the generation.
        purge: rewrite files that still hold words of deleted passages; else searches pass over these.

    Raises:
        IndexError_: the disk is full; questions are then answered by FTS5, as before.
    """
    noted = _sound(index)
    _note(index, noted)  # what is damaged counts no more, and what a kill left goes
    rows, dead = index.vectors.rows, index.dead()
    if rows - len(dead) < postings_build.LEAST:
        _note(index, [])
        return
    import numpy as np

    alive: NDArray[np.bool_] | None = None
    if len(dead):
        alive = np.ones(rows, dtype=bool)
        alive[dead] = False
    first = noted[-1].end if noted else 0
    while first < rows:
        end = min(first + postings_build.BATCH, rows)
        part = postings_build.cut(index.words_of(first, end), first, end)
        count = postings_build.to_merge([plan.postings for plan in noted] + [len(part.rows)]) - 1
        old = noted[len(noted) - count :]
        parts: list[postings.Part] = [Segment(index.path, plan) for plan in old]
        noted = [*noted[: len(noted) - count], postings_build.merge([*parts, part], alive, index.path)]
        _note(index, noted)
        first = end
    if purge and alive is not None:
        for i, plan in enumerate(noted):
            segment = Segment(index.path, plan)
            if bool(segment.lengths[~alive[plan.first : plan.end]].any()):
                noted[i] = postings_build.merge([segment], alive, index.path)
                _note(index, noted)


def _sound(index: WritableIndex) -> list[postings.Plan]:
    """What is noted, up to the first file that is not as it was written."""
    sound: list[postings.Plan] = []
    try:
        for plan in postings.plans(index.get("postings")):
            Segment(index.path, plan).check()
            if plan.end > index.vectors.rows:
                break
            sound.append(plan)
    except BrokenPostings:
        pass
    return sound


def _note(index: WritableIndex, plans: Sequence[postings.Plan]) -> None:
    """Notes the files that count and removes all others."""
    noted = postings.to_json(plans)
    if (index.get("postings") or []) != noted:
        index.set(postings=noted)
    kept = {plan.file for plan in plans}
    for path in index.path.glob("postings*"):
        if path.name not in kept and layout.is_own(path.name):
            try:
                path.unlink()
            except OSError as error:
                raise IndexError_(f"{path} cannot be removed ({error.strerror}). Remove it.") from error
