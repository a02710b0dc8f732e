"""Word's binary format: headings by styles."""

from __future__ import annotations

import struct
from pathlib import Path

from .files import document, ole, saved

OUTLINE = struct.pack("<HB", 0x2640, 4)  # a paragraph's own level, counted from 0


def style(kind: int, base: int, properties: bytes = b"") -> bytes:
    """A paragraph style (STD): its name is `s`."""
    own = struct.pack("<HH", 2 + len(properties), 0) + properties
    std = struct.pack("<HHHHH", kind, 1 | base << 4, 1, 0, 0) + struct.pack("<HHH", 1, ord("s"), 0) + own
    return struct.pack("<H", len(std)) + std + bytes(len(std) % 2)


def word(paragraphs: list[tuple[str, int, bytes]], sheet: list[bytes]) -> dict[str, bytes]:
    """The streams of a file: paragraphs with their style's number and properties of their own."""
    text, starts = b"", []
    for words, _, _ in paragraphs:
        starts.append(0x600 + len(text))
        text += f"{words}\r".encode("utf-16-le")
    page, free = bytearray(512), 508
    page[511] = len(paragraphs)
    struct.pack_into(f"<{len(starts) + 1}I", page, 0, *starts, 0x600 + len(text))
    for n, (_, number, more) in enumerate(paragraphs):
        properties = struct.pack("<H", number) + more
        properties += bytes(1 - len(properties) % 2)  # the size is told in words, less one byte
        free -= 1 + len(properties) + (1 + len(properties)) % 2
        page[4 * (len(paragraphs) + 1) + 13 * n] = free // 2
        page[free : free + 1 + len(properties)] = bytes([(len(properties) + 1) // 2]) + properties
    head = bytearray(0x400)
    struct.pack_into("<H", head, 0, 0xA5EC)
    struct.pack_into("<H", head, 0x0A, 0x200)
    parts = {
        1: struct.pack("<HHH", 4, len(sheet), 10) + b"".join(sheet),
        13: struct.pack("<III", starts[0], 0x600 + len(text), 2),
        33: b"\x02" + struct.pack("<IIIHIH", 16, 0, len(text) // 2, 0, 0x600, 0),
    }
    table = b""
    for number, part in parts.items():
        struct.pack_into("<II", head, 0x9A + 8 * number, len(table), len(part))
        table += part
    return {"WordDocument": bytes(head + page) + text, "1Table": table}


def test_paragraphs_are_headings_by_their_style_or_their_own_level(tmp_path: Path) -> None:
    sheet = [style(0, 0xFFF), style(1, 0), style(0xFFE, 1), style(0xFFE, 0, OUTLINE), style(62, 0)]
    streams = word(
        [("Rules of the harbour", 4, b""), ("Moorings", 1, b""), ("Nine berths are let.", 0, b""), ("Kappa", 2, b""),
         ("Deep", 3, b""), ("Own", 0, OUTLINE), ("Text by its own word", 1, struct.pack("<HB", 0x2640, 9))],
        sheet,
    )  # fmt: skip
    found = document(saved(tmp_path, "a.doc", ole(streams)))
    assert [(heading.level, heading.text) for heading in found.headings] == [
        (1, "Rules of the harbour"), (1, "Moorings"), (1, "Kappa"), (5, "Deep"), (5, "Own"),
    ]  # fmt: skip
    assert all(found.text[heading.start : heading.end] == heading.text for heading in found.headings)
    assert found.text.endswith("Text by its own word")


def test_a_broken_style_sheet_costs_the_headings_and_not_the_text(tmp_path: Path) -> None:
    streams = word([("Moorings", 1, b""), ("Nine berths are let.", 0, b"")], [style(0, 0xFFF), style(1, 0)])
    whole = streams["WordDocument"]
    for spoiled in (bytes(512), b"\xff" * 512):
        streams["WordDocument"] = whole[:0x400] + spoiled + whole[0x600:]
        assert document(saved(tmp_path, "a.doc", ole(streams))).text == "Moorings\n\nNine berths are let."
