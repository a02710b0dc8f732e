"""OpenDocument texts and presentations: headings and lists with numbers, tables, charts, notes, comments; slides as pages."""

from __future__ import annotations

from collections.abc import Iterable

from llmbench.retrieval.documents import LOCKED, Unreadable
from llmbench.retrieval.reading.archive import Archive
from llmbench.retrieval.reading.formats.odf_lists import Lists, value
from llmbench.retrieval.reading.formats.office import properties
from llmbench.retrieval.reading.writer import Writer
from llmbench.retrieval.reading.xml import Element, local

__all__ = ["chart", "read"]

_SKIPPED = {
    *(
        "tracked-changes",
        "sequence-decls",
        "forms",
        "scripts",
        "automatic-styles",
        "font-face-decls",
        "title",
        "desc",
        "number",
    ),
    *("annotation-end", "hidden-text", "hidden-paragraph", "settings", "user-field-decls", "variable-decls"),
}
_APART = {"annotation", "note", "frame", "text-box"}
"""What stands in a paragraph and is read after it."""
_FURNITURE = {"page", "page-number", "date-time", "footer", "header"}
"""Frames of a slide that hold its number, the date and the like."""
_KINDS = {"bar": "Bar chart", "line": "Line chart", "circle": "Pie chart", "ring": "Doughnut chart", "area": "Area chart",
          "scatter": "Scatter chart", "radar": "Radar chart", "stock": "Stock chart", "bubble": "Bubble chart"}  # fmt: skip


def read(data: bytes, out: Writer) -> None:
    """Reads a document."""
    archive = Archive(data)
    if "META-INF/manifest.xml" in archive.names and b"encryption-data" in archive.read("META-INF/manifest.xml"):
        raise Unreadable(LOCKED)
    properties(archive, out, "meta.xml")
    content = archive.tree("content.xml")
    styles = archive.tree("styles.xml") if "styles.xml" in archive.names else None
    reader = _Reader(archive, out, content, styles)
    for name in ("header", "footer"):
        if name == "footer":
            reader.blocks(content)
        for node in styles.iter() if styles is not None else ():
            if local(node) == name:
                reader.furniture = True
                reader.blocks(node)
                reader.furniture = False
    for note in reader.notes:
        out.block(note)
    if not out.title:
        out.title = next((text for _, _, level, text in out.headings if level == 1), "")


class _Reader:
    def __init__(self, archive: Archive, out: Writer, content: Element, styles: Element | None) -> None:
        self.archive, self.out = archive, out
        self.lists = Lists(content, styles)
        self.hidden: set[str] = set()
        self.unshown: set[str] = set()
        self.titles = {"Title"}
        self.notes: list[str] = []
        self.furniture = False
        for style in (node for tree in (styles, content) if tree is not None for node in tree.iter() if local(node) == "style"):
            if value(style, "parent-style-name") in self.titles:
                self.titles.add(value(style, "name"))
            for part in style:
                if local(part) == "text-properties" and value(part, "display") == "none":
                    self.hidden.add(value(style, "name"))
                elif local(part) == "drawing-page-properties" and value(part, "visibility") == "hidden":
                    self.unshown.add(value(style, "name"))

    def blocks(self, parent: Iterable[Element], mark: str = "") -> None:
        """Adds what is in an element, in order; `mark` is the number or bullet of its first paragraph."""
        for element in parent:
            match local(element):
                case "h" | "p":
                    self.paragraph(element, mark)
                    mark = ""
                case "list":
                    self.list(element)
                case "table":
                    self.table(element)
                case "page":
                    self.slide(element)
                case "frame":
                    self.frame(element)
                case "annotation":
                    self.aside(element)
                case "section" if value(element, "display") == "none":
                    self.out.hide(self.words(element))
                case "header" | "footer" | "header-left" | "footer-left" if not self.furniture:
                    continue
                case name if name not in _SKIPPED:
                    self.blocks(element, mark)

    def paragraph(self, element: Element, mark: str) -> None:
        """Adds a heading or a paragraph, then what is anchored in it."""
        words = self.words(element)
        level = value(element, "outline-level") or "1"
        if local(element) == "h" and words.strip():
            mark = mark if mark and mark != "- " else self.lists.outline(element, int(level) if level.isdecimal() else 1)
            self.out.heading(mark + words, int(level) if level.isdecimal() and 0 < int(level) < 10 else 1)
        elif value(element, "style-name") in self.titles and not mark and not self.furniture:
            self.out.heading(words, 1)
        else:
            self.out.block(mark + words if words.strip() else "", gap=1 if mark else 2)
        self.anchored(element)

    def anchored(self, element: Element) -> None:
        """Adds the frames, notes and comments that stand in a paragraph."""
        stack = [*reversed(element)]
        while stack:
            node = stack.pop()
            match local(node):
                case "frame":
                    self.frame(node)
                case "text-box":
                    self.blocks(node)
                case "annotation" | "note":
                    self.aside(node)
                case _:
                    stack.extend(reversed(node))

    def list(self, element: Element) -> None:
        """Adds a list; the first paragraph of each item bears its number."""
        self.lists.enter(element)
        for item in element:
            if local(item) in ("list-item", "list-header"):
                numbered = local(item) == "list-item" and next((local(node) for node in item), "") not in ("list", "")
                self.blocks(item, self.lists.next(item) if numbered else "")
        self.lists.leave()

    def frame(self, element: Element) -> None:
        """Adds what a frame holds: text, a table, a chart, an equation, or the description of a picture."""
        if value(element, "class") in _FURNITURE:
            return
        about = next((" ".join("".join(node.itertext()).split()) for node in element if local(node) == "desc"), "")
        about = about or next((" ".join("".join(node.itertext()).split()) for node in element if local(node) == "title"), "")
        for node in element:
            match local(node):
                case "object":
                    self.object(node)
                case name if name not in _SKIPPED and name != "image":
                    self.blocks(node if name == "text-box" else [node])
        self.out.block(f"Picture: {about}" if " " in about else "")

    def object(self, element: Element) -> None:
        """Adds a chart or an equation, which is a document of its own in the file."""
        name = f"{value(element, 'href').removeprefix('./')}/content.xml"
        try:
            tree = self.archive.tree(name) if name in self.archive.names else element
            chart(tree, self.out)
        except Unreadable as error:
            self.out.warnings.append(f"an object was left out ({name[:60]}): {error}")

    def aside(self, element: Element) -> None:
        """Keeps a note or a comment for the end."""
        if local(element) == "note":
            words = " ".join(self.words(body) for body in element if local(body) == "note-body")
        else:
            words = " ".join(self.words(part) for part in element if local(part) in ("p", "list"))
            who = next(("".join(part.itertext()) for part in element if local(part) == "creator"), "")
            words = f"Comment{f' by {who}' if who else ''}: {words}" if words.strip() else ""
        if words.strip():
            self.notes.append(words.strip())

    def slide(self, element: Element) -> None:
        """Adds a slide: its title, what is on it, and its notes."""
        self.out.page()
        if value(element, "style-name") in self.unshown:
            self.out.warnings.append(f"slide {len(self.out.pages)} is hidden in the slide show, but was read")
        titles = [frame for frame in element if value(frame, "class") == "title"]
        words = [self.words(part) for frame in titles for part in frame if local(part) == "text-box"]
        self.out.heading(" ".join(words) if any(words) else value(element, "name"), 1)
        self.blocks([shape for shape in element if shape not in titles])

    def table(self, element: Element) -> None:
        """Adds a table; a merged cell stands in each of its rows and columns, one across the whole table once."""
        waiting: dict[int, tuple[int, str]] = {}
        lines: list[list[str]] = []
        for row in _rows(element):
            line: list[str] = []
            for cell in row:
                times = min(_count(cell, "number-columns-repeated"), 100)
                if local(cell) == "covered-table-cell":
                    for _ in range(times):
                        left, text = waiting.get(len(line), (0, ""))
                        waiting[len(line)] = left - 1, text
                        line.append(text if left > 0 else "")
                elif local(cell) == "table-cell":
                    text = self.words(cell)
                    down, across = _count(cell, "number-rows-spanned"), _count(cell, "number-columns-spanned")
                    for at in range(len(line), len(line) + min(across, 100)):
                        waiting[at] = (down - 1 if at == len(line) else down), text
                    line += [text] * (times if len(cell) else 1)
            lines.append(line[:1] if len(set(line)) == 1 else line)
        self.out.table(lines)
        for cell in (cell for row in _rows(element) for cell in row):
            self.anchored(cell)

    def words(self, element: Element) -> str:
        """The text of a paragraph or cell; what is anchored in it is left to the caller."""
        parts: list[str] = []
        stack: list[tuple[Element | str, bool]] = [(element, False)]
        hidden: list[str] = []
        while stack:
            node, unseen = stack.pop()
            if isinstance(node, str):
                (hidden if unseen else parts).append(node)
                continue
            name = local(node)
            if node is not element and (name in _SKIPPED or name in _APART):
                continue
            if self.furniture and name in ("page-number", "page-count"):
                continue
            match name:
                case "s":
                    parts.append(" " * min(_count(node, "c"), 100))
                case "tab":
                    parts.append("\t")
                case "line-break":
                    parts.append("\n")
                case "p" | "h" if parts:
                    parts.append(" ")
            own = unseen or value(node, "style-name") in self.hidden
            (hidden if own else parts).append(node.text or "")
            for child in reversed(node):
                stack += [(child.tail or "", own), (child, own)]
        self.out.hide("".join(hidden))
        return "".join(parts)


def chart(tree: Element, out: Writer) -> None:
    """Adds a chart: its title, its kind and its table; or an equation as it was typed."""
    found = next((node for node in tree.iter() if local(node) == "chart" and value(node, "class")), None)
    if found is None:
        typed = next((node for node in tree.iter() if local(node) == "annotation"), None)
        math = typed if typed is not None else next((node for node in tree.iter() if local(node) == "math"), None)
        out.block(" ".join("".join(math.itertext()).split()) if math is not None else "")
        return
    title = next((" ".join("".join(node.itertext()).split()) for node in found if local(node) == "title"), "")
    kind = _KINDS.get(value(found, "class").rpartition(":")[2], "")
    out.block("\n".join(filter(None, (title, kind))))
    for table in (node for node in found.iter() if local(node) == "table"):
        rows = ([" ".join("".join(cell.itertext()).split()) for cell in row if "cell" in local(cell)] for row in _rows(table))
        out.table([_figure(cell) for cell in row] for row in rows)


def _figure(text: str) -> str:
    """A number without what counting in twos adds, and nothing for none."""
    try:
        number = float(text)
    except ValueError:
        return text
    return "" if number != number else f"{number:.12g}" if len(text) > 12 else text


def _rows(table: Element) -> list[Element]:
    """The rows of a table, also those of its head, without those of the tables within it."""
    found: list[Element] = []
    stack = [*reversed(table)]
    while stack:
        node = stack.pop()
        if local(node) == "table-row":
            found.append(node)
        elif local(node) != "table":
            stack.extend(reversed(node))
    return found


def _count(element: Element, name: str) -> int:
    text = value(element, name)
    return max(int(text), 1) if text.isdecimal() and len(text) < 9 else 1
