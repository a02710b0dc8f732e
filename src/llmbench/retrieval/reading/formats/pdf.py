"""PDF: text in reading order, cells of a table's row on one line, and for each line its page and box."""

from __future__ import annotations

import ctypes
import re
from typing import Any

from llmbench.retrieval.documents import LOCKED, NOT_OPENED, Unreadable
from llmbench.retrieval.reading.clean import Words, garbage, mend_hyphens
from llmbench.retrieval.reading.formats.layout import Piece, rows
from llmbench.retrieval.reading.writer import Writer

__all__ = ["opened", "read", "upright"]

GARBAGE = 0.3
"""The share of characters that are no text above which a page is named in the warnings."""
_PASSWORD = 4  # FPDF_ERR_PASSWORD
_NOBODY = re.compile(r"\(?(?:anonymous|unspecified|unknown|untitled)\)?", re.IGNORECASE)
_DIVIDERS = (2, 0xFFFE)
_LINE_ENDS = (10, 13, *_DIVIDERS)


def opened(data: bytes, password: str = "") -> tuple[Any, int]:
    """PDFium's document and the number of its pages. An empty password is none.

    Raises:
        Unreadable: it is encrypted or broken.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data, password=password or None)
        return document, len(document)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == _PASSWORD or "password" in str(error).lower():
            raise Unreadable(NOT_OPENED if password else LOCKED) from None
        raise Unreadable("broken PDF (it cannot be opened)") from None


def read(data: bytes, out: Writer, *, password: str = "") -> None:
    """Reads a document, page by page. A page that fails costs that page, and is named."""
    import pypdfium2

    document, count = opened(data, password)
    found = _about(document, out)
    outline = _outline(document)
    lines: list[list[Piece] | None] = []
    for number in range(count):
        try:
            page = document[number]
        except pypdfium2.PdfiumError:
            lines.append(None)
            continue
        try:
            lines.append(rows(_pieces(page)))
        finally:
            page.close()
    words = Words(line.text for page in lines for line in page or ())
    pictures: list[int] = []
    for number, page in enumerate(lines, 1):
        out.page()
        if page is None:
            out.unread.append(number)
        elif not _page(page, number, out, outline.get(number, []), words):
            pictures.append(number)
    if count and len(out.unread) == count:
        raise Unreadable("broken PDF (no page could be read)")
    if not any(part.strip() for part in out._parts):
        raise Unreadable("no text in it (scanned pages need OCR first)")
    if pictures:
        out.warnings.append(f"no text on {_listed(pictures)}; if that is a scan, it needs OCR")
    out.title = out.title or found


def _listed(pages: list[int]) -> str:
    shown = ", ".join(map(str, pages[:10])) + (f" and {len(pages) - 10} more" if len(pages) > 10 else "")
    return ("page " if len(pages) == 1 else "pages ") + shown


def _about(document: Any, out: Writer) -> str:
    """Sets title, author and dates; gives a title that looks like a file's name, for want of a better."""
    try:
        fields = document.get_metadata_dict(skip_empty=True)
    except Exception:  # broken metadata is no reason to lose the pages
        return ""
    fields = {name: text for name, text in fields.items() if not _NOBODY.fullmatch(text.strip())}
    title = fields.get("Title", "").strip()
    created = re.match(r"D:(\d{4})(\d\d)?(\d\d)?", fields.get("CreationDate", ""))
    date = "-".join(part for part in created.groups() if part) if created else ""
    out.about(
        author=fields.get("Author", ""), subject=fields.get("Subject", ""), keywords=fields.get("Keywords", ""), created=date
    )
    if re.fullmatch(r"(?:Microsoft Word - )?\S*\.\w{2,5}|untitled\d*", title, re.IGNORECASE):
        return str(title)
    if re.search(r"[^\W\d_]{2}", title):  # a number, such as a filing's, tells nobody anything: the file's name does
        out.title = title
    return ""


def _outline(document: Any) -> dict[int, list[tuple[int, str]]]:
    """The bookmarks of each page: (level from 1, title)."""
    found: dict[int, list[tuple[int, str]]] = {}
    try:
        for at, entry in enumerate(document.get_toc(max_depth=8)):
            destination = entry.get_dest()
            index = destination.get_index() if destination else None
            title = " ".join(entry.get_title().split())
            if index is not None and title:
                found.setdefault(index + 1, []).append((entry.level + 1, title))
            if at > 5000:
                break
    except Exception:  # a broken outline is no reason to lose the pages
        return found
    return found


def _page(lines: list[Piece], number: int, out: Writer, bookmarks: list[tuple[int, str]], words: Words) -> bool:
    """Adds a page; False where there is no text on it."""
    texts = mend_hyphens([line.text for line in lines], words)
    share = garbage("".join(texts))
    if share > GARBAGE:
        out.warnings.append(f"page {number}: {share:.0%} of its characters are no text")
    before: Piece | None = None
    for text, line in zip(texts, lines, strict=True):
        text = re.sub(r" {2,}", "  ", out.clean(text).replace("\t", " ").replace("\n", " ")).strip()
        if not text:
            continue
        if before is not None:
            out.put(
                "\n\n" if line.top - before.bottom > 0.8 * min(line.height, before.height) or line.top < before.top else "\n"
            )
        start = out.length
        out.put(text)
        left, top, right, bottom = (round(side, 1) for side in (line.left, line.top, line.right, line.bottom))
        out.boxes.append((start, out.length, number, left, top, right, bottom))
        before = line
        _heading(text, start, out, bookmarks)
    return before is not None


def _heading(text: str, start: int, out: Writer, bookmarks: list[tuple[int, str]]) -> None:
    """Marks a line as a heading where a bookmark of its page, or the document's title, has its words."""
    plain = re.sub(r"[\W_]+", "", text).lower()
    for at, (level, title) in enumerate(bookmarks):
        words = re.sub(r"[\W_]+", "", title).lower()
        if words and (plain == words or (plain.endswith(words) and len(plain) - len(words) < 8)):
            out.headings.append((start, out.length, level, text))
            del bookmarks[at]
            return
    if not out.headings and out.title and plain == re.sub(r"[\W_]+", "", out.title).lower():
        out.headings.append((start, out.length, 1, text))


def _pieces(page: Any) -> list[Piece]:
    """The stretches of text on a page, in the order of its content, turned upright, measured from its left and top."""
    import pypdfium2.raw as pdfium

    text_page = page.get_textpage()
    try:
        raw = text_page.raw
        count = text_page.count_chars()
        codes = [pdfium.FPDFText_GetUnicode(raw, at) for at in range(count)]
        left0, bottom0, right0, top0 = page.get_bbox()
        turn = page.get_rotation() % 360
        pieces: list[Piece] = []
        sides = [ctypes.c_double() for _ in range(4)]
        start = 0
        while start < count:
            end = start
            while end < count and codes[end] not in _LINE_ENDS:
                end += 1
            if end < count and codes[end] in _DIVIDERS:
                end += 1  # PDFium joins a divided word's lines and leaves this in the place of its hyphen
                codes[end - 1] = 45
            words = _characters(codes[start:end]).strip()
            box = _box(pdfium, raw, start, end, sides) if words else None
            if box is not None:
                pieces.append(Piece(*upright(box, (left0, bottom0, right0, top0), turn), words))
            start = end + (end < count and codes[end] in (10, 13))
        return pieces
    finally:
        text_page.close()


def _characters(codes: list[int]) -> str:
    """A character for each code; zeros are left out, and what is no character is shown as such."""
    return "".join(chr(code) if code < 0xD800 or 0xE000 <= code < 0x110000 else "\ufffd" for code in codes if code)


def _box(pdfium: Any, raw: Any, start: int, end: int, sides: list[Any]) -> tuple[float, float, float, float] | None:
    """The box around some characters, in PDF's own coordinates: left, bottom, right, top."""
    left, top, right, bottom = sides
    boxes = []
    for at in range(max(0, pdfium.FPDFText_CountRects(raw, start, end - start))):
        if pdfium.FPDFText_GetRect(raw, at, left, top, right, bottom):
            boxes.append((left.value, bottom.value, right.value, top.value))
    if not boxes:
        return None
    lefts, bottoms, rights, tops = zip(*boxes, strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)


def upright(
    box: tuple[float, float, float, float], page: tuple[float, float, float, float], turn: int
) -> tuple[float, float, float, float]:
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
