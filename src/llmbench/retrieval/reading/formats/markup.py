"""XML as readable text: what elements say, and the values that they keep in attributes."""

from __future__ import annotations

import re

from llmbench.retrieval.reading import xml
from llmbench.retrieval.reading.formats import html
from llmbench.retrieval.reading.text import decode
from llmbench.retrieval.reading.writer import Writer

__all__ = ["read"]

_TECHNICAL = re.compile(r"id|idref|.*(?:Ref|ID|Id)|class|style|schemaLocation|xmlns|decimals|scale|format|sign|dtd.*|space")
"""Attributes that tie elements together or style them, and say nothing to a reader."""
_SECTIONS = {
    *("sec", "section", "chapter", "part", "appendix", "div", "div1", "div2", "div3", "sect1", "sect2", "sect3", "sect4"),
    *("preface", "article", "book", "abstract", "ack", "ref-list", "body", "front", "topic", "concept", "task", "reference"),
    *("article-meta", "title-group", "conbody", "taskbody", "refbody", "info", "bookinfo", "articleinfo", "front-stub"),
}
_TITLES = {"title", "article-title", "head", "heading"}
_PROSE = {"p", "para", "simpara", "paragraph", "v", "subtitle"}


def read(data: bytes, out: Writer) -> None:
    """Adds the text of the elements: `name: text` for a leaf, attributes beside it; of prose its headings and paragraphs."""
    # UTF-16 is decoded here: such files often say that they are UTF-8.
    try:
        if b"\0" in data[:200]:
            root = xml.tree(decode(data).encode(), encoding="utf-8", entities=True)
        else:
            root = xml.tree(data, entities=True)
    except xml.Broken as error:
        _mended(data, str(error), out)
        return
    if xml.local(root) == "html":
        html.read(data, out)
        return
    _Walk(out, _is_prose(root)).run(root)
    if not out.title:
        title = next((node.text for node in root.iter() if xml.local(node) in ("title", "article-title") and node.text), "")
        out.title = title or ""


def _mended(data: bytes, fault: str, out: Writer) -> None:
    """Adds the words between the tags of what is not well-formed; text without tags as it is."""
    text = decode(data, hint=html.declared(data))
    if text.lstrip("\ufeff \t\r\n").startswith("<"):
        if re.search(r"<!ENTITY[^>]*(?:SYSTEM|PUBLIC|&)", text[:100_000]) and "NDATA" not in text[:100_000]:
            raise xml.Broken(fault)
        text = re.sub(r"<!DOCTYPE[^>\[]*(?:\[.*?\]\s*)?>|<\?.*?\?>", "", text, flags=re.DOTALL)
        text = re.sub(r"<(/?)(?:title|head|select|nav|button|object|math|noscript)\b", r"<\1p", text)
        html.flow(re.sub(r"(</[^>]*>|/>)", r"\1 ", text), out)
    else:
        out.block(text, keep=True)
    if not out.length:
        raise xml.Broken(fault)
    out.warnings.append(f"{fault}; read as text without its tags")


def _is_prose(root: xml.Element) -> bool:
    """Whether it is a text with sections and paragraphs (JATS, DocBook, DITA, TEI, FictionBook), not a record of values."""
    names = [xml.local(node) for node, _ in zip(root.iter(), range(5000), strict=False)]
    return sum(name in _PROSE for name in names) >= 2 and any(name in _SECTIONS for name in names)


class _Walk:
    """Goes through the tree with a stack of its own."""

    def __init__(self, out: Writer, prose: bool) -> None:
        self.out, self.prose = out, prose

    def run(self, root: xml.Element) -> None:
        """Adds everything under an element."""
        stack: list[tuple[xml.Element, int]] = [(root, 0)]
        while stack:
            node, depth = stack.pop()
            children = list(node)
            name = xml.local(node)
            if self.prose and self.prosaic(node, name, depth):
                continue
            words = (node.text or "").strip()
            if children and not words and not any((child.tail or "").strip() for child in children):
                held = _values(node)
                if len(children) > 1 and self.out.length and not self.prose:
                    self.out.put("\n")
                if held:
                    self.out.block(f"{name} {held}", gap=1)
                inner = depth + (name in _SECTIONS)
                stack += [(child, inner) for child in reversed(children)]
            else:
                self.leaf(node, name)

    def prosaic(self, node: xml.Element, name: str, depth: int) -> bool:
        """Adds a heading, a paragraph or a table of a text; False where it is none of these."""
        match name:
            case _ if name in _TITLES and depth:
                self.out.heading(_words(node), min(depth, 6))
            case _ if name in _PROSE:
                self.out.block(_words(node))
            case "table" | "tgroup" | "informaltable" if any(xml.local(row) in ("tr", "row") for row in node.iter()):
                rows = (row for row in node.iter() if xml.local(row) in ("tr", "row"))
                self.out.table([_words(cell) for cell in row if xml.local(cell) in ("td", "th", "entry")] for row in rows)
            case _:
                return False
        return True

    def leaf(self, node: xml.Element, name: str) -> None:
        """Adds an element that holds text, or only values."""
        words, held = _words(node), _values(node)
        if words and held:
            self.out.block(f"{name}: {words} ({held})", gap=1)
        elif words or held:
            self.out.block(f"{name}: {words}" if words else f"{name} {held}", gap=1)


def _words(node: xml.Element) -> str:
    words = "".join(node.itertext()).strip()
    if "<" in words and ">" in words:  # feeds carry HTML as text
        from selectolax.lexbor import LexborHTMLParser

        words = LexborHTMLParser(words).text(separator=" ") or ""
    return " ".join(words.split())


def _values(node: xml.Element) -> str:
    """The attributes of an element that say something: `number: KX-7719; name: Bilge pump`."""
    found = ((name, " ".join(value.split())) for name, value in node.attrib.items() if not name.startswith("{"))
    return "; ".join(f"{name}: {value}" for name, value in found if value and not _TECHNICAL.fullmatch(name))
