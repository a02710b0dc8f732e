"""What DOCX, PPTX and XLSX share: relations between parts, and the properties of the document."""

from __future__ import annotations

import posixpath

from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading.archive import Archive
from llmbench.retrieval.reading.writer import Writer
from llmbench.retrieval.reading.xml import local

__all__ = ["main_part", "properties", "relations"]

_PROPERTIES = {
    "title": "title", "creator": "author", "created": "created", "modified": "modified", "subject": "subject",
    "keywords": "keywords", "language": "language", "initial-creator": "author", "creation-date": "created", "date": "modified",
}  # fmt: skip


def relations(archive: Archive, part: str) -> dict[str, tuple[str, str]]:
    """The parts that one part names: id -> (end of the relation's type, name in the archive)."""
    folder, name = posixpath.split(part)
    path = posixpath.join(folder, "_rels", f"{name}.rels")
    if path not in archive.names:
        return {}
    found = {}
    for relation in archive.tree(path):
        target = relation.get("Target", "")
        if relation.get("TargetMode") != "External":
            place = target.lstrip("/") if target.startswith("/") else posixpath.normpath(posixpath.join(folder, target))
            found[relation.get("Id", "")] = (relation.get("Type", "").rpartition("/")[2], place)
    return found


def main_part(archive: Archive, usual: str) -> str:
    """The name of the main part, which need not be the usual one."""
    named = [place for kind, place in relations(archive, "").values() if kind == "officeDocument"]
    return next((name for name in [*named, usual] if name in archive.names), usual)


def properties(archive: Archive, out: Writer, part: str = "docProps/core.xml") -> None:
    """Title, author and dates; broken ones are no reason to lose the text."""
    if part not in archive.names:
        return
    try:
        elements = list(archive.tree(part).iter())
    except Unreadable:
        return
    found: dict[str, str] = {}
    for element in elements:
        field = _PROPERTIES.get(local(element))
        if field and (element.text or "").strip():
            found.setdefault(field, (element.text or "").strip())
    out.title = out.title or found.pop("title", "")
    out.about(**found)
