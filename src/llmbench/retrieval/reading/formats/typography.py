"""Headings of a PDF by how they are set: larger than the text around them, or in bold on a line of their own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmbench.retrieval.reading.formats.layout import Piece

__all__ = ["Marked", "headed"]

LARGER = 1.08
"""How many times as large as the text a heading is at least: 12 points over text of 11."""
LONGEST = 200
"""Characters of a heading at most."""
LINES = 3
"""Lines of one heading at most; more in one style are a list, a cover or a large text."""
_NUMBER = (
    r"(?:chapter|part|section|item|note|appendix|annex|article)?\s*[(\[]?(?:\d{1,3}(?:\.\d{1,3})*|[IVXLC]{1,6}|[A-Z])[.):\]]?"
)
_NUMBERED = re.compile(rf"{_NUMBER}\s", re.IGNORECASE)
_NUMBER_ALONE = re.compile(_NUMBER, re.IGNORECASE)
_CAPTION = re.compile(
    r"(?:figure|fig|table|tab|listing|algorithm|exhibit|abbildung|abb|tabelle|source|note)\b\.?\s*\d", re.IGNORECASE
)
_DOTTED = re.compile(r"(?:[.\u2026\u00b7]\s?){4,}|\s\.+\s*\d+$")
_ENDS = re.compile(r"[,;\u3001\uff0c-]$")


@dataclass(frozen=True)
class Marked:
    """A line of a page; `level` from 1 where it is a heading, else 0."""

    line: Piece
    level: int = 0


Style = tuple[float, bool]
"""Size in half points, and whether it is bold."""


def headed(pages: Sequence[Sequence[Piece] | None]) -> list[list[Marked] | None]:
    """The lines of each page with the level of those that are headings; the lines of one heading are joined by their `glue`.

    The text's own size is that of most characters. Lines that come again on several pages at one height are running heads.
    """
    sizes: Counter[float] = Counter()
    heavy = whole = 0
    for page in pages:
        for line in page or ():
            sizes[_half(line.size)] += len(line.text)
            heavy += len(line.text) * line.bold
            whole += len(line.text)
    body = max(sizes, key=lambda size: sizes[size], default=0.0)
    running = _running(pages)
    found: list[list[tuple[Piece, Style | None]] | None] = []
    for page in pages:
        if page is None or not body:
            found.append(None if page is None else [(line, None) for line in page])
            continue
        small = _small(page, body)
        styles = [_style(line, at, page, (body, small), heavy * 2 < whole, running) for at, line in enumerate(page)]
        found.append(_grouped(page, styles))
    levels = _levels([style for page in found for _, style in page or () if style])
    return [None if page is None else [Marked(line, levels[style] if style else 0) for line, style in page] for page in found]


def _levels(styles: Sequence[Style]) -> dict[Style, int]:
    """Levels from 1 to 6, the largest letters first; a style that comes once, as on a cover, makes no level of its own."""
    count = Counter(styles)
    order = sorted({style for style in count if count[style] > 1} or set(count), reverse=True)
    return {style: min(1 + sum(other > style for other in order), 6) for style in count}


def _half(size: float) -> float:
    return round(size * 2) / 2


def _plain(text: str) -> str:
    return re.sub(r"\d+", "#", re.sub(r"[\W_]+", "", text).lower())


def _running(pages: Sequence[Sequence[Piece] | None]) -> set[tuple[str, int]]:
    """What stands at the head or foot of several pages, by its words (numbers apart) and its height."""
    count: Counter[tuple[str, int]] = Counter()
    for page in pages:
        ends = sorted(page or (), key=lambda line: line.top)
        for line in {*ends[:4], *ends[-4:]}:
            count.update({(words, round(line.top / 8)) for words in (line.text, _plain(line.text))})
    return {entry for entry, times in count.items() if times > 2 and times * 10 > len(pages)}


def _style(
    line: Piece, at: int, page: Sequence[Piece], sizes: tuple[float, float], bold_tells: bool, running: set[tuple[str, int]]
) -> Style | None:
    """The style of a line that may be a heading; None where it is none. `sizes` are the text's, and a smaller page's own."""
    text, (body, small) = line.text, sizes
    if line.size <= body + 0.6 and not line.bold and not (small and line.size > 1.2 * small):
        return None
    if line.glue != "\n" or (at + 1 < len(page) and page[at + 1].glue != "\n"):  # a row of a table
        return None
    if not line.size or len(text) > LONGEST or sum(map(str.isalpha, text)) < max(2, 0.4 * len(text.replace(" ", ""))):
        return None
    size = _half(line.size)
    larger = size > LARGER * body and size > body + 0.6
    here = bool(small) and size < body and line.size > 1.2 * small
    if not larger and not here and not (line.bold and bold_tells and size > 0.85 * body):
        return None
    if _CAPTION.match(text) or _DOTTED.search(text) or _ENDS.search(text) or line.turned_words:
        return None
    cells = [cell for cell in text.split("  ") if cell.strip()]
    if len(cells) > 1 and not (len(cells) == 2 and _NUMBER_ALONE.fullmatch(cells[0].strip())):
        return None
    key = text if size > 1.3 * body else _plain(text)  # Chapter 1 and Chapter 2 are no running head
    if any((key, round(line.top / 8) + step) in running for step in (-1, 0, 1)):
        return None
    if not larger and not _apart(line, at, page):
        return None
    return size, line.bold


def _small(page: Sequence[Piece], body: float) -> float:
    """The size of a page that is set smaller than the rest, such as a leaflet's; 0 where it is not."""
    sizes: Counter[float] = Counter()
    for other in page:
        sizes[_half(other.size)] += len(other.text)
    own = max(sizes, key=lambda size: sizes[size], default=0.0)
    return own if sizes[own] > 500 and own < 0.85 * body else 0.0


def _apart(line: Piece, at: int, page: Sequence[Piece]) -> bool:
    """Whether a bold line of the text's own size is a heading: not a sentence, not in a row of a table, at the text's edge or
    in its middle, and not the first words of what follows.
    """
    text = line.text
    words = len(text.split())
    if words > 20 or (text.endswith((".", ":")) and words > 8):
        return False
    if any(
        other is not line and min(other.bottom, line.bottom) - max(other.top, line.top) > 0.5 * line.height for other in page
    ):
        return False
    edges = Counter(round(other.left / 4) for other in page if len(other.text) > 25)
    left, right = min(other.left for other in page), max(other.right for other in page)
    at_edge = any(edges[round(line.left / 4) + step] > 1 for step in (-1, 0, 1)) or line.left < left + 4
    centred = abs((line.left + line.right) / 2 - (left + right) / 2) < 8
    if not (at_edge or centred):
        return False
    before = page[at - 1] if at else None
    gap = line.top - before.bottom if before is not None else 99.0
    return before is None or gap < -2 or gap > 0.45 * line.height or (before.size, before.bold) != (line.size, line.bold)


def _grouped(page: Sequence[Piece], styles: Sequence[Style | None]) -> list[tuple[Piece, Style | None]]:
    """The lines of a page, those of one heading joined; too many lines in one style are no heading."""
    found: list[tuple[Piece, Style | None]] = []
    at = 0
    while at < len(page):
        style = styles[at]
        stop = at + 1
        while style and stop < len(page) and styles[stop] == style and _goes_on(page[stop - 1], page[stop]):
            stop += 1
        if stop - at > LINES:
            style = None
        for place in range(at, stop):
            line = page[place] if style is None or place == at else replace(page[place], glue=" ")
            found.append((line, style))
        at = stop
    return found


def _goes_on(upper: Piece, lower: Piece) -> bool:
    """Whether a line is the next one of the same heading."""
    if _NUMBERED.match(lower.text) and _NUMBERED.match(upper.text):
        return False
    return -0.3 * upper.height < lower.top - upper.bottom < 0.75 * max(upper.height, lower.size)
