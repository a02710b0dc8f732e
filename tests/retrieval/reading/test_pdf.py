"""PDF: pages, boxes, rows of tables, divided words, columns, garbage; MSG and DOC, whose container is written here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from fpdf import FPDF

from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading.formats.layout import Piece, rows

from .files import document, saved


def written(path: Path, *pages: Sequence[tuple[float, float, str]]) -> Path:
    """A PDF with texts at places: points from the left and the top to the base line."""
    pdf = FPDF(unit="pt", format="A4")
    pdf.set_font("Helvetica", size=10)
    for page in pages:
        pdf.add_page()
        for left, top, text in page:
            pdf.text(left, top, text)
    pdf.output(str(path))
    return path


def test_each_line_leads_to_its_page_and_box(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pdf", [(50, 100, "Upper line"), (50, 700, "Lower line")], [(300, 400, "Second page")])
    found = document(path)
    assert found.text == "Upper line\n\nLower line\n\nSecond page"
    for words, page, left, base in (("Upper line", 1, 50, 100), ("Lower line", 1, 50, 700), ("Second page", 2, 300, 400)):
        start = found.text.index(words)
        (box,) = found.boxes_of(start, start + len(words))
        assert (box.page, found.page(start)) == (page, page)
        assert found.text[box.start : box.end] == words
        assert abs(box.left - left) < 2
        assert base - 12 < box.top < base < box.bottom + 1 < base + 5


def test_cells_of_a_row_stand_on_one_line_in_whatever_order_they_were_written(tmp_path: Path) -> None:
    cells = [(50, y, name) for y, name in ((100, "Net sales"), (120, "Costs"))]
    figures = [(x, y, f"{x}{y}") for x in (200, 300) for y in (100, 120)]  # column by column
    found = document(written(tmp_path / "a.pdf", cells + figures))
    assert [re.sub(" +", " ", line) for line in found.text.split("\n") if line] == [
        "Net sales 200100 300100",
        "Costs 200120 300120",
    ]


def test_columns_of_prose_are_not_mixed() -> None:
    left = [
        Piece(50, 10 * n, 250, 10 * n + 9, "left column of prose that is long enough to be prose " + str(n)) for n in range(5)
    ]
    right = [
        Piece(300, 10 * n, 500, 10 * n + 9, "right column of prose that is long enough to be prose " + str(n)) for n in range(5)
    ]
    assert [piece.text for piece in rows(left + right)] == [piece.text for piece in left + right]


def test_words_divided_at_line_ends_are_whole(tmp_path: Path) -> None:
    lines = [(50, 100, "The infor-"), (50, 112, "mation is well-"), (50, 124, "known. It is well-known.")]
    assert document(written(tmp_path / "a.pdf", lines)).text == "The information\nis well-known.\nIt is well-known."


def test_title_author_and_bookmarks_are_kept(tmp_path: Path) -> None:
    pdf = FPDF()
    pdf.set_font("Helvetica", size=11)
    pdf.set_title("My report")
    pdf.set_author("Ada")
    for name, level in (("Chapter one", 0), ("Part", 1)):
        pdf.add_page()
        pdf.start_section(name, level=level)
        pdf.cell(text=name)
    pdf.output(str(tmp_path / "a.pdf"))
    found = document(tmp_path / "a.pdf")
    assert [(h.level, h.text) for h in found.headings] == [(1, "Chapter one"), (2, "Part")]
    assert (found.title, found.metadata["author"]) == ("My report", "Ada")


@pytest.mark.parametrize(
    ("given", "expected"), [("0000320193-23-000106", "2023 Q3 ACME"), ("10-Q", "2023 Q3 ACME"), ("年报", "年报")]
)
def test_a_title_that_is_a_number_gives_way_to_the_files_name(tmp_path: Path, given: str, expected: str) -> None:
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("Helvetica", size=11)
    pdf.set_title(given)
    pdf.cell(text="Total net sales fell.")
    pdf.output(str(tmp_path / "2023 Q3 ACME.pdf"))
    assert document(tmp_path / "2023 Q3 ACME.pdf").title == expected


def test_a_page_without_text_is_named(tmp_path: Path) -> None:
    found = document(written(tmp_path / "a.pdf", [(50, 100, "Words")], [], [(50, 100, "More")]))
    assert found.warnings == ("no text on page 2; if that is a scan, it needs OCR",)
    assert found.page(found.text.index("More")) == 3


def test_a_page_of_garbage_is_named(tmp_path: Path) -> None:
    shifted = [(50, 20 * n, "7KH TXLFN EURZQ IRV MXPSV RYHU WKH ODCB GRJ") for n in range(1, 12)]
    found = document(written(tmp_path / "a.pdf", [(50, 100, "Words")], shifted))
    assert found.warnings == ("page 2: 100% of its characters are not text",)


def container(streams: Mapping[str, bytes]) -> bytes:
    """An OLE file (MS-CFB) of 512-byte sectors, streams filled up to 4096 bytes, below which they would be kept elsewhere."""
    streams = {name: data.ljust(4096, b"\0") for name, data in streams.items()}
    sectors: list[bytes] = []
    table: list[int] = []

    def put(data: bytes) -> int:
        first, count = len(sectors), max(1, -(-len(data) // 512))
        for n in range(count):
            sectors.append(data[512 * n : 512 * n + 512].ljust(512, b"\0"))
            table.append(first + n + 1 if n + 1 < count else 0xFFFFFFFE)
        return first

    tops = sorted({name.split("/")[0] for name in streams})
    entries: list[tuple[str, int, int, int, int, int]] = []  # name, type, right, child, start, size
    inner: list[tuple[str, int, int, int, int, int]] = []
    for at, top in enumerate(tops):
        right = at + 2 if at + 1 < len(tops) else 0xFFFFFFFF
        if top in streams:
            entries.append((top, 2, right, 0xFFFFFFFF, put(streams[top]), len(streams[top])))
        else:
            names = sorted(name for name in streams if name.startswith(f"{top}/"))
            base = 1 + len(tops) + len(inner)
            entries.append((top, 1, right, base, 0, 0))
            for n, name in enumerate(names):
                beside = base + n + 1 if n + 1 < len(names) else 0xFFFFFFFF
                inner.append((name.split("/")[1], 2, beside, 0xFFFFFFFF, put(streams[name]), len(streams[name])))
    directory = b""
    for name, kind, right, child, start, size in [("Root Entry", 5, 0xFFFFFFFF, 1, 0xFFFFFFFE, 0), *entries, *inner]:
        encoded = (name + "\0").encode("utf-16-le")
        numbers = b"".join(number.to_bytes(4, "little") for number in (0xFFFFFFFF, right, child))
        directory += encoded.ljust(64, b"\0") + len(encoded).to_bytes(2, "little") + bytes([kind, 1]) + numbers + bytes(36)
        directory += start.to_bytes(4, "little") + size.to_bytes(8, "little")
    first = put(directory)
    sectors.append(b"")
    table.append(0xFFFFFFFD)
    sectors[-1] = b"".join(n.to_bytes(4, "little") for n in table).ljust(512, b"\xff")
    assert len(table) <= 128
    head = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16) + b"\x3e\0\x03\0\xfe\xff\x09\0\x06\0" + bytes(6) + bytes(4)
    words = (1, first, 0, 4096, 0xFFFFFFFE, 0, 0xFFFFFFFE, 0, len(table) - 1)
    head += b"".join(n.to_bytes(4, "little") for n in words) + b"\xff" * 432
    return head + b"".join(sectors)


def test_an_outlook_message_is_read(tmp_path: Path) -> None:
    sent = bytes(32) + (0x00390040).to_bytes(4, "little") + bytes(4) + (133_767_072_000_000_000).to_bytes(8, "little")
    streams = {
        "__properties_version1.0": sent,
        "__substg1.0_0037001F": "Grüße".encode("utf-16-le"),
        "__substg1.0_0C1A001F": "Ada".encode("utf-16-le"),
        "__substg1.0_5D01001F": "ada@example.org".encode("utf-16-le"),
        "__substg1.0_1000001F": "First.\r\n\r\nSecond.".encode("utf-16-le"),
        "__attach_version1.0_#00000000/__substg1.0_3707001F": "plan.pdf".encode("utf-16-le"),
    }
    found = document(saved(tmp_path, "a.msg", container(streams)))
    assert found.text.split("\n\n") == [
        "Grüße",
        "From: Ada <ada@example.org>\nDate: 2024-11-22T00:00:00+00:00",
        "First.",
        "Second.",
        "Attachments: plan.pdf",
    ]
    assert (found.kind, found.title, found.metadata["attachments"]) == ("email", "Grüße", "plan.pdf")


def test_a_word_file_of_old_is_read_by_its_pieces(tmp_path: Path) -> None:
    plain, wide = "Caf\xe9\r\x13 HYPERLINK x \x14link\x15\r".encode("cp1252"), "a\x07b\x07\x07Grüße\r".encode("utf-16-le")
    word = bytearray(0x400)
    word[:2] = (0xA5EC).to_bytes(2, "little")
    word[0x0A:0x0C] = (0x200).to_bytes(2, "little")
    word += plain + wide
    ends = [0, len(plain), len(plain) + len(wide) // 2]
    places = [0x40000000 | (0x400 * 2), 0x400 + len(plain)]
    pieces = b"".join(n.to_bytes(4, "little") for n in ends) + b"".join(
        bytes(2) + p.to_bytes(4, "little") + bytes(2) for p in places
    )
    table = b"\x02" + len(pieces).to_bytes(4, "little") + pieces
    word[0x1A6:0x1AA] = len(table).to_bytes(4, "little")
    found = document(saved(tmp_path, "a.doc", container({"WordDocument": bytes(word), "1Table": table})))
    assert found.text == "Café\n\nlink\n\na | b\nGrüße"
    word[0x0A:0x0C] = (0x300).to_bytes(2, "little")
    with pytest.raises(Unreadable, match="encrypted"):
        document(saved(tmp_path, "b.doc", container({"WordDocument": bytes(word), "1Table": table})))


def test_a_protected_workbook_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="encrypted"):
        document(saved(tmp_path, "a.xlsx", container({"EncryptedPackage": b"x", "EncryptionInfo": b"y"})))
