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
LONG = 25
"""Characters beyond which a line is one of a text, rather than a label."""
LINES = 5
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
_BEGINS = re.compile(
    r"(?:chapter|part|section|item|appendix|annex|article)\s+(?:\d|[IVXLC]+\b|[A-Z]\b)|\d{1,2}(?:\.\d{1,2})+\.?\s|\d{1,2}[.)]\s|\(\d{1,2}\)\s"
    r"|\u7b2c.{1,4}[\u7ae0\u7bc0\u8282\u6761\u689d]",
    re.IGNORECASE,
)
"""A number with which a heading begins, and hardly the second line of one."""
_UNFINISHED = re.compile(r"(?:[,&\u3001\uff0c-]|\b(?:a|an|and|by|for|from|in|of|on|or|the|to|under|with))$", re.IGNORECASE)
"""How the upper line of a heading ends where it cannot be the last."""
_ADDRESS = re.compile(r"(?:https?://|www\.)\S+|\S+@\S+\.\w+|(?:\w+\.)+[a-z]{2,}/\S*", re.IGNORECASE)
SENTENCE = 12
"""Words beyond which a line that ends in a full stop is a sentence set large, and no heading."""


@dataclass(frozen=True)
class Marked:
    """A line of a page; `level` from 1 where it is a heading, else 0."""

    line: Piece
    level: int = 0


@dataclass(frozen=True)
class _Type:
    """How the text of a page is set: sizes of the document's text, and of this page's where that is much smaller (else 0); how
    many long lines begin at each left edge (in steps of 4 points); where the outermost lines begin and end; whether there
    are long lines of text, which a cover has not.
    """

    body: float
    small: float
    edges: Counter[int]
    left: float
    right: float
    prose: bool


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
        own = _type(page, body)
        styles = [_style(line, at, page, own, heavy * 2 < whole, running) for at, line in enumerate(page)]
        found.append(_grouped(page, styles, own))
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
    line: Piece, at: int, page: Sequence[Piece], own: _Type, bold_tells: bool, running: set[tuple[str, int]]
) -> Style | None:
    """The style of a line that may be a heading; None where it is none."""
    text, body, small = line.text, own.body, own.small
    if line.size <= body + 0.6 and not line.bold and not (small and line.size > 1.2 * small):
        return None
    if line.table or line.glue != "\n" or (at + 1 < len(page) and page[at + 1].glue != "\n"):  # a row of a table
        return None
    if not line.size or len(text) > LONGEST or sum(map(str.isalpha, text)) < max(2, 0.4 * len(text.replace(" ", ""))):
        return None
    size = _half(line.size)
    larger = size > LARGER * body and size > body + 0.6
    here = bool(small) and size < body and line.size > 1.2 * small
    if not larger and not here and not (line.bold and bold_tells and size > 0.85 * body):
        return None
    if _CAPTION.match(text) or _DOTTED.search(text) or _ADDRESS.fullmatch(text) or line.turned_words:
        return None
    cells = [cell for cell in text.split("  ") if cell.strip()]
    if len(cells) > 1 and size < 1.6 * body and not (len(cells) == 2 and _NUMBER_ALONE.fullmatch(cells[0].strip())):
        return None
    key = text if size > 1.3 * body else _plain(text)  # Chapter 1 and Chapter 2 are no running head
    if any((key, round(line.top / 8) + step) in running for step in (-1, 0, 1)):
        return None
    if not larger and not _apart(line, at, page, own):
        return None
    if larger and not line.bold and size < 1.25 * body and not (_placed(line, own) or _over(line, page[at + 1 : at + 6])):
        return None  # words in a drawing
    return size, line.bold


def _type(page: Sequence[Piece], body: float) -> _Type:
    sizes: Counter[float] = Counter()
    edges: Counter[int] = Counter()
    for line in page:
        length = len(line.text)
        sizes[_half(line.size)] += length
        if length > LONG:
            edges[round(line.left / 4)] += 1
    own = max(sizes, key=lambda size: sizes[size], default=0.0)
    small = own if sizes[own] > 500 and own < 0.85 * body else 0.0
    left, right = min((line.left for line in page), default=0.0), max((line.right for line in page), default=0.0)
    prose = any(len(line.text) > LONG and not line.bold and line.size <= LARGER * max(body, own) for line in page)
    return _Type(body, small, edges, left, right, prose)


def _placed(line: Piece, own: _Type) -> bool:
    """Whether a line begins at the text's edge or stands in the middle of the page."""
    if line.left < own.left + 4 or any(own.edges[round(line.left / 4) + step] > 1 for step in (-1, 0, 1)):
        return True
    return abs((line.left + line.right) / 2 - (own.left + own.right) / 2) < 8


def _over(line: Piece, below: Sequence[Piece]) -> bool:
    """Whether a line stands over the middle of the text that follows it, as in a column."""
    long = next((other for other in below if len(other.text) > 25 and other.right - other.left > 100), None)
    return long is not None and abs(line.left + line.right - long.left - long.right) < 16


def _heads(line: Piece, at: int, page: Sequence[Piece]) -> bool:
    """Whether lighter or smaller text begins near the edge of a line or under its middle, or nothing is left of the page."""
    below = [other for other in page[at + 1 :] if other.top > line.top and (other.size < line.size or line.bold > other.bold)]
    return not below or any(
        -60 < other.left - line.left < 80 or abs(other.left + other.right - line.left - line.right) < 16
        for other in below
        if not other.table and not _CAPTION.match(other.text)
    )


def _apart(line: Piece, at: int, page: Sequence[Piece], own: _Type) -> bool:
    """Whether a bold line of the text's own size is a heading: not a sentence, not in a row of a table, at the text's edge or
    in its middle, and not the first words of what follows.
    """
    text = line.text
    words = len(text.split())
    if words > 20 or (text.endswith((".", ":")) and words > 8):
        return False
    if not _placed(line, own):
        return False
    for other in page:
        level = min(other.bottom, line.bottom) - max(other.top, line.top) > 0.5 * line.height
        if level and other is not line and not _column(other, line, own):
            return False
    before = page[at - 1] if at else None
    gap = line.top - before.bottom if before is not None else 99.0
    return before is None or gap < -2 or gap > 0.45 * line.height or (before.size, before.bold) != (line.size, line.bold)


def _column(other: Piece, line: Piece, own: _Type) -> bool:
    """Whether what stands at the height of a line is of another column of text: at its edge, away from the line."""
    away = other.left > line.right + line.height or other.right < line.left - line.height
    return away and any(own.edges[round(other.left / 4) + step] > 5 for step in (-1, 0, 1))


def _grouped(page: Sequence[Piece], styles: Sequence[Style | None], own: _Type) -> list[tuple[Piece, Style | None]]:
    """The lines of a page, those of one heading joined; too many lines in one style are no heading."""
    found: list[tuple[Piece, Style | None]] = []
    largest = max((_half(line.size) for line in page), default=0.0)
    at = 0
    while at < len(page):
        style = styles[at]
        stop = at + 1
        while style and stop < len(page) and (_of_one(style, styles[stop], own) or _set_so(page, stop, style)):
            if not _goes_on(page, stop, own):
                break
            stop += 1
        if style and (stop - at > LINES or sum(len(line.text) for line in page[at:stop]) > LONGEST or _sentence(page[at:stop])):
            style = None
        if (
            style
            and LARGER * own.body < style[0] < min(1.6 * own.body, largest)
            and not (own.prose and _heads(page[at], stop - 1, page))
        ):
            style = None  # of a cover, or of a drawing
        for place in range(at, stop):
            line = page[place] if style is None or place == at else replace(page[place], glue=" ")
            found.append((line, style))
        at = stop
    return found


def _sentence(lines: Sequence[Piece]) -> bool:
    """Whether lines are a sentence, or break off in one."""
    last = lines[-1].text
    return bool(_ENDS.search(last)) or (last.endswith(".") and sum(len(line.text.split()) for line in lines) > SENTENCE)


def _of_one(upper: Style, lower: Style | None, own: _Type) -> bool:
    """Whether two lines may be of one heading by their style: those of a title are not always of one size."""
    if lower is None or upper == lower:
        return upper == lower
    small, large = sorted((upper[0], lower[0]))
    return upper[1] == lower[1] and small > 1.5 * own.body and large < 1.15 * small


def _set_so(page: Sequence[Piece], at: int, style: Style) -> bool:
    """Whether a bold line that is no heading by itself, such as an indented one, may be the next one of a bold heading."""
    line, indent = page[at], page[at].left - page[at - 1].left
    if not (style[1] and line.bold and _half(line.size) == style[0] and -2 < indent < 60):
        return False
    return all(other.glue == "\n" for other in page[at : at + 2]) and "  " not in line.text and not _CAPTION.match(line.text)


def _goes_on(page: Sequence[Piece], at: int, own: _Type) -> bool:
    """Whether a line goes on with the heading above it: close under it, and not where the upper line had room for more."""
    upper, lower = page[at - 1], page[at]
    if not -0.3 * upper.height < lower.top - upper.bottom < 0.75 * max(upper.height, lower.size):
        return False
    if _UNFINISHED.search(upper.text):
        return True
    if _BEGINS.match(lower.text) or (_NUMBERED.match(lower.text) and _NUMBERED.match(upper.text)):
        return False
    if (
        upper.size > 1.5 * own.body or lower.left > upper.left + 2 or upper.left > lower.left + 2
    ):  # a title, centred, or indented behind a number
        return True
    edge = max(other.right for other in page if abs(other.left - upper.left) < 3)
    word = (lower.right - lower.left) * len(lower.text.split()[0]) / len(lower.text)
    full = upper.right + 0.3 * upper.height + word > edge
    return full or upper.right > upper.left + 0.5 * (edge - upper.left) or lower.text[:1].islower()
