"""A passage in its page: exact, apart, escaped."""

from __future__ import annotations

import importlib
import re
from html import unescape
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fpdf import FPDF

from llmbench import assets
from llmbench.recipe import RagRecipe, SourceSpec
from llmbench.retrieval import Chunk, Document, Hit
from llmbench.retrieval.reading import read, walk


@pytest.fixture
def documents(program: ModuleType) -> Any:
    return importlib.import_module("llmbench_app.documents")


def document(text: str, source: str = "a.md") -> Document:
    return Document(id="0", source=source, title="A", text=text, kind="markdown")


def hit(text: str, start: int, end: int, source: str = "a.md") -> Hit:
    return Hit(Chunk(f"{start}", source, "A", text[start:end], start, end, None, 1), 0.5, 1)


def marks(html: str) -> list[tuple[str, str]]:
    return [(kind, unescape(text)) for kind, text in re.findall(r'<mark class="(\w+)">(.*?)</mark>', html, re.DOTALL)]


def body(html: str) -> str:
    return unescape(re.sub(r"<[^>]+>", "", re.split(r'<div class="text"[^>]*>', html)[1]))


@pytest.fixture
def sheets(program: ModuleType) -> Any:
    return importlib.import_module("llmbench_app.sheets")


def test_the_chosen_passage_is_marked_exactly_and_the_page_is_whole(sheets: Any) -> None:
    text = "Zero & one. <b>Two</b> three. Four."
    html = sheets.text(document(text), [hit(text, 12, 29), hit(text, 0, 4, "b.md")], 0)
    assert marks(html) == [("hit", text[12:29])]
    assert body(html) == text


def test_overlapping_passages_do_not_repeat_text(sheets: Any) -> None:
    text = "".join(f"{n:02d} " for n in range(30))
    hits = [hit(text, 30, 60), hit(text, 21, 39), hit(text, 51, 90), hit(text, 33, 36), hit(text, 0, 9), hit(text, 3, 12)]
    html = sheets.text(document(text), hits, 0)
    assert body(html) == text
    assert [kind for kind, _ in marks(html)] == ["other", "other", "other", "hit", "other"]
    assert ("hit", text[30:60]) in marks(html)


def test_a_hostile_page_is_inert(sheets: Any) -> None:
    text = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    html = sheets.text(document(text, '"><script>x</script>.md'), [hit(text, 0, 25, '"><script>x</script>.md')], 0)
    assert "<script" not in html and "<img" not in html


def test_a_passage_over_two_pages_leads_from_one_to_the_other(sheets: Any, tmp_path: Path) -> None:
    pdf = FPDF()
    pdf.set_font("Helvetica", size=11)
    for words in ("One.", "Two.", "Three."):
        pdf.add_page()
        pdf.cell(text=words)
    pdf.output(str(tmp_path / "a<b>.pdf"))
    recipe = RagRecipe(name="a", documents=[SourceSpec(path=tmp_path)])
    found = read(walk(recipe.documents).files[0])
    hits = [hit(found.text, 0, found.text.index("Three"), "a<b>.pdf")]
    pages = [sheets.sheet(recipe, found, hits, sheets.Look(number=number)) for number in (None, 2, 3)]
    for html, words in zip(pages, ("continues on page 2", "begins on page 1", "Back to the passage on page 1"), strict=True):
        assert words in html and "<b>" not in html and html.count("data:image/png;base64,") == 1
    assert [html.count('class="hit"') for html in pages] == [1, 1, 0]


def test_the_bundled_pipelines_are_offered(documents: Any) -> None:
    paths = [path for _, path in documents.pipelines()]
    assert str(assets.bundle() / "rag" / "handbook.yaml") in paths
    first = assets.bundle() / "rag" / "handbook.yaml"
    assert documents.pipelines(first)[0][1] == str(first)


MARKDOWN = """---
title: refunds
---
# Refund policy

A refund takes **14 days**. The shop
keeps the receipt.

| product | price |
|---|---|
| widget | 81 crowns |
| gadget | 40 crowns |

1. Send *it*.
2. Wait.

```python
x = a[0]  # [1]
y = $5
```

See <b>this</b> and $x^2$.
"""


def drawn_marks(html: str) -> str:
    inside = " ".join(re.findall(r'<mark class="hit">(.*?)</mark>', html, re.DOTALL))
    return " ".join(unescape(re.sub(r"<[^>]+>", "", inside)).split())


@pytest.mark.parametrize(
    ("first", "last", "marked"),
    [
        ("A refund", "receipt.", "A refund takes 14 days . The shop keeps the receipt."),
        ("fund takes **14", "**14 days", "fund takes 14 days"),
        ("| widget", "81 crowns", "widget 81 crowns"),
        ("# Refund", "policy", "Refund policy"),
        ("2. Wait", "```python\nx = a[0]", "Wait. x = a[0]"),
        ("y = $5", "<b>this", "y = $5 See <b>this"),
        ("---\ntitle", "refunds", "title: refunds"),
    ],
)
def test_a_passage_is_marked_in_markdown_that_is_drawn(program: ModuleType, first: str, last: str, marked: str) -> None:
    drawn = importlib.import_module("llmbench_app.drawn").drawn
    start = MARKDOWN.index(first)
    html = drawn(MARKDOWN, [(start, MARKDOWN.index(last, start) + len(last), True)])
    assert drawn_marks(html) == marked
    assert "<table" in html and "<h1" in html and "<b>" not in html and "<strong>" in html


def test_marks_change_nothing_else_of_what_is_drawn(program: ModuleType) -> None:
    drawn = importlib.import_module("llmbench_app.drawn").drawn
    prose = MARKDOWN.replace("```python", "```")  # code with a boundary inside is not coloured
    for start in range(0, len(prose) - 40, 7):
        html = drawn(prose, [(start, start + 40, True)])
        assert re.sub(r"</?mark[^>]*>", "", html) == drawn(prose, []), start


def test_markdown_is_formatted_and_its_source_is_one_press_away(sheets: Any, tmp_path: Path) -> None:
    recipe = RagRecipe(name="a", documents=[SourceSpec(path=tmp_path)])
    hits = [hit(MARKDOWN, 26, 40)]
    html = sheets.sheet(recipe, document(MARKDOWN), hits, sheets.Look())
    assert "Formatted" in html and "<table" in html and "**14" not in html
    assert "**14 days**" in sheets.sheet(recipe, document(MARKDOWN), hits, sheets.Look(as_text=True))
