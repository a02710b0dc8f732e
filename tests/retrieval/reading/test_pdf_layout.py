"""PDF: columns, rows of several lines, headings by their looks, vertical writing, rows that read from the right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fpdf import FPDF

from llmbench.retrieval.reading.formats.layout import Piece, rows
from llmbench.retrieval.reading.formats.vertical import columns, runs

from .files import document

LEFT = ["The ferry to Ostmark leaves at seven", "each morning from the north quay and", "takes ninety minutes."]
RIGHT = ["Parking at the quay costs four crowns", "per day. The attendant accepts coins", "only."]
HOURS = ["Opening hours", "Closed on Sundays", "Moorings in winter", "Fees and fines"]
ROOT = Path(__file__).parents[3]


def blank() -> FPDF:
    pdf = FPDF(unit="pt", format="A4")
    pdf.add_page()
    pdf.set_font("Helvetica", size=10)
    return pdf


def lines(path: Path) -> list[str]:
    return [line for line in document(path).text.split("\n") if line]


@pytest.mark.parametrize("woven", [False, True], ids=["column by column", "line by line"])
def test_short_columns_of_prose_stay_apart(tmp_path: Path, woven: bool) -> None:
    pdf = blank()
    places = [(60, 60 + 14 * n, text) for n, text in enumerate(LEFT)] + [
        (320, 60 + 14 * n, text) for n, text in enumerate(RIGHT)
    ]
    for left, top, text in sorted(places, key=lambda place: place[1]) if woven else places:
        pdf.text(left, top, text)
    pdf.output(str(tmp_path / "a.pdf"))
    assert lines(tmp_path / "a.pdf") == LEFT + RIGHT


def test_a_few_words_beside_a_long_column_stay_together(tmp_path: Path) -> None:
    pdf = blank()
    for top, text in (
        (60, "Leave the berth"),
        (72, "clean and dry"),
        (110, "Pay the dues"),
        (122, "before the"),
        (134, "winter"),
    ):
        pdf.text(60, top, text)
    long = [f"the master of vessel {n} pays the dues at the office of the harbour" for n in range(7)]
    for n, text in enumerate(long):
        pdf.text(200, 61 + 12.5 * n, text)
    pdf.output(str(tmp_path / "a.pdf"))
    labels = ["Leave the berth", "clean and dry", "Pay the dues", "before the", "winter"]
    assert lines(tmp_path / "a.pdf") == labels + long


def test_a_cell_goes_on_in_the_next_line_where_rows_stand_further_apart() -> None:
    def row(top: float, *cells: tuple[float, str]) -> list[Piece]:
        return [Piece(left, top, left + 5 * len(text), top + 10, text) for left, text in cells]

    table = [
        *row(60, (60, "Vessel"), (200, "Dues paid in"), (320, "Berth")),
        *row(71, (200, "crowns")),
        *row(90, (60, "Kestrel of the"), (200, "40"), (320, "9")),
        *row(101, (60, "north")),
        *row(120, (60, "Heron"), (200, "12"), (320, "4")),
    ]
    assert "".join(f"{piece.glue}{piece.text}" for piece in rows(table)).split("\n")[1:] == [
        "Vessel  Dues paid in crowns  Berth",
        "Kestrel of the north  40  9",
        "Heron  12  4",
    ]
    bullets = [*row(60, (60, "-"), (80, "The office is open")), *row(71, (80, "all day")), *row(90, (60, "-"), (80, "Always"))]
    assert [piece.text for piece in rows(bullets)] == ["-  The office is open", "all day", "-  Always"]


def test_columns_of_names_and_figures_are_a_table() -> None:
    names = ["Net sales of the year", "Costs of the sales", "Gross margin of it all", "Taxes on the income"]
    left = [Piece(50, 60 + 14 * n, 150, 70 + 14 * n, name) for n, name in enumerate(names)]
    right = [Piece(320, 60 + 14 * n, 350, 70 + 14 * n, f"{n}00") for n in range(4)]
    assert [piece.text for piece in rows(left + right)] == [f"{name}  {n}00" for n, name in enumerate(names)]


def test_a_row_of_a_right_to_left_table_begins_on_the_right() -> None:
    row = [Piece(50, 60, 80, 70, "485"), Piece(200, 60, 260, 70, "الجائزة"), Piece(300, 60, 360, 70, "دراسة")]
    assert [piece.text for piece in rows(row)] == ["دراسة  الجائزة  485"]


def test_a_cell_of_several_lines_is_part_of_its_row(tmp_path: Path) -> None:
    pdf = blank()
    table = [
        (["Value"], ["What it tells"]),
        (["CURRENT_USER"], ["The user of the thread including the", "authority that was adopted."]),
        (["SESSION", "USER"], ["The user of the thread."]),
    ]
    top = 100.0
    pdf.line(50, top, 400, top)
    for cells in table:
        for left, cell in zip((55, 180), cells, strict=True):
            for n, text in enumerate(cell):
                pdf.text(left, top + 12 + 12 * n, text)
        top += 6 + 12 * max(map(len, cells))
        pdf.line(50, top, 400, top)
    pdf.output(str(tmp_path / "a.pdf"))
    found = document(tmp_path / "a.pdf")
    assert [line for line in found.text.split("\n") if line] == [
        "Value  What it tells",
        "CURRENT_USER  The user of the thread including the authority that was adopted.",
        "SESSION USER  The user of the thread.",
    ]
    start = found.text.index("authority")
    assert [round(box.left) for box in found.boxes_of(start, start + 9)] == [180], "its own line, for the marker"


def test_figures_under_each_other_between_rules_stay_rows(tmp_path: Path) -> None:
    pdf = blank()
    for y in (100, 120, 150, 180):
        pdf.line(50, y, 400, y)
    cells = [
        (112, ("Name", "2024", "2025")),
        (132, ("North", "10", "12")),
        (144, ("South", "20", "24")),
        (162, ("East", "1", "2")),
    ]
    for top, row in [*cells, (174, ("West", "3", "4"))]:
        for left, text in zip((55, 180, 300), row, strict=True):
            pdf.text(left, top, text)
    pdf.output(str(tmp_path / "a.pdf"))
    assert lines(tmp_path / "a.pdf")[1:] == ["North  10  12", "South  20  24", "East  1  2", "West  3  4"]


def test_headings_are_found_by_size_and_weight_and_running_heads_are_none(tmp_path: Path) -> None:
    pdf = FPDF(unit="pt", format="A4")
    for page in range(1, 5):
        pdf.add_page()
        pdf.set_font("Helvetica", "B", size=12)
        pdf.text(60, 40, f"Annual report {page}")
        pdf.set_font("Helvetica", "B", size=18)
        pdf.text(60, 90, f"Harbours of the {page}. coast")
        pdf.text(60, 112, f"and its {page + 1} masters")
        pdf.set_font("Helvetica", "B", size=10)
        pdf.text(60, 150, HOURS[page - 1])
        pdf.set_font("Helvetica", size=10)
        for n in range(8):
            pdf.text(60, 166 + 13 * n, "The harbour office is open from seven in the morning until four in the afternoon.")
        pdf.set_font("Helvetica", "B", size=10)
        pdf.text(
            60, 166 + 13 * 8, "It is closed on the ninth of May, on the tenth of June and whenever the wind is from the north."
        )
    pdf.output(str(tmp_path / "a.pdf"))
    found = document(tmp_path / "a.pdf")
    assert [(h.level, h.text) for h in found.headings] == [
        entry for n in range(1, 5) for entry in ((1, f"Harbours of the {n}. coast and its {n + 1} masters"), (2, HOURS[n - 1]))
    ]
    assert all(found.text[h.start : h.end] == h.text for h in found.headings)
    assert len(found.boxes_of(found.headings[0].start, found.headings[0].end)) == 2


def test_headings_are_told_from_what_stands_near_them(tmp_path: Path) -> None:
    pdf = blank()
    prose = "The harbour office is open from seven in the morning until four in the afternoon, Sundays apart."

    def put(top: float, text: str, *, size: float = 10, bold: bool = False, left: float = 60) -> None:
        pdf.set_font("Helvetica", "B" if bold else "", size=size)
        pdf.text(left, top, text)

    put(60, "1.2")  # a number that is set lightly, a heading that is not
    put(60, "Fees for vessels of more than twelve metres that stay for the winter, for", bold=True, left=80)
    put(72, "the summer, and for both", bold=True, left=80)
    for n in range(6):
        put(90 + 13 * n, prose)
    put(190, "Moorings", size=12, bold=True)  # two headings of one style, the upper with room for more
    put(204, "Rights of the owners", size=12, bold=True)
    for n in range(4):
        put(220 + 13 * n, prose)
    put(300, "Gate of the lock", size=11.5, left=130)  # a word in a drawing
    put(330, "www.harbour.example/fees", size=12)
    put(352, "This large sentence says in so many words what nobody would call a heading", size=12)
    put(366, "and ends as sentences end.", size=12)
    put(420, "Kestrel", size=28)  # a large word at the side of a small one
    put(420, "Printed in May", left=300)
    pdf.output(str(tmp_path / "a.pdf"))
    assert [heading.text for heading in document(tmp_path / "a.pdf").headings] == [
        "1.2 Fees for vessels of more than twelve metres that stay for the winter, for the summer, and for both",
        "Moorings",
        "Rights of the owners",
        "Kestrel",
    ]


def test_lines_of_a_cover_and_words_of_a_drawing_head_nothing(tmp_path: Path) -> None:
    pdf = blank()

    def put(left: float, top: float, size: float, text: str, *, bold: bool = True) -> None:
        pdf.set_font("Helvetica", "B" if bold else "", size=size)
        pdf.text(left, top, text)

    put(40, 90, 40, "Harbours of the coast")
    for n, line in enumerate(
        ("Find the berth for your vessel", "Learn what a winter costs", "Ask the masters of nine harbours")
    ):
        put(40, 300 + 40 * n, 14, line)
    pdf.add_page()
    put(60, 60, 12, "Fees of the year")
    for n in range(9):
        put(60, 80 + 13 * n, 10, "The harbour office is open from seven in the morning until four.", bold=False)
    for n, word in enumerate(("OPEN THE GATE", "CLOSE THE GATE")):
        put(70, 300 + 40 * n, 11.5, word)
        put(300, 280 + 40 * n, 9, "This is what the keeper of the lock calls", bold=False)
    put(60, 400, 9, "Figure 1 What the keeper of the lock calls", bold=False)
    pdf.output(str(tmp_path / "a.pdf"))
    assert [heading.text for heading in document(tmp_path / "a.pdf").headings] == ["Harbours of the coast", "Fees of the year"]


def test_what_lies_between_the_rules_of_a_cover_is_no_row(tmp_path: Path) -> None:
    pdf = blank()
    for y in (60, 160, 260):
        pdf.line(40, y, 500, y)
    for top, left, size, text in (
        (90, 50, 26, "Harbour fees"), (120, 50, 26, "of the coast"), (90, 350, 9, "First edition"),
        (190, 50, 26, "For masters"), (220, 50, 26, "and owners"), (190, 350, 9, "Second printing"),
    ):  # fmt: skip
        pdf.set_font("Helvetica", size=size)
        pdf.text(left, top, text)
    pdf.set_font("Helvetica", size=9)
    for n in range(8):
        pdf.text(50, 300 + 12 * n, "The harbour office is open from seven in the morning until four.")
    pdf.output(str(tmp_path / "a.pdf"))
    assert [heading.text for heading in document(tmp_path / "a.pdf").headings] == [
        "Harbour fees of the coast",
        "For masters and owners",
    ]


def column(text: str, right: float, *, pitch: float = 15, top: float = 700) -> dict[int, tuple[float, float, float, float]]:
    return {n: (right - 14, top - pitch * n - 14, right, top - pitch * n) for n in range(len(text))}


def test_vertical_writing_is_read_downwards_from_the_right() -> None:
    texts = ["港の灯台は毎年九月に", "点検の責任者は", "故障の際"]
    pieces = [Piece(400 - 30 * n, 100, 414 - 30 * n, 100 + 15 * len(text), text, down=True) for n, text in enumerate(texts)]
    heading = Piece(60, 50, 160, 64, "横書きの見出し")
    assert [piece.text for piece in columns([heading, *reversed(pieces)])] == [heading.text, *texts]
    assert [piece.text for piece in rows(pieces)] == texts, "columns are no cells"


@pytest.mark.parametrize("pitch", [15, 28])
def test_characters_under_each_other_are_a_column(pitch: float) -> None:
    boxes = column("港の灯台は毎年", 500, pitch=pitch)
    assert runs(boxes) == {0: [0, 1, 2, 3, 4, 5, 6]}
    across = {n: (60 + 14 * n, 700.0, 74 + 14 * n, 714.0) for n in range(9)}
    assert runs(across) == {}


def test_the_share_of_what_is_read_is_measured(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<h1>Depot</h1><p>One two three.</p><table><tr><td>Kestrel<td>12 kg</table>")
    (tmp_path / "a.html.expected.md").write_text(
        "# Depot\n\n## Lost\n\nOne two **three** [four](http://x.example/five).\n\n"
        "| Model | Weight |\n| - | - |\n| Kestrel | 12 kg |\n"
    )
    (tmp_path / "gone.zip").write_bytes(b"")
    (tmp_path / "gone.zip.expected.md").write_text("Six seven")
    command = [sys.executable, str(ROOT / "benchmarks/reading.py"), str(tmp_path), "--json"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["kinds"]
    page = found[".html"]
    assert (page["words"], page["words_found"]) == (11, 7), "depot, one, two, three, kestrel, 12, kg"
    assert (page["rows"], page["rows_whole"]) == (2, 1)
    assert (page["headings"], page["headings_found"], page["headings_more"]) == (2, 1, 0)
    assert (found[".zip"]["words"], found[".zip"]["words_found"], found["all"]["words"]) == (2, 0, 13)
