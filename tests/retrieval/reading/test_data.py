"""JSON, notebooks and XML that are not what a strict parser wants, and the values that they hold."""

from __future__ import annotations

import json
import plistlib
from datetime import datetime
from pathlib import Path

import pytest

from llmbench.retrieval.documents import Unreadable

from .files import document, saved


@pytest.mark.parametrize(
    ("name", "data", "expected", "warned"),
    [
        ("a.jsonl", '{"m":"one"}\nbroken here\n{"m":"two"}\n', "m: one\nbroken here\n\nm: two", "line 2"),
        ("a.jsonl", '\ufeff{"m":"one"}\r\n{"m":"two"}\r\n{"m":"cu', 'm: one\n\nm: two\n{"m":"cu', "line 3"),
        ("a.json", '{"a": 1}\n{\n "b": 2\n}\n', "a: 1\n\nb: 2", ""),
        ("a.json", '{\n // x\n "a": "http://x", /* y */\n "b": [1, 2,],\n}', "a: http://x\nb: 1, 2", ""),
        ("a.json", '[{"a": 1}, {"b": 2}, {"c":', 'a: 1\n\nb: 2\n{"c":', "line 1"),
        ("a.json", "no JSON at all\n12 monkeys", "no JSON at all\n12 monkeys", "lines 1, 2"),
        ("a.json", '{"a": "one\ntwo"}', "a: one\ntwo", ""),
        ("tsconfig.jsonc", '{"strict": true, // yes\n}', "strict: true", ""),
    ],
    ids=["one line", "cut off", "two values", "comments", "list cut off", "none", "raw line end", "jsonc"],
)
def test_what_can_be_parsed_is_read_and_the_rest_stays_text(
    tmp_path: Path, name: str, data: str, expected: str, warned: str
) -> None:
    found = document(saved(tmp_path, name, data.encode()))
    assert found.text == expected
    assert [warning.rpartition(": ")[2] for warning in found.warnings] == ([warned] if warned else [])


@pytest.mark.parametrize(
    ("lines", "count"), [("a line of a log", 60_000), ('copied /data/* to "there"', 60_000), ('{"m": "one"}\nbroken', 500)]
)
def test_a_long_log_that_is_called_json_is_read(tmp_path: Path, lines: str, count: int) -> None:
    found = document(saved(tmp_path, "a.json", f"{lines}\n".encode() * count))
    assert found.text.count(lines.rpartition("\n")[2]) == count
    assert found.text.count("m: one") == lines.count("one") * count


def test_a_comment_that_nothing_ends_is_no_comment(tmp_path: Path) -> None:
    assert document(saved(tmp_path, "a.json", b'{"a": 1} /* kept')).text == "a: 1\n/* kept"


def test_a_notebook_gives_markdown_pages_and_errors_of_its_cells(tmp_path: Path) -> None:
    outputs = [
        {"data": {"text/html": "<table><tr><th>Port</th><td>9</td></tr></table>"}},
        {"data": {"text/markdown": ["**Tide** table"], "text/plain": "<IPython>"}},
        {"output_type": "error", "ename": "ValueError", "evalue": "rope \u001b[0;31mtoo\u001b[0m short", "traceback": ["x"]},
        {"name": "stdout", "text": "\u001b[1mbold\u001b[0m"},
    ]
    cells = [{"cell_type": "code", "source": "df", "outputs": outputs}]
    expected = "df\n\nPort | 9\n\n**Tide** table\n\nValueError: rope too short\n\nbold"
    assert document(saved(tmp_path, "a.ipynb", json.dumps({"cells": cells}).encode())).text == expected
    old = {"worksheets": [{"cells": [{"cell_type": "code", "input": "df", "outputs": outputs}]}]}
    assert document(saved(tmp_path, "b.ipynb", json.dumps(old).encode())).text == expected


XML = '<?xml version="1.0"?>'


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('<all><part number="KX-7719" name="Pump" id="p1"/><part number="KX-7720"/></all>',
         "part number: KX-7719; name: Pump\npart number: KX-7720"),
        ('<suite name="depot"><case name="crane"><failure message="rope slipped">trace</failure></case></suite>',
         "suite name: depot\ncase name: crane\nfailure: trace (message: rope slipped)"),
        ('<!DOCTYPE p [<!ENTITY f SYSTEM "f.tif" NDATA T><!NOTATION T SYSTEM "t"><!ENTITY c "(c)">]><p><a>Mine &c;</a></p>',
         "a: Mine (c)"),
        ('<!DOCTYPE p PUBLIC "-//X" "x.dtd"><p><a>nine&mdash;ten&deg;</a></p>', "a: nine\u2014ten°"),
        ("<p><a>One &nosuch; two</a><b>Three</p>", "One &nosuch; two Three"),
        ("just words", "just words"),
    ],
    ids=["attributes", "attributes beside text", "entities", "signs of a DTD", "broken", "no XML"],
)  # fmt: skip
def test_xml_keeps_its_values_and_costs_no_more_than_what_is_broken(tmp_path: Path, data: str, expected: str) -> None:
    assert (
        " ".join(document(saved(tmp_path, "a.xml", (XML * data.startswith("<") + data).encode())).text.split(" ")) == expected
    )


@pytest.mark.parametrize(
    "entities",
    [
        "".join(f'<!ENTITY e{n} "x">' for n in range(101)),
        f'<!ENTITY a "{"x" * 81}">',
        '<!ENTITY a "ha"><!ENTITY b "&a;&a;">',
        '<!ENTITY a SYSTEM "file:///etc/passwd">',
        '<!ENTITY % a "x">',
    ],
    ids=["many", "long", "growing", "external", "parameter"],
)
def test_entities_that_grow_or_lead_outside_are_refused(tmp_path: Path, entities: str) -> None:
    with pytest.raises(Unreadable, match="declares entities"):
        document(saved(tmp_path, "a.xml", f"{XML}<!DOCTYPE p [{entities}]><p>&a;</p>".encode()))


@pytest.mark.parametrize(
    "data",
    [
        "<article><front><article-meta><title-group><article-title>On rope</article-title></title-group></article-meta></front>"
        "<body><sec><title>Methods</title><p>We <b>pulled</b>.</p><p>Hard.</p><sec><title>Rigs</title><p>Two.</p></sec></sec>"
        "<table><tr><td>a</td><td>b</td></tr></table></body></article>",
        '<book xmlns="http://docbook.org/ns/docbook"><info><title>On rope</title></info><chapter><title>Methods</title><para>'
        "We <b>pulled</b>.</para><para>Hard.</para><section><title>Rigs</title><para>Two.</para></section><informaltable><row>"
        "<entry>a</entry><entry>b</entry></row></informaltable></chapter></book>",
    ],
    ids=["JATS", "DocBook"],
)
def test_articles_and_books_in_xml_have_headings_and_paragraphs(tmp_path: Path, data: str) -> None:
    found = document(saved(tmp_path, "a.nxml", data.encode()))
    assert [h.text for h in found.headings] == ["On rope", "Methods", "Rigs"]
    assert found.text == "On rope\n\nMethods\n\nWe pulled.\n\nHard.\n\nRigs\n\nTwo.\n\na | b"
    assert found.title == "On rope"


def test_notebooks_of_version_3_have_headings_and_formulas_are_read(tmp_path: Path) -> None:
    old = {"worksheets": [{"cells": [{"cell_type": "heading", "level": 2, "source": ["Tolls"]}]}], "nbformat": 3}
    assert [h.text for h in document(saved(tmp_path, "a.ipynb", json.dumps(old).encode())).headings] == ["Tolls"]
    shown = {"cells": [{"cell_type": "code", "source": "x", "outputs": [{"data": {"text/latex": ["$a^2$"]}}]}], "nbformat": 4}
    assert document(saved(tmp_path, "b.ipynb", json.dumps(shown).encode())).text == "x\n\n$a^2$"


def test_excels_line_that_names_the_divider_is_no_row(tmp_path: Path) -> None:
    assert document(saved(tmp_path, "a.csv", b"sep=^\nname^toll\ncrane^9\n")).text == "name: crane; toll: 9"


def test_colours_of_a_terminal_are_left_out(tmp_path: Path) -> None:
    assert document(saved(tmp_path, "a.log", b"\x1b[1;31mrope slipped\x1b[0m at nine")).text == "rope slipped at nine"


@pytest.mark.parametrize("form", [plistlib.FMT_XML, plistlib.FMT_BINARY], ids=["XML", "binary"])
def test_a_property_list_is_read_like_json(tmp_path: Path, form: plistlib.PlistFormat) -> None:
    value = {"Label": "org.harbour.tides", "Times": [{"Hour": 7}, {"Hour": 19}], "Since": datetime(2026, 3, 2), "Icon": b"x"}
    found = document(saved(tmp_path, "a.plist", plistlib.dumps(value, fmt=form)))
    assert sorted(found.text.split("\n")) == [
        "Label: org.harbour.tides", "Since: 2026-03-02T00:00:00", "Times.Hour: 19", "Times.Hour: 7",
    ]  # fmt: skip


def test_a_broken_property_list_is_told(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="broken property list"):
        document(saved(tmp_path, "a.plist", b"<plist><dict><key>a</key>"))
