"""PPTX: slides as pages, their titles as headings, tables, charts, notes, comments; shapes in reading order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading.archive import Archive
from llmbench.retrieval.reading.formats.drawing import add_drawn, described
from llmbench.retrieval.reading.formats.equations import latex
from llmbench.retrieval.reading.formats.office import main_part, properties, relations
from llmbench.retrieval.reading.formats.word_numbering import formatted
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
    parts = relations(archive, place)
    slide = archive.tree(place)
    if slide.get("show") in ("0", "false"):
        out.warnings.append(f"slide {len(out.pages)} is hidden in the slide show, but was read")
    _shapes_of(slide, _Slide(archive, parts, out), 1)
    for kind, part in parts.values():
        if part not in archive.names:
            continue
        match kind:
            case "notesSlide":
                _shapes_of(archive.tree(part), _Slide(archive, relations(archive, part), out), 0)
            case "comments" | "comment":
                _comments(archive.tree(part), out)


@dataclass(frozen=True)
class _Slide:
    """Where shapes come from, and where their text goes."""

    archive: Archive
    parts: dict[str, tuple[str, str]]
    out: Writer


def _shapes_of(slide: Element, where: _Slide, level: int) -> None:
    tree = next((node for node in slide.iter() if local(node) == "spTree"), None)
    if tree is not None:
        _shapes(tree, where, level)


def _comments(tree: Element, out: Writer) -> None:
    """Adds what people said of a slide, and what others answered."""
    for comment in tree.iter():
        match local(comment):
            case "text":  # the older form keeps plain text
                out.block(f"Comment: {comment.text}" if (comment.text or "").strip() else "")
            case "cm" | "reply":
                words = "\n".join(_words(part) for part in comment if local(part) == "txBody")
                out.block(f"Comment: {words}" if words.strip() else "")


def _shapes(parent: Element, where: _Slide, level: int) -> None:
    """Adds the shapes: the title first, the others from top to bottom in bands, within a band from left to right."""
    kinds = ("sp", "graphicFrame", "grpSp", "AlternateContent", "pic", "cxnSp")
    shapes = [shape for shape in parent if local(shape) in kinds]
    order = {id(shape): (not _is_title(shape), *_place(shape, index)) for index, shape in enumerate(shapes)}
    for shape in sorted(shapes, key=lambda shape: order[id(shape)]):
        if _is_hidden(shape):
            where.out.hide(_words(shape))
            continue
        match local(shape):
            case "grpSp":
                _shapes(shape, where, level)
            case "AlternateContent":
                for choice in [choice for choice in shape if local(choice) == "Choice"][:1]:
                    _shapes(choice, where, level)
            case "graphicFrame":
                _frame(shape, where)
            case _ if _placeholder(shape) in _NO_CONTENT:
                continue
            case kind:
                words = _words(shape)
                if level and _is_title(shape):
                    where.out.heading(words, level)
                else:
                    where.out.block(words)
                about = described(shape) if kind == "pic" or not words.strip() else ""
                where.out.block(f"Picture: {about}" if about else "")


def _frame(shape: Element, where: _Slide) -> None:
    """Adds a table, a chart, a diagram, or what else is framed."""
    tables = [node for node in shape.iter() if local(node) == "tbl"]
    for table in tables:
        where.out.table(_rows(table))
    if not tables:
        labels = [_words(node) for node in shape.iter() if local(node) == "txBody"]
        where.out.block("\n".join(label for label in labels if label.strip()))
    add_drawn(shape, where.archive, where.parts, where.out)
    about = "" if tables else described(shape)
    where.out.block(f"Picture: {about}" if about else "")


def _rows(table: Element) -> Iterator[Sequence[str]]:
    """The rows of a table; a merged cell stands in each of its rows and columns."""
    above: list[str] = []
    for row in table:
        if local(row) != "tr":
            continue
        line: list[str] = []
        for cell in row:
            if local(cell) != "tc":
                continue
            text = _words(cell)
            if cell.get("hMerge") in ("1", "true") and line:
                text = line[-1]
            elif cell.get("vMerge") in ("1", "true"):
                text = above[len(line)] if len(line) < len(above) else ""
            line.append(text)
        above = line
        yield line[:1] if len(set(line)) == 1 else line


def _is_hidden(shape: Element) -> bool:
    """Whether the shape was switched off in the selection pane."""
    for group in shape:
        if local(group) in ("nvSpPr", "nvPicPr", "nvGraphicFramePr", "nvGrpSpPr", "nvCxnSpPr"):
            return any(local(node) == "cNvPr" and node.get("hidden") in ("1", "true") for node in group)
    return False


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
    """The text of a shape or cell, a line a paragraph, behind its number or bullet where it has one of its own."""
    lines: list[str] = []
    counts: dict[tuple[int, str], int] = {}
    for paragraph in element.iter():
        if local(paragraph) != "p":
            continue
        parts = []
        for node in paragraph.iter():
            match local(node):
                case "t":
                    parts.append(node.text or "")
                case "br":
                    parts.append("\n")
        text = "".join(parts) if not _has_math(paragraph) else _with_math(paragraph)
        if text.strip():
            lines.append(_mark(paragraph, counts) + text)
    return "\n".join(lines)


def _has_math(paragraph: Element) -> bool:
    return any(local(node) == "oMath" for node in paragraph.iter())


def _with_math(paragraph: Element) -> str:
    """A paragraph with equations, whose letters are part of these."""
    parts: list[str] = []
    stack = [paragraph]
    while stack:
        node = stack.pop()
        match local(node):
            case "t":
                parts.append(node.text or "")
            case "br":
                parts.append("\n")
            case "oMath":
                parts.append(f" ${latex(node)}$ ")
            case "Fallback":
                continue
            case _:
                stack.extend(reversed(node))
    return "".join(parts)


def _mark(paragraph: Element, counts: dict[tuple[int, str], int]) -> str:
    """The number of a paragraph that is counted, by the levels and formats of its shape; or its bullet."""
    properties_ = next((node for node in paragraph if local(node) == "pPr"), None)
    if properties_ is None:
        counts.clear()
        return ""
    text = properties_.get("lvl", "0")
    level = int(text) if text.isdecimal() and len(text) < 3 else 0
    for node in properties_:
        if local(node) == "buAutoNum":
            style = node.get("type", "arabicPeriod")
            start = node.get("startAt", "1")
            for key in [key for key in counts if key[0] > level]:
                del counts[key]
            key = level, style
            counts[key] = counts[key] + 1 if key in counts else int(start) if start.isdecimal() and len(start) < 6 else 1
            return f"{_numbered(counts[key], style)} "
        if local(node) == "buChar":
            return "- "
    for key in [key for key in counts if key[0] >= level]:
        del counts[key]
    return ""


def _numbered(number: int, style: str) -> str:
    """A number in one of DrawingML's formats (ECMA-376 part 1, 20.1.10.61)."""
    forms = {
        "alphaLc": "lowerLetter", "alphaUc": "upperLetter", "romanLc": "lowerRoman", "romanUc": "upperRoman",
        "circleNumDbPlain": "decimalEnclosedCircle", "ea1Chs": "chineseCounting", "ea1Jpn": "japaneseCounting",
    }  # fmt: skip
    form = next((form for start, form in forms.items() if style.startswith(start)), "decimal")
    text = formatted(number, form)
    if style.endswith("ParenBoth"):
        return f"({text})"
    return f"{text})" if style.endswith("ParenR") else f"{text}." if style.endswith("Period") else text
