"""DOCX: paragraphs, headings by their styles, lists, tables, text boxes, notes, headers and footers.

Read from the XML itself: python-docx leaves out text boxes, content controls, notes and inserted text.
"""

from __future__ import annotations

import re

from llmbench.retrieval.reading.archive import Archive
from llmbench.retrieval.reading.formats.office import main_part, properties, relations
from llmbench.retrieval.reading.writer import Writer
from llmbench.retrieval.reading.xml import Element, local

__all__ = ["read"]

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_STRICT = "{http://purl.oclc.org/ooxml/wordprocessingml/main}"
_SKIPPED = {
    *("del", "moveFrom", "instrText", "delText", "rPr", "pPr", "sectPr", "tblPr", "tblGrid", "Fallback", "sdtPr", "fldData"),
    *("posOffset", "align", "sizeRelH", "sizeRelV"),
}
"""Deleted text, field codes, properties; `Fallback` repeats a text box for old programs."""


def read(data: bytes, out: Writer) -> None:
    """Reads a document."""
    archive = Archive(data)
    main = main_part(archive, "word/document.xml")
    parts = relations(archive, main)
    properties(archive, out)
    styles = next((place for kind, place in parts.values() if kind == "styles" and place in archive.names), "")
    levels = _levels(archive.tree(styles)) if styles else {}
    by_kind: dict[str, list[str]] = {}
    for kind, place in parts.values():
        if place in archive.names:
            by_kind.setdefault(kind, []).append(place)
    for place in by_kind.get("header", []):
        _blocks(archive.tree(place), out, {})
    _blocks(archive.tree(main), out, levels)
    for kind in ("footnotes", "endnotes", "comments", "footer"):
        for place in by_kind.get(kind, []):
            _blocks(archive.tree(place), out, {})
    if not out.title:
        out.title = next((text for _, _, level, text in out.headings if level == 1), "")


def _levels(styles: Element) -> dict[str, int]:
    """The level of each style that makes headings, also of those based on one that does."""
    levels: dict[str, int] = {}
    based: dict[str, str] = {}
    for style in styles:
        identity = _value(style, "styleId")
        for part in style:
            match local(part):
                case "name":
                    name = _value(part, "val").lower()
                    if found := re.fullmatch(r"heading (\d)", name):
                        levels[identity] = int(found[1])
                    elif name == "title":
                        levels[identity] = 1
                case "basedOn":
                    based[identity] = _value(part, "val")
                case "pPr":
                    for outline in part:
                        if local(outline) == "outlineLvl" and _value(outline, "val") in set("012345678"):
                            levels.setdefault(identity, int(_value(outline, "val")) + 1)
    for identity in based:
        parent, seen = identity, set()
        while parent and parent not in levels and parent not in seen:
            seen.add(parent)
            parent = based.get(parent, "")
        if parent in levels:
            levels.setdefault(identity, levels[parent])
    return levels


def _value(element: Element, name: str) -> str:
    return element.get(_W + name) or element.get(_STRICT + name) or ""


def _blocks(parent: Element, out: Writer, levels: dict[str, int]) -> None:
    """Adds the paragraphs and tables under an element, in order; depth is bounded by the XML reader."""
    for element in parent:
        match local(element):
            case "p":
                _paragraph(element, out, levels)
            case "tbl":
                _table(element, out, levels)
            case name if name not in _SKIPPED:
                _blocks(element, out, levels)


def _paragraph(element: Element, out: Writer, levels: dict[str, int]) -> None:
    """Adds a paragraph, then the text boxes anchored in it."""
    text, boxes = _text(element)
    level, item = _style(element, levels)
    if level and text.strip():
        out.heading(text, level)
    elif text.strip():
        out.block(("- " if item else "") + text, gap=1 if item else 2)
    for box in boxes:
        _blocks(box, out, levels)


def _style(paragraph: Element, levels: dict[str, int]) -> tuple[int, bool]:
    """The level as a heading, or 0; and whether it is an item of a list."""
    level, item = 0, False
    for properties_ in paragraph:
        if local(properties_) == "pPr":
            for part in properties_:
                match local(part):
                    case "pStyle":
                        level = levels.get(_value(part, "val"), 0)
                        item = item or "list" in _value(part, "val").lower()
                    case "outlineLvl" if _value(part, "val") in set("012345678"):
                        level = int(_value(part, "val")) + 1
                    case "numPr":
                        item = True
    return level, item and not level


def _text(element: Element) -> tuple[str, list[Element]]:
    """The words of a paragraph, and the text boxes in it."""
    parts: list[str] = []
    boxes: list[Element] = []
    stack = [element]
    while stack:
        node = stack.pop()
        match local(node):
            case "t":
                parts.append(node.text or "")
            case "tab" | "ptab":
                parts.append("\t")
            case "br" | "cr":
                parts.append("\n")
            case "noBreakHyphen":
                parts.append("-")
            case "sym":
                code = _value(node, "char")
                parts.append(chr(int(code, 16)) if re.fullmatch("[0-9A-Fa-f]{4}", code) else "")
            case "txbxContent":
                boxes.append(node)
            case name if name not in _SKIPPED:
                stack.extend(reversed(node))
    return "".join(parts), boxes


def _table(element: Element, out: Writer, levels: dict[str, int]) -> None:
    """Adds a table, a line a row; a table of one cell is but a frame around its paragraphs."""
    rows = [row for row in element.iter() if local(row) == "tr"]
    nested = {row for table in element.iter() if local(table) == "tbl" and table is not element for row in table.iter()}
    rows = [row for row in rows if row not in nested]
    cells = [[cell for cell in row.iter() if local(cell) == "tc" and cell not in nested] for row in rows]
    if len(cells) == 1 and len(cells[0]) == 1:
        _blocks(cells[0][0], out, levels)
    else:
        out.table([_cell(cell) for cell in row] for row in cells)


def _cell(cell: Element) -> str:
    """The words of a cell, its paragraphs and the tables within it one after another."""
    texts = []
    for paragraph in cell.iter():
        if local(paragraph) == "p":
            text, _ = _text(paragraph)
            texts.append(text)
    return " ".join(" ".join(texts).split())
