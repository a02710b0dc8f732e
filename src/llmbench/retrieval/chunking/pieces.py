"""The pieces of a document by each method, before they are named as chunks."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from llmbench.retrieval.chunking import code
from llmbench.retrieval.chunking.measure import CHARACTERS, Stretch, Tokens
from llmbench.retrieval.chunking.passages import Span, fill, sentences
from llmbench.retrieval.chunking.sections import Section, grouped, sections
from llmbench.retrieval.chunking.tables import Table, head_at, tables
from llmbench.retrieval.documents import Document

__all__ = ["Method", "Piece", "Settings", "chosen", "pieces"]

Method = Literal["tokens", "sentences", "headings", "code", "document"]


@dataclass(frozen=True)
class Settings:
    """How to cut, as in `ChunkingSpec`; `window` is what of a passage the embedder reads."""

    max_tokens: int
    overlap: int
    sentences: int
    parent_tokens: int | None
    window: int


@dataclass(frozen=True)
class Piece:
    """A span with its tokens, its title, the span of its parent, the method that cut it, and the column heads of its table."""

    start: int
    end: int
    tokens: int
    title: str
    parent: tuple[int, int] | None
    method: Method
    head: str = ""


def chosen(document: Document) -> Method:
    """What `auto` takes: code by its language, what has headings by them, anything else by tokens."""
    if code.language(document):
        return "code"
    return "headings" if any(heading.level for heading in document.headings) else "tokens"


def pieces(document: Document, tokens: Tokens, method: Method, settings: Settings) -> Iterator[Piece]:
    """The pieces of a document, in order."""
    match method:
        case "code":
            name = code.language(document)
            if name is None or len(document.text) > code.LARGEST:
                return _by_sections(document, tokens, "tokens", settings)
            return _code(document, tokens, name, settings)
        case "document":
            return _whole(document, tokens, settings)
        case _:
            return _by_sections(document, tokens, method, settings)


def _by_sections(document: Document, tokens: Tokens, method: Method, settings: Settings) -> Iterator[Piece]:
    """Section by section, inside parents where the pipeline has them; by `headings` small sections go together."""
    parts, found = sections(document), _heads(tables(document), tokens, settings)
    if settings.parent_tokens is None and method != "headings":
        for part in parts:
            stretch = Stretch(document.text, part.start, part.end, tokens)
            yield from _inside(stretch, part.start, part.end, _title(part.path), None, method, settings, found)
        return
    stretches = [Stretch(document.text, part.head, part.end, tokens) for part in parts]
    lengths = [max(len(stretch.starts), (stretch.end - stretch.start) // CHARACTERS) for stretch in stretches]
    size = settings.parent_tokens
    for family in grouped(document.text, parts, lengths, size or settings.max_tokens):
        groups = [family] if method == "headings" else [[i] for i in family]
        if size is not None and method == "headings":
            inner = grouped(document.text, [parts[i] for i in family], [lengths[i] for i in family], settings.max_tokens)
            groups = [[family[i] for i in group] for group in inner]
        parents = None
        if size is not None:
            start, end, _ = _joined([parts[i] for i in family])
            stretch = stretches[family[0]]
            parents = (
                [stretch.trim(start, end)] if len(family) > 1 else [(a, b) for a, b, _ in fill(stretch, start, end, size, 0)]
            )
        for group in groups:
            start, end, title = _joined([parts[i] for i in group])
            stretch = stretches[group[0]] if len(group) == 1 else Stretch(document.text, start, end, tokens)
            yield from _inside(stretch, start, end, title, parents, method, settings, found)


def _inside(
    stretch: Stretch,
    start: int,
    end: int,
    title: str,
    parents: list[tuple[int, int]] | None,
    method: Method,
    settings: Settings,
    heads: Sequence[_Head],
) -> Iterator[Piece]:
    """The pieces of one section, none of which reaches across two parents."""
    first = bisect_right(heads, start, key=lambda head: head.table.end)
    here = heads[first : bisect_left(heads, end, key=lambda head: head.table.start)]
    settings = replace(settings, max_tokens=min([settings.max_tokens, *(head.room for head in here)]))
    settings = replace(settings, overlap=min(settings.overlap, settings.max_tokens - 1))
    inside = [head.table for head in here]
    for parent in [None] if parents is None else parents:
        a, b = (start, end) if parent is None else (max(start, parent[0]), min(end, parent[1]))
        if a < b:
            for span in _spans(stretch, a, b, method, settings):
                yield Piece(*span, title, parent, method, head_at(inside, span[0]))


@dataclass(frozen=True)
class _Head:
    """A table, and the tokens that a passage of it may have beside its head."""

    table: Table
    room: int


def _heads(found: Sequence[Table], tokens: Tokens, settings: Settings) -> list[_Head]:
    """The tables whose heads go with their passages: a head may take half of a passage, and what the embedder reads beyond."""
    size, beyond = settings.max_tokens, max(0, settings.window - settings.max_tokens)
    heads = []
    for table in found:
        taken = max(len(tokens.starts(table.head)), len(table.head) // CHARACTERS) + 1
        if taken <= size // 2:
            heads.append(_Head(table, size - max(0, taken - beyond)))
    return heads


def _spans(stretch: Stretch, start: int, end: int, method: Method, settings: Settings) -> Iterator[Span]:
    if method == "sentences":
        return sentences(stretch, start, end, settings.max_tokens, settings.overlap, settings.sentences)
    return fill(stretch, start, end, settings.max_tokens, settings.overlap)


def _whole(document: Document, tokens: Tokens, settings: Settings) -> Iterator[Piece]:
    """The document as one piece; as `tokens` cuts it, in pieces of the window's length, where it is longer."""
    parts = sections(document)
    if not parts:
        return
    start, end = parts[0].head, parts[-1].end
    stretch = Stretch(document.text, start, end, tokens)
    start, end = stretch.trim(start, end)
    if stretch.fits(start, end, settings.window):
        count = stretch.count(start, end)
        yield Piece(start, end, count, document.title, None if settings.parent_tokens is None else (start, end), "document")
        return
    size = settings.window
    longer = None if settings.parent_tokens is None else max(settings.parent_tokens, size)
    shorter = replace(settings, max_tokens=size, overlap=min(settings.overlap, size - 1), parent_tokens=longer)
    yield from _by_sections(document, tokens, "tokens", shorter)


def _code(document: Document, tokens: Tokens, name: str, settings: Settings) -> Iterator[Piece]:
    """Units of the syntax tree, inside larger ones where the pipeline has parents."""
    text, source = document.text, code.Source(document.text, name)
    stretch = Stretch(text, 0, len(text), tokens)
    parents: list[tuple[int, int]] | None = None
    if settings.parent_tokens is not None:
        parents = [(unit.start, unit.end) for unit in code.cut(source, stretch, 0, len(text), settings.parent_tokens)]
    for parent in [None] if parents is None else parents:
        a, b = parent or (0, len(text))
        for unit in code.cut(source, stretch, a, b, settings.max_tokens):
            yield Piece(unit.start, unit.end, unit.tokens, code.title(source, document.title, unit, tokens), parent, "code")


def _joined(parts: Sequence[Section]) -> tuple[int, int, str]:
    """The span and title of sections: one's is its own, several begin with the first's heading and share a path."""
    if len(parts) == 1:
        return parts[0].start, parts[0].end, _title(parts[0].path)
    shared = parts[0].path
    for part in parts[1:]:
        same = [a == b for a, b in zip(shared, part.path, strict=False)]
        shared = shared[: same.index(False) if False in same else len(same)]
    return parts[0].head, parts[-1].end, _title(shared)


def _title(path: Sequence[str]) -> str:
    return " > ".join(path)
