"""What was filled into a form of Adobe's XML kind (XFA), whose page often says no more than "please wait"."""

from __future__ import annotations

import ctypes
from typing import Any

from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading import xml

__all__ = ["filled"]

LARGEST = 8 * 2**20
"""Bytes of a form's values."""


def filled(document: Any, known: str) -> list[str]:
    """The values as `name: value`, in the form's order; those whose words are `known` already are left out.

    Args:
        document: pypdfium2's document.
        known: the text of the pages, which have the values of a form that is kept in both ways.
    """
    data = _packet(document, "datasets")
    if not data:
        return []
    try:
        root = xml.tree(data)
    except Unreadable:  # a broken form is no reason to lose the pages
        return []
    said = " ".join(known.split())
    found: list[str] = []
    for node in root.iter():
        value = " ".join((node.text or "").split())
        if value and not len(node) and value not in said:
            found.append(f"{xml.local(node)}: {value}")
    return list(dict.fromkeys(found))


def _packet(document: Any, wanted: str) -> bytes:
    """One of the parts that such a form is made of; empty where there is none."""
    import pypdfium2.raw as pdfium

    size = ctypes.c_ulong()
    for at in range(max(0, pdfium.FPDF_GetXFAPacketCount(document.raw))):
        name = ctypes.create_string_buffer(64)
        pdfium.FPDF_GetXFAPacketName(document.raw, at, name, 64)
        if name.value.decode("latin-1") != wanted:
            continue
        if pdfium.FPDF_GetXFAPacketContent(document.raw, at, None, 0, size) and 0 < size.value <= LARGEST:
            content = ctypes.create_string_buffer(size.value)
            if pdfium.FPDF_GetXFAPacketContent(document.raw, at, content, size.value, size):
                return content.raw
    return b""
