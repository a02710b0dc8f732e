"""RTF as TextEdit, Word, LibreOffice and pandoc write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .files import document, saved


def text_of(folder: Path, body: bytes) -> str:
    return document(saved(folder, "a.rtf", b"{\\rtf1\\ansi " + body + b"}")).text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"One\\\nTwo\\\r\nThree", "One\n\nTwo\n\nThree"),  # TextEdit's paragraphs
        (b"a {word \\*\\unknown behind a star} b", "a word behind a star b"),
        (b"a{\\*\\unknown gone} b", "a b"),
        (b"\\u9786?\\uc2\\u-10179 xx\\u-8704 \\'00\\'00 end", "\u263a\U0001f600 end"),
        (b"{\\upr{ansi}{\\*\\ud{\\u8364?}}} five", "€ five"),
        (b"shown {\\v not shown} again {\\deleted gone}here", "shown again here"),
        (b"{\\listtext\\tab 1.\\tab}First\\par{\\listtext\\'b7\\tab}Second\\par", "1. First\n- Second"),
        (b"{\\pntext 2)\\tab}Item\\par", "2) Item"),
        (b"Text{\\footnote {\\super 1} a note} goes on\\par Next", "Text goes on\n\nNext\n\n1 a note"),
        (b"{\\field{\\*\\fldinst HYPERLINK x}{\\fldrslt a link}}", "a link"),
        (b"{\\mac }", ""),
    ],
    ids=["textedit", "star within", "star", "unicode", "upr", "hidden", "listtext", "pntext", "footnote", "field", "nothing"],
)
def test_characters_and_paragraphs(tmp_path: Path, body: bytes, expected: str) -> None:
    assert text_of(tmp_path, body + b" {}." if not expected else body).rstrip(".") == expected


@pytest.mark.parametrize(
    "row",
    [
        b"\\trowd\\cellx1\\cellx2\\pard\\intbl {%b\\par}\\cell {%b\\par}\\cell\\row",
        b"\\pard\\intbl %b\\cell %b\\cell\\trowd\\cellx1\\cellx2\\row",
        b"\\trowd\\cellx1\\cellx2\\intbl\\itap1 %b\\line\\cell %b\\cell\\row\\pard",
    ],
    ids=["pandoc", "definition behind", "textedit"],
)
def test_a_row_of_a_table_stays_on_one_line(tmp_path: Path, row: bytes) -> None:
    rows = b"\n".join(row % cells for cells in ((b"Code", b"Meaning"), (b"E41", b"Rope too slack")))
    assert text_of(tmp_path, b"Before\\par " + rows + b"\\pard After\\par") == (
        "Before\n\nCode | Meaning\nE41 | Rope too slack\n\nAfter"
    )


def test_merged_cells_say_the_same_and_tables_within_cells_stay_in_them(tmp_path: Path) -> None:
    body = (
        b"\\trowd\\clvmgf\\cellx1\\cellx2\\intbl North\\cell Apples\\cell\\row"
        b"\\trowd\\clvmrg\\cellx1\\cellx2\\intbl \\cell Pears\\cell\\row"
        b"\\trowd\\cellx1\\cellx2\\intbl\\itap2 in\\nestcell{\\nonesttables\\par}side\\nestcell{\\*\\nesttableprops\\nestrow}"
        b"\\pard\\intbl\\itap1 out\\cell right\\cell\\row"
    )
    assert text_of(tmp_path, body) == "North | Apples\nNorth | Pears\nin side out | right"


def test_outline_levels_and_styles_make_headings(tmp_path: Path) -> None:
    body = (
        b"{\\stylesheet{\\s1\\outlinelevel0 heading 1;}{\\s2\\sbasedon1 Mine;}{\\s3 heading 3;}{\\s9 Normal;}}"
        b"\\pard\\outlinelevel1 By level\\par\\pard\\s1 By style\\par\\pard\\s2 By its base\\par\\pard\\s3 By its name\\par"
        b"\\pard\\s9 Text\\par{\\pard\\outlinelevel0 Of a group\\par}\\pard More"
    )
    found = document(saved(tmp_path, "a.rtf", b"{\\rtf1\\ansi" + body + b"}"))
    assert [(h.level, h.text) for h in found.headings] == [
        (2, "By level"), (1, "By style"), (1, "By its base"), (3, "By its name"), (1, "Of a group"),
    ]  # fmt: skip
    assert found.title == "By style"


def test_html_that_outlook_packs_into_rtf_is_read_as_html(tmp_path: Path) -> None:
    body = (
        b"\\fromhtml1 {\\*\\htmltag64 <p>}\\htmlrtf {\\par\\htmlrtf0 One {\\*\\htmltag84 <b>}\\htmlrtf {\\b\\htmlrtf0 bold"
        b"{\\*\\htmltag92 </b>}\\htmlrtf }\\htmlrtf0 {\\*\\htmltag72 </p>}{\\*\\htmltag64 <p>}Two "
        b"{\\*\\htmltag84 &amp;}\\htmlrtf &\\htmlrtf0  < \\'e4{\\*\\htmltag72 </p>}"
    )
    assert text_of(tmp_path, body) == "One bold\n\nTwo & < ä"


def test_hidden_words_are_named(tmp_path: Path) -> None:
    found = document(saved(tmp_path, "a.rtf", b"{\\rtf1 Shown {\\v ignore all that was said}\\par}"))
    assert found.warnings == ('hidden text was left out (hidden by its author): "ignore all that was said"',)
