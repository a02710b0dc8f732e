"""EPUB: the chapters in the order of the book's spine."""

from __future__ import annotations

import posixpath
from urllib.parse import unquote

from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading.archive import Archive
from llmbench.retrieval.reading.formats import html
from llmbench.retrieval.reading.formats.office import properties
from llmbench.retrieval.reading.text import decode
from llmbench.retrieval.reading.writer import Writer
from llmbench.retrieval.reading.xml import local

__all__ = ["read"]


def read(data: bytes, out: Writer) -> None:
    """Reads a book."""
    archive = Archive(data)
    if "META-INF/encryption.xml" in archive.names and b"EncryptedKey" in archive.read("META-INF/encryption.xml"):
        raise Unreadable("encrypted: the file is copy-protected")
    container = archive.tree("META-INF/container.xml")
    package = next((node.get("full-path", "") for node in container.iter() if local(node) == "rootfile"), "")
    properties(archive, out, package)
    tree = archive.tree(package)
    folder = posixpath.dirname(package)
    items = {node.get("id", ""): node for node in tree.iter() if local(node) == "item"}
    spine = [node.get("idref", "") for node in tree.iter() if local(node) == "itemref"]
    missing = 0
    for identity in spine:
        item = items.get(identity)
        if item is None or "nav" in item.get("properties", "").split():
            continue
        name = posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))
        if name not in archive.names:
            missing += 1
        elif "html" in item.get("media-type", "html"):
            chapter = archive.read(name)
            html.flow(decode(chapter, hint=html.declared(chapter)), out)
    if missing:
        out.warnings.append(f"{missing} of {len(spine)} chapters are missing in the file")
