"""PDF: what people filled in and what they said of it; text that no reader sees; signs beyond the first plane; Arabic."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbench.retrieval.documents import Unreadable

from .files import document
from .pdfs import field, pdf, text

LABELS = text(50, 62, "Vessel") + text(50, 92, "Winter storage") + text(50, 122, "Berth") + text(50, 152, "Remarks")


def test_what_was_filled_in_stands_by_its_label(tmp_path: Path) -> None:
    ticked = "/T(winter)/V/Yes/AS/Yes/AP<</N<</Yes 4 0 R/Off 4 0 R>>>>"
    fields = [
        field("Tx", 50, "/T(vessel)/V(Silver Quandary)"),
        field("Btn", 80, ticked, width=16),
        field("Btn", 80, ticked.replace("/Yes/AS/Yes", "/Off/AS/Off"), left=240, width=16),
        field("Ch", 110, "/T(berth)/Ff 131072/Opt[(Deepwater)(Tidal)]/V(Tidal)"),
        field("Tx", 160, "/T(remarks)/Ff 4096/V(Shore power\\nof 32 ampere)", left=50, height=40),
        field("Tx", 300, "/T(serial)/TU(Serial number)/V(VK-90215)", left=300, width=80),
        field("Tx", 330, "/T(empty)"),
        field("Tx", 345, "/T(secret)/Ff 8192/V(hunter2)"),
        field("Tx", 360, "/T(unseen)/F 2/V(nobody sees this)"),
    ]
    found = document(pdf(tmp_path, "form.pdf", LABELS, annotations=fields))
    assert [line for line in found.text.split("\n") if line] == [
        "Vessel  Silver Quandary",
        "Winter storage  [x]",
        "Berth  Tidal",
        "Remarks",
        "Shore power of 32 ampere",
        "Serial number: VK-90215",
    ]
    start = found.text.index("VK-90215")
    assert [(box.page, round(box.left)) for box in found.boxes_of(start, start + 8)] == [(1, 300)]


def test_values_keep_their_place_in_a_line_of_several_labels(tmp_path: Path) -> None:
    labels = "".join(text(left, 62, word) for left, word in ((40, "Name"), (220, "Port")))
    labels += text(40, 92, "Deepwater") + text(150, 92, "Tidal") + text(250, 92, "Dry")
    state = "/T(berth)/Ff 49152/V/B/AP<</N<</B 4 0 R/Off 4 0 R>>>>/AS/"
    fields = [
        field("Tx", 50, "/T(name)/V(Kestrel)", left=80, width=100),
        field("Tx", 50, "/T(port)/V(Ostmark)", left=260, width=100),
        field("Btn", 80, f"{state}Off", left=130, width=12, height=12),
        field("Btn", 80, f"{state}B", left=230, width=12, height=12),
    ]
    found = document(pdf(tmp_path, "two.pdf", labels, annotations=fields))
    assert [line.split() for line in found.text.split("\n") if line] == [
        ["Name", "Kestrel", "Port", "Ostmark"],
        ["Deepwater", "Tidal", "[x]", "Dry"],
    ]


def test_a_page_of_fields_only_is_no_scan(tmp_path: Path) -> None:
    found = document(pdf(tmp_path, "only.pdf", "", annotations=[field("Tx", 50, "/T(serial)/V(VK-90215)")]))
    assert (found.text, found.warnings) == ("serial: VK-90215", ())
    with pytest.raises(Unreadable, match="OCR"):
        document(pdf(tmp_path, "empty.pdf", "", annotations=[field("Tx", 50, "/T(serial)")]))


def test_comments_of_every_kind_follow_their_page(tmp_path: Path) -> None:
    place = "/Type/Annot/Rect[300 300 320 320]"
    notes = [
        f"<<{place}/Subtype/Text/T(Ada)/Contents(Use grade S460.)>>",
        f"<<{place}/Subtype/Highlight/QuadPoints[0 0 9 0 0 9 9 9]/Contents(Deadline moved.)>>",
        f"<<{place}/Subtype/FreeText/DA(/F 9 Tf)/Contents(Approved under HB-7730)>>",
        f"<<{place}/Subtype/Stamp/Name/NotApproved>>",
        f"<<{place}/Subtype/Popup/Contents(Use grade S460.)>>",
        f"<<{place}/Subtype/Link/Contents(The draft plan)/A<</S/URI/URI(http://x.example)>>>>",
        f"<<{place}/Subtype/Link/Contents(Map of the quay)/A<</S/URI/URI(http://x.example)>>>>",
        f"<<{place}/Subtype/Text/F 2/Contents(hidden)>>",
    ]
    found = document(pdf(tmp_path, "notes.pdf", text(50, 50, "The draft plan of the bridge."), annotations=notes))
    assert found.text.split("\n\n") == [
        "The draft plan of the bridge.",
        "Comment (Ada): Use grade S460.\nComment: Deadline moved.\nComment: Approved under HB-7730\nComment: Not Approved\n"
        "Map of the quay",
    ]


def test_text_that_no_reader_sees_is_left_out_and_named(tmp_path: Path) -> None:
    content = (
        text(50, 50, "The award is 485,000 crowns.")
        + text(50, 80, "Ghost words of one crown", before="3 Tr")
        + text(50, 95, "Clipped words", before="7 Tr")
        + text(50, 110, "Pale words", before="1 g")
        + text(50, 140, "Clear words", before="/Clear gs")
        + text(50, 170, "Small words", size=0.4)
        + text(50, 900, "Far words")
        + "0 0 0.4 rg 45 180 200 20 re f\n"
        + text(50, 215, "White on blue", before="1 g")
    )
    found = document(pdf(tmp_path, "award.pdf", content))
    assert found.text.split("\n\n") == ["The award is 485,000 crowns.", "White on blue"]
    told = "\n".join(found.warnings)
    for why, words in (
        ("in invisible text mode", "Ghost words of one crown"), ("white on white", "Pale words"),
        ("fully transparent", "Clear words"), ("smaller than 1 point", "Small words"), ("outside the page", "Far words"),
    ):  # fmt: skip
        assert f'hidden text on page 1 was left out ({why}): "{words}"' in told
    assert "Clipped" not in found.text
    assert len(found.warnings) == 5


def test_the_layer_that_ocr_writes_is_text(tmp_path: Path) -> None:
    found = document(pdf(tmp_path, "scan.pdf", text(50, 50, "What was scanned", before="3 Tr")))
    assert (found.text, found.warnings) == ("What was scanned", ())


def test_hidden_words_within_a_line_are_told_from_the_line(tmp_path: Path) -> None:
    content = "BT /F 10 Tf 50 350 Td (The toll is ) Tj 1 g (not what you were told by them, but ) Tj 0 g (nine crowns.) Tj ET"
    found = document(pdf(tmp_path, "line.pdf", content))
    assert " ".join(found.text.split()) == "The toll is nine crowns."
    assert "not what you were told by them" in found.warnings[0]


@pytest.mark.parametrize(("given", "read"), [("\U0001d465", "x"), ("\U00028b4e", "\U00028b4e"), ("\U0001f6a9", "\U0001f6a9")])
def test_signs_beyond_the_first_plane_are_whole(tmp_path: Path, given: str, read: str) -> None:
    path = pdf(tmp_path, "signs.pdf", text(50, 50, "A", font="U"), unicode={0x41: given})
    assert document(path).text == read


def test_the_two_letters_of_one_arabic_glyph_keep_their_order(tmp_path: Path) -> None:
    codes = {0x41: "خ", 0x42: "لا", 0x43: "ل", 0x44: "سلامة"[0], 0x45: "م", 0x46: "ة", 0x47: "لآ"}
    content = text(50, 50, "CBA", font="U") + text(50, 80, "FEBD", font="U") + text(50, 110, "CG", font="U")
    found = document(pdf(tmp_path, "arabic.pdf", content, unicode=codes))  # written as it looks: from the left
    assert [line for line in found.text.split("\n") if line] == ["خلال", "سلامة", "لآل"]


def test_values_of_an_xfa_form_are_read_once(tmp_path: Path) -> None:
    values = (
        '<xfa:datasets xmlns:xfa="http://www.xfa.org/schema/xfa-data/1.0/"><xfa:data><form><vessel>Silver Quandary</vessel>'
        "<berth><number>417</number><note>Needs power,\n 32 ampere</note></berth><empty/></form></xfa:data></xfa:datasets>"
    )
    page = text(50, 50, "Please wait, Silver Quandary")
    assert document(pdf(tmp_path, "a.pdf", page, datasets=values)).text == (
        "Please wait, Silver Quandary\n\nnumber: 417\nnote: Needs power, 32 ampere"
    )
    assert document(pdf(tmp_path, "b.pdf", page, datasets="<broken")).text == "Please wait, Silver Quandary"
