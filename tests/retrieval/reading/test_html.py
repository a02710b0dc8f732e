"""HTML: formulas, pictures, lists to choose from, spanned cells, numbers of items, and what the page's own styles hide."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbench import retrieval
from llmbench.recipe import RagRecipe
from llmbench.retrieval.reading.formats.numbering import ordinal

from .files import document, epub, saved


def text(folder: Path, markup: str) -> str:
    return document(saved(folder, "a.html", f"<!doctype html><body>{markup}".encode())).text


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("<p>It is <math><mi>A</mi><mo>=</mo><mn>42</mn><mi>r</mi></math> square.", "It is A=42r square."),
        ("<math><mfrac><mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow><mn>2</mn></mfrac></math>", "(a+b)/2"),
        ("<math><msup><mi>x</mi><mn>2</mn></msup><msub><mi>y</mi><mi>i</mi></msub></math>", "x^2y_i"),
        ("<math><semantics><msqrt><mi>n</mi></msqrt><annotation>\\sqrt n</annotation></semantics></math>", "√(n)"),
        ("<p>10<sup>6</sup> m<sup>2</sup>, H<sub>2</sub>O, 1<sup>st</sup>", "10^6 m^2, H2O, 1st"),
        ("<img alt='Map: exits are at gate nine'><p>Below.", "Picture: Map: exits are at gate nine\n\nBelow."),
        ("<p>Rated <img alt='four stars'> by guests. <img alt=logo>", "Rated (four stars) by guests."),
        ("<select><option>Northern depot<option>Southern depot</select>", "Northern depot\nSouthern depot"),
        ("<select>" + "<option>One of many" * 40 + "<option selected>Chosen</select>", "Chosen"),
        ("<p>A <abbr title='personal flotation device'>PFD</abbr> each.", "A PFD (personal flotation device) each."),
        ("<button>Show the tariff</button>", "Show the tariff"),
        ("<p>Name <input value=Ada> <input type=hidden value=x> <input type=checkbox checked>yes", "Name Ada [x] yes"),
        ("<p><input placeholder='Your vessel, please'><input placeholder=Search>", "Your vessel, please"),
        ("<ol start=3><li>Third<li>Fourth<ol type=a><li>Sub</ol></ol>", "3. Third\n4. Fourth\n\na. Sub"),
        ("<ol><li value=7>Seven<li>Eight</ol>", "7. Seven\n8. Eight"),
        ("<p><ruby>灯台<rp>(</rp><rt>とうだい</rt><rp>)</rp></ruby>守", "灯台(とうだい)守"),
        ("<ruby>灯台<rt><div>とうだい</div></rt></ruby>守", "灯台\n\nとうだい\n\n守"),
        ("<svg><title>Plan</title><text>North quay</text></svg>", "North quay"),
        ("<details><summary>Refunds</summary><p>Nine days.</details>", "Refunds\n\nNine days."),
        ("<p>Seen<template>no</template><noscript>no</noscript><span aria-hidden=true> too</span>", "Seen too"),
    ],
)
def test_what_a_reader_sees_is_read(tmp_path: Path, markup: str, expected: str) -> None:
    assert text(tmp_path, markup) == expected


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (
            "<tr><th>Model<th>Weight<tr><td rowspan=2>Kestrel<td>12 kg<tr><td>14 kg<tr><td>Merlin<td>9 kg",
            ["Model | Weight", "Kestrel | 12 kg", "Kestrel | 14 kg", "Merlin | 9 kg"],
        ),
        ("<tr><td>a<td rowspan=0>b<td>c<tr><td>d<td>e<tr><td>f", ["a | b | c", "d | b | e", "f | b"]),
        ("<tr><td rowspan=2 colspan=2>wide<td>1<tr><td>2", ["wide | 1", "wide | 2"]),
        ("<tr><td><table><tr><td>A1<td>B1<tr><td>C1<td>D1</table><td>2", ["A1 B1 C1 D1 | 2"]),
        ("<tr><td>Pond<td><pre>See\n the docs</pre><td><ol><li>South<li>Nest</ol>", ["Pond | See the docs | 1. South 2. Nest"]),
    ],
)
def test_rows_of_tables_are_whole(tmp_path: Path, table: str, expected: list[str]) -> None:
    assert text(tmp_path, f"<table>{table}</table>").split("\n") == expected


def test_what_styles_hide_is_left_out_and_named(tmp_path: Path) -> None:
    markup = """<style>@import url(a.css);.x{display:none} /* .seen {display:none} */ @media print {.seen {display: none}}
      #d {visibility:hidden}
      .white {color: #fff; background: rgb(255, 255, 255)}</style>
      <p class=seen>Seen</p><p class=x>By its class</p><p id=d>By its id</p><p style="opacity:0">Clear</p>
      <p class=white>White</p><p style="color:white">Pale</p><p style="font-size:0.1px">Tiny</p>
      <div style="background:navy"><p style="color:white">White on navy</p></div><p style="display:none">Plain</p>"""
    found = document(saved(tmp_path, "a.html", f"<!doctype html>{markup}".encode()))
    assert found.text.split("\n\n") == ["Seen", "White on navy"]
    assert found.warnings == (
        'hidden text was left out (not displayed): "By its class" and 1 more',
        'hidden text was left out (fully transparent): "Clear"',
        'hidden text was left out (in the colour of its background): "White" and 1 more',
        'hidden text was left out (font size 0): "Tiny"',
    )


def test_white_letters_of_a_page_with_a_style_sheet_elsewhere_are_kept(tmp_path: Path) -> None:
    assert text(tmp_path, '<link rel=stylesheet href=a.css><p style="color:white">On a banner') == "On a banner"


@pytest.mark.parametrize("style", ["opacity: 1.2.3", "opacity: .", "font-size: 1..2em", "font-size: 12.", "opacity: .5"])
def test_a_figure_that_is_none_hides_nothing(tmp_path: Path, style: str) -> None:
    assert text(tmp_path, f"<style>p {{{style}}}</style><p style='{style}'>Seen") == "Seen"


def test_a_formula_in_a_book_is_read(tmp_path: Path) -> None:
    found = document(saved(tmp_path, "a.epub", epub("<p>Mass: <math><mi>E</mi><mo>=</mo><mi>m</mi></math></p>")))
    assert "Mass: E=m" in found.text


def test_a_thousand_spanned_rows_and_wild_styles_end(tmp_path: Path) -> None:
    wild = "<style>" + "a" * 5000 + "{" * 3000 + "@media {" * 500 + "</style>"
    wild += "<style>@font-face{src:url(data:font/woff2;base64," + "A" * 6_000_000 + ")}</style>"
    assert text(tmp_path, "<p>Rated" + " <img alt='four stars'>" * 70_000).endswith("Rated" + " (four stars)" * 70_000)
    assert text(tmp_path, wild + "<table><tr><td rowspan=99999 colspan=99999>a<td>b<tr><td>c</table>") == "a | b\na | c"


def test_numbers_are_written_as_the_list_asks() -> None:
    assert [ordinal(n, style) for n, style in ((28, "a"), (3, "A"), (14, "i"), (1994, "I"), (0, "a"), (5, "1"))] == [
        "ab", "C", "xiv", "MCMXCIV", "0", "5",
    ]  # fmt: skip


def test_the_index_says_which_documents_hide_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "home"))
    saved(tmp_path / "docs", "a.html", b"<!doctype html><p>Seen</p><p style='opacity:0'>Clear</p>")
    saved(tmp_path / "docs", "b.html", b"<!doctype html><p>Seen as well</p>")
    recipe = RagRecipe.model_validate({"name": "hiding", "documents": [tmp_path / "docs"]})
    (note,) = retrieval.build(recipe).notes
    assert note.startswith("Left out text that is hidden from readers: a.html. Details: llmbench index report ")


@pytest.mark.parametrize(
    ("style", "why"),
    [
        ("position: absolute; left: -9999px", "outside the page"),
        ("position: fixed; top: -999em", "outside the page"),
        ("position:absolute;width:1px;height:1px;overflow:hidden;clip:rect(0, 0, 0, 0)", "outside the page"),
        ("text-indent: -9999px", "outside the page"),
        ("height: 0; overflow: hidden", "without room"),
        ("clip-path: inset(100%)", "without room"),
        ("transform: scale(0)", "without room"),
    ],
)
def test_text_moved_off_the_page_or_without_room_is_left_out_and_named(tmp_path: Path, style: str, why: str) -> None:
    page = f"<!doctype html><style>.x {{{style}}}</style><p>The toll is nine.<p class=x>The toll is nothing."
    found = document(saved(tmp_path, "a.html", page.encode()))
    assert found.text == "The toll is nine."
    assert found.warnings == (f'hidden text was left out ({why}): "The toll is nothing."',)


@pytest.mark.parametrize("style", ["position: absolute; left: -20px", "text-indent: -2em", "left: -9999px", "height: 0"])
def test_text_moved_a_little_stays(tmp_path: Path, style: str) -> None:
    assert text(tmp_path, f"<p style='{style}'>The toll is nine.") == "The toll is nine."
