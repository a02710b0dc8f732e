"""The stretches of text on a page of a PDF: their words, boxes, size and weight; what nobody sees is told apart."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import sub
from typing import Any

from llmbench.retrieval.reading.formats.layout import Piece
from llmbench.retrieval.reading.formats.vertical import columns, runs
from llmbench.retrieval.reading.formats.visibility import Unseen, seen

__all__ = ["Reader", "upright"]

HYPHEN = "\ufffe"
"""What stands in the place of a hyphen where PDFium joined the lines of a divided word; some versions write `\\2`."""
WIDE = 1.5
"""A gap inside a line, in heights of its letters, that divides cells or columns and not words."""
TINY = 1.0
"""Points below which letters are a dotted line to whoever looks at the page at its size."""
_BOLD = re.compile(r"bold|black|heavy|demi|(?:CM|SF)\w{0,4}B[XS]?\d|CMCSC|-Medi\b|-Bd|Libertine\w*B$", re.IGNORECASE)
_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff]")
_ALEFS = "\u0622\u0623\u0625\u0627"
_LAM = "\u0644"
_LINE_END = re.compile(f"[\n\r{HYPHEN}]")
_EAST = re.compile("[\u2e80-\ud7ff\uf900-\ufaff]")
_LETTER = re.compile(r"[^\W\d_]")
_WORDS = re.compile("[^\\x00-\\x20]+")
_HIGH = re.compile("[\ud800-\udbff][\udc00-\udfff]")

Sides = tuple[float, float, float, float]


@dataclass(frozen=True)
class Stretch:
    """Characters `start` to `end` of a page, the box around them in PDF's own coordinates, and why they are not seen, if so."""

    start: int
    end: int
    box: Sides
    unseen: str = ""


class Reader:
    """Reads one page; `close` it. `pieces` are what is seen of it, `hidden` what is not, as (why, words)."""

    def __init__(self, page: Any) -> None:
        import pypdfium2.raw as pdfium

        self.pdfium, self.page = pdfium, page
        self.text_page = page.get_textpage()
        self.raw = self.text_page.raw
        self.edge: Sides = page.get_bbox()
        self.turn = page.get_rotation() % 360
        self.sides = [ctypes.c_double() for _ in range(4)]
        self.colour = [ctypes.c_uint() for _ in range(4)]
        self.matrix = pdfium.FS_MATRIX()
        self.fonts: dict[int, bool] = {}
        self.hidden: list[Unseen] = []
        self.spans: dict[int, Stretch] = {}

    def close(self) -> None:
        """Lets go of the page's text."""
        self.text_page.close()

    def pieces(self) -> list[Piece]:
        """The stretches of text in the order of the page's content, turned upright, measured from its left and top."""
        codes = self.codes = self._codes()
        self.text = "".join(map(chr, codes)).replace("\2", HYPHEN)
        stretches = [part for start, end in self._lines() for part in self._parts(start, end)]
        stretches, self.hidden = seen(self.page, stretches, self._words)
        found: list[Piece] = []
        down: dict[int, list[int]] = {}
        if _EAST.search(self.text):
            down = runs({at: self._char_box(at) for part in stretches for at in range(part.start, part.end) if codes[at] > 32})
        if not down:
            return [self._piece(part) for part in stretches]
        for part in stretches:
            found += [self._vertical(down[at]) for at in range(part.start, part.end) if at in down]
            found += [self._piece(rest) for rest in self._across(part, down)]
        return columns(found)

    def _codes(self) -> list[int]:
        """The UTF-16 unit of each character."""
        count = self.text_page.count_chars()
        units = (ctypes.c_ushort * (count + 1))()
        if self.pdfium.FPDFText_GetText(self.raw, 0, count, units) == count + 1:
            codes = list(units[:count])
            if 0 not in codes:
                return codes
        return [self.pdfium.FPDFText_GetUnicode(self.raw, at) for at in range(count)]  # some have none, and are left out there

    def _lines(self) -> Iterator[tuple[int, int]]:
        """Start and end of each line as PDFium divides them: after a hyphen, or before a line end."""
        start = 0
        for found in _LINE_END.finditer(self.text):
            hyphen = found[0] == HYPHEN
            yield start, found.end() if hyphen else found.start()
            start = found.end()
        yield start, len(self.text)

    def _parts(self, start: int, end: int) -> Iterator[Stretch]:
        """A line, cut where it is wide open and where what is seen borders on what is not."""
        words = [match.span() for match in _WORDS.finditer(self.text, start, end)]
        boxes = self._boxes(start, end) if words else []
        if not boxes:
            return
        lefts, bottoms, rights, tops = zip(*boxes, strict=True)
        whole = min(lefts), min(bottoms), max(rights), max(tops)
        small = min(map(sub, tops, bottoms)) < 2 * TINY
        reach = WIDE * (whole[3] - whole[1])
        alone = len(boxes) == 1
        if alone and not (1 < len(words) < 20 and self._bold(words[0][0])):  # a table's head may be of one object
            yield Stretch(start, end, whole, self._why(words[0][0], small))
            return
        wide = [left for left, right in zip(lefts[1:], rights, strict=False) if left - right > reach]
        back = [left for left, before in zip(lefts[1:], lefts, strict=False) if left < before - reach]
        if back and not _RIGHT_TO_LEFT.search(self.text, start, end):
            wide += back  # PDFium goes on with the line at the left of it
        if wide:
            words = [part for word in words for part in self._opened(word, reach)]
        whys = self._whys(words, small)
        cuts, inner = [0], [word for word in words if self.codes[word[0] - 1] > 32 and word[0] > start] if wide else []
        for at in range(1, len(words)):
            begin = self._char_box(words[at][0])[0] if wide or alone or inner else 0.0
            if begin in wide:
                wide.remove(begin)
                cuts.append(at)
            elif whys[at] != whys[at - 1] or (
                (alone or self.codes[words[at][0] - 1] > 32) and begin - self._char_box(words[at - 1][1] - 1)[2] > reach
            ):
                cuts.append(at)
        if len(cuts) == 1:
            yield Stretch(start, end, whole, whys[0])
            return
        for at, stop in pairwise([*cuts, len(words)]):
            first, last = words[at][0], words[stop - 1][1]
            left, right = self._char_box(first)[0] - 1, self._char_box(last - 1)[2] + 1
            part = [box for box in boxes if left <= box[0] and box[2] <= right] or self._boxes(first, last)
            if part:
                yield Stretch(first, last, _around(part), whys[at])

    def _whys(self, words: Sequence[tuple[int, int]], small: bool) -> list[str]:
        """Why each word would not be seen. Where every fourth word, the first and the last agree, so do the others: to look
        at each would cost a tenth of the reading.
        """
        sampled = {self._why(first, small) for first, _ in (*words[::4], words[-1])}
        if len(sampled) == 1:
            return [sampled.pop()] * len(words)
        return [self._why(first, small) for first, _ in words]

    def _opened(self, word: tuple[int, int], reach: float) -> Iterator[tuple[int, int]]:
        """A word, cut where a wide gap lies in it: PDFium puts no space between some cells."""
        start, end = word
        if end - start > 1 and self._char_box(end - 1)[2] - self._char_box(start)[0] > reach * (end - start) / 2 + reach:
            for at in range(start + 1, end):
                if self._char_box(at)[0] - self._char_box(at - 1)[2] > reach:
                    yield start, at
                    start = at
        yield start, end

    def _why(self, at: int, small: bool) -> str:
        """Why a character would not be seen, by its text object's own properties."""
        pdfium = self.pdfium
        thing = pdfium.FPDFText_GetTextObject(self.raw, at)
        if not thing:
            return ""
        mode = pdfium.FPDFTextObj_GetTextRenderMode(thing)
        if mode in (3, 7):  # FPDF_TEXTRENDERMODE_INVISIBLE and _CLIP, which paints nothing itself
            return "invisible"
        red, green, blue, alpha = self.colour
        if mode in (0, 4) and pdfium.FPDFPageObj_GetFillColor(thing, red, green, blue, alpha):  # filled, and no more
            if alpha.value < 6:
                return "transparent"
            if red.value > 249 and green.value > 249 and blue.value > 249:
                return "white"
        return "tiny" if small and self._size(at) < TINY else ""

    def _piece(self, part: Stretch) -> Piece:
        words = _LETTER.search(self.text, part.start, part.end) or _WORDS.search(self.text, part.start, part.end)
        first = words.start() if words else part.start
        last = part.end - 1
        while last > first and self.codes[last] <= 32:
            last -= 1
        box = upright(part.box, self.edge, self.turn)
        size, bold = self._size(first), self._bold(first)
        if last > first + 2:
            size, bold = max(size, self._size(last)), bold and self._bold(last)
        piece = Piece(*box, self._words(part), size, bold)
        self.spans[id(piece)] = part
        return piece

    def opened(self, piece: Piece, walls: Sequence[float] = ()) -> list[Piece]:
        """A piece of `pieces`, cut where a wide gap lies between its characters, and where one of the `walls` between cells
        (points from the page's left) lies between its words: a text object may hold a row of cells.
        """
        part = self.spans.get(id(piece))
        if part is None:
            return [piece]
        words = [match.span() for match in _WORDS.finditer(self.text, part.start, part.end)]
        reach = WIDE * (part.box[3] - part.box[1])
        cuts = [0]
        walls = [x + self.edge[0] for x in walls] if not self.turn else []
        for at in range(1, len(words)):
            left, right = self._char_box(words[at - 1][1] - 1)[2], self._char_box(words[at][0])[0]
            if right - left > reach or any(left - 1 < x < right + 1 for x in walls):
                cuts.append(at)
        if len(cuts) == 1:
            return [piece]
        found = []
        for at, stop in pairwise([*cuts, len(words)]):
            first, last = words[at][0], words[stop - 1][1]
            box = _around([self._char_box(place) for place in range(first, last) if self.codes[place] > 32])
            found.append(self._piece(Stretch(first, last, box)))
        return found

    def _words(self, part: Stretch) -> str:
        """The text of a stretch: halves of characters put together, what one glyph stands for in its own order."""
        text = self.text[part.start : part.end].replace("\0", "").replace(HYPHEN, "-")
        if text.isascii():
            return text.strip()
        if _RIGHT_TO_LEFT.search(text):
            text = self._turned_back(part)
        if max(text, default="") >= "\ud800":
            text = _HIGH.sub(lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), text)
            text = re.sub("[\ud800-\udfff]", "\ufffd", text)
        return text.strip()

    def _turned_back(self, part: Stretch) -> str:
        """Text that runs from right to left, which PDFium turns character by character: those of one glyph (one box) keep the
        order in which the font names them. Lam and alef are the pair of which no other order can be meant.
        """
        text, at = "", part.start
        while at < part.end:
            stop, box = at + 1, self._char_box(at)
            while stop < part.end and self.codes[at] > 32 and self._char_box(stop) == box and box[2] > box[0]:
                stop += 1
            glyph = [code for code in self.codes[at:stop] if code]
            signs = "".join(map(chr, glyph))
            kept = len(signs) == 2 and signs[0] == _LAM and signs[1] in _ALEFS
            text += signs[::-1] if len(signs) > 1 and not kept and _RIGHT_TO_LEFT.search(signs) else signs
            at = stop
        return text

    def _across(self, part: Stretch, down: dict[int, list[int]]) -> Iterator[Stretch]:
        """What of a stretch does not run down the page."""
        taken = {at for run in down.values() for at in run}
        if not taken.intersection(range(part.start, part.end)):
            yield part
            return
        start: int | None = None
        for at in range(part.start, part.end + 1):
            free = at < part.end and at not in taken and self.codes[at] > 32
            if free and start is None:
                start = at
            elif not free and start is not None and (at == part.end or at in taken):
                if boxes := self._boxes(start, at):
                    yield Stretch(start, at, _around(boxes))
                start = None

    def _vertical(self, run: Sequence[int]) -> Piece:
        box = upright(_around([self._char_box(at) for at in run]), self.edge, self.turn)
        words = "".join(self._words(Stretch(at, at + 1, (0, 0, 0, 0))) for at in run)
        return Piece(*box, words, self._size(run[0]), self._bold(run[0]), down=True)

    def _size(self, at: int) -> float:
        """The size of a character's font as it is on the page, in points."""
        matrix = self.matrix
        if not self.pdfium.FPDFText_GetMatrix(self.raw, at, matrix):
            return 0.0
        return float(self.pdfium.FPDFText_GetFontSize(self.raw, at) * math.hypot(matrix.c, matrix.d))

    def _bold(self, at: int) -> bool:
        """Whether a character's font is a heavy one, by its name or its weight."""
        pdfium = self.pdfium
        thing = pdfium.FPDFText_GetTextObject(self.raw, at)
        font = pdfium.FPDFTextObj_GetFont(thing) if thing else None
        if not font:
            return False
        key = ctypes.addressof(font.contents)
        if key not in self.fonts:
            name = ctypes.create_string_buffer(200)
            pdfium.FPDFFont_GetBaseFontName(font, name, 200)
            self.fonts[key] = _BOLD.search(name.value.decode("utf-8", "replace")) is not None
        return self.fonts[key]

    def _boxes(self, start: int, end: int) -> list[Sides]:
        """The boxes around some characters, one for each text object."""
        left, top, right, bottom = self.sides
        raw, rectangle = self.raw, self.pdfium.FPDFText_GetRect
        return [
            (left.value, bottom.value, right.value, top.value)
            for at in range(max(0, self.pdfium.FPDFText_CountRects(raw, start, end - start)))
            if rectangle(raw, at, left, top, right, bottom)
        ]

    def _char_box(self, at: int) -> Sides:
        left, top, right, bottom = self.sides
        self.pdfium.FPDFText_GetCharBox(self.raw, at, left, right, bottom, top)
        return left.value, bottom.value, right.value, top.value


def _around(boxes: Sequence[Sides]) -> Sides:
    lefts, bottoms, rights, tops = zip(*boxes, strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)


def upright(box: Sides, page: Sides, turn: int) -> Sides:
    """PDF's box (left, bottom, right, top from the lower left) as left, top, right, bottom from the upper left as shown."""
    left, bottom, right, top = box[0] - page[0], box[1] - page[1], box[2] - page[0], box[3] - page[1]
    width, height = page[2] - page[0], page[3] - page[1]
    match turn:
        case 90:
            return bottom, left, top, right
        case 180:
            return width - right, bottom, width - left, top
        case 270:
            return height - top, width - right, height - bottom, width - left
        case _:
            return left, height - top, right, height - bottom
