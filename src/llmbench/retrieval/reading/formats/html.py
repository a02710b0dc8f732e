"""The visible text of an HTML page: blocks become paragraphs, headings are found, scripts and hidden parts are left out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from llmbench.retrieval.reading.formats.mathml import formula
from llmbench.retrieval.reading.formats.numbering import ordinal
from llmbench.retrieval.reading.formats.styles import Styles
from llmbench.retrieval.reading.text import decode
from llmbench.retrieval.reading.writer import Writer

__all__ = ["flow", "read"]

_SILENT = {
    *("title", "script", "style", "noscript", "template", "head", "iframe", "object", "nav", "audio", "video", "canvas"),
    *("datalist", "rp", "defs", "symbol", "metadata"),
}
_BLOCKS = {
    *("address", "article", "aside", "blockquote", "body", "center", "dd", "details", "dialog", "div", "dl", "dt", "fieldset"),
    *("figcaption", "figure", "footer", "form", "header", "hr", "html", "main", "ol", "p", "section", "summary", "table", "ul"),
    *("legend", "optgroup"),
}
_LINES = {"br", "li", "caption", "option"}
_INLINE = {"p", "li", "td", "th", "a", "span", "label", "dd", "dt", "em", "strong", "b", "i", "button", "h1", "h2", "h3", "h4"}
"""Where a picture stands among words."""
CHOICES = 30
"""Entries of a list to choose from that are all taken; of a longer one only those that are chosen."""
SPANNED = 1000
"""Rows that one cell may span, as in browsers' own bounds."""
_CHARSET = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{2,40})|<\?xml[^>]{0,100}?encoding=["']([\w.:-]{2,40})""", re.I
)
_POWER = re.compile(r"\s*[-+\u2212]?\d{1,3}\s*")
_TEXT = "-text"


def read(data: bytes, out: Writer) -> None:
    """Reads a page."""
    flow(decode(data, hint=declared(data)), out)


def declared(data: bytes) -> str:
    """The encoding that the page claims, if any."""
    found = _CHARSET.search(data[:4096])
    return (found[1] or found[2]).decode("ascii") if found else ""


def flow(markup: str, out: Writer) -> None:
    """Adds a page's text to the writer, and its title where that has none yet."""
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(markup)
    title = tree.css_first("head > title")
    if title is not None and not out.title:
        out.title = " ".join((title.text() or "").split())
    for name, metadata in (("author", "author"), ("date", "created"), ("description", "description")):
        meta = tree.css_first(f'meta[name="{name}" i]')
        if meta is not None and metadata not in out.metadata:
            out.about(**{metadata: meta.attributes.get("content") or ""})
    root = tree.root
    if root is not None:
        _Walk(out, Styles(tree)).run(root)
    if not out.title and out.headings:
        out.title = out.headings[0][3]


@dataclass
class _Table:
    """An open table: the cells of its open row, and what hangs over from the rows above, by column."""

    cells: list[str] = field(default_factory=list)
    column: int = 0
    hanging: dict[int, tuple[int, str]] = field(default_factory=dict)
    before: list[list[str]] = field(default_factory=list)  # the text around each open cell

    def hang(self) -> None:
        """Takes the cells that reach down from above where the row has come to."""
        while self.column in self.hanging:
            rows, text = self.hanging.pop(self.column)
            self.cells.append(text)
            if rows > 1:
                self.hanging[-1 - self.column] = (rows - 1, text)  # kept aside until the row ends
            self.column += 1

    def end(self) -> list[str]:
        """The cells of the row, which is closed."""
        while any(at >= self.column for at in self.hanging):
            self.column = min(at for at in self.hanging if at >= self.column)
            self.hang()
        self.hanging = {-1 - at if at < 0 else at: entry for at, entry in self.hanging.items()}
        cells, self.cells, self.column = self.cells, [], 0
        return [cell for cell in cells if cell]


class _Walk:
    """Goes through the tree with a stack of its own, so that no depth of nesting can exhaust Python's."""

    def __init__(self, out: Writer, styles: Styles) -> None:
        self.out, self.styles = out, styles
        self.inline: list[str] = []
        self.gap = 2
        self.tables: list[_Table] = []
        self.lists: list[int | None] = []  # the next number of the lists around, innermost last; None has bullets
        self.readings: list[list[str]] = []  # of the ruby around
        self.behind = ["" if styles.linked else "ffffff"]  # the colours of the backgrounds around
        self.pre = 0

    def run(self, root: Any) -> None:
        stack: list[tuple[Any, bool]] = [(root, False)]
        while stack:
            node, leaving = stack.pop()
            if leaving:
                self.behind.pop()
                self.leave(node)
                continue
            if node.tag == _TEXT:
                text = node.text_content or ""
                self.inline.append(text if self.pre else re.sub(r"\s+", " ", text))
                continue
            if not self.enter(node):
                continue
            stack.append((node, True))
            child = node.last_child
            while child is not None:
                stack.append((child, False))
                child = child.prev
        self.flush(2)

    def enter(self, node: Any) -> bool:
        """Opens an element; False where it is not shown, or where all of it is taken already."""
        tag = node.tag
        if tag in _SILENT or tag.startswith(("-", "!", "_")):
            return False
        attributes = node.attributes
        if attributes.get("role") in ("navigation", "search", "menu") or not self.shown(node, attributes):
            return False
        match tag:
            case "img" | "area":
                self.picture(node, attributes)
                return False
            case "math":
                self.inline.append(formula(node))
                self.behind.pop()
                return False
            case "input":
                self.filled(attributes)
                return False
            case "select":
                self.choices(node)
                return False
            case "svg":
                self.inline.append(" ")
            case "tspan" | "desc":
                self.inline.append(" ")
            case "sup" if self.inline and _POWER.fullmatch(node.text() or "") and self.inline[-1][-1:].strip():
                self.inline.append("^")  # 10 to the sixth is not 106
            case "ruby":
                self.readings.append([])
            case "rt":
                self.inline.append("\0")  # where a reading begins; it is taken out when the element ends
            case "ol":
                start = str(attributes.get("start") or "1")
                self.open_block(tag)
                self.lists.append(int(start) if re.fullmatch(r"-?\d{1,6}", start) else 1)
            case "ul" | "menu":
                self.open_block("ul")
                self.lists.append(None)
            case "li":
                self.open_block(tag)
                self.number(node, attributes)
            case _:
                self.open_block(tag)
        return True

    def shown(self, node: Any, attributes: Any) -> bool:
        """Whether an element is seen; what a style sheet or colours hide is noted. Remembers the colour behind it."""
        tag = node.tag
        if "hidden" in attributes or (attributes.get("aria-hidden") == "true" and tag not in ("span", "i", "math", "svg")):
            return False
        style = attributes.get("style")
        found = self.styles.of(node, style)
        around = self.behind[-1]
        why = self.styles.hides(found, around) if found else ""
        if why:
            plain = why == "not displayed" and style is not None and self.styles.hides(self.styles.own(style), around) == why
            if not plain:  # a page's own `style="display: none"` is how it is built
                self.out.hide(node.text() or "", why)
            return False
        if tag not in ("img", "area", "input", "select"):
            self.behind.append(self.styles.behind(found, around) if found else around)
        return True

    def open_block(self, tag: str) -> None:
        """Begins a block, a line, a table or one of its parts."""
        if tag == "table":
            if self.tables:
                self.inline.append(" ")
            else:
                self.flush(2)
            self.tables.append(_Table())
        elif tag in ("td", "th") and self.tables:
            table = self.tables[-1]
            table.hang()
            table.before.append(self.inline)
            self.inline = []
        elif tag == "pre" and not self.tables:
            self.flush(2)
            self.pre += 1
        elif self.tables:
            if tag in _BLOCKS or tag in _LINES or tag == "pre":
                self.inline.append(" ")
        elif tag in _BLOCKS or tag in _LINES or re.fullmatch("h[1-6]", tag):
            self.flush(1 if tag in _LINES else 2)

    def leave(self, node: Any) -> None:
        """Closes it."""
        tag = node.tag
        if tag in ("ol", "ul", "menu") and self.lists:
            self.lists.pop()
        if tag in ("abbr", "acronym", "dfn") and (meant := " ".join((node.attributes.get("title") or "").split())):
            if meant not in (node.text() or "") and len(meant) < 100:
                self.inline.append(f" ({meant})")
        elif tag == "rt" and self.readings:
            at = next((n for n in range(len(self.inline) - 1, -1, -1) if self.inline[n] == "\0"), None)
            if at is not None:  # a block within it is a paragraph, and ended it
                self.readings[-1].append("".join(self.inline[at + 1 :]).strip())
                del self.inline[at:]
        elif tag == "ruby":
            reading = "".join(self.readings.pop())
            self.inline.append(f"({reading})" if reading else "")
        elif tag in ("td", "th") and self.tables:
            self.close_cell(node)
        elif tag == "tr" and self.tables:
            self.close_row()
        elif tag == "table" and self.tables:
            self.tables.pop()
            if self.tables:
                self.inline.append(" ")
            else:
                self.flush(2)
        elif tag == "pre" and not self.tables:
            self.flush(2)
            self.pre -= 1
        elif self.tables:
            if tag == "caption" and len(self.tables) == 1:
                self.flush(1)
            elif tag in _BLOCKS or tag in _LINES or tag == "pre":
                self.inline.append(" ")
        elif re.fullmatch("h[1-6]", tag):
            text = " ".join("".join(self.inline).split())
            self.inline = []
            self.out.heading(text, int(tag[1]))
            self.gap = 2
        elif tag in _BLOCKS or tag in _LINES:
            self.flush(1 if tag in _LINES else 2)

    def close_cell(self, node: Any) -> None:
        """A cell goes into its row, and into those that it spans."""
        table = self.tables[-1]
        text = " ".join("".join(self.inline).split())
        self.inline = table.before.pop() if table.before else []
        table.cells.append(text)
        rows, columns = (_count(node.attributes.get(name)) for name in ("rowspan", "colspan"))
        for at in range(min(columns, 100)):
            if rows != 1:
                table.hanging[-1 - table.column] = ((rows or SPANNED) - 1, text if at == 0 else "")
            table.column += 1

    def close_row(self) -> None:
        """A row is a line; that of a table within a cell is a part of the cell."""
        cells = self.tables[-1].end()
        if len(self.tables) > 1:
            self.inline.append(" ".join(cells) + " ")
        elif cells:
            self.inline = [" | ".join(cells)]
            self.flush(1)

    def number(self, node: Any, attributes: Any) -> None:
        """The number of an item that has one."""
        if not self.lists or self.lists[-1] is None:
            return
        own = attributes.get("value") or ""
        number = int(own) if re.fullmatch(r"-?\d{1,6}", own) else self.lists[-1]
        around = node.parent.attributes if node.parent is not None else {}
        self.lists[-1] = number + (-1 if "reversed" in around else 1)
        self.inline.append(f"{ordinal(number, around.get('type') or '1')}. ")

    def picture(self, node: Any, attributes: Any) -> None:
        """What is said of a picture, where that is more than a name: on a line of its own, or among the words around it."""
        text = " ".join((attributes.get("alt") or "").split())
        if len(text.split()) < 2:
            return
        parent = node.parent.tag if node.parent is not None else ""
        if self.tables or parent in _INLINE:
            among = any(part.strip() for part in reversed(self.inline))  # nearly always the last one
            self.inline.append(f"({text})" if among else f"Picture: {text}")
        else:
            self.flush(2)
            self.inline = [f"Picture: {text}"]
            self.flush(2)

    def filled(self, attributes: Any) -> None:
        """What a field of a form shows: its value, or else the words that ask for one."""
        kind = (attributes.get("type") or "text").lower()
        if kind in ("checkbox", "radio"):
            self.inline.append("[x] " if "checked" in attributes else "")
        elif kind not in ("hidden", "password", "file", "image", "color", "range"):
            asked = attributes.get("placeholder") or ""
            text = attributes.get("value") or (asked if len(asked.split()) > 1 else "")
            self.inline.append(f" {text} ")

    def choices(self, node: Any) -> None:
        """The entries of a list to choose from, a line each."""
        options = [(option, " ".join((option.text() or "").split())) for option in node.css("option")]
        if len(options) > CHOICES:
            options = [entry for entry in options if "selected" in entry[0].attributes]
        words = [text for _, text in options if text]
        if self.tables or not words:
            self.inline.append(" " + "; ".join(words) + " ")
            return
        self.flush(1)
        for text in words:
            self.inline = [text]
            self.flush(1)

    def flush(self, gap: int) -> None:
        """Writes what has gathered as a block; `gap` line ends at least before the next."""
        text = "".join(self.inline).replace("\0", "")
        self.inline = []
        start, end = self.out.block(text, gap=self.gap, keep=self.pre > 0)
        self.gap = gap if end > start else max(self.gap, gap)


def _count(value: str | None) -> int:
    """How many rows or columns a cell spans; 0 is all that are left."""
    return min(int(value), SPANNED) if value and re.fullmatch(r"\s*\d{1,5}\s*", value) else 1
