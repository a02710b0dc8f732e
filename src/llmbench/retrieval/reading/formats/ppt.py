"""PowerPoint's binary format (.ppt) of 1997 to 2003: slides as pages, their titles as headings, notes, comments (MS-PPT)."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmbench.retrieval.documents import LOCKED, Unreadable
from llmbench.retrieval.reading.formats.doc import decoded
from llmbench.retrieval.reading.writer import Writer

__all__ = ["read"]

_ENCRYPTED = 0xF3D1C4DF  # headerToken of the Current User stream
_EDIT, _DIRECTORY, _LIST, _ENTRY = 0x0FF5, 0x1772, 0x0FF0, 0x03F3  # UserEditAtom, PersistDirectoryAtom, SlideListWithText(s)
_HEADER, _WIDE, _NARROW = 0x0F9F, 0x0FA0, 0x0FA8  # TextHeaderAtom, TextCharsAtom, TextBytesAtom
_STRING, _BLOB, _COMMENT, _ABOUT = 0x0FBA, 0x138B, 0x2EE0, 0x03EF  # CString, BinaryTagDataBlob, Comment10Container, SlideAtom
_GROUP, _SHAPE = 0xF003, 0xF004  # OfficeArtSpgrContainer, OfficeArtSpContainer
_TITLES = (0, 6)
_NO_CONTENT = (7, 8, 9, 10)
"""Placeholders whose text is not the slide's: the date, its number, footer and header."""
_BAND = 48
"""Of 576 in an inch: shapes whose upper edges are less apart stand side by side."""
DEEPEST = 24
"""Records within one another."""
EDITS = 10_000
"""Times that a file was saved quickly, at most."""


def read(data: bytes, out: Writer) -> None:
    """Reads a presentation as it was when it was last saved.

    Raises:
        Unreadable: encrypted or broken.
    """
    import olefile

    with olefile.OleFileIO(io.BytesIO(data)) as ole:
        user = ole.openstream("Current User").read()
        whole = ole.openstream("PowerPoint Document").read()
        about: Any = ole.get_metadata()
        out.title = decoded(about.title)
        created = about.create_time
        out.about(author=decoded(about.author), created=created.isoformat() if created else "")
    if int.from_bytes(user[12:16], "little") == _ENCRYPTED:
        raise Unreadable(LOCKED)
    try:
        places, document = _directory(whole, int.from_bytes(user[16:20], "little"))
        slides, notes = _lists(whole, _record(whole, places[document]))
    except (KeyError, struct.error):
        raise Unreadable("broken PowerPoint file (it has no list of slides)") from None
    of_notes = {entry.identity: entry for entry in notes}
    for slide in slides:
        out.page()
        try:
            _slide(whole, places, slide, of_notes, out)
        except (KeyError, struct.error):
            out.unread.append(len(out.pages))
            out.warnings.append(f"slide {len(out.pages)}: broken")
    if not out.title and out.headings:
        out.title = out.headings[0][3]


@dataclass(frozen=True)
class _Record:
    """A record of the stream, by the places where its content begins and ends."""

    kind: int
    instance: int
    start: int
    end: int
    holds: bool


@dataclass(frozen=True)
class _Entry:
    """A slide, or its notes, in the document's list: by which number it is stored and called, and its texts of the outline."""

    number: int
    identity: int
    texts: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Shape:
    """The texts of a shape or a group: the kind of each (0 and 6 are titles) and its words."""

    top: int
    left: int
    texts: Sequence[tuple[int, str]]

    @property
    def title(self) -> bool:
        return any(kind in _TITLES for kind, _ in self.texts)


def _record(whole: bytes, at: int) -> _Record:
    first, kind, length = struct.unpack_from("<HHI", whole, at)
    return _Record(kind, first >> 4, at + 8, min(at + 8 + length, len(whole)), first & 0xF == 0xF)


def _inside(whole: bytes, outer: _Record) -> Iterator[_Record]:
    """The records directly within one."""
    at = outer.start
    while at + 8 <= outer.end:
        found = _record(whole, at)
        yield found
        at = found.end if found.end > at else outer.end


def _deep(whole: bytes, outer: _Record, depth: int = 0) -> Iterator[_Record]:
    """All records within one, in order."""
    for found in _inside(whole, outer):
        yield found
        if (found.holds or found.kind == _BLOB) and depth < DEEPEST:
            yield from _deep(whole, found, depth + 1)


def _directory(whole: bytes, edit: int) -> tuple[dict[int, int], int]:
    """Where what is stored under each number lies, newest first, and the number of the document itself."""
    places: dict[int, int] = {}
    document = -1
    for _ in range(EDITS):
        found = _record(whole, edit)
        if found.kind != _EDIT:
            raise KeyError(edit)
        before, directory, number = struct.unpack_from("<III", whole, found.start + 8)
        document = number if document < 0 else document
        listed = _record(whole, directory)
        at = listed.start
        while listed.kind == _DIRECTORY and at + 4 <= listed.end:
            head = _number(whole, at)
            first, count = head & 0xFFFFF, head >> 20
            for n, place in enumerate(struct.unpack_from(f"<{count}I", whole, at + 4)):
                places.setdefault(first + n, place)
            at += 4 + 4 * count
        if not before or before >= edit:
            break
        edit = before
    return places, document


def _lists(whole: bytes, document: _Record) -> tuple[list[_Entry], list[_Entry]]:
    """The document's slides and its notes, in order."""
    found: dict[int, list[_Entry]] = {0: [], 2: []}
    for part in _inside(whole, document):
        if part.kind != _LIST or part.instance not in found:
            continue
        entries, kind = found[part.instance], 1
        for each in _inside(whole, part):
            if each.kind == _ENTRY:
                number, _, _, identity = struct.unpack_from("<IIII", whole, each.start)
                entries.append(_Entry(number, identity))
            elif each.kind == _HEADER:
                kind = _number(whole, each.start)
                if entries:
                    entries[-1].texts.append((kind, ""))
            elif each.kind in (_WIDE, _NARROW) and entries and entries[-1].texts:
                entries[-1].texts[-1] = (kind, _words(whole, each))
    return found[0], found[2]


def _slide(whole: bytes, places: dict[int, int], entry: _Entry, notes: dict[int, _Entry], out: Writer) -> None:
    slide = _record(whole, places[entry.number])
    shapes = _shapes(whole, slide, entry.texts)
    for shape in shapes or [_Shape(0, 0, [text]) for text in entry.texts]:
        for kind, words in shape.texts:
            out.heading(words, 1) if kind in _TITLES else out.block(words)
    about = next((part for part in _inside(whole, slide) if part.kind == _ABOUT), None)
    if about is not None and (own := notes.get(_number(whole, about.start + 16))):
        for shape in _shapes(whole, _record(whole, places[own.number]), own.texts):
            for _, words in shape.texts:
                out.block(words)
    for part in _deep(whole, slide):
        if part.kind == _COMMENT:
            said = [_words(whole, each) for each in _inside(whole, part) if each.kind == _STRING and each.instance == 1]
            out.block(f"Comment: {said[0]}" if said and said[0].strip() else "")


def _shapes(whole: bytes, slide: _Record, outline: Sequence[tuple[int, str]]) -> list[_Shape]:
    """The shapes of a slide that have words: the title first, the others from top to bottom, side by side from the left."""
    top = next((part for part in _deep(whole, slide) if part.kind == _GROUP), None)
    if top is None:
        return []
    found = [_shape(whole, part, outline) for part in _inside(whole, top) if part.kind in (_GROUP, _SHAPE)]
    return sorted((shape for shape in found if shape.texts), key=lambda s: (not s.title, s.top // _BAND, s.left))


def _shape(whole: bytes, shape: _Record, outline: Sequence[tuple[int, str]]) -> _Shape:
    texts: list[tuple[int, str]] = []
    places: list[tuple[int, int]] = []  # of each text, within its group
    place, top, left, kind, placeholder = (0, 0), -1, -1, -1, 0
    for part in _deep(whole, shape):
        before = len(texts)
        match part.kind:
            case 0xF004:  # OfficeArtSpContainer
                placeholder = 0
            case 0xF00F if part.end - part.start == 16:  # OfficeArtChildAnchor
                across, down, *_ = struct.unpack_from("<4i", whole, part.start)
                place = down, across
            case 0xF010 if top < 0 and part.end - part.start in (8, 16):  # OfficeArtClientAnchor
                top, left, *_ = struct.unpack_from("<4h" if part.end - part.start == 8 else "<4i", whole, part.start)
            case 0x0BC3:  # PlaceholderAtom
                placeholder = whole[part.start + 4] if part.end > part.start + 4 else 0
            case _ if placeholder in _NO_CONTENT:
                continue
            case 0x0F9F:  # TextHeaderAtom
                kind = _number(whole, part.start)
            case 0x0FA0 | 0x0FA8:  # TextCharsAtom, TextBytesAtom
                texts.append((kind, _words(whole, part)))
            case 0x0F9E:  # OutlineTextRefAtom
                at = _number(whole, part.start)
                texts += outline[at : at + 1]
        places += [place] * (len(texts) - before)
    told = [(kind, words) for kind, words in texts if words.strip()]
    if shape.kind == _GROUP and (rows := _rows(places, [words for _, words in texts])):
        told = [(kind, rows)]
    return _Shape(top, left, told)


def _rows(places: Sequence[tuple[int, int]], texts: Sequence[str]) -> str:
    """The rows of a table, which is a group of shapes in rows and columns; nothing where a group is none."""
    rows: dict[int, dict[int, str]] = {}
    for (top, left), words in zip(places, texts, strict=True):
        rows.setdefault(top, {})[left] = " ".join(words.split())
    columns = sorted({left for row in rows.values() for left in row})
    if len(rows) < 2 or len(columns) < 2 or 2 * sum(map(len, rows.values())) < len(rows) * len(columns) + 2:
        return ""
    return "\n".join(" | ".join(row.get(left, "") for left in columns).rstrip(" |") for _, row in sorted(rows.items()))


def _number(whole: bytes, at: int) -> int:
    return int.from_bytes(whole[at : at + 4], "little")


def _words(whole: bytes, record: _Record) -> str:
    """The text of a record: UTF-16, or its lower bytes alone."""
    raw = whole[record.start : record.end]
    text = raw.decode("latin-1") if record.kind == _NARROW else raw.decode("utf-16-le", "replace")
    return re.sub("[\x00-\x08\x0e-\x1f]", "", text.replace("\r", "\n").replace("\x0b", "\n"))
