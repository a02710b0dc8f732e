"""Cuts a document into passages of at most so many tokens, each an exact slice of its text.

A passage never crosses a heading or a page. Within a section it ends, by preference, at a paragraph, then at a sentence,
a line, a word. Headings are no part of any passage; their path is its title, which is embedded with it.
"""

from __future__ import annotations

import hashlib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from llmbench.retrieval.documents import Document

__all__ = ["VERSION", "Chunk", "Tokens", "chunks", "embedded_text"]

VERSION = 1
"""Raised when the same document and settings would be cut differently, so that older indexes are built again."""

TITLE_TOKENS = 32
"""What a title may take of the embedder's window."""


class Tokens(Protocol):
    """The embedder's own tokenizer, without special tokens and without truncation."""

    def starts(self, text: str) -> list[int]:
        """The character at which each token begins, ascending."""
        ...


@dataclass(frozen=True)
class Chunk:
    """A passage: `document.text[start:end] == text`. `page` is for PDF, `line` for text and Markdown, both from 1."""

    id: str
    source: str
    title: str
    text: str
    start: int
    end: int
    page: int | None
    line: int | None
    tokens: int = 0
    parent: tuple[int, int] | None = None


def embedded_text(title: str, text: str, tokens: Tokens) -> str:
    """What the embedder reads: the title, cut to its last and most telling headings, then the passage."""
    starts = tokens.starts(title)
    while len(starts) > TITLE_TOKENS and " > " in title:
        title = title.split(" > ", 1)[1]
        starts = tokens.starts(title)
    if len(starts) > TITLE_TOKENS:
        title = title[: starts[TITLE_TOKENS]].rstrip()
    return f"{title}\n{text}"


def chunks(document: Document, tokens: Tokens, *, max_tokens: int, overlap: int) -> list[Chunk]:
    """The passages of a document, in order.

    Args:
        document: as read.
        tokens: counts as the embedder does.
        max_tokens: no passage is longer.
        overlap: how many tokens of the end of a passage may begin the next, in whole sentences where there are any.
    """
    sections = list(_sections(document))
    if not any(document.text[start:end].strip() for start, end, _ in sections):
        sections = [(0, len(document.text), document.title)]  # nothing but headings: then they are the passage
    settings = f"{VERSION} {max_tokens} {overlap}"
    result = []
    for start, end, title in sections:
        for a, b in _cut(document.text, start, end, tokens, max_tokens, overlap):
            text = document.text[a:b]
            identity = hashlib.sha256("\0".join((document.source, f"{a} {b}", settings, text)).encode()).hexdigest()
            result.append(Chunk(identity, document.source, title, text, a, b, document.page(a), document.line(a)))
    return result


def _sections(document: Document) -> Iterator[tuple[int, int, str]]:
    """Stretches between headings and page borders, each with its path of headings, the document's title first."""
    marks = sorted(
        [(h.start, h.end, h) for h in document.headings] + [(p, p, None) for p in document.pages], key=lambda m: m[:2]
    )
    path: list[tuple[int, str]] = []
    here = 0
    for start, end, heading in marks:
        yield here, start, _title(document.title, path)
        here = max(here, end)
        if heading is not None and heading.level:
            path = [step for step in path if step[0] < heading.level] + [(heading.level, heading.text)]
    yield here, len(document.text), _title(document.title, path)


def _title(title: str, path: list[tuple[int, str]]) -> str:
    steps = [text for _, text in path if text]
    return " > ".join(steps if steps and steps[0] == title else [title, *steps])


_PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*")
_SENTENCE = re.compile(
    r"(?:[.!?…][)\]\"'»\u201d\u2019*_]*\s+(?=[^\sa-z,;:.!?])|[\u3002\uff01\uff1f]\s*|\n(?=\s*(?:[-*+•]|\d+[.)])\s))"
)
_LINE = re.compile(r"\n")
_WORD = re.compile(r"\s+")


def _cut(text: str, start: int, end: int, tokens: Tokens, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """Spans of one section, trimmed of white space."""
    start, end = _trim(text, start, end)
    if start == end:
        return
    borders = [[m.end() for m in border.finditer(text, start, end)] for border in (_PARAGRAPH, _SENTENCE, _LINE, _WORD)]
    starts = _token_starts(text, start, end, tokens, borders[3])
    sentences = sorted({*borders[0], *borders[1]})
    here = start
    while True:
        first = bisect_left(starts, here)
        stop = end if first + size >= len(starts) else _border(borders, here, starts[first + size // 2], starts[first + size])
        while (
            stop > here + 1 and len(tokens.starts(text[here:stop])) > size
        ):  # tokens count differently at a cut; step back until it fits
            stop = _shorter(text, here, stop, tokens, size)
        yield _trim(text, here, stop)
        if stop >= end:
            return
        here = _resume(sentences, borders[3], starts, here, stop, overlap)


def _border(borders: list[list[int]], here: int, half: int, last: int) -> int:
    """The best place to end: the last paragraph's end in the second half, else sentence's, else line's, else any word's."""
    for places in borders:
        place = places[bisect_right(places, last) - 1] if bisect_right(places, last) else 0
        if place > half:
            return place
    words = borders[3]
    place = words[bisect_right(words, last) - 1] if bisect_right(words, last) else 0
    return place if place > here else last


def _shorter(text: str, here: int, stop: int, tokens: Tokens, size: int) -> int:
    """A place nearer than `stop` that should fit, at a word's border where there is one."""
    limit = min(here + tokens.starts(text[here:stop])[size], stop - 1)
    space = max((m.end() for m in _WORD.finditer(text, here, limit)), default=0)
    return space if space > here else max(limit, here + 1)


def _resume(sentences: list[int], words: list[int], starts: list[int], here: int, stop: int, overlap: int) -> int:
    """Where the next passage begins: back by whole sentences within the overlap, or by words when a sentence was cut."""
    earliest = max(starts[max(bisect_left(starts, stop) - overlap, 0)], here + 1) if overlap else stop
    i = bisect_left(sentences, earliest)
    if i < len(sentences) and sentences[i] <= stop:
        return sentences[i]
    i = bisect_left(words, earliest)
    return words[i] if i < len(words) and words[i] <= stop else stop


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    part = text[start:end].strip()
    start = text.index(part, start) if part else start
    return start, start + len(part)


def _token_starts(text: str, start: int, end: int, tokens: Tokens, words: list[int], block: int = 20_000) -> list[int]:
    """Where each token of a stretch begins; in blocks, since a tokenizer's own record takes 100 bytes a character."""
    result: list[int] = []
    while start < end:
        i = bisect_right(words, start + block) - 1
        stop = end if end - start <= block else words[i] if i >= 0 and words[i] > start else min(start + block, end)
        result += [start + offset for offset in tokens.starts(text[start:stop])]
        start = stop
    return result
