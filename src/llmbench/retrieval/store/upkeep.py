"""Keeps the files of postings up with the passages: makes what is missing, merges small ones, drops what was deleted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from llmbench.errors import IndexError_
from llmbench.retrieval.store import postings, postings_build
from llmbench.retrieval.store.database import Index
from llmbench.retrieval.store.postings import BrokenPostings, Part, Plan, Segment
from llmbench.retrieval.store.writable import WritableIndex

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["differs", "update"]


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
        parts: list[Part] = [Segment(index.path, plan) for plan in old]
        noted = [*noted[: len(noted) - count], postings_build.merge([*parts, part], alive, index.path)]
        _note(index, noted)
        first = end
    if purge and alive is not None:
        for i, plan in enumerate(noted):
            segment = Segment(index.path, plan)
            if bool(segment.lengths[~alive[plan.first : plan.end]].any()):
                noted[i] = postings_build.merge([segment], alive, index.path)
                _note(index, noted)


def _sound(index: WritableIndex) -> list[Plan]:
    """What is noted, up to the first file that is not as it was written."""
    sound: list[Plan] = []
    try:
        for plan in postings.plans(index.get("postings")):
            Segment(index.path, plan).check()
            if plan.end > index.vectors.rows:
                break
            sound.append(plan)
    except BrokenPostings:
        pass
    return sound


def _note(index: WritableIndex, plans: Sequence[Plan]) -> None:
    """Notes the files that count and removes all others."""
    noted = postings.to_json(plans)
    if (index.get("postings") or []) != noted:
        index.set(postings=noted)
    kept = {plan.file for plan in plans}
    for path in index.path.glob("postings*"):
        if path.name not in kept:
            try:
                path.unlink()
            except OSError as error:
                raise IndexError_(f"{path} cannot be removed ({error.strerror}). Remove it.") from error


def differs(index: Index) -> str:
    """What of the postings is not as the passages' words are, in a line; empty where all agrees or there are none."""
    import numpy as np

    noted = index.get("postings")
    try:
        segments = [Segment(index.path, plan) for plan in postings.plans(noted)]
        for segment in segments:
            segment.check()
    except BrokenPostings as error:
        return "" if _noted_now(index) != noted else str(error)  # a writer has made others since this state
    if not segments:
        return ""
    rows = segments[-1].end
    alive = np.zeros(rows, dtype=bool)
    written: dict[bytes, int] = {}
    for first in range(0, rows, postings_build.BATCH):
        end = min(first + postings_build.BATCH, rows)
        part = postings_build.cut(_living(index.words_of(first, end), alive), first, end)
        _add(written, part, None)
        held = np.concatenate([_within(segment, first, end) for segment in segments])
        if not np.array_equal(np.where(alive[first:end], held, 0), part.lengths):
            return f"{index.path / 'postings'}: lengths are not those of the passages."
    found: dict[bytes, int] = {}
    for segment in segments:
        _add(found, segment, alive)
    return "" if found == written else f"{index.path / 'postings'}: the words are not those of the passages."


def _noted_now(index: Index) -> object:
    """What the store notes in its last state."""
    last = Index(index.path)
    try:
        return last.get("postings")
    finally:
        last.close()


def _living(passages: Iterable[tuple[int, str, str]], alive: NDArray[np.bool_]) -> Iterator[tuple[int, str, str]]:
    """Notes which rows there are, as they pass."""
    for row, title, text in passages:
        alive[row] = True
        yield row, title, text


def _within(segment: Segment, first: int, end: int) -> NDArray[np.int32]:
    """The lengths of a segment's rows that lie between two."""
    return segment.lengths[max(0, first - segment.first) : max(0, end - segment.first)]


def _add(sums: dict[bytes, int], part: Part, alive: NDArray[np.bool_] | None) -> None:
    """Adds to each word's sum a number for each of its postings, which a changed one does not have."""
    import numpy as np

    for place, word in enumerate(part.words()):
        rows, counts = part.of(place)
        if alive is not None:
            living = alive[rows]
            rows, counts = rows[living], counts[living]
        if len(rows):
            mixed = (rows.astype(np.uint64) << np.uint64(32) | counts.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ mixed >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
            sums[word] = (sums.get(word, 0) + int(mixed.sum(dtype=np.uint64))) % 2**64
