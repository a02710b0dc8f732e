"""PDF: tables whose cells are drawn come out as rows of cells divided by bars, wherever in the file they were written."""

from __future__ import annotations

from pathlib import Path

from fpdf import FPDF

from .files import document
from .test_pdf_layout import blank, lines

PROSE = "The harbour office is open from seven in the morning until four in the afternoon."


def put(pdf: FPDF, *entries: tuple[float, float, str]) -> None:
    for left, top, text in entries:
        pdf.text(left, top, text)


def test_cells_that_span_are_said_in_each_row_and_empty_ones_keep_their_place(tmp_path: Path) -> None:
    pdf = blank()
    put(pdf, (50, 80, PROSE), (50, 300, "Dues are paid at the office."))  # what is written first stands around the table
    for y, left, right in ((100, 50, 450), (120, 250, 450), (140, 50, 450), (180, 50, 450), (200, 50, 450)):
        pdf.line(left, y, right, y)
    for x, top, bottom in ((150, 100, 200), (250, 100, 200), (350, 120, 200)):  # no lines at the outer sides
        pdf.line(x, top, x, bottom)
    put(pdf, (60, 115, "Length"), (60, 130, "in metres"), (160, 124, "Berth"), (320, 114, "Dues"))
    put(pdf, (270, 134, "summer"), (370, 134, "winter"))
    put(pdf, (80, 165, "12"), (160, 155, "Inner"), (160, 170, "Outer"))
    put(pdf, (270, 155, "40"), (270, 170, "30"), (370, 155, "55"), (370, 170, "45"))
    put(pdf, (80, 194, "20"), (370, 194, "80"))
    pdf.output(str(tmp_path / "a.pdf"))
    assert lines(tmp_path / "a.pdf") == [
        PROSE,
        "Length in metres | Berth | Dues",
        "Length in metres | Berth | summer | winter",
        "12 | Inner | 40 | 55",
        "12 | Outer | 30 | 45",
        "20 |  |  | 80",
        "Dues are paid at the office.",
    ]


def test_heads_that_run_up_the_page_are_one_row(tmp_path: Path) -> None:
    pdf = blank()
    for y in (100, 200, 220, 240):
        pdf.line(50, y, 350, y)
    for x in (50, 250, 300, 350):
        pdf.line(x, 100, x, 240)
    put(pdf, (60, 112, "What may be done"), (60, 214, "Mooring"), (270, 214, "x"), (60, 234, "Repairs"), (320, 234, "x"))
    for x, word in ((278, "Members only"), (328, "Everybody")):
        with pdf.rotation(90, x, 195):
            pdf.text(x, 195, word)
    pdf.output(str(tmp_path / "a.pdf"))
    assert lines(tmp_path / "a.pdf") == ["What may be done | Members only | Everybody", "Mooring | x", "Repairs |  | x"]


def test_words_that_the_file_writes_as_one_are_divided_where_a_rule_runs_between(tmp_path: Path) -> None:
    pdf = blank()
    for y in (100, 120, 140):
        pdf.line(50, y, 250, y)
    for x in (50, 92, 250):
        pdf.line(x, 100, x, 140)
    put(pdf, (60, 114, "Length Dues of a year"), (60, 134, "metres crowns"))
    pdf.output(str(tmp_path / "a.pdf"))
    assert lines(tmp_path / "a.pdf") == ["Length | Dues of a year", "metres | crowns"]


def test_rows_of_words_without_rules_between_them_stay_rows(tmp_path: Path) -> None:
    pdf = blank()
    for y in (100, 120, 180):
        pdf.line(50, y, 400, y)
    for x in (150, 250):
        pdf.line(x, 100, x, 180)
    rows = [("Berth", "Owner", "Vessel"), ("inner", "Ada", "Kestrel"), ("outer", "-", "Heron"), ("north", "Bo", "Alba")]
    for row, top in zip(rows, (114, 134, 152, 170), strict=True):
        put(pdf, *((left, top, cell) for left, cell in zip((60, 160, 260), row, strict=True)))
    pdf.output(str(tmp_path / "a.pdf"))
    assert lines(tmp_path / "a.pdf") == [" | ".join(row) for row in rows]


def test_frames_are_no_tables(tmp_path: Path) -> None:
    pdf = blank()
    for y in (100, 120, 140, 160):  # around two of four columns
        pdf.line(200, y, 400, y)
    for x in (200, 300, 400):
        pdf.line(x, 100, x, 160)
    for n, name in enumerate(("North", "South", "East")):
        top = 114 + 20 * n
        put(pdf, (60, top, name), (220, top, f"{n}1"), (320, top, f"{n}2"), (450, top, f"{n}3"))
    for y in (600, 620, 700):  # around a form
        pdf.line(50, y, 550, y)
    for x in (50, 300, 550):
        pdf.line(x, 600, x, 700)
    put(pdf, (60, 614, "The owner"), (310, 614, "The vessel"))
    for n, (label, value) in enumerate((("Name", "Ada"), ("Town", "Ostmark"), ("Phone", "417"))):
        put(pdf, (60, 634 + 14 * n, label), (160, 634 + 14 * n, value), (310, 634 + 14 * n, f"{label} of it"))
    for y in (280, 300, 500):  # around paragraphs
        pdf.line(50, y, 550, y)
    for x in (50, 300, 550):
        pdf.line(x, 280, x, 500)
    for box, left in (("first", 60), ("second", 310)):
        pdf.text(left, 294, f"The {box} box")
        for n in range(17):
            pdf.text(left, 310 + 10 * n, f"Clause {n} of the {box} box is of no matter.")
    pdf.output(str(tmp_path / "a.pdf"))
    text = document(tmp_path / "a.pdf").text
    assert "|" not in text
    assert [line for line in text.split("\n") if line][:3] == ["North  01  02  03", "South  11  12  13", "East  21  22  23"]
