"""PowerPoint's binary format, written record by record."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from llmbench.retrieval.documents import Unreadable

from .files import document, ole, saved


def record(kind: int, *content: bytes, holds: bool = False, instance: int = 0) -> bytes:
    body = b"".join(content)
    return struct.pack("<HHI", instance << 4 | (0xF if holds else 0), kind, len(body)) + body


def words(kind: int, text: str) -> bytes:
    narrow = text.isascii()
    return record(0x0F9F, struct.pack("<I", kind)) + record(
        0x0FA8 if narrow else 0x0FA0, text.encode("latin-1" if narrow else "utf-16-le")
    )


def shape(top: int, left: int, *texts: bytes, placeholder: int = 0, within: bool = False) -> bytes:
    data = record(0xF011, record(0x0BC3, struct.pack("<IBBH", 0, placeholder, 0, 0)), holds=True) if placeholder else b""
    box = record(0xF00D, *texts, holds=True)
    place = record(0xF010, struct.pack("<4h", top, left, left + 9, top + 9))
    if within:
        place = record(0xF00F, struct.pack("<4i", left, top, left + 9, top + 9))
    return record(0xF004, place, data, box, holds=True)


def page(kind: int, *shapes: bytes, notes: int = 0, more: bytes = b"") -> bytes:
    about = record(0x03EF, struct.pack("<I8sII", 0, bytes(8), 0, notes))
    drawing = record(0x040C, record(0xF002, record(0xF003, *shapes, holds=True), holds=True), holds=True)
    return record(kind, about, drawing, more, holds=True)


def listed(instance: int, *entries: tuple[int, int, bytes]) -> bytes:
    content = [record(0x03F3, struct.pack("<5I", number, 0, 1, identity, 0)) + texts for number, identity, texts in entries]
    return record(0x0FF0, *content, holds=True, instance=instance)


def presentation(*, token: int = 0xE391C05F) -> dict[str, bytes]:
    """Two slides, of which the first was saved twice; notes, a comment, a footer and a group."""
    group = record(0xF003, shape(400, 10, words(4, "Inner quay")), shape(420, 10, words(4, "Outer quay")), holds=True)
    said = record(0x2EE0, *(record(0x0FBA, text.encode("utf-16-le"), instance=n) for n, text in enumerate(("Ada", "Too long"))),
                  holds=True)  # fmt: skip
    comment = record(0x1388, record(0x138A, record(0x138B, said), holds=True), holds=True)
    cells = [("Berth", 0, 0), ("9", 10, 5), ("Length", 0, 5), ("Inner", 10, 0)]
    table = [shape(top, left, words(4, text), within=True) for text, top, left in cells]
    first = page(
        0x03EE,
        group,
        record(0xF003, shape(600, 10), *table, holds=True),
        shape(300, 500, words(4, "right")),
        shape(310, 10, record(0x0F9E, struct.pack("<I", 1))),
        shape(100, 10, record(0x0F9E, struct.pack("<I", 0)), placeholder=0x0D),
        shape(900, 10, words(4, "Harbour office, confidential"), placeholder=9),
        notes=256,
        more=comment,
    )
    outline = words(0, "Gr\u00fc\u00dfe aus \u0141\u00f3d\u017a") + words(1, "left\rsecond point")
    main = record(
        0x03E8, listed(0, (2, 300, outline), (3, 301, words(0, "Fees") + words(1, "Forty crowns"))), listed(2, (4, 256, b"")),
        holds=True,
    )  # fmt: skip
    old = page(0x03EE, shape(1, 1, words(0, "A title of yesterday")))
    second = record(0x03EE, record(0x03EF, bytes(24)), holds=True)  # nothing drawn: the outline tells its words
    notes = page(0x03F0, shape(9, 9, words(2, "Mention the strike.")))
    parts, places, stream = [main, old, second, notes], [], b""
    for part in parts:
        places.append(len(stream))
        stream += part

    def edit(before: int, first_number: int, offsets: list[int]) -> tuple[bytes, int]:
        directory = record(0x1772, struct.pack(f"<{len(offsets) + 1}I", first_number | len(offsets) << 20, *offsets))
        at = len(stream)
        saved_edit = record(0x0FF5, struct.pack("<IIIII8s", 0, 0, before, at, 1, bytes(8)))
        return directory + saved_edit, at + len(directory)

    more, at = edit(0, 1, places)
    stream += more
    place = len(stream)
    stream += first
    more, at = edit(at, 2, [place])
    stream += more
    user = record(0x0FF6, struct.pack("<III", 20, token, at))
    return {"Current User": user, "PowerPoint Document": stream}


def test_slides_are_read_as_they_were_last_saved(tmp_path: Path) -> None:
    found = document(saved(tmp_path, "a.ppt", ole(presentation())))
    assert found.text.split("\n\n") == [
        "Grüße aus Łódź", "left\nsecond point", "right", "Inner quay", "Outer quay", "Berth | Length\nInner | 9",
        "Mention the strike.", "Comment: Too long", "Fees", "Forty crowns",
    ]  # fmt: skip
    assert [(heading.level, heading.text) for heading in found.headings] == [(1, "Grüße aus Łódź"), (1, "Fees")]
    assert (found.title, len(found.pages), found.page(found.text.index("Forty"))) == ("Grüße aus Łódź", 2, 2)


def test_encrypted_and_broken_presentations_are_told(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="encrypted"):
        document(saved(tmp_path, "a.ppt", ole(presentation(token=0xF3D1C4DF))))
    streams = presentation()
    with pytest.raises(Unreadable, match="broken PowerPoint file"):
        document(saved(tmp_path, "b.ppt", ole({**streams, "PowerPoint Document": streams["PowerPoint Document"][:-9]})))
