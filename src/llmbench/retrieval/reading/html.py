"""The visible text of an HTML page: blocks become paragraphs, headings are found, scripts and hidden parts are left out."""

from __future__ import annotations

import re
import warnings
from typing import Any

from llmbench.retrieval.documents import Heading, Unreadable

__all__ = ["visible"]

_SILENT = {
    "title",
    "script",
    "style",
    "noscript",
    "template",
    "head",
    "svg",
    "math",
    "iframe",
    "object",
    "select",
    "button",
    "nav",
}
_BLOCKS = {
    *("address", "article", "aside", "blockquote", "body", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption"),
    *("figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "html", "main", "ol", "p", "pre"),
    *("section", "summary", "table", "ul"),
}  # fmt: skip
_LINES = {"br", "li", "tr", "caption"}
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden")


class _Writer:
    """Joins pieces of text, folding white space as a browser does."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.length = 0
        self._break = 0

    def end(self, lines: int) -> None:
        """At least so many line ends before the next text."""
        self._break = max(self._break, lines)

    def text(self, text: str, keep: bool) -> None:
        """Adds text; `keep` leaves its white space alone."""
        text = text if keep else re.sub(r"\s+", " ", text)
        if not text.strip():
            text = " " if text and not self._break and self.parts and not self.parts[-1].endswith((" ", "\n")) else ""
        elif self._break and self.parts:
            self._strip()
            text = "\n" * self._break + (text if keep else text.lstrip())
        elif not keep and (not self.parts or self.parts[-1].endswith((" ", "\n"))):
            text = text.lstrip()
        if text:
            self._break = 0 if text.strip() else self._break
            self.parts.append(text)
            self.length += len(text)

    def _strip(self) -> None:
        """Takes the spaces off the end of the line."""
        last = self.parts[-1].rstrip(" ")
        self.length -= len(self.parts[-1]) - len(last)
        self.parts[-1] = last


def visible(data: bytes) -> tuple[str, tuple[Heading, ...], str]:
    """The text, its headings, and the page's title (else its first heading, else empty).

    Raises:
        Unreadable: it is binary.
    """
    from bs4 import BeautifulSoup, XMLParsedAsHTMLWarning

    if b"\0" in data and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Unreadable("binary, not HTML")
    warnings.filterwarnings("ignore", category=XMLParsedAsHTMLWarning)  # XHTML is read as a browser reads it, which is meant
    soup = BeautifulSoup(data, "html.parser")
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    text, headings = _flow(soup)
    return text, headings, title or next((h.text for h in headings), "")


def _flow(soup: Any) -> tuple[str, tuple[Heading, ...]]:
    """Walks the tree with a stack of its own, so that no depth of nesting can exhaust Python's."""
    from bs4.element import NavigableString, Tag

    out, headings = _Writer(), []
    open_headings: list[int] = []
    pre = 0
    stack: list[tuple[Any, bool]] = [(soup, False)]
    while stack:
        node, leaving = stack.pop()
        if not isinstance(node, Tag):
            if type(node) is NavigableString:
                out.text(str(node), keep=pre > 0)
            continue
        lines = 2 if node.name in _BLOCKS else 1 if node.name in _LINES else 0
        level = int(node.name[1]) if re.fullmatch(r"h[1-6]", node.name) else 0
        if leaving:
            if level:
                headings += _heading(out, open_headings.pop(), level)
            pre -= node.name == "pre"
            if node.name in ("td", "th"):
                out.text(" ", keep=False)
            out.end(lines)
            continue
        if node.name in _SILENT or node.has_attr("hidden") or _HIDDEN.search(str(node.get("style", ""))):
            continue
        out.end(lines)
        if level:
            open_headings.append(len(out.parts))
        pre += node.name == "pre"
        stack.append((node, True))
        stack.extend((child, False) for child in reversed(node.contents))
    return "".join(out.parts).rstrip(), tuple(headings)


def _heading(out: _Writer, first: int, level: int) -> list[Heading]:
    """The heading whose text began with a certain piece; none when it had no words."""
    text = "".join(out.parts[first:])
    words = " ".join(text.split())
    start = out.length - len(text.lstrip())
    return [Heading(start, start + len(text.strip()), level, words)] if words else []
