"""PPTX: slides as pages, their titles as headings, tables by rows, notes; shapes in reading order."""

from __future__ import annotations

from collections.abc import Iterator

from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading.archive import Archive
from llmbench.retrieval.reading.formats.office import main_part, properties, relations
from llmbench.retrieval.reading.writer import Writer
from llmbench.retrieval.reading.xml import Element, local

__all__ = ["read"]

_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_R_STRICT = "{http://purl.oclc.org/ooxml/officeDocument/relationships}id"
_NO_CONTENT = {"sldNum", "dt", "ftr", "hdr", "sldImg"}
"""Placeholders whose text is not the slide's: its number, the date, header and footer."""


def read(data: bytes, out: Writer) -> None:
    """Reads a presentation."""
    archive = Archive(data)
    main = main_part(archive, "ppt/presentation.xml")
    parts = relations(archive, main)
    properties(archive, out)
    slides = [node for node in archive.tree(main).iter() if local(node) == "sldId"]
    for number, slide in enumerate(slides, 1):
        out.page()
        _, place = parts.get(slide.get(_R) or slide.get(_R_STRICT) or "", ("", ""))
        try:
            _slide(archive, place, out)
        except Unreadable as error:
            out.unread.append(number)
            out.warnings.append(f"slide {number}: {error}")
    if slides and len(out.unread) == len(slides):
        raise Unreadable(f"broken: no slide can be read ({out.warnings[-1]})")
    if not out.title and out.headings:
        out.title = out.headings[0][3]


def _slide(archive: Archive, place: str, out: Writer) -> None:
    tree = next((node for node in archive.tree(place).iter() if local(node) == "spTree"), None)
    if tree is not None:
        _shapes(tree, out, 1)
    for kind, part in relations(archive, place).values():
        if kind == "chart" and part in archive.names:
            out.table(_chart(archive.tree(part)))
        elif kind == "notesSlide" and part in archive.names:
            body = next((node for node in archive.tree(part).iter() if local(node) == "spTree"), None)
            if body is not None:
                _shapes(body, out, 0)


def _chart(chart: Element) -> Iterator[list[str]]:
    """The numbers that a chart shows: a row for each series, after a row of its categories."""

    def values(parent: Element, name: str) -> list[str]:
        part = next((node for node in parent if local(node) == name), None)
        return [] if part is None else [(node.text or "").strip() for node in part.iter() if local(node) == "v"]

    shown: list[str] = []
    for series in (node for node in chart.iter() if local(node) == "ser"):
        categories = values(series, "cat") or values(series, "xVal")
        if categories and categories != shown:
            shown = categories
            yield ["", *categories]
        yield [" ".join(values(series, "tx")), *(values(series, "val") or values(series, "yVal"))]


def _shapes(parent: Element, out: Writer, level: int) -> None:
    """Adds the shapes: the title first, the others from top to bottom in bands, within a band from left to right."""
    shapes = [shape for shape in parent if local(shape) in ("sp", "graphicFrame", "grpSp", "AlternateContent", "pic")]
    order = {id(shape): (not _is_title(shape), *_place(shape, index)) for index, shape in enumerate(shapes)}
    for shape in sorted(shapes, key=lambda shape: order[id(shape)]):
        match local(shape):
            case "grpSp":
                _shapes(shape, out, level)
            case "AlternateContent":
                for choice in shape:
                    if local(choice) == "Choice":
                        _shapes(choice, out, level)
            case "pic":
                about = next((node.get("descr", "") for node in shape.iter() if local(node) == "cNvPr"), "")
                out.block(f"Picture: {about}" if " " in about.strip() else "")
            case "graphicFrame":
                for table in (node for node in shape.iter() if local(node) == "tbl"):
                    rows = ([_words(cell) for cell in row if local(cell) == "tc"] for row in table if local(row) == "tr")
                    out.table(rows)
                labels = [_words(node) for node in shape.iter() if local(node) == "txBody" and not _in_table(shape)]
                out.block("\n".join(label for label in labels if label.strip()))
            case _ if _placeholder(shape) in _NO_CONTENT:
                continue
            case _:
                words = _words(shape)
                if level and _is_title(shape):
                    out.heading(words, level)
                else:
                    out.block(words)


def _in_table(shape: Element) -> bool:
    return any(local(node) == "tbl" for node in shape.iter())


def _placeholder(shape: Element) -> str:
    holder = next((node for node in shape.iter() if local(node) == "ph"), None)
    return "" if holder is None else holder.get("type", "body")


def _is_title(shape: Element) -> bool:
    return local(shape) == "sp" and _placeholder(shape) in ("title", "ctrTitle")


def _place(shape: Element, index: int) -> tuple[int, int, int]:
    """Where it begins: bands of half an inch, then from the left. Shapes without a place of their own keep their order."""
    offset = next((node for node in shape.iter() if local(node) == "off"), None)
    if offset is None:
        return 0, 0, index
    try:
        return int(offset.get("y", "0")) // 457_200, int(offset.get("x", "0")), index
    except ValueError:
        return 0, 0, index


def _words(element: Element) -> str:
    """The text of a shape or cell, a line a paragraph."""
    lines = []
    for paragraph in element.iter():
        if local(paragraph) == "p":
            parts = []
            for node in paragraph.iter():
                match local(node):
                    case "t":
                        parts.append(node.text or "")
                    case "br":
                        parts.append("\n")
            lines.append("".join(parts))
    return "\n".join(line for line in lines if line.strip())
