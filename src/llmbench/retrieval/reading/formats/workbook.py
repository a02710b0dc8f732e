"""Workbooks (XLSX, XLSB, XLS, ODS): sheets are headings, rows say what their cells are, comments and drawings follow."""

from __future__ import annotations

import datetime
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmbench.retrieval.documents import LOCKED, Unreadable
from llmbench.retrieval.reading.archive import RATIO, Archive
from llmbench.retrieval.reading.formats import drawing, odf, ods, sparse, xlsx
from llmbench.retrieval.reading.formats.office import properties
from llmbench.retrieval.reading.formats.sheet import Sheet
from llmbench.retrieval.reading.formats.tables import grid
from llmbench.retrieval.reading.writer import Writer
from llmbench.shown import counted

__all__ = ["read"]

CELLS = 5_000_000
"""Cells of one workbook."""


@dataclass
class _Book:
    """What the file says beside the values: by the name of the sheet, in the order of the book."""

    archive: Archive | None = None
    sheets: dict[str, Sheet] = field(default_factory=dict)


def read(data: bytes, out: Writer) -> None:
    """Reads a workbook."""
    import python_calamine

    book = _book(data, out)
    changed = {sheet.part: sheet.moved for sheet in book.sheets.values() if sheet.moved}
    if changed and book.archive is not None:
        data = sparse.rewritten(Archive(data), changed)
    try:
        workbook = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        left, unvalued = CELLS, 0
        hidden: list[str] = []
        for name in dict.fromkeys([*book.sheets, *workbook.sheet_names]):
            about = book.sheets.get(name, Sheet())
            rows: Sequence[Sequence[object]] = []
            start, merged = (0, 0), about.merged
            if name in workbook.sheet_names and not about.drawn:
                sheet = workbook.get_sheet_by_name(name)
                left -= sheet.total_height * sheet.total_width
                if left < 0:
                    raise Unreadable(f"more than {CELLS:,} cells; save the sheets as CSV files")
                rows, start = sheet.to_python(skip_empty_area=True), sheet.start or (0, 0)
                merged = sheet.merged_cell_ranges or merged
            unvalued += about.unvalued
            hidden += [f"{what} of {name}" if what else f"sheet {name}" for what in about.hidden]
            _sheet(name, _cells(rows, start, about, merged), about, book.archive, out)
    except (python_calamine.CalamineError, ValueError, IndexError) as error:
        if "password" in str(error).lower() or "encrypt" in str(error).lower():
            raise Unreadable(LOCKED) from None
        raise Unreadable(f"broken workbook ({' '.join(str(error).split())[:120]})") from None
    if unvalued:
        have = "has" if unvalued == 1 else "have"
        out.warnings.append(f"{counted(unvalued, 'formula')} {have} no stored value: open and save the workbook")
    if hidden:
        told = ", ".join(hidden[:5]) + (f" and {len(hidden) - 5} more" if len(hidden) > 5 else "")
        out.warnings.append(f"hidden in the workbook, but read: {told}")


def _book(data: bytes, out: Writer) -> _Book:
    """What can be told of a workbook that is a zip archive; an older one tells only its values."""
    if data[:2] != b"PK":
        return _Book()
    archive = Archive(data)
    sizes = [member for member in archive.names.values() if member.file_size > 2**20]
    if any(member.file_size > RATIO * max(member.compress_size, 1) or member.file_size > 256 * 2**20 for member in sizes):
        raise Unreadable("possibly a zip bomb")
    if "EncryptedPackage" in archive.names:
        raise Unreadable(LOCKED)
    for name in archive.names:  # entities are refused here, before the reader in Rust sees them
        if name.endswith((".xml", ".rels")) and b"<!ENTITY" in archive.head(name, 4096):
            raise Unreadable(f"{name} declares entities, which can hide text or attacks")
    if "content.xml" in archive.names:
        properties(archive, out, "meta.xml")
        return _Book(archive, ods.sheets(archive))
    properties(archive, out)
    return _Book(archive, xlsx.sheets(archive, out))


def _cells(rows: Sequence[Sequence[object]], start: tuple[int, int], about: Sheet, merged: Sequence[Any]) -> list[list[str]]:
    """The cells as a spreadsheet shows them; a merged cell's value stands in each of its rows and columns.

    A title over the whole table stays one cell.
    """
    top, left = start
    cells = []
    for down, row in enumerate(rows):
        shown = [_shown(cell) for cell in row]
        for across in about.columns_of(top + down):
            if 0 <= across - left < len(shown) and isinstance(value := row[across - left], (int, float)):
                shown[across - left] = about.shown(top + down, across, value) or shown[across - left]
        cells.append(shown)
    for (first, begin), (last, end) in merged:
        if not (0 <= first - top < len(cells) and 0 <= begin - left < len(cells[first - top])):
            continue
        text = cells[first - top][begin - left]
        others = any(cell for at, cell in enumerate(cells[first - top]) if not begin <= at + left <= end)
        for down in range(first, min(last, top + len(cells) - 1) + 1):
            row_ = cells[down - top]
            for across in range(begin, min(end if others else begin, left + len(row_) - 1) + 1):
                row_[across - left] = row_[across - left] or text
    return cells


def _sheet(name: str, cells: list[list[str]], about: Sheet, archive: Archive | None, out: Writer) -> None:
    """Adds a sheet with what stands on it and was said of it; an empty one is left out."""
    probe = out.length
    filled = any(any(row) for row in cells)
    if not filled and not about.comments and not about.drawings:
        return
    out.heading(name, 1)
    after = out.length
    if filled:
        grid([(0, row) for row in cells], out, lines=False)
    for place in about.drawings if archive is not None else ():
        assert archive is not None
        try:
            if place.endswith(".xml"):
                drawing.of_part(archive, place, out)
            else:
                odf.chart(archive.tree(f"{place}/content.xml"), out)
        except Unreadable as error:
            out.warnings.append(f"a drawing of {name} was left out: {error}")
    for at, (cell, words) in enumerate(about.comments):
        out.block(f"{cell}: {words}" if cell else words, gap=1 if at else 2)
    if out.length == after and probe != after:  # its drawings hold no words
        out.take_back(probe)


def _shown(value: object) -> str:
    """A cell as a spreadsheet shows it: whole numbers without a point, dates without midnight."""
    match value:
        case bool():
            return "yes" if value else "no"
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case float():
            return f"{value:.12g}"
        case datetime.datetime() if value.time() == datetime.time():
            return value.date().isoformat()
        case datetime.datetime():
            return value.isoformat(" ", "seconds")
        case _:
            return str(value)
