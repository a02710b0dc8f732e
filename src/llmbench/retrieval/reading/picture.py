"""Pages of a PDF as pictures, and where passages stand on them. It runs in the child process, as every reader does."""

from __future__ import annotations

import base64
import ctypes
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading.formats.layout import Area
from llmbench.retrieval.reading.formats.pdf import opened
from llmbench.retrieval.reading.formats.pieces import upright

__all__ = ["DPI", "PIXELS", "marked", "pictures"]

DPI = 144
"""Pixels to the inch: a printed page is sharp at twice the size at which it fits a screen."""
PIXELS = 4_000_000
"""Pixels of a picture; a larger page is drawn smaller."""
SIDE = 8000
"""Pixels of a side: beyond it browsers do not show a picture."""
INK = (255, 233, 110)
"""Red, green and blue of the marker: what is under it is multiplied by it, so that black stays black."""


def pictures(data: bytes, pages: Sequence[dict[str, Any]], *, painted: bool, password: str = "") -> Iterator[dict[str, Any]]:
    """Each page as a PNG, and the areas of each passage on it as fractions of its width and height.

    Args:
        data: the file.
        pages: `number` from 1, and `passages`: of each the lines in which it stands, as `(left, top, right, bottom, before,
            own, after)`, the box in points and how many characters other than spaces are the passage's own, and stand before
            and after it in the line.
        painted: whether the areas are drawn into the picture.
        password: opens an encrypted file.

    Raises:
        Unreadable: the file or a page cannot be drawn.
    """
    import pypdfium2

    document, count = opened(data, password)
    for wanted in pages:
        number = wanted["number"]
        if not 1 <= number <= count:
            raise Unreadable(f"it has no page {number}")
        try:
            page = document[number - 1]
            yield {"number": number, **_picture(page, wanted["passages"], painted=painted)}
            page.close()
        except pypdfium2.PdfiumError:
            raise Unreadable(f"broken PDF (page {number} cannot be drawn)") from None


def _picture(page: Any, passages: Sequence[Sequence[Sequence[float]]], *, painted: bool) -> dict[str, Any]:
    width, height = page.get_size()
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise Unreadable("broken PDF (a page without a size)")
    scale = min(DPI / 72, math.sqrt(PIXELS / width / height), SIDE / max(width, height))
    letters = _Letters(page)
    areas = [marked([letters.cut(line) for line in lines]) for lines in passages]
    bitmap = page.render(scale=scale, rev_byteorder=True)
    pixels, stride = bytearray(bitmap.buffer), bitmap.stride
    fractions = [
        [
            (_part(a.left, width), _part(a.top, height), _part(a.right, width), _part(a.bottom, height))
            for a in found
            if a.left < width and a.right > 0 and a.top < height and a.bottom > 0
        ]
        for found in areas
    ]
    if painted:
        _paint(pixels, bitmap.width, bitmap.height, stride, [area for found in fractions for area in found])
    png = base64.b64encode(_png(pixels, bitmap.width, bitmap.height, stride)).decode("ascii")
    return {"width": bitmap.width, "height": bitmap.height, "png": png, "passages": fractions}


def _part(place: float, whole: float) -> float:
    return round(min(max(place / whole, 0.0), 1.0), 5)


class _Letters:
    """Where the characters of a page stand, found when a line is first to be cut."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.found: list[Area] | None = None

    def cut(self, line: Sequence[float]) -> Area:
        """The part of a line that is the passage's own, without spaces at its ends.

        The line's text was cleaned, so that it may count a few characters more or fewer than the page: places are then
        taken in proportion. Which way the line runs is told by the order of its characters: pages may be turned.
        """
        whole, (before, own, after) = Area(*line[:4]), line[4:]
        total = max(before + own + after, 1)
        boxes = [
            box
            for box in self.all()
            if whole.left - 1 <= (box.left + box.right) / 2 <= whole.right + 1
            and whole.top - 1 <= (box.top + box.bottom) / 2 <= whole.bottom + 1
        ]
        if not boxes:
            return whole
        if tall := whole.tall:
            whole, boxes = whole.turned, [box.turned for box in boxes]
        steps = [(one.left < other.left) - (one.left > other.left) for one, other in pairwise(boxes)]
        if sum(steps) < 0:
            before, after = after, before
        boxes.sort(key=lambda box: box.left)
        first = min(round(before * len(boxes) / total), len(boxes) - 1)
        last = max(round((before + own) * len(boxes) / total) - 1, first)
        cut = replace(whole, left=boxes[first].left, right=max(box.right for box in boxes[first : last + 1]))
        return cut.turned if tall else cut

    def all(self) -> list[Area]:
        """Every character that is seen."""
        if self.found is None:
            self.found = list(self._read())
        return self.found

    def _read(self) -> Iterator[Area]:
        import pypdfium2.raw as pdfium

        text = self.page.get_textpage()
        try:
            edge, turn = self.page.get_bbox(), self.page.get_rotation() % 360
            left, right, bottom, top = (ctypes.c_double() for _ in range(4))
            for at in range(text.count_chars()):
                code = pdfium.FPDFText_GetUnicode(text.raw, at)
                sign = chr(code) if 32 < code < 0x110000 and not 0xDC00 <= code < 0xE000 else " "  # halves count once
                if not sign.isspace() and pdfium.FPDFText_GetCharBox(text.raw, at, left, right, bottom, top):
                    box = (left.value, bottom.value, right.value, top.value)
                    yield Area(*upright(box, edge, turn))
        finally:
            text.close()


def marked(lines: Sequence[Area]) -> list[Area]:
    """The lines of a passage as a marker would go over them: pieces of one line joined, a little wider than the letters, and
    without gaps between lines that follow each other.
    """
    if sum(line.tall for line in lines) * 2 > len(lines):
        return [area.turned for area in marked([line.turned for line in lines])]
    joined: list[Area] = []
    for line in lines:
        if joined and _beside(joined[-1], line):
            joined[-1] = _around(joined[-1], line)
        else:
            joined.append(line)
    wide = [
        Area(a.left - 0.15 * a.height, a.top - 0.15 * a.height, a.right + 0.15 * a.height, a.bottom + 0.15 * a.height)
        for a in joined
    ]
    for at in range(len(wide) - 1):
        upper, lower = (at, at + 1) if wide[at].top < wide[at + 1].top else (at + 1, at)
        one, other = wide[upper], wide[lower]
        over = one.left < other.right and other.left < one.right
        if over and abs(other.top - one.bottom) < 0.8 * min(joined[at].height, joined[at + 1].height):
            middle = (other.top + one.bottom) / 2
            wide[upper], wide[lower] = replace(one, bottom=middle), replace(other, top=middle)
    return wide


def _beside(one: Area, other: Area) -> bool:
    """Whether two pieces stand in one line, near each other."""
    shared = min(one.bottom, other.bottom) - max(one.top, other.top)
    apart = max(one.left, other.left) - min(one.right, other.right)
    lower = min(one.height, other.height)
    return shared > 0.6 * lower and apart < 2 * lower


def _around(one: Area, other: Area) -> Area:
    return Area(min(one.left, other.left), min(one.top, other.top), max(one.right, other.right), max(one.bottom, other.bottom))


def _paint(pixels: bytearray, width: int, height: int, stride: int, areas: Sequence[tuple[float, float, float, float]]) -> None:
    """Multiplies what is under the areas by the ink, once where they overlap."""
    tables = [bytes(value * ink // 255 for value in range(256)) for ink in INK]
    inked = [
        (round(left * width), round(top * height), round(right * width), round(bottom * height))
        for left, top, right, bottom in areas
    ]
    for y in range(height):
        done = 0
        for left, right in sorted((left, right) for left, top, right, bottom in inked if top <= y < bottom):
            left = max(left, done)
            if left < right:
                for channel, table in enumerate(tables):
                    span = slice(y * stride + 3 * left + channel, y * stride + 3 * right, 3)
                    pixels[span] = pixels[span].translate(table)
                done = right


def _png(pixels: bytearray, width: int, height: int, stride: int) -> bytes:
    """A PNG of rows of red, green and blue (ISO/IEC 15948)."""
    rows = b"".join(b"\0" + pixels[y * stride : y * stride + 3 * width] for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"tEXt", b"Software\0llmbench"), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
