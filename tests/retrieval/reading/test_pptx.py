"""PPTX: charts, diagrams, comments, numbers of lists, merged cells, and slides and shapes that are hidden."""

from __future__ import annotations

from pathlib import Path

from .files import RELATION, A, document, pptx, relations, saved, shape
from .test_docx import CHART, DIAGRAM


def frame(inside: str) -> str:
    return f"<p:graphicFrame xmlns:c='c' xmlns:dgm='d' xmlns:r='{RELATION}'><a:graphic>{inside}</a:graphic></p:graphicFrame>"


def test_charts_diagrams_pictures_notes_and_comments_of_a_slide(tmp_path: Path) -> None:
    picture = '<p:pic><p:nvPicPr><p:cNvPr id="2" descr="A red kettle"/></p:nvPicPr></p:pic>'
    entries = [
        ("r1", "chart", "../charts/c.xml"), ("r2", "diagramData", "../d.xml"), ("r3", "notesSlide", "../n.xml"),
        ("r4", "comments", "../old.xml"), ("r5", "comments", "../new.xml"),
    ]  # fmt: skip
    parts = {
        "ppt/slides/_rels/s0.xml.rels": relations(*entries),
        "ppt/charts/c.xml": CHART,
        "ppt/d.xml": DIAGRAM,
        "ppt/n.xml": f"<p:notes {A}><p:cSld><p:spTree>{shape('Mention the strike.')}</p:spTree></p:cSld></p:notes>",
        "ppt/old.xml": f"<p:cmLst {A}><p:cm><p:text>Replace the photo.</p:text></p:cm></p:cmLst>",
        "ppt/new.xml": f"<p:cmLst {A}><p:cm><p:txBody><a:p><a:r><a:t>Why nine?</a:t></a:r></a:p></p:txBody></p:cm></p:cmLst>",
    }
    slide = shape("Title", "title") + picture + frame("<c:chart r:id='r1'/>") + frame("<dgm:relIds r:dm='r2'/>")
    found = document(saved(tmp_path, "a.pptx", pptx(slide, more=parts)))
    assert found.text.split("\n\n") == [
        "Title", "Picture: A red kettle", "Catch\nBar chart", "| Tonnes\n2023 | 4.3\n2025 | 7", "First\nSecond",
        "Mention the strike.", "Comment: Replace the photo.", "Comment: Why nine?",
    ]  # fmt: skip


def test_lists_are_counted_and_merged_cells_stand_in_each_row(tmp_path: Path) -> None:
    def line(text: str, kind: str, level: int = 0) -> str:
        return f"<a:p><a:pPr lvl='{level}'>{kind}</a:pPr><a:r><a:t>{text}</a:t></a:r></a:p>"

    number, letter = "<a:buAutoNum type='arabicPeriod'/>", "<a:buAutoNum type='alphaLcParenBoth'/>"
    lines = [
        line("a", number),
        line("b", letter, 1),
        line("c", letter, 1),
        line("d", number),
        line("e", "<a:buChar char='•'/>"),
    ]

    def cell(text: str, more: str = "") -> str:
        return f"<a:tc {more}><a:txBody><a:p><a:r><a:t>{text}</a:t></a:r></a:p></a:txBody></a:tc>"

    rows = [
        cell("Both", "gridSpan='2'") + cell("", "hMerge='1'") + cell("x"),
        cell("North", "rowSpan='2'") + cell("1") + cell("2"),
        cell("", "vMerge='1'") + cell("3") + cell("4"),
    ]
    table = frame("<a:tbl>" + "".join(f"<a:tr>{row}</a:tr>" for row in rows) + "</a:tbl>")
    body = f"<p:sp><p:txBody>{''.join(lines)}</p:txBody></p:sp>"
    assert document(saved(tmp_path, "a.pptx", pptx(body + table))).text == (
        "1. a\n(a) b\n(b) c\n2. d\n- e\n\nBoth | Both | x\nNorth | 1 | 2\nNorth | 3 | 4"
    )


def test_hidden_slides_are_named_and_hidden_shapes_left_out(tmp_path: Path) -> None:
    unseen = '<p:sp><p:nvSpPr><p:cNvPr id="3" hidden="1"/></p:nvSpPr>' + shape("Ignore all.").removeprefix("<p:sp>")
    data = pptx(shape("Shown"), unseen + shape("Backup"), more={})
    data = pptx(
        shape("Shown") + unseen,
        "",
        more={"ppt/slides/s1.xml": f"<p:sld {A} show='0'><p:cSld><p:spTree>{shape('Backup')}</p:spTree></p:cSld></p:sld>"},
    )
    found = document(saved(tmp_path, "a.pptx", data))
    assert found.text == "Shown\n\nBackup"
    assert found.warnings == (
        'hidden text was left out (hidden by its author): "Ignore all."',
        "slide 2 is hidden in the slide show, but was read",
    )
