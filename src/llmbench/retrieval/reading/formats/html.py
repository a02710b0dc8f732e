"""The visible text of an HTML page: blocks become paragraphs, headings are found, scripts and hidden parts are left out."""

from __future__ import annotations

import re
from typing import Any

from llmbench.retrieval.reading.text import decode
from llmbench.retrieval.reading.writer import Writer

__all__ = ["flow", "read"]

_SILENT = {
    *("title", "script", "style", "noscript", "template", "head", "svg", "math", "iframe", "object", "select", "button", "nav"),
    *("audio", "video", "canvas", "datalist"),
}
_BLOCKS = {
    *("address", "article", "aside", "blockquote", "body", "center", "dd", "details", "dialog", "div", "dl", "dt", "fieldset"),
    *("figcaption", "figure", "footer", "form", "header", "hr", "html", "main", "ol", "p", "section", "summary", "table", "ul"),
}
_LINES = {"br", "li", "caption", "option"}
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d])", re.IGNORECASE)
_CHARSET = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{2,40})|<\?xml[^>]{0,100}?encoding=["']([\w.:-]{2,40})""", re.I
)
_TEXT, _ELEMENT = "-text", 1


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
    for name, field in (("author", "author"), ("date", "created"), ("description", "description")):
        meta = tree.css_first(f'meta[name="{name}" i]')
        if meta is not None and field not in out.metadata:
            out.about(**{field: meta.attributes.get("content") or ""})
    root = tree.root
    if root is not None:
        _Walk(out).run(root)
    if not out.title and out.headings:
        out.title = out.headings[0][3]


class _Walk:
    """Goes through the tree with a stack of its own, so that no depth of nesting can exhaust Python's."""

    def __init__(self, out: Writer) -> None:
        self.out = out
        self.inline: list[str] = []
        self.gap = 2
        self.rows: list[list[str]] = []  # of the tables around, innermost last: the open row's cells
        self.pre = 0

    def run(self, root: Any) -> None:
        stack: list[tuple[Any, bool]] = [(root, False)]
        while stack:
            node, leaving = stack.pop()
            if leaving:
                self.leave(node.tag)
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
        """Opens an element; False where it is not shown."""
        tag = node.tag
        if tag in _SILENT or tag.startswith(("-", "!", "_")):
            return False
        attributes = node.attributes
        if attributes.get("role") in ("navigation", "search", "menu"):
            return False
        if "hidden" in attributes or (attributes.get("aria-hidden") == "true" and tag != "span"):
            return False
        style = attributes.get("style")
        if style and _HIDDEN.search(style):
            return False
        if tag == "tr":
            self.flush(1)
            self.rows.append([])
        elif tag in ("td", "th"):
            if not self.rows:
                self.flush(2)
        elif tag == "pre":
            self.flush(2)
            self.pre += 1
        elif self.rows:
            if tag in _BLOCKS or tag in _LINES:
                self.inline.append(" ")
        elif tag in _BLOCKS or tag in _LINES or re.fullmatch("h[1-6]", tag):
            self.flush(1 if tag in _LINES else 2)
        return True

    def leave(self, tag: str) -> None:
        """Closes it."""
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append(" ".join("".join(self.inline).split()))
            self.inline = []
        elif tag == "tr":
            rest = " ".join("".join(self.inline).split())
            cells = [cell for cell in [*self.rows.pop(), rest] if cell] if self.rows else [rest]
            self.inline = []
            if self.rows:  # a table within a cell: its rows are part of that cell
                self.inline.append(" ".join(cells) + " ")
            elif cells:
                self.inline = [" | ".join(cells)]
                self.flush(1)
        elif tag == "pre":
            self.flush(2)
            self.pre -= 1
        elif self.rows:
            if tag in _BLOCKS or tag in _LINES:
                self.inline.append(" ")
        elif re.fullmatch("h[1-6]", tag):
            text = " ".join("".join(self.inline).split())
            self.inline = []
            self.out.heading(text, int(tag[1]))
            self.gap = 2
        elif tag in _BLOCKS or tag in _LINES:
            self.flush(1 if tag in _LINES else 2)

    def flush(self, gap: int) -> None:
        """Writes what has gathered as a block; `gap` line ends at least before the next."""
        text = "".join(self.inline)
        self.inline = []
        start, end = self.out.block(text, gap=self.gap, keep=self.pre > 0)
        self.gap = gap if end > start else max(self.gap, gap)
