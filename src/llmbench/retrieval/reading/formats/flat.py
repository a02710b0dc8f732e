"""OpenDocument in one XML file (FODT, FODP, FODS): packed as the others are, so that one reader reads both."""

from __future__ import annotations

import io
import re
import zipfile
from xml.etree import ElementTree

from llmbench.retrieval.reading import xml

__all__ = ["kind_of_flat", "packed"]

_KIND = re.compile(rb'office:mimetype="application/vnd\.oasis\.opendocument\.(text|presentation|spreadsheet)')
_KINDS = {b"text": "odt", b"presentation": "odp", b"spreadsheet": "xlsx"}
_NAMESPACES = ("office", "table", "text", "style", "meta", "drawing:draw", "presentation", "chart", "datastyle:number")
for _each in _NAMESPACES:  # the reader of sheets knows elements by their usual prefixes
    ElementTree.register_namespace(
        _each.rpartition(":")[2], f"urn:oasis:names:tc:opendocument:xmlns:{_each.partition(':')[0]}:1.0"
    )
_WRITTEN = {"p", "h", "span", "a", "s"}
_HREF = "{http://www.w3.org/1999/xlink}href"


def kind_of_flat(data: bytes) -> str:
    """`odt`, `odp` or `xlsx` where the file is OpenDocument as one XML file; else empty."""
    found = _KIND.search(data[:8192])
    return _KINDS[found[1]] if found and b"<office:document" in data[:8192] else ""


def packed(data: bytes) -> bytes:
    """The same as a zip archive: contents, styles and metadata apart, charts as parts of their own, without pictures."""
    root = xml.tree(data)
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", next(value for key, value in root.attrib.items() if key.endswith("}mimetype")))
        archive.writestr("META-INF/manifest.xml", '<manifest xmlns="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0"/>')
        for number, node in enumerate(list(root.iter()), 1):
            if xml.local(node) not in _WRITTEN:  # blanks between elements stop the reader of sheets
                node.text = node.text if node.text and node.text.strip() else None
                for inner in node:
                    inner.tail = inner.tail if inner.tail and inner.tail.strip() else None
            for inner in list(node):
                if xml.local(inner) == "binary-data":
                    node.remove(inner)
                elif xml.local(node) == "object" and xml.local(inner) == "document":
                    node.remove(inner)
                    node.set(_HREF, f"./Object {number}")
                    archive.writestr(f"Object {number}/content.xml", ElementTree.tostring(inner))
        for name, kept in (
            ("content.xml", ("automatic-styles", "body")),
            ("styles.xml", ("styles", "automatic-styles", "master-styles")),
            ("meta.xml", ("meta",)),
        ):
            part = ElementTree.Element(root.tag, dict(root.attrib))
            part.extend(node for node in root if xml.local(node) in kept)
            archive.writestr(name, ElementTree.tostring(part))
    return memory.getvalue()
