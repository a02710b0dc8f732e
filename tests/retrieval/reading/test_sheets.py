# ruff: noqa: E501 (XML as programs write it is not cut)
"""Workbooks: numbers as they are shown, merged cells, comments, drawings, what is hidden, formulas that nobody calculated."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbench.retrieval.reading.formats.sheet import formatted

from .files import RELATION, document, relations, saved, zipped
from .test_docx import CHART

S = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


@pytest.mark.parametrize(
    ("value", "code", "shown"),
    [
        (0.0575, "0.00%", "5.75%"), (0.653, "0.0%", "65.3%"), (1, "0%", "100%"), (56701.03, '"$"#,##0.00', "$56,701.03"),
        (-5, "[$€-407]#,##0.00;[Red]-[$€-407]#,##0.00", "-€5.00"), (1234.5, "#,##0.00 [$kr-414]", "1,234.50 kr"),
        (5, '0.0#" km"', "5.0 km"), (-0.5, "0%", "-50%"), (1234.5, "#,##0.00", ""), (3, "0", ""), (45000, "yyyy-mm-dd", ""),
        (3, "General", ""), (7, "@", ""), (7, "0.00E+00", ""), (-3, '"$"#,##0_);\\("$"#,##0\\)', "($3)"),
    ],
)  # fmt: skip
def test_numbers_are_shown_as_the_sheet_shows_them(value: float, code: str, shown: str) -> None:
    assert formatted(value, code) == shown


def workbook(cells: str, more: str = "", entries: tuple[tuple[str, str, str], ...] = (), **parts: str) -> bytes:
    """Two sheets, of which the second is hidden."""
    styles = (
        f'<styleSheet {S}><numFmts><numFmt numFmtId="164" formatCode="0.0&quot; km&quot;"/></numFmts><cellXfs><xf numFmtId="0"/>'
        '<xf numFmtId="10"/><xf numFmtId="164"/></cellXfs></styleSheet>'
    )
    sheets = '<sheet name="Loans" sheetId="1" r:id="r1"/><sheet name="Lists" sheetId="2" state="hidden" r:id="r2"/>'
    named = [("r1", "worksheet", "worksheets/sheet1.xml"), ("r2", "worksheet", "worksheets/sheet2.xml")]
    return zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "_rels/.rels": relations(("r0", "officeDocument", "xl/workbook.xml")),
            "xl/workbook.xml": f'<workbook {S} xmlns:r="{RELATION}"><sheets>{sheets}</sheets></workbook>',
            "xl/_rels/workbook.xml.rels": relations(*named, ("r9", "styles", "styles.xml"), ("r8", "person", "p.xml")),
            "xl/styles.xml": styles,
            "xl/worksheets/sheet1.xml": f"<worksheet {S}><sheetData>{cells}</sheetData>{more}</worksheet>",
            "xl/worksheets/sheet2.xml": f"<worksheet {S}><sheetData>{row(1, 'Secret')}</sheetData></worksheet>",
            "xl/worksheets/_rels/sheet1.xml.rels": relations(*entries),
            **{f"xl/{name}.xml": text for name, text in parts.items()},
        }
    )


def row(number: int, *values: str | tuple[float, int] | None, more: str = "") -> str:
    """A row: text, or numbers with their style."""
    cells = ""
    for letter, value in zip("ABCDEF", values, strict=False):
        match value:
            case None:
                pass
            case str():
                cells += f'<c r="{letter}{number}" t="inlineStr"><is><t>{value}</t></is></c>'
            case (figure, style):
                cells += f'<c r="{letter}{number}" s="{style}"><v>{figure}</v></c>'
    return f'<row r="{number}"{more}>{cells}</row>'


def test_formats_merged_cells_and_formulas_without_values(tmp_path: Path) -> None:
    cells = (
        row(2, "Region", "Rate", "Way", "Sum") + row(3, "North", (0.0575, 1), (5, 2), (9, 0)) + row(4, None, (0.04, 1), (7.25, 2))
        + '<row r="5" hidden="1"><c r="A5"><f>SUM(D3:D4)</f></c><c r="B5" t="str"><f>""</f><v></v></c><c r="C5"><f>1</f><v/></c>'
        "</row>"
    )  # fmt: skip
    merged = '<mergeCells count="1"><mergeCell ref="A3:A4"/></mergeCells>'
    found = document(saved(tmp_path, "a.xlsx", workbook(cells, merged)))
    assert found.text == (
        "Loans\n\nRegion: North; Rate: 5.75%; Way: 5.0 km; Sum: 9\nRegion: North; Rate: 4.00%; Way: 7.2 km\n\nLists\n\nSecret"
    )
    assert found.warnings == (
        "2 formulas have no stored value: open and save the workbook",
        "hidden in the workbook, but read: 1 row of Loans, sheet Lists",
    )


def test_titles_across_the_table_stay_one_cell_and_heads_of_two_rows_are_one_table(tmp_path: Path) -> None:
    cells = (
        row(1, "Harvest of the year", "", "") + row(2, "Region", "Tonnes", "") + row(3, "", "2024", "2025")
        + row(4, "North", (1, 0), (2, 0)) + row(5, "South", (3, 0), (4, 0))
    )  # fmt: skip
    refs = "".join(f'<mergeCell ref="{ref}"/>' for ref in ("A1:C1", "A2:A3", "B2:C2"))
    found = document(saved(tmp_path, "a.xlsx", workbook(cells, f"<mergeCells>{refs}</mergeCells>")))
    assert found.text.splitlines()[2:6] == [
        "Harvest of the year", "Region | Tonnes | Tonnes", "Region: North; 2024: 1; 2025: 2", "Region: South; 2024: 3; 2025: 4",
    ]  # fmt: skip


def test_comments_text_boxes_and_charts_follow_their_sheet(tmp_path: Path) -> None:
    drawing = (
        f'<xdr:wsDr xmlns:xdr="x" xmlns:a="a" xmlns:c="c" xmlns:r="{RELATION}"><xdr:sp><xdr:txBody><a:p><a:r><a:t>Keep clear</a:t>'
        '</a:r></a:p></xdr:txBody></xdr:sp><xdr:graphicFrame><c:chart r:id="r1"/></xdr:graphicFrame><xdr:pic><xdr:nvPicPr>'
        '<xdr:cNvPr descr="A map of it"/></xdr:nvPicPr></xdr:pic></xdr:wsDr>'
    )
    notes = (
        f'<comments {S}><commentList><comment ref="B10"><text><r><t>Later</t></r></text></comment><comment ref="B2"><text><t>First'
        '</t></text></comment><comment ref="C3"><text><t>[Threaded comment] Your version</t></text></comment></commentList></comments>'
    )
    thread = (
        '<ThreadedComments><threadedComment ref="C3" personId="p"><text>Why?</text></threadedComment>'
        '<threadedComment ref="C3"><text>Because.</text></threadedComment></ThreadedComments>'
    )
    entries = (
        ("r1", "drawing", "../drawing.xml"), ("r2", "comments", "../comments.xml"), ("r3", "threadedComment", "../threads.xml"),
    )  # fmt: skip
    data = workbook(
        row(1, "Words"), "", entries, drawing=drawing, comments=notes, threads=thread, chart=CHART,
        p='<personList><person id="p" displayName="Ada"/></personList>', **{"_rels/drawing.xml": "<x/>"},
    )  # fmt: skip
    import io
    import zipfile

    packed = io.BytesIO(data)
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("xl/_rels/drawing.xml.rels", relations(("r1", "chart", "chart.xml")))
    found = document(saved(tmp_path, "a.xlsx", packed.getvalue()))
    assert found.text.removesuffix("\n\nLists\n\nSecret").split("\n\n") == [
        "Loans", "Words", "Keep clear", "Catch\nBar chart", "| Tonnes\n2023 | 4.3\n2025 | 7", "Picture: A map of it",
        "B2: First\nC3: Ada: Why? / Because.\nB10: Later",
    ]  # fmt: skip


def test_ods_shows_percentages_comments_merged_cells_and_names_hidden_sheets(tmp_path: Path) -> None:
    spaces = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "text", "table", "style")
    )
    p = "<text:p>{}</text:p>".format
    value = '<table:table-cell office:value-type="{}" office:value="{}">{}</table:table-cell>'.format
    text = '<table:table-cell office:value-type="string"{}>{}</table:table-cell>'.format
    note = f"<office:annotation>{p('Waived.')}</office:annotation>"
    rows = [
        text("", p("Region")) + text("", p("Rate")),
        text(' table:number-rows-spanned="2"', note + p("North")) + value("percentage", 0.0575, p("5.75%")),
        "<table:covered-table-cell/>" + value("percentage", 0.04, p("4.0%")),
    ]
    table = "".join(f"<table:table-row>{cells}</table:table-row>" for cells in rows)
    content = (
        f'<office:document-content {spaces}><office:automatic-styles><style:style style:name="h"><style:table-properties '
        'table:display="false"/></style:style></office:automatic-styles><office:body><office:spreadsheet><table:table '
        f'table:name="Loans" table:style-name="h">{table}</table:table></office:spreadsheet></office:body></office:document-content>'
    )
    kind = "application/vnd.oasis.opendocument.spreadsheet"
    manifest = f'<m:manifest xmlns:m="m"><m:file-entry m:full-path="/" m:media-type="{kind}"/></m:manifest>'
    found = document(
        saved(tmp_path, "a.ods", zipped({"mimetype": kind, "content.xml": content, "META-INF/manifest.xml": manifest}))
    )
    assert found.text == "Loans\n\nRegion: North; Rate: 5.75%\nRegion: North; Rate: 4.0%\n\nA2: Waived."
    assert found.warnings == ("hidden in the workbook, but read: sheet Loans",)


def test_cells_far_apart_are_read_and_keep_their_formats(tmp_path: Path) -> None:
    cells = (
        '<row r="1"><c r="A1" t="inlineStr"><is><t>Loan</t></is></c><c r="B1" t="inlineStr"><is><t>Rate</t></is></c></row>'
        '<row r="2"><c r="A2" t="inlineStr"><is><t>Copper</t></is></c><c r="B2" s="1"><v>0.0425</v></c><c r="C2" s="1"/></row>'
        '<row r="900000"><c r="XFA900000" t="inlineStr"><is><t>Far away</t></is></c></row>'
    )
    found = document(saved(tmp_path, "a.xlsx", workbook(cells)))
    assert "Loan: Copper; Rate: 4.25%\n\nFar away" in found.text


def test_a_sheet_in_one_xml_file_is_read_as_a_sheet(tmp_path: Path) -> None:
    spaces = " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "table", "text")
    )
    cell = '<table:table-cell office:value-type="string">\n<text:p>{}</text:p>\n</table:table-cell>'.format
    rows = "\n".join(
        f"<table:table-row>\n{cell(a)}\n{cell(b)}\n</table:table-row>" for a, b in (("Port", "Toll"), ("Vollen", "nine"))
    )
    flat = (
        f'<?xml version="1.0"?>\n<office:document {spaces} office:version="1.3" '
        'office:mimetype="application/vnd.oasis.opendocument.spreadsheet"><office:settings><office:x>true</office:x></office:settings>'
        f'<office:body><office:spreadsheet>\n<table:table table:name="Tolls">\n{rows}\n</table:table></office:spreadsheet>'
        "</office:body></office:document>"
    )
    assert document(saved(tmp_path, "a.fods", flat.encode())).text == "Tolls\n\nPort: Vollen; Toll: nine"
