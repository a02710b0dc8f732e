"""PDF: text in reading order, cells of a table's row on one line, and for each line its page and box."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from llmbench.retrieval.documents import LOCKED, NOT_OPENED, Unreadable
from llmbench.retrieval.reading import fonts
from llmbench.retrieval.reading.clean import Words, garbage, mend_hyphens
from llmbench.retrieval.reading.formats import annotations as added
from llmbench.retrieval.reading.formats import xfa
from llmbench.retrieval.reading.formats.grid import Grid, grids, placed
from llmbench.retrieval.reading.formats.layout import Area, Piece, rows
from llmbench.retrieval.reading.formats.pieces import Reader, upright
from llmbench.retrieval.reading.formats.ruled import Rule, bands, between, rows_between, rules, wanted
from llmbench.retrieval.reading.formats.typography import Marked, headed
from llmbench.retrieval.reading.writer import Writer

__all__ = ["opened", "read"]

GARBAGE = 0.3
"""The share of characters that are no text above which a page is named in the warnings."""
_PASSWORD = 4  # FPDF_ERR_PASSWORD
_NOBODY = re.compile(r"\(?(?:anonymous|unspecified|unknown|untitled)\)?", re.IGNORECASE)


def opened(data: bytes, password: str = "") -> tuple[Any, int]:
    """PDFium's document and the number of its pages. An empty password is none.

    Raises:
        Unreadable: it is encrypted or broken.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data, password=password or None)
        with suppress(pypdfium2.PdfiumError):  # a broken form is no reason to lose the pages
            document.init_forms()  # what was filled in is part of them
        return document, len(document)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == _PASSWORD or "password" in str(error).lower():
            raise Unreadable(NOT_OPENED if password else LOCKED) from None
        raise Unreadable("broken PDF (it cannot be opened)") from None


def read(data: bytes, out: Writer, *, password: str = "") -> None:
    """Reads a document, page by page. A page that fails costs that page, and is named."""
    import pypdfium2

    fonts.ready()
    document, count = opened(data, password)
    found = _about(document, out)
    outline = _outline(document)
    lines: list[list[Piece] | None] = []
    hidden: list[tuple[int, str, str]] = []
    comments: dict[int, Sequence[Piece]] = {}
    for number in range(count):
        try:
            page = document[number]
        except pypdfium2.PdfiumError:
            lines.append(None)
            continue
        try:
            lines.append(_lines(page, number + 1, hidden, comments))
        finally:
            page.close()
    words = Words([line.text for page in lines for line in page or ()])
    pictures: list[int] = []
    for number, page in enumerate(headed(lines), 1):
        out.page()
        if page is None:
            out.unread.append(number)
        else:
            if not _page(page, number, out, outline.get(number, []), words):
                pictures.append(number)
            _comments(comments[number], number, out)
    if count and len(out.unread) == count:
        raise Unreadable("broken PDF (no page could be read)")
    for n, value in enumerate(xfa.filled(document, out.text())):
        out.block(value, gap=1 if n else 2)
    if not out.text().strip():
        raise Unreadable("no text in it (scanned pages need OCR first)")
    if pictures:
        out.warnings.append(f"no text on {_listed(pictures)}; if that is a scan, it needs OCR")
    out.warnings += _told(hidden)
    out.title = out.title or found


def _lines(page: Any, number: int, hidden: list[tuple[int, str, str]], comments: dict[int, Sequence[Piece]]) -> list[Piece]:
    """The lines of a page with what was filled in; what nobody sees of it is added to `hidden`, what people said of it to
    `comments`.
    """
    reader = Reader(page)
    try:
        pieces = reader.pieces()
        across: list[Rule] = []
        drawn: list[Grid] = []
        if wanted(page, pieces):
            across, down = rules(page, lambda box: upright(box, reader.edge, reader.turn))
            drawn = grids(across, down)
        if len(across) > 2:
            rows_ = bands(across)
            cuts = {id(piece): [x for grid in drawn for x in grid.cuts(piece)] for piece in pieces} if drawn else {}
            pieces = [
                part
                for piece in pieces
                for part in (reader.opened(piece, cuts.get(id(piece), ())) if between(piece, rows_) else [piece])
            ]
        found = added.read(page, page.formenv, lambda: reader.text)
        pieces, loose = added.beside(pieces, found.fields)
    finally:
        reader.close()
    hidden += [(number, why, words) for why, words in reader.hidden]
    comments[number] = found.comments
    pieces, finished = placed(pieces, drawn)
    if len(across) > 2:
        finished |= rows_between(pieces, across, finished)
    lines = rows(pieces, finished)
    return added.among(lines, loose) if loose else lines


def _told(hidden: list[tuple[int, str, str]]) -> list[str]:
    """What was left out because no reader of the pages sees it, in a line for each reason."""
    found: dict[str, list[tuple[int, str]]] = {}
    for number, why, words in hidden:
        found.setdefault(why, []).append((number, words))
    notes = []
    for why, parts in found.items():
        start = parts[0][1] if len(parts[0][1]) < 60 else parts[0][1][:57] + "..."
        pages = _listed(sorted({number for number, _ in parts}))
        notes.append(
            f'hidden text on {pages} was left out ({why}): "{start}"' + (f" and {len(parts) - 1} more" if parts[1:] else "")
        )
    return notes


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


def _page(lines: Sequence[Marked], number: int, out: Writer, bookmarks: list[tuple[int, str]], words: Words) -> bool:
    """Adds a page; False where there is no text on it."""
    texts = mend_hyphens([entry.line.text for entry in lines], words)
    share = garbage("".join(texts))
    if share > GARBAGE:
        out.warnings.append(f"page {number}: {share:.0%} of its characters are not text")
    before: Piece | None = None
    open_: _Open | None = None
    for text, entry in zip(texts, lines, strict=True):
        line = entry.line
        text = out.clean(text).replace("\t", " ").replace("\n", " ").strip()
        if "   " in text:
            text = re.sub(" {3,}", "  ", text)
        if not text:
            continue
        if before is not None:
            apart = line.table != before.table or (not line.table and _gap(before, line))
            out.put(line.glue if line.glue != "\n" else "\n\n" if apart else "\n")
        start = out.length
        out.put(text)
        out.boxes.append(_box(start, out.length, number, line))
        before = line
        if open_ is not None and entry.level and line.glue != "\n":
            open_ = _Open(open_.start, f"{open_.text}{line.glue}{text}", open_.level)
            continue
        if open_ is not None:
            _heading(open_, out, bookmarks)
        open_ = _Open(start, text, entry.level)
    if open_ is not None:
        _heading(open_, out, bookmarks)
    return before is not None


@dataclass(frozen=True)
class _Open:
    """A line, or the lines of one heading, and where it begins; level 0 is none by its looks."""

    start: int
    text: str
    level: int


def _gap(before: Piece, line: Piece) -> bool:
    """Whether a paragraph ends between two lines."""
    return line.top - before.bottom > 0.8 * min(line.height, before.height) or line.top < before.top


def _box(start: int, end: int, page: int, area: Area) -> tuple[int, int, int, float, float, float, float]:
    return start, end, page, round(area.left, 1), round(area.top, 1), round(area.right, 1), round(area.bottom, 1)


def _comments(pieces: Sequence[Piece], number: int, out: Writer) -> None:
    """Adds what people said of a page, after it."""
    gap = 2
    for piece in pieces:
        start, end = out.block(piece.text, gap=gap)
        if end > start:
            out.boxes.append(_box(start, end, number, piece))
            gap = 1


def _heading(line: _Open, out: Writer, bookmarks: list[tuple[int, str]]) -> None:
    """Marks a line as a heading: by its looks, or where a bookmark of its page, or the document's title, has its words."""
    end = line.start + len(line.text)
    titled = bool(out.title) and not out.headings and not line.level
    plain = re.sub(r"[\W_]+", "", line.text).lower() if bookmarks or titled else ""
    for at, (level, title) in enumerate(bookmarks):
        words = re.sub(r"[\W_]+", "", title).lower()
        if words and (plain == words or (plain.endswith(words) and len(plain) - len(words) < 8)):
            out.headings.append((line.start, end, level, line.text))
            del bookmarks[at]
            return
    if line.level:
        out.headings.append((line.start, end, line.level, line.text))
    elif titled and plain == re.sub(r"[\W_]+", "", out.title).lower():
        out.headings.append((line.start, end, 1, line.text))
