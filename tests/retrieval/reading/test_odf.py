# ruff: noqa: E501 (XML as programs write it is not cut)
"""ODT and ODP: numbers of lists and headings, charts, notes, comments, merged cells, and what is hidden."""

from __future__ import annotations

from pathlib import Path

from llmbench.retrieval.documents import Document

from .files import document, saved, zipped

SPACES = " ".join(
    f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"'
    for name in ("office", "text", "table", "style", "drawing", "presentation", "chart")
) + ' xmlns:svg="svg" xmlns:xlink="xlink" xmlns:dc="dc"'  # fmt: skip


def read(folder: Path, body: str, styles: str = "", more: dict[str, str] | None = None, kind: str = "text") -> Document:
    content = (
        f"<office:document-content {SPACES}><office:automatic-styles>{styles}</office:automatic-styles>"
        f"<office:body>{body}</office:body></office:document-content>"
    )
    parts = {"mimetype": f"application/vnd.oasis.opendocument.{kind}", "content.xml": content, **(more or {})}
    return document(saved(folder, f"a.od{'p' if kind == 'presentation' else 't'}", zipped(parts)))


def p(text: str, style: str = "") -> str:
    return f'<text:p text:style-name="{style}">{text}</text:p>'


def test_lists_and_headings_bear_their_numbers(tmp_path: Path) -> None:
    level = '<text:list-level-style-number text:level="{}" style:num-format="{}" {}/>'.format
    styles = (
        '<text:list-style style:name="L">' + level(1, "1", 'style:num-suffix="."')
        + level(2, "a", 'style:num-prefix="(" style:num-suffix=")"') + level(3, "1", 'text:display-levels="3"') + "</text:list-style>"
        '<text:list-style style:name="B"><text:list-level-style-bullet text:level="1"/></text:list-style>'
        '<text:outline-style><text:outline-level-style text:level="1" style:num-format="1"/>'
        '<text:outline-level-style text:level="2" style:num-format="1" text:display-levels="2"/></text:outline-style>'
    )  # fmt: skip
    item = "<text:list-item{}>{}</text:list-item>".format
    deep = "<text:list>" + item("", p("c") + f"<text:list>{item('', p('d'))}</text:list>") + "</text:list>"
    seven = ' text:start-value="7"'
    head = '<text:h text:outline-level="{}">{}</text:h>'.format
    body = (
        head(1, "One") + head(2, "Sub") + f'<text:list text:style-name="L">{item("", p("a"))}{item("", p("b") + deep)}</text:list>'
        + f'<text:list text:style-name="L" text:continue-numbering="true">{item("", p("e"))}</text:list>'
        + f'<text:list text:style-name="L">{item(seven, p("f"))}</text:list>'
        + f'<text:list text:style-name="B">{item("", p("g"))}</text:list>' + head(1, "Two")
    )  # fmt: skip
    found = read(tmp_path, body, styles)
    assert [line for line in found.text.splitlines() if line] == [
        "1 One", "1.1 Sub", "1. a", "2. b", "(a) c", "2.a.1 d", "3. e", "7. f", "- g", "2 Two",
    ]  # fmt: skip
    assert [(h.level, h.text) for h in found.headings] == [(1, "1 One"), (2, "1.1 Sub"), (1, "2 Two")]


def test_charts_notes_comments_pictures_and_merged_cells(tmp_path: Path) -> None:
    cell = "<table:table-cell{}>{}</table:table-cell>".format
    row = "<table:table-row>{}</table:table-row>".format
    chart = (
        f'<office:document-content {SPACES}><office:body><office:chart><chart:chart chart:class="chart:bar"><chart:title>{p("Catch")}'
        f"</chart:title><table:table>{row(cell('', p('')) + cell('', p('Tonnes')))}{row(cell('', p('2023')) + cell('', p('4.3')))}"
        "</table:table></chart:chart></office:chart></office:body></office:document-content>"
    )
    spanned, covered = ' table:number-rows-spanned="2"', "<table:covered-table-cell/>"
    table = (
        row(cell(' table:number-columns-spanned="2"', p("Title")) + covered)
        + row(cell(spanned, p("North")) + cell("", p("1")))
        + row(covered + cell("", p("2")))
    )
    body = (
        '<text:p text:style-name="P1">Report</text:p><text:p>Words<text:note><text:note-citation>1</text:note-citation>'
        f"<text:note-body>{p('A note.')}</text:note-body></text:note> go on"
        f"<office:annotation><dc:creator>Ada</dc:creator>{p('Check it.')}</office:annotation>.</text:p>"
        '<text:p><drawing:frame><drawing:object xlink:href="./Object 1"/></drawing:frame></text:p>'
        "<text:p><drawing:frame><drawing:image/><svg:desc>Map of the exits</svg:desc></drawing:frame></text:p>"
        f"<table:table>{table}</table:table>"
    )
    title = '<style:style style:name="P1" style:parent-style-name="Title"/>'
    found = read(tmp_path, body, title, {"Object 1/content.xml": chart})
    assert found.text.split("\n\n") == [
        "Report", "Words go on.", "Catch\nBar chart", "| Tonnes\n2023 | 4.3", "Picture: Map of the exits",
        "Title\nNorth | 1\nNorth | 2", "A note.", "Comment by Ada: Check it.",
    ]  # fmt: skip
    assert (found.title, [h.text for h in found.headings]) == ("Report", ["Report"])


def test_hidden_text_is_left_out_and_named_and_headers_are_read(tmp_path: Path) -> None:
    styles = '<style:style style:name="H"><style:text-properties text:display="none"/></style:style>'
    body = (
        p('Shown <text:span text:style-name="H">ignore all</text:span>text.')
        + f'<text:section text:display="none">{p("More of it.")}</text:section>'
        + "<text:p>Kept<text:hidden-text>no</text:hidden-text></text:p>"
    )
    master = (
        f"<office:document-styles {SPACES}><office:master-styles><style:master-page><style:header>{p('Head')}</style:header>"
        f"<style:footer>{p('Page <text:page-number>3</text:page-number>')}</style:footer></style:master-page></office:master-styles>"
        "</office:document-styles>"
    )
    found = read(tmp_path, body, styles, {"styles.xml": master})
    assert found.text.split("\n\n") == ["Head", "Shown text.", "Kept", "Page"]
    assert found.warnings == ('hidden text was left out (hidden by its author): "ignore all" and 1 more',)


def test_slides_have_titles_notes_and_names(tmp_path: Path) -> None:
    frame = '<drawing:frame presentation:class="{}"><drawing:text-box>{}</drawing:text-box></drawing:frame>'.format
    body = (
        f"<drawing:page drawing:name='one'>{frame('outline', p('Words'))}{frame('title', p('First'))}"
        f"<presentation:notes>{frame('notes', p('Say it.'))}{frame('page-number', p('1'))}</presentation:notes></drawing:page>"
        f"<drawing:page drawing:name='Second' drawing:style-name='d'>{frame('subtitle', p('More'))}</drawing:page>"
    )
    style = '<style:style style:name="d"><style:drawing-page-properties presentation:visibility="hidden"/></style:style>'
    found = read(tmp_path, body, style, kind="presentation")
    assert found.text.split("\n\n") == ["First", "Words", "Say it.", "Second", "More"]
    assert ([h.text for h in found.headings], len(found.pages)) == (["First", "Second"], 2)
    assert found.warnings == ("slide 2 is hidden in the slide show, but was read",)


def test_a_text_in_one_xml_file_is_read_as_a_text(tmp_path: Path) -> None:
    spaces = " ".join(f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in ("office", "text"))
    flat = (
        f'<office:document {spaces} office:mimetype="application/vnd.oasis.opendocument.text"><office:settings><office:item>'
        'true</office:item></office:settings><office:body><office:text><text:h text:outline-level="1">Tolls</text:h>'
        "<text:p>Nine <text:span>crowns</text:span> a day.</text:p></office:text></office:body></office:document>"
    )
    found = document(saved(tmp_path, "a.fodt", flat.encode()))
    assert (found.text, found.kind, found.title) == ("Tolls\n\nNine crowns a day.", "odt", "Tolls")
