"""Fills passages of a section: by tokens up to the best border, or so many sentences at a time."""

from __future__ import annotations

import re
import unicodedata
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise

from llmbench.retrieval.chunking.measure import CHARACTERS, Stretch
from llmbench.retrieval.chunking.sentences import sentence_ends

__all__ = ["Span", "fill", "sentences"]

Span = tuple[int, int, int]
"""Start, end, and the tokens between."""

_PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*")
_LINE = re.compile(r"\n")


def fill(stretch: Stretch, start: int, end: int, size: int, overlap: int) -> Iterator[Span]:
    """Passages of at most `size` tokens that end at a paragraph, else a sentence, a line, a word; trimmed of white space."""
    start, end = stretch.trim(start, end)
    if start == end:
        return
    if stretch.fits(start, end, size):
        yield start, end, stretch.count(start, end)
        return
    text = stretch.text
    paragraphs = array("I", (m.end() for m in _PARAGRAPH.finditer(text, start, end)))
    sentences = array("I", sorted({*paragraphs, *sentence_ends(text, start, end)}))
    borders = [paragraphs, sentences, array("I", (m.end() for m in _LINE.finditer(text, start, end))), stretch.words]
    here = stretch.solid(start)
    while True:
        stop = min(stretch.after(here, size), end)
        if stop < end:
            stop = _border(text, borders, here, stretch.after(here, size // 2), stop)
        span = _fitting(stretch, here, stop, size)
        yield span
        stop = stop if span[1] == stretch.trim(here, stop)[1] else span[1]
        if stop >= end:
            return
        here = stretch.solid(_resume((sentences, borders[2], stretch.words), stretch, here, stop, overlap))


def sentences(stretch: Stretch, start: int, end: int, size: int, overlap: int, number: int) -> Iterator[Span]:
    """Passages of `number` sentences, of fewer where they pass `size` tokens; a longer sentence is cut as by `fill`.

    The sentences at the end of a passage that fit into `overlap` tokens together begin the next one too.
    """
    start, end = stretch.trim(start, end)
    text = stretch.text
    paragraphs = (m.end() for m in _PARAGRAPH.finditer(text, start, end))
    edges = sorted({start, end, *paragraphs, *sentence_ends(text, start, end)})
    spans = [(a, b) for a, b in (stretch.trim(a, b) for a, b in pairwise(edges)) if a < b]
    first = 0
    while first < len(spans):
        last = first + 1
        here, tokens = spans[first][0], stretch.count(*spans[first])
        if not stretch.fits(*spans[first], size):
            yield from fill(stretch, *spans[first], size, overlap)
            first += 1
            continue
        while last < len(spans) and last < first + number:
            if not stretch.fits(here, spans[last][1], size):
                break
            tokens, last = stretch.count(here, spans[last][1]), last + 1
        yield here, spans[last - 1][1], tokens
        if last == len(spans):
            return
        back = last
        while back - 1 > first and stretch.fits(spans[back - 1][0], spans[last - 1][1], overlap):
            back -= 1
        # The overlap may not fill the next passage: it must bring a sentence of its own.
        while back < last and not stretch.fits(spans[back][0], spans[last][1], size):
            back += 1
        first = back


def _fitting(stretch: Stretch, here: int, stop: int, size: int) -> Span:
    """The span, made shorter until it fits: tokens count differently where a word is cut, and indentation may count."""
    start, end = stretch.trim(here, stop)
    count = stretch.count(start, end)
    if count > size:
        start = stretch.solid(start)
        count = stretch.count(start, end)
    while (count > size or end - start > size * CHARACTERS) and end > start + 1:
        alone = stretch.tokens.starts(stretch.text[start:end])
        limit = min(start + alone[size], end - 1) if len(alone) > size else end - 1
        limit = min(limit, start + size * CHARACTERS)
        i = bisect_right(stretch.words, limit)
        space = stretch.words[i - 1] if i else 0
        end = stretch.trim(start, space if space > start else max(limit, start + 1))[1]
        count = stretch.count(start, end)
    return start, end, count


def _border(text: str, borders: list[array[int]], here: int, half: int, last: int) -> int:
    """The best place to end: the last paragraph's end in the second half, else sentence's, else line's, else any word's."""
    for places in borders:
        i = bisect_right(places, last)
        if i and places[i - 1] > half:
            return places[i - 1]
    i = bisect_right(borders[-1], last)
    if i and borders[-1][i - 1] > here:
        return borders[-1][i - 1]
    while last > half and unicodedata.category(text[last])[0] == "M":  # a vowel or a tone stays with its letter
        last -= 1
    return max(last, here + 1)


def _resume(borders: Sequence[array[int]], stretch: Stretch, here: int, stop: int, overlap: int) -> int:
    """Where the next passage begins: back by whole sentences within the overlap, else by lines (rows of a table), by words."""
    if not overlap:
        return stop
    earliest = max(stretch.before(stop, overlap), here + 1)
    for places in borders:
        i = bisect_left(places, earliest)
        if i < len(places) and places[i] <= stop:
            return places[i]
    return stop
