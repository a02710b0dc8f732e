"""OpenDocument texts and presentations: headings, lists, tables by rows, slides as pages."""

from __future__ import annotations

from llmbench.retrieval.reading.archive import Archive
from llmbench.retrieval.reading.formats.office import properties
from llmbench.retrieval.reading.writer import Writer
from llmbench.retrieval.reading.xml import Element, local

__all__ = ["read"]

_SKIPPED = {
    "tracked-changes",
    "sequence-decls",
    "forms",
    "scripts",
    "automatic-styles",
    "font-face-decls",
    "annotation",
    "title",
    "desc",
}


def read(data: bytes, out: Writer) -> None:
    """Reads a document."""
    archive = Archive(data)
    if "META-INF/manifest.xml" in archive.names and b"encryption-data" in archive.read("META-INF/manifest.xml"):
        from llmbench.retrieval.documents import LOCKED, Unreadable

        raise Unreadable(LOCKED)
    properties(archive, out, "meta.xml")
    _blocks(archive.tree("content.xml"), out, item=False)
    if not out.title:
        out.title = next((text for _, _, level, text in out.headings if level == 1), "")


def _blocks(parent: Element, out: Writer, *, item: bool) -> None:
    for element in parent:
        match local(element):
            case "h":
                level = element.get("{urn:oasis:names:tc:opendocument:xmlns:text:1.0}outline-level", "1")
                out.heading(_words(element), int(level) if level.isdigit() and 0 < int(level) < 10 else 1)
            case "p":
                words = _words(element)
                out.block(("- " if item and words.strip() else "") + words, gap=1 if item else 2)
                for box in element.iter():
                    if local(box) == "text-box":
                        _blocks(box, out, item=False)
            case "list-item":
                _blocks(element, out, item=True)
            case "table":
                out.table(
                    [_words(cell) for cell in row if local(cell) == "table-cell"]
                    for row in element.iter()
                    if local(row) == "table-row"
                )
            case "page":
                out.page()
                _blocks(element, out, item=False)
            case name if name not in _SKIPPED:
                _blocks(element, out, item=item)


def _words(element: Element) -> str:
    """The text of a paragraph or cell; text boxes in it are left to the caller."""
    parts: list[str] = []
    stack: list[Element | str] = [element]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            parts.append(node)
            continue
        name = local(node)
        if node is not element and (name in _SKIPPED or name == "text-box"):
            continue
        match name:
            case "s":
                parts.append(" ")
            case "tab":
                parts.append("\t")
            case "line-break":
                parts.append("\n")
            case "p" | "note" if parts:
                parts.append(" ")
        parts.append(node.text or "")
        for child in reversed(node):
            stack += [child.tail or "", child]
    return "".join(parts)
