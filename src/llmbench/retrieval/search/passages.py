"""Hits to passages: their neighbours or parents beside them, and what adjoins or overlaps made one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from llmbench.retrieval.chunking import Chunk, tables
from llmbench.retrieval.documents import Document

__all__ = ["Fetch", "Found", "Part", "Passage", "cut", "from_hits", "merged", "standing", "with_neighbours", "with_parents"]


class Fetch(Protocol):
    """What is needed of the store."""

    def document(self, source: str) -> Document:
        """A whole document."""
        ...

    def around(self, chunk_id: str, before: int, after: int) -> list[Chunk]:
        """The passages of a chunk's document from so many before it to so many after it, itself among them, in order."""
        ...


class Found(Protocol):
    """What is read of a hit."""

    @property
    def chunk(self) -> Chunk:
        """The passage."""
        ...

    @property
    def score(self) -> float:
        """Higher is better."""
        ...

    @property
    def rank(self) -> int:
        """From 1."""
        ...


@dataclass(frozen=True)
class Part:
    """A stretch that a passage consists of, as it was indexed.

    `hit` is the rank of the hit that it is (`found`), or of the best one that brought it as a neighbour.
    """

    hit: int
    start: int
    end: int
    page: int | None
    line: int | None
    found: bool = True
    head: str = ""


@dataclass(frozen=True)
class Passage:
    """What one place in the prompt holds: `document.text[start:end] == text`.

    `hits` are the ranks of the hits in it, ascending (of a neighbour alone, of the hit that brought it), and `score` the best
    of their scores; `parts` are the stretches that it
    was put together from, by place. `core` is the stretch from the first of its hits to the end of the last: what surrounds
    it is given up first where room is short.
    """

    source: str
    title: str
    text: str
    start: int
    end: int
    page: int | None
    line: int | None
    hits: tuple[int, ...]
    score: float
    parts: tuple[Part, ...]
    core: tuple[int, int]
    head: str = ""
    """The column heads of the table in whose rows it begins, as in `Chunk`."""


def from_hits(hits: Sequence[Found]) -> list[Passage]:
    """Each hit as a passage of its own, in their order."""
    return [_passage(hit.chunk, hit.rank, hit.score, hit=True) for hit in hits]


def with_neighbours(hits: Sequence[Found], count: int, fetch: Fetch) -> list[Passage]:
    """Each hit joined with up to `count` passages before and after it in its document; of what adjoins, one passage."""
    every = []
    for hit in hits:
        for chunk in fetch.around(hit.chunk.id, count, count):
            if chunk.source == hit.chunk.source:
                every.append(_passage(chunk, hit.rank, hit.score, hit=chunk.id == hit.chunk.id))
    # A piece that joined nothing with a hit in it, as beyond a heading's gap, stands alone and keeps its hit's rank.
    return merged(every, fetch)


def with_parents(hits: Sequence[Found], parents: Sequence[tuple[int, int] | None], fetch: Fetch) -> list[Passage]:
    """Each hit's parent span in its place; hits of one parent become one passage.

    Args:
        hits: best first.
        parents: the span of each hit's parent in its document; None leaves the hit as it is.
        fetch: the store.
    """
    result: dict[tuple[str, int, int], Passage] = {}
    read: dict[str, tuple[Document, tuple[tables.Table, ...]]] = {}  # several hits are often of one document, which may be long
    for passage, span in zip(from_hits(hits), parents, strict=True):
        start, end = span or (passage.start, passage.end)
        start, end = min(start, passage.start), max(end, passage.end)
        key = (passage.source, start, end)
        if key in result:
            result[key] = _joined(result[key], passage, result[key].text, start, end)
        elif (start, end) == (passage.start, passage.end):
            result[key] = passage
        else:
            if passage.source not in read:
                document = fetch.document(passage.source)
                read[passage.source] = document, tables.tables(document)
            document, found = read[passage.source]
            result[key] = replace(
                passage,
                text=document.text[start:end],
                start=start,
                end=end,
                page=document.page(start),
                line=document.line(start),
                head=tables.head_at(found, start),
            )
    return merged(list(result.values()), fetch)


def merged(passages: Sequence[Passage], fetch: Fetch) -> list[Passage]:
    """Passages of one document that overlap, or have but white space or headings between them, made one; best first.

    The whole document is fetched only where two may meet.
    """
    by_source: dict[str, list[Passage]] = {}
    for passage in passages:
        by_source.setdefault(passage.source, []).append(passage)
    result = []
    for source, several in by_source.items():
        several.sort(key=lambda passage: (passage.start, -passage.end))
        document = fetch.document(source) if len(several) > 1 else None
        last = several[0]
        for passage in several[1:]:
            assert document is not None
            if passage.start <= last.end or _blank(document, last.end, passage.start):
                end = max(last.end, passage.end)
                last = _joined(last, passage, document.text[last.start : end], last.start, end)
            else:
                result.append(last)
                last = passage
        result.append(last)
    return sorted(result, key=standing)


def standing(passage: Passage) -> tuple[bool, float, tuple[int, ...], str, int]:
    """Sorts best first; what has no hit in it, but was brought by one, comes after all that has."""
    return (not _has_core(passage), -passage.score, passage.hits, passage.source, passage.start)


def cut(passage: Passage, start: int, end: int) -> Passage:
    """A passage narrowed to a stretch of itself; parts and hits that lie outside of it are no longer named."""
    start, end = max(start, passage.start), min(end, passage.end)
    parts = tuple(
        replace(part, start=max(part.start, start), end=min(part.end, end))
        for part in passage.parts
        if part.start < end and start < part.end
    )
    first = parts[0] if parts else None
    head = passage.head if start == passage.start or first is None else first.head
    return replace(
        passage,
        text=passage.text[start - passage.start : end - passage.start],
        start=start,
        end=end,
        page=first.page if first else passage.page,
        line=first.line if first else passage.line,
        hits=tuple(sorted({part.hit for part in parts})),
        parts=parts,
        core=(max(passage.core[0], start), min(passage.core[1], end)),
        head=head,
    )


def _passage(chunk: Chunk, rank: int, score: float, *, hit: bool) -> Passage:
    part = Part(rank, chunk.start, chunk.end, chunk.page, chunk.line, found=hit, head=chunk.head)
    place = (chunk.start, chunk.end) if hit else (chunk.end, chunk.start)  # an empty core: nothing of it is a hit
    where = (chunk.start, chunk.end, chunk.page, chunk.line)
    return Passage(chunk.source, chunk.title, chunk.text, *where, (rank,), score, (part,), place, chunk.head)


def _joined(one: Passage, other: Passage, text: str, start: int, end: int) -> Passage:
    """Two passages as one; the better names it."""
    best = max(one, other, key=lambda passage: (_has_core(passage), passage.score, -passage.hits[0]))
    parts: dict[tuple[int, int], Part] = {}
    for part in sorted((*one.parts, *other.parts), key=lambda part: (not part.found, part.hit)):
        parts.setdefault((part.start, part.end), part)  # a hit is itself first, and only then another's neighbour
    cores = [passage.core for passage in (one, other) if _has_core(passage)]
    core = (min(a for a, _ in cores), max(b for _, b in cores)) if cores else (end, start)
    return Passage(
        one.source,
        best.title,
        text,
        start,
        end,
        one.page,
        one.line,
        tuple(sorted({*one.hits, *other.hits})),
        max(one.score, other.score),
        tuple(sorted(parts.values(), key=lambda part: (part.start, part.end))),
        core,
        one.head if start == one.start else other.head,
    )


def _has_core(passage: Passage) -> bool:
    return passage.core[0] < passage.core[1]


def _blank(document: Document, start: int, end: int) -> bool:
    """Whether a gap holds nothing but white space and headings."""
    text = document.text
    at = start
    for heading in document.headings:
        if heading.end <= at or heading.start >= end:
            continue
        if text[at : max(at, heading.start)].strip(" \t\r\n#=-*"):
            return False
        at = heading.end
    return not text[at:end].strip(" \t\r\n#=-*")
