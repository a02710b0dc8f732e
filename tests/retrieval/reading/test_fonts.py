"""PDF files that name a font of East Asia without having it in them are read where no such font is installed.

`python tests/retrieval/reading/test_fonts.py PATH` makes the font of boxes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont
from fontTools.ttLib.tables._c_m_a_p import CmapSubtable

from llmbench.retrieval.reading.fonts import BOXES

from .files import document, saved

COVERED = [code for code in (32, *range(0x2E80, 0x30000)) if not 0xD800 <= code < 0xE000]


def made(path: Path) -> None:
    """Writes the font: one box of 1000 units for all characters (a `cmap` of format 13), for all code pages of East Asia."""
    builder = FontBuilder(1000, isTTF=True)
    names = [".notdef", "space", "box"]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({32: "space", 0x4E00: "box"})
    pen = TTGlyphPen(None)
    pen.moveTo((50, -80))
    for corner in ((950, -80), (950, 820), (50, 820)):
        pen.lineTo(corner)
    pen.closePath()
    box, empty = pen.glyph(), TTGlyphPen(None).glyph()
    builder.setupGlyf({".notdef": box, "space": empty, "box": box})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (1000, 50)))
    builder.setupHorizontalHeader(ascent=880, descent=-120)
    builder.setupNameTable({"familyName": "Llmbench Boxes", "styleName": "Regular"})
    pages = sum(1 << bit for bit in (0, 17, 18, 19, 20, 21))
    vertical = {"sTypoAscender": 880, "sTypoDescender": -120, "usWinAscent": 880, "usWinDescent": 120}
    builder.setupOS2(**vertical, ulCodePageRange1=pages)
    builder.setupPost(keepGlyphNames=False)
    many = CmapSubtable.newSubtable(13)
    many.platformID, many.platEncID, many.language, many.format, many.reserved, many.length = 3, 10, 0, 13, 0, 0
    many.cmap = {code: "space" if code == 32 else "box" for code in COVERED}
    builder.font["cmap"].tables = [many]
    builder.save(path)


def test_the_font_is_what_is_made_here(tmp_path: Path) -> None:
    made(tmp_path / "boxes.ttf")
    with TTFont(BOXES) as kept, TTFont(tmp_path / "boxes.ttf") as fresh:
        for table in ("cmap", "glyf", "hmtx", "OS/2", "hhea"):
            assert kept.getTableData(table) == fresh.getTableData(table)


def horizontal(font: str, ordering: str, encoding: str, words: str) -> bytes:
    """A PDF that sets each character by itself, as word processors of the region do, in a font that it does not have in it."""
    signs = "".join(f"1 0 0 1 {40 + 14 * n} 300 Tm <{sign.encode('utf-16-be').hex()}> Tj " for n, sign in enumerate(words))
    return written(font, ordering, encoding, f"BT /F 12 Tf {signs}ET")


def vertical(font: str, ordering: str, encoding: str, *lines: str) -> bytes:
    """Columns of a vertical font, from the right."""
    columns = "".join(f"1 0 0 1 {300 - 30 * n} 380 Tm <{line.encode('utf-16-be').hex()}> Tj " for n, line in enumerate(lines))
    return written(font, ordering, encoding, f"BT /F 12 Tf {columns}ET")


def written(font: str, ordering: str, encoding: str, content: str) -> bytes:
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 400 400]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>",
        f"<</Length {len(content)}>>stream\n{content}\nendstream",
        f"<</Type/Font/Subtype/Type0/BaseFont/{font}-{encoding}/Encoding/{encoding}/DescendantFonts[6 0 R]>>",
        f"<</Type/Font/Subtype/CIDFontType0/BaseFont/{font}/CIDSystemInfo<</Registry(Adobe)/Ordering({ordering})/Supplement 2>>"
        "/FontDescriptor 7 0 R/DW 1000>>",
        f"<</Type/FontDescriptor/FontName/{font}/Flags 4/FontBBox[0 -200 1000 900]/ItalicAngle 0/Ascent 859/Descent -140"
        "/CapHeight 709/StemV 69>>",
    ]
    body, places = b"%PDF-1.7\n", []
    for number, thing in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{thing}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    return (
        body
        + (
            f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer<</Size {len(objects) + 1}/Root 1 0 R>>\n"
            f"startxref\n{len(body)}\n%%EOF"
        ).encode()
    )


@pytest.mark.parametrize(
    ("font", "ordering", "encoding", "words"),
    [
        ("HeiseiMin-W3", "Japan1", "UniJIS-UCS2-H", "港の灯台"),
        ("STSong-Light", "GB1", "UniGB-UCS2-H", "灯塔检查"),
        ("MSung-Light", "CNS1", "UniCNS-UCS2-H", "燈塔檢查"),
        ("HYSMyeongJo-Medium", "Korea1", "UniKS-UCS2-H", "등대점검"),
    ],
)
def test_a_font_that_is_nowhere_costs_no_text(tmp_path: Path, font: str, ordering: str, encoding: str, words: str) -> None:
    assert document(saved(tmp_path, "a.pdf", horizontal(font, ordering, encoding, words))).text == words


def test_columns_of_a_vertical_font_are_read_from_the_right(tmp_path: Path) -> None:
    lines = ("港の灯台は毎年九月に", "点検の責任者は北部", "故障の際は電話四一七番に")
    found = document(saved(tmp_path, "a.pdf", vertical("HeiseiMin-W3", "Japan1", "UniJIS-UCS2-V", *lines)))
    assert tuple(line for line in found.text.split("\n") if line) == lines


if __name__ == "__main__":
    made(Path(sys.argv[1]))
