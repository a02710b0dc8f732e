"""What ODS keeps beside the values of its cells: what is shown of numbers, merged cells, comments, charts, hidden rows."""

from __future__ import annotations

from llmbench.retrieval.reading.archive import Archive
from llmbench.retrieval.reading.formats.numbering import ordinal
from llmbench.retrieval.reading.formats.sheet import Sheet
from llmbench.retrieval.reading.xml import Element, local
from llmbench.shown import counted

__all__ = ["sheets"]

_FAR = 100_000
"""Rows and columns beyond which cells are repeated only to fill the sheet."""


def sheets(archive: Archive) -> dict[str, Sheet]:
    """What each sheet says, by its name, in the order of the book."""
    found: dict[str, Sheet] = {}
    tree = archive.tree("content.xml")
    hidden = {
        _value(style, "name")
        for style in tree.iter()
        if local(style) == "style"
        and any(local(part) == "table-properties" and _value(part, "display") == "false" for part in style)
    }
    for table in tree.iter():
        if local(table) != "table" or not _value(table, "name"):
            continue
        sheet = found[_value(table, "name")] = Sheet()
        if _value(table, "style-name") in hidden:
            sheet.hidden.append("")
        _rows(table, sheet)
    return found


def _rows(table: Element, sheet: Sheet) -> None:
    merged = []
    row = rows = columns = 0
    for node in table.iter():
        match local(node):
            case "table-column" if _value(node, "visibility") in ("collapse", "filter"):
                columns += _count(node, "number-columns-repeated")
            case "object" if _value(node, "href"):
                sheet.drawings.append(_value(node, "href").removeprefix("./"))
            case "table-row":
                times = _count(node, "number-rows-repeated")
                filled = any(len(cell) for cell in node)
                if _value(node, "visibility") in ("collapse", "filter") and filled:
                    rows += times
                column = 0
                for cell in node:
                    if local(cell) not in ("table-cell", "covered-table-cell"):
                        continue
                    wide = _count(cell, "number-columns-repeated")
                    down, across = _count(cell, "number-rows-spanned"), _count(cell, "number-columns-spanned")
                    if down > 1 or across > 1:
                        merged.append(((row, column), (row + down - 1, column + across - 1)))
                    if _value(cell, "value-type") in ("percentage", "currency") and times < _FAR and wide < _FAR:
                        shown = " ".join(" ".join("".join(p.itertext()) for p in cell if local(p) == "p").split())
                        for at in range(row, row + min(times, 1000)):
                            sheet.formats.setdefault(at, {}).update(
                                dict.fromkeys(range(column, column + min(wide, 1000)), f"={shown}")
                            )
                    _comments(cell, row, column, sheet)
                    column += wide
                row += times
    sheet.merged = merged
    sheet.hidden += [counted(count, what) for count, what in ((rows, "row"), (columns, "column")) if count]


def _comments(cell: Element, row: int, column: int, sheet: Sheet) -> None:
    for note in cell:
        if local(note) == "annotation":
            words = " ".join(" ".join("".join(p.itertext()) for p in note.iter() if local(p) == "p").split())
            if words:
                sheet.comments.append((f"{ordinal(column + 1, 'A')}{row + 1}", words))


def _value(element: Element, name: str) -> str:
    return next((value for key, value in element.attrib.items() if key.endswith(f"}}{name}")), "")


def _count(element: Element, name: str) -> int:
    text = _value(element, name)
    return int(text) if text.isdecimal() and len(text) < 9 else 1
