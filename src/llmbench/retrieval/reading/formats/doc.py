"""Word's binary format (.doc) of 1997 to 2003: its text, by the piece table (MS-DOC 2.4.1)."""

from __future__ import annotations

import io
import re
from typing import Any

from llmbench.retrieval.documents import LOCKED, Unreadable
from llmbench.retrieval.reading.formats.doc_styles import Styles, styles
from llmbench.retrieval.reading.writer import Writer

__all__ = ["read"]

_MAGIC = 0xA5EC
LONGEST = 500
"""Characters of a heading at most; a longer paragraph has its style by mistake."""
_LEVEL = "\x10"
"""Before the end of a heading, once for each level: no sign of Word's."""
_FIELD = re.compile("\x13[^\x13\x14\x15]*\x14?([^\x13\x14\x15]*)\x15")


def read(data: bytes, out: Writer) -> None:
    """Reads the text, a paragraph a block; those that are headings by their style are headings."""
    import olefile

    with olefile.OleFileIO(io.BytesIO(data)) as ole:
        word = ole.openstream("WordDocument").read()
        if len(word) < 0x1AA or int.from_bytes(word[:2], "little") != _MAGIC:
            raise Unreadable("a Word file from before 1997, or broken; save it as DOCX")
        flags = int.from_bytes(word[0x0A:0x0C], "little")
        if flags & 0x100:
            raise Unreadable(LOCKED)
        table = ole.openstream("1Table" if flags & 0x200 else "0Table").read()
        about: Any = ole.get_metadata()
        title, author, created = about.title, about.author, about.create_time
    text = _text(word, table, styles(word, table))
    out.title = decoded(title)
    out.about(author=decoded(author), created=created.isoformat() if created else "")
    while (plain := _FIELD.sub(r"\1", text)) != text:  # fields: code, divider, what they show
        text = plain
    text = re.sub("\x07\x07", "\n", text.replace("\r\x07", "\x07")).replace("\x07", " | ")
    for block in re.split("[\r\x0c]", text.replace("\x0b", "\n").replace("\x1e", "-").replace("\x1f", "")):
        words, level = re.sub("[\x00-\x08\x0e-\x1f]", "", block), block.count(_LEVEL)
        if level and len(words) < LONGEST:
            out.heading(words, level)
        else:
            out.block(words)


def decoded(value: object) -> str:
    """A property of the file as text."""
    return value.decode("cp1252", "replace") if isinstance(value, bytes) else ""


def _text(word: bytes, table: bytes, looks: Styles) -> str:
    """Puts the pieces together: each is UTF-16, or Windows-1252 where bit 30 of its place is set. Headings are marked."""
    at, length = (int.from_bytes(word[place : place + 4], "little") for place in (0x1A2, 0x1A6))
    clx = table[at : at + length]
    cursor = 0
    while cursor < len(clx) and clx[cursor] == 1:  # formats that pieces refer to
        cursor += 3 + int.from_bytes(clx[cursor + 1 : cursor + 3], "little")
    if cursor >= len(clx) or clx[cursor] != 2:
        raise Unreadable("broken Word file (it has no piece table)")
    size = int.from_bytes(clx[cursor + 1 : cursor + 5], "little")
    plc = clx[cursor + 5 : cursor + 5 + size]
    count = (len(plc) - 4) // 12
    ends = [int.from_bytes(plc[4 * n : 4 * n + 4], "little") for n in range(count + 1)]
    parts = []
    for n in range(count):
        place = int.from_bytes(plc[4 * (count + 1) + 8 * n + 2 : 4 * (count + 1) + 8 * n + 6], "little")
        characters = max(0, ends[n + 1] - ends[n])
        if place & 0x40000000:
            start = (place & 0x3FFFFFFF) // 2
            parts.append(_marked(word[start : start + characters].decode("cp1252", "replace"), start, 1, looks))
        else:
            parts.append(_marked(word[place : place + 2 * characters].decode("utf-16-le", "replace"), place, 2, looks))
    return "".join(parts)


def _marked(text: str, start: int, width: int, looks: Styles) -> str:
    """A piece that begins at a byte of the main stream, `width` bytes a character, with its headings marked at their ends."""
    paragraphs = text.replace(_LEVEL, "").split("\r") if "\r" in text else [text]
    for n, paragraph in enumerate(paragraphs[:-1]):
        start += width * len(paragraph)
        paragraphs[n] += _LEVEL * looks.level(start)
        start += width
    return "\r".join(paragraphs)
