# ruff: noqa: RUF001 (letters that look alike are what is tested)
"""Every format, from files that are written here: text, headings, tables, pages, metadata."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .files import document, docx, epub, odt, paragraph, pptx, saved, shape, xlsx


def test_docx_gives_headings_lists_tables_boxes_and_notes_and_leaves_out_what_was_deleted(tmp_path: Path) -> None:
    box = "<w:r><w:pict><w:txbxContent>" + paragraph("in a box") + "</w:txbxContent></w:pict></w:r>"
    cell = "<w:tc>{}</w:tc>".format
    table = (
        "<w:tbl><w:tr>"
        + cell(paragraph("a"))
        + cell(paragraph("b"))
        + "</w:tr><w:tr>"
        + cell(paragraph("c"))
        + "</w:tr></w:tbl>"
    )
    deleted = "<w:p><w:del><w:r><w:delText>gone</w:delText></w:r></w:del><w:ins><w:r><w:t>new</w:t></w:r></w:ins></w:p>"
    field = "<w:p><w:r><w:instrText>PAGE</w:instrText></w:r><w:r><w:t>page 7</w:t></w:r></w:p>"
    control = "<w:sdt><w:sdtContent>" + paragraph("controlled") + "</w:sdtContent></w:sdt>"
    w = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    notes = f"<w:footnotes {w}><w:footnote>{paragraph('a note')}</w:footnote></w:footnotes>"
    body = paragraph("First", "berschrift1") + paragraph("Second", "Mine") + paragraph("Text.", more=box)
    path = saved(tmp_path, "a.docx", docx(body + table + deleted + field + control, footnotes=notes))
    found = document(path)
    assert found.text.split("\n\n") == [
        "First",
        "Second",
        "Text.",
        "in a box",
        "a | b\nc",
        "new",
        "page 7",
        "controlled",
        "a note",
    ]
    assert [(h.level, h.text) for h in found.headings] == [(1, "First"), (1, "Second")]
    assert all(found.text[h.start : h.end] == h.text for h in found.headings)
    assert (found.title, found.kind) == ("The plan", "docx")
    assert found.metadata == {"author": "Ada", "created": "2026-01-02T00:00:00Z"}


def test_pptx_slides_are_pages_and_their_shapes_are_read_from_top_to_bottom(tmp_path: Path) -> None:
    table = (
        "<p:graphicFrame><a:graphic><a:tbl><a:tr><a:tc><a:txBody><a:p><a:r><a:t>x</a:t></a:r></a:p></a:txBody></a:tc>"
        "<a:tc><a:txBody><a:p><a:r><a:t>y</a:t></a:r></a:p></a:txBody></a:tc></a:tr></a:tbl></a:graphic></p:graphicFrame>"
    )
    first = (
        shape("below", top=5_000_000)
        + shape("right", top=1_000_000, left=9)
        + shape("left", top=1_000_001)
        + shape("7", "sldNum")
    )
    path = saved(tmp_path, "a.pptx", pptx(first + shape("Title one", "title", top=9_000_000), shape("Two", "ctrTitle") + table))
    found = document(path)
    assert found.text.split("\n\n") == ["Title one", "left", "right", "below", "Two", "x | y"]
    assert [found.page(found.text.index(word)) for word in ("Title", "below", "Two", "x |")] == [1, 1, 2, 2]
    assert [h.text for h in found.headings] == ["Title one", "Two"]


def test_rows_of_a_workbook_say_what_their_cells_are(tmp_path: Path) -> None:
    rows: list[list[str | float]] = [["League table"], [], ["Team", "Wins", "Share"], ["Reds", 3, 0.5], ["Blues", 12.0, ""]]
    found = document(saved(tmp_path, "a.xlsx", xlsx(rows)))
    assert found.text == "Teams\n\nLeague table\n\nTeam: Reds; Wins: 3; Share: 0.5\nTeam: Blues; Wins: 12"
    assert [h.text for h in found.headings] == ["Teams"]


@pytest.mark.parametrize("divider", [",", ";", "\t", "|"])
def test_rows_of_a_csv_file_lead_back_to_their_lines(tmp_path: Path, divider: str) -> None:
    lines = [["Team", "City"], ["Reds", '"a\nb"'], ["Blues", "Graz"]]
    found = document(saved(tmp_path, "a.csv", "\n".join(divider.join(row) for row in lines).encode("utf-16")))
    assert found.text == "Team: Reds; City: a b\nTeam: Blues; City: Graz"
    assert [found.line(found.text.index(word)) for word in ("Reds", "Blues")] == [2, 4]


def test_epub_chapters_come_in_the_order_of_the_spine(tmp_path: Path) -> None:
    found = document(
        saved(tmp_path, "a.epub", epub("<html><body><h2>Second</h2></body></html>", "<html><h1>First</h1><p>x</p></html>"))
    )
    assert found.text == "First\n\nx\n\nSecond"
    assert [(h.level, h.text) for h in found.headings] == [(1, "First"), (2, "Second")]
    assert (found.title, found.metadata["author"]) == ("A book", "Bo")


def test_odt_gives_headings_lists_and_tables(tmp_path: Path) -> None:
    cells = "".join(f"<table:table-cell><text:p>{c}</text:p></table:table-cell>" for c in "ab")
    body = (
        '<text:h text:outline-level="2">Head</text:h><text:p>One<text:s/>two<text:line-break/>three</text:p>'
        "<text:list><text:list-item><text:p>item</text:p></text:list-item></text:list>"
        f"<text:tracked-changes><text:p>gone</text:p></text:tracked-changes><table:table><table:table-row>{cells}</table:table-row></table:table>"
    )
    found = document(saved(tmp_path, "a.odt", odt(body)))
    assert found.text == "Head\n\nOne two\nthree\n- item\n\na | b"
    assert [(h.level, h.text) for h in found.headings] == [(2, "Head")]


def test_rtf_reads_code_pages_unicode_and_tables(tmp_path: Path) -> None:
    data = (
        rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204 Times;}}{\info{\title My title}{\author Ada}}"
        rb"{\*\generator Word;}{\mmathPr\mmathFont0}Caf\'e9 \u8364?5\par{\f1 \'cf\'f0\'e8} {\b bold}\par "
        rb"a\cell b\cell\row c\cell\row}"
    )
    found = document(saved(tmp_path, "a.rtf", data))
    assert found.text == "Café €5\n\nПри bold\n\na | b\nc"
    assert (found.title, found.metadata["author"]) == ("My title", "Ada")


def test_mail_gives_its_head_its_body_and_the_names_of_what_is_attached(tmp_path: Path) -> None:
    data = (
        b"From: Ada <ada@example.org>\r\nTo: bo@example.org\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
        b"Date: Thu, 26 Nov 2026 10:00:00 +0100\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
        b"--b\r\nContent-Type: text/plain; charset=latin-1\r\n\r\nSch\xf6n.\r\n"
        b"--b\r\nContent-Type: text/html\r\n\r\n<p>Sch&ouml;n.</p>\r\n"
        b'--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename="plan.pdf"\r\n\r\nx\r\n--b--\r\n'
    )
    found = document(saved(tmp_path, "a.eml", data))
    assert found.title == "Grüße"
    assert found.text == (
        "Grüße\n\nFrom: Ada <ada@example.org>\nTo: bo@example.org\nDate: 2026-11-26T10:00:00+01:00\n\n"
        "Schön.\n\nAttachments: plan.pdf"
    )
    assert found.metadata["date"] == "2026-11-26T10:00:00+01:00"
    assert (found.metadata["attachments"], found.kind) == ("plan.pdf", "email")


def test_mail_of_html_alone_is_read_as_html(tmp_path: Path) -> None:
    found = document(saved(tmp_path, "a.eml", b"Subject: Hi\nContent-Type: text/html\n\n<h2>Offer</h2><p>One &amp; two</p>"))
    assert found.text == "Hi\n\nOffer\n\nOne & two"


def test_a_notebook_gives_its_text_its_code_and_what_it_printed(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Study\n", "Words."]},
        {"cell_type": "code", "source": "print(1)", "outputs": [{"text": ["1\n"]}, {"data": {"image/png": "AAAA"}}]},
    ]
    path = saved(tmp_path, "a.ipynb", json.dumps({"cells": cells, "metadata": {"kernelspec": {"language": "python"}}}).encode())
    found = document(path)
    assert found.text == "# Study\nWords.\n\nprint(1)\n\n1"
    assert [(h.level, h.text) for h in found.headings] == [(1, "Study")]
    assert (found.title, found.metadata["language"]) == ("Study", "python")


def test_json_and_xml_become_lines_that_can_be_read(tmp_path: Path) -> None:
    value = [{"name": "Kettle", "size": {"w": 3, "h": 4}, "tags": ["red", "new"], "none": None}, {"name": "Lamp"}]
    assert document(saved(tmp_path, "a.json", json.dumps(value).encode())).text == (
        "name: Kettle\nsize.w: 3\nsize.h: 4\ntags: red, new\n\nname: Lamp"
    )
    xml = '<?xml version="1.0"?><all><one><title>T</title><p>Some <b>bold</b> text</p></one></all>'
    for encoding in ("utf-8", "utf-16"):
        said = xml.replace("?>", ' encoding="utf-8"?>')
        assert document(saved(tmp_path, "a.xml", said.encode(encoding))).text == "title: T\np: Some bold text"


def test_source_code_keeps_its_shape_and_tells_its_language(tmp_path: Path) -> None:
    found = document(saved(tmp_path, "a.rs", b'fn main() {\r\n\tprintln!("hi");\r\n}\r\n'))
    assert found.text == 'fn main() {\n\tprintln!("hi");\n}\n'
    assert (found.kind, found.metadata["language"], found.title) == ("code", "rust", "a.rs")
    assert found.line(found.text.index("println")) == 2


def test_rst_and_org_headings_are_found(tmp_path: Path) -> None:
    rst = document(saved(tmp_path, "a.rst", b"Title\n=====\n\nText.\n\nPart\n----\n\n+---+\n| x |\n+---+\n"))
    assert [(h.level, h.text) for h in rst.headings] == [(1, "Title"), (2, "Part")]
    org = document(saved(tmp_path, "a.org", b"* One\ntext\n** Two\n"))
    assert [(h.level, h.text) for h in org.headings] == [(1, "One"), (2, "Two")]
