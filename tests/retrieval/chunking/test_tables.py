"""Tables: the passages after the first say what their columns are called; other lines with bars are left as they are."""

from __future__ import annotations

from itertools import accumulate

import pytest

from llmbench.retrieval.chunking import chunks, embedded_text
from llmbench.retrieval.chunking.tables import head_at, tables
from llmbench.retrieval.documents import Document, Heading
from llmbench.retrieval.embedding import Embedder

HEAD = "Name | Rated pressure | Bore | Place"


def rows(count: int) -> list[str]:
    return [f"Valve V{i:03} | {10 + i} bar | {5 + i} mm | hall {i % 9}" for i in range(count)]


def page(kind: str, lines: list[str]) -> Document:
    text = "\n".join(lines)
    return Document("1", f"valves.{kind}", "Valves", text, kind)


def markdown(count: int) -> Document:
    lines = [f"| {HEAD} |", "|---|:--:|--:|---|", *(f"| {row} |" for row in rows(count))]
    return page("markdown", ["# Valves", "", *lines, "", "All are checked in May | June."])


@pytest.mark.parametrize("kind", ["markdown", "html", "docx"])
@pytest.mark.parametrize("parent", [None, 300])
def test_every_passage_of_a_table_names_its_columns(embedder: Embedder, kind: str, parent: int | None) -> None:
    document = markdown(80) if kind == "markdown" else page(kind, ["Our valves", "", HEAD, *rows(80)])
    found = chunks(document, embedder, max_tokens=100, overlap=10, parent_tokens=parent, window=104)
    assert len(found) > 8
    for number, chunk in enumerate(found):
        assert document.text[chunk.start : chunk.end] == chunk.text
        assert (HEAD in chunk.text) != (chunk.head == HEAD), chunk
        assert bool(chunk.head) == (number > 0)
        title = len(embedder.starts(chunk.title))
        assert len(embedder.starts(embedded_text(chunk.title, chunk.text, embedder, head=chunk.head))) <= title + 104
    assert len({chunk.id for chunk in found}) == len(found)


def test_what_follows_a_table_has_no_head(embedder: Embedder) -> None:
    document = page("html", [HEAD, *rows(30), "", "Afterwards " + "all valves are closed again and checked. " * 40])
    last = chunks(document, embedder, max_tokens=60, overlap=0)[-1]
    assert last.head == "" and "closed" in last.text


@pytest.mark.parametrize(
    ("lines", "head"),
    [
        ([HEAD, *rows(3)], HEAD),
        (rows(4), ""),  # no row is otherwise than the others
        (["Item | 2022 | 2023", "Revenue | 120 | 130", "Costs | 90 | 95"], "Item | 2022 | 2023"),
        (["Quarter | Sold", "Q1 | 1,204", "Q2 | 1,310"], "Quarter | Sold"),
        (["Name | Town", "Ann | Berlin", "Bo | Lyon"], "Name | Town"),
        (["left | right", "one sentence"], ""),
        (["17 | Ann", "18 | Bo", "19 | Cy"], ""),
    ],
)
def test_a_head_looks_otherwise_than_what_is_below_it(lines: list[str], head: str) -> None:
    document = page("docx", lines)
    assert head_at(tables(document), len(document.text) - 1) == head
    assert head_at(tables(document), 0) == ""


def test_markdown_needs_its_line_of_dashes_and_code_has_no_tables() -> None:
    assert tables(page("markdown", [HEAD, *rows(5)])) == ()
    assert tables(page("code", [f"| {HEAD} |", "|---|---|---|---|", *rows(5)])) == ()
    [table] = tables(markdown(3))
    assert table.head == HEAD
    spaces = " " * 2**20
    assert tables(page("markdown", ["| a |", f"{spaces}x |", f"---{spaces}x |", "| b |"])) == ()


def test_each_section_has_the_heads_of_its_own_tables(embedder: Embedder) -> None:
    parts = [
        f"# S{i}\n\n" + "".join(f"| Valve {i}{kind} | Bar |\n|---|---|\n" + "| V | 9 |\n" * 40 + "\n" for kind in "ab")
        for i in range(30)
    ]
    starts = [0, *accumulate(map(len, parts))]
    headings = tuple(Heading(at, at + len(f"# S{i}"), 1, f"S{i}") for i, at in enumerate(starts[:-1]))
    document = Document("1", "a.md", "T", "".join(parts), "markdown", headings=headings)
    found = chunks(document, embedder, max_tokens=60, overlap=0)
    later = {chunk.title.rpartition(" > ")[2] + " " + chunk.head for chunk in found if chunk.text.startswith("| V |")}
    assert later == {f"S{i} Valve {i}{kind} | Bar" for i in range(30) for kind in "ab"}


def test_a_head_that_would_fill_the_passage_is_left_out(embedder: Embedder) -> None:
    wide = " | ".join(f"column of the measured value called {chr(97 + i)}" for i in range(10))
    document = page("docx", [wide, *(" | ".join(str(i * j) for j in range(10)) for i in range(1, 60))])
    found = chunks(document, embedder, max_tokens=40, overlap=0)
    assert len(found) > 5 and not any(chunk.head for chunk in found)


@pytest.mark.parametrize(
    "text",
    ["x" * 40_000, "ค่าจอดเรือในฤดูหนาวเดือนละสี่ร้อยบาท สัญญายกเลิกได้ล่วงหน้าสามเดือน " * 100, "ก็" * 9_000, '{"a":' * 3_000],
)
@pytest.mark.parametrize("method", ["tokens", "sentences", "document", "headings"])
def test_a_passage_is_bounded_in_characters_too(embedder: Embedder, text: str, method: str) -> None:
    document = Document("1", "long.txt", "x" * 3000, text, "text", headings=(Heading(0, 0, 1, "x" * 3000),))
    found = chunks(document, embedder, max_tokens=50, overlap=5, method=method, window=60)  # type: ignore[arg-type]
    assert max(len(chunk.text) for chunk in found) <= 8 * (60 if method == "document" else 50)
    assert sum(len(chunk.text) for chunk in found) >= len(text.replace(" ", ""))
    assert not any(chunk.text[0] == "็" for chunk in found)
    assert len(embedded_text(found[0].title, "", embedder)) <= 8 * 32 + 1
