"""DOCX: paragraphs with their numbers, headings by their styles, tables, what is drawn, equations, notes, headers and footers.

Read from the XML itself: python-docx leaves out text boxes, content controls, notes and inserted text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading.archive import Archive
from llmbench.retrieval.reading.formats.docx_text import SKIPPED, Words, is_on, words_of
from llmbench.retrieval.reading.formats.drawing import add_drawn, described, relation
from llmbench.retrieval.reading.formats.office import main_part, properties, relations
from llmbench.retrieval.reading.formats.word_numbering import Numbering, value
from llmbench.retrieval.reading.writer import Writer
from llmbench.retrieval.reading.xml import Element, local

__all__ = ["read"]

_CHUNKS = 3
"""Documents inserted within one another."""


def read(data: bytes, out: Writer, depth: int = 0) -> None:
    """Reads a document; `depth` counts the documents that it is inserted in."""
    archive = Archive(data)
    main = main_part(archive, "word/document.xml")
    parts = relations(archive, main)
    properties(archive, out)
    by_kind: dict[str, list[str]] = {}
    for kind, place in parts.values():
        if place in archive.names:
            by_kind.setdefault(kind, []).append(place)
    styles = archive.tree(by_kind["styles"][0]) if "styles" in by_kind else None
    numbers = archive.tree(by_kind["numbering"][0]) if "numbering" in by_kind else None
    levels = _levels(styles) if styles is not None else {}
    hidden = _hidden_styles(styles) if styles is not None else set[str]()
    titles: list[str] = []

    def story(place: str, *, furniture: bool = False) -> None:
        text = _Story(archive, relations(archive, place), out, depth)
        text.hidden_styles, text.furniture = hidden, furniture
        text.numbering = Numbering(numbers, styles)
        text.levels = levels if place == main else {}
        text.titles = titles
        text.blocks(archive.tree(place))

    for place in by_kind.get("header", []):
        story(place, furniture=True)
    story(main)
    for kind in ("footnotes", "endnotes", "comments", "footer"):
        for place in by_kind.get(kind, []):
            story(place, furniture=kind == "footer")
    if not out.title:
        out.title = next(iter(titles), "")


def _levels(styles: Element) -> dict[str, int]:
    """The level of each style that makes headings, also of those based on one that does."""
    levels: dict[str, int] = {}
    based: dict[str, str] = {}
    for style in styles:
        identity = value(style, "styleId")
        for part in style:
            match local(part):
                case "name":
                    name = value(part).lower()
                    if found := re.fullmatch(r"heading (\d)", name):
                        levels[identity] = int(found[1])
                    elif name == "title":
                        levels[identity] = 1
                case "basedOn":
                    based[identity] = value(part)
                case "pPr":
                    for outline in part:
                        if local(outline) == "outlineLvl" and value(outline) in set("012345678"):
                            levels.setdefault(identity, int(value(outline)) + 1)
    for identity in based:
        parent, seen = identity, set()
        while parent and parent not in levels and parent not in seen:
            seen.add(parent)
            parent = based.get(parent, "")
        if parent in levels:
            levels.setdefault(identity, levels[parent])
    return levels


def _hidden_styles(styles: Element) -> set[str]:
    """The styles whose text Word does not show, also those based on one that says so."""
    own: dict[str, bool] = {}
    based: dict[str, str] = {}
    for style in styles:
        for part in style:
            if local(part) == "basedOn":
                based[value(style, "styleId")] = value(part)
            elif local(part) == "rPr":
                own |= {value(style, "styleId"): is_on(node) for node in part if local(node) == "vanish"}
    hidden = {identity for identity, vanished in own.items() if vanished}
    for identity in based:
        parent, seen = identity, set[str]()
        while parent and parent not in own and parent not in seen:
            seen.add(parent)
            parent = based.get(parent, "")
        if own.get(parent):
            hidden.add(identity)
    return hidden


class _Story:
    """The body, or a header, a footer, the notes: paragraphs and tables in their order."""

    levels: dict[str, int]
    numbering: Numbering
    hidden_styles: set[str]
    titles: list[str]
    """The headings of level 1 without a number: one with a number is a chapter, not the document's title."""
    furniture: bool
    framed = False  # in a table or a text box, which may be dark

    def __init__(self, archive: Archive, parts: dict[str, tuple[str, str]], out: Writer, depth: int) -> None:
        self.archive, self.parts, self.out, self.depth = archive, parts, out, depth

    def blocks(self, parent: Element) -> None:
        """Adds the paragraphs and tables under an element, in order; depth is bounded by the XML reader."""
        for element in parent:
            match local(element):
                case "p":
                    self.paragraph(element)
                case "tbl":
                    self.table(element)
                case "altChunk":
                    self.inserted(element)
                case "oMathPara" | "oMath":
                    words = words_of(element)
                    self.out.block(words.text)
                case "comment" if value(element, "author"):
                    self.out.block(f"Comment by {value(element, 'author')}:")
                    self.blocks(element)
                case name if name not in SKIPPED:
                    self.blocks(element)

    def words(self, paragraph: Element) -> tuple[Words, str, int]:
        """The words of a paragraph, its number or bullet with what stands between, and its level as a heading, or 0."""
        words = words_of(paragraph, furniture=self.furniture, hidden_styles=self.hidden_styles)
        self.out.hide(words.hidden)
        if words.faint.strip() and not self.framed and not any(local(node) == "shd" for node in paragraph.iter()):
            self.out.note(words.faint, "white or tiny letters")
        style, outline, number, level, deleted = _properties(paragraph)
        heading = outline if outline is not None else self.levels.get(style, 0)
        of_style = self.numbering.of_style(style)
        number, level = number or of_style[0], of_style[1] if level is None else level
        mark, joined = ("", False)
        if number and not deleted and not (words.hidden and not words.text.strip()):
            mark, joined = self.numbering.next(number, level)
        elif "list" in style.lower() and number != "0" and not heading:
            mark = "-"
        if heading and mark == "-":
            mark = ""
        return words, mark + ("" if joined or not mark else " "), heading

    def paragraph(self, element: Element) -> None:
        """Adds a paragraph, then what is anchored in it."""
        words, mark, heading = self.words(element)
        if heading and words.text.strip():
            self.out.heading(mark + words.text.strip(), heading)
            self.titles += [words.text.strip()] if heading == 1 and not mark else []
        elif words.text.strip():
            self.out.block(mark + words.text.strip("\n"), gap=1 if mark else 2)
        for shape in words.shapes:
            self.drawn(shape)

    def drawn(self, shape: Element) -> None:
        """Adds a drawing: the text in it, its charts and diagrams, and its description."""
        copies = {id(node) for copy in shape.iter() if local(copy) == "Fallback" for node in copy.iter()}  # for old programs
        boxes = [node for node in shape.iter() if local(node) == "txbxContent" and id(node) not in copies]
        inner = {id(node) for box in boxes for node in box.iter() if node is not box}
        framed, self.framed = self.framed, True
        for box in boxes:
            if id(box) not in inner:
                self.blocks(box)
        self.framed = framed
        add_drawn(shape, self.archive, self.parts, self.out)
        about = described(shape)
        self.out.block(f"Picture: {about}" if about else "")

    def table(self, element: Element) -> None:
        """Adds a table, a line a row; a table of one cell is but a frame around its paragraphs.

        A cell that is merged stands in each of its rows and columns, so that every row says what it is of.
        """
        nested = {node for table in element.iter() if local(table) == "tbl" and table is not element for node in table.iter()}
        rows = [row for row in element.iter() if local(row) == "tr" and row not in nested]
        cells = [[cell for cell in row.iter() if local(cell) == "tc" and cell not in nested] for row in rows]
        if len(cells) == 1 and len(cells[0]) == 1:
            self.blocks(cells[0][0])
            return
        shapes: list[Element] = []
        table: list[list[str]] = []
        above: list[str] = []
        for row, content in zip(rows, cells, strict=True):
            marks = {local(part) for node in row if local(node) == "trPr" for part in node if is_on(part)}
            if "del" in marks:
                continue
            if "hidden" in marks:
                self.out.hide(" ".join(node.text or "" for node in row.iter() if local(node) == "t"))
                continue
            line = [""] * _skipped(row)
            for cell in content:
                span, follows = _merged(cell)
                text = self.cell(cell, shapes)
                if follows and not text:
                    text = above[len(line)] if len(line) < len(above) else ""
                line += [text] * span
            table.append(line)
            above = line
        self.out.table(_once(line) for line in table)
        for shape in shapes:
            self.drawn(shape)

    def cell(self, cell: Element, shapes: list[Element]) -> str:
        """The words of a cell, its paragraphs and the tables within it one after another."""
        texts = []
        framed, self.framed = self.framed, True
        stack = [*reversed(cell)]
        while stack:
            node = stack.pop()
            if local(node) == "p":  # what is drawn in it is read as a shape
                words, mark, _ = self.words(node)
                texts.append(mark + words.text if words.text.strip() else "")
                shapes += words.shapes
            else:
                stack.extend(reversed(node))
        self.framed = framed
        return " ".join(" ".join(texts).split())

    def inserted(self, element: Element) -> None:
        """Adds a page or a document that was inserted whole (`altChunk`)."""
        _, place = self.parts.get(relation(element, "id"), ("", ""))
        try:
            if self.depth >= _CHUNKS:
                raise Unreadable("documents are nested too deeply")
            _insert(self.archive.read(place), place, self.out, self.depth + 1)
        except Unreadable as error:
            self.out.warnings.append(f"an inserted part was left out ({place.rpartition('/')[2]}): {error}")


def _insert(data: bytes, place: str, out: Writer, depth: int) -> None:
    from llmbench.retrieval.reading.formats import html, mail, rtf
    from llmbench.retrieval.reading.kinds import seen
    from llmbench.retrieval.reading.text import decode

    ending = place.rpartition(".")[2].lower()
    what = seen(data[:1024])
    title, about = out.title, dict(out.metadata)
    if what == "zip":
        read(data, out, depth)
    elif what == "rtf":
        rtf.add(data, out)
    elif ending in ("mht", "mhtml") or data[:13].lower() == b"mime-version:":
        mail.read_page(data, out)
    elif ending in ("htm", "html", "xhtml", "xht") or what == "html":
        html.flow(decode(data, hint=html.declared(data)), out)
    elif ending in ("txt", "text"):
        for block in decode(data).split("\n\n"):
            out.block(block)
    else:
        raise Unreadable(f".{ending[:10]} is not read there")
    out.title, out.metadata = title, about  # those of the whole


def _properties(paragraph: Element) -> tuple[str, int | None, str, int | None, bool]:
    """Style, level of the outline, list and its level, and whether the paragraph's end was deleted."""
    style, outline, number, level, deleted = "", None, "", None, False
    for properties_ in paragraph:
        if local(properties_) != "pPr":
            continue
        for part in properties_:
            match local(part):
                case "pStyle":
                    style = value(part)
                case "outlineLvl" if value(part) in set("0123456789"):
                    outline = (int(value(part)) + 1) % 10
                case "numPr":
                    number = next((value(node) for node in part if local(node) == "numId"), "")
                    deeper = next((value(node) for node in part if local(node) == "ilvl"), "")
                    level = int(deeper) if deeper.isdecimal() else None
                case "rPr":
                    deleted = any(local(node) == "del" for node in part)
    return style, outline, number, level, deleted


def _merged(cell: Element) -> tuple[int, bool]:
    """How many columns a cell spans, and whether it goes on from the row above."""
    span, follows = 1, False
    for properties_ in cell:
        if local(properties_) == "tcPr":
            for part in properties_:
                if local(part) == "gridSpan" and value(part).isdecimal():
                    span = min(max(int(value(part)), 1), 100)
                elif local(part) == "vMerge":
                    follows = value(part) != "restart"
    return span, follows


def _skipped(row: Element) -> int:
    """The columns that a row leaves free on its left."""
    found = (value(part) for node in row if local(node) == "trPr" for part in node if local(part) == "gridBefore")
    count = next(found, "")
    return min(int(count), 100) if count.isdecimal() else 0


def _once(line: Sequence[str]) -> Sequence[str]:
    """A row that is one cell across the whole table says it once."""
    return line[:1] if len(set(line)) == 1 else line
