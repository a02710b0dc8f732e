"""Passages of headings, whole documents, the choice of `auto`, and what parents are made of."""

from __future__ import annotations

from typing import Any

import pytest

from llmbench.retrieval.chunking import Chunk, chunks
from llmbench.retrieval.documents import Document
from llmbench.retrieval.embedding import Embedder
from llmbench.retrieval.reading.text import markdown_headings

GUIDE = "# First\n\nStart.\n\n## Install\n\nUse pip.\n\n## Run\n\nType it.\n\n# Second\n\n## Deep\n\nSomething else.\n"


def page(text: str, kind: str = "markdown", name: str = "page.md", **values: Any) -> Document:
    headings, _ = markdown_headings(text) if kind == "markdown" else ((), {})
    return Document("0", name, "Guide", text, kind, headings=headings, **values)


def cut(document: Document, embedder: Embedder, size: int = 100, **settings: Any) -> list[Chunk]:
    return chunks(document, embedder, max_tokens=size, overlap=0, **settings)


def test_small_sections_of_one_parent_are_one_passage_with_their_headings(embedder: Embedder) -> None:
    found = cut(page(GUIDE), embedder, method="headings")
    assert [(chunk.title, chunk.text) for chunk in found] == [
        ("Guide > First", "# First\n\nStart.\n\n## Install\n\nUse pip.\n\n## Run\n\nType it."),
        ("Guide > Second > Deep", "Something else."),
    ]
    assert {chunk.method for chunk in found} == {"headings"}


def test_a_section_that_is_not_small_stays_alone_and_a_long_one_is_cut(embedder: Embedder) -> None:
    body = "The kettle boils the water in two minutes. " * 4
    found = cut(page(f"# Guide\n\n## One\n\n{body}\n\n## Two\n\n{body * 4}"), embedder, method="headings")
    titles = [chunk.title for chunk in found]
    assert titles[0] == "Guide > One" and found[0].text == body.strip()
    assert len(titles) > 2 and set(titles[1:]) == {"Guide > Two"}


def test_front_matter_is_never_taken_in(embedder: Embedder) -> None:
    [chunk] = cut(page("---\ntitle: Guide\n---\n\nText here.\n"), embedder, method="headings")
    [whole] = cut(page("---\ntitle: Guide\n---\n\nText here.\n"), embedder, method="document")
    assert chunk.text == whole.text == "Text here."


def test_a_whole_document_has_its_headings_and_crosses_pages(embedder: Embedder) -> None:
    [chunk] = cut(page(GUIDE, pages=(0, 20)), embedder, method="document")
    assert chunk.text == GUIDE.strip() and (chunk.title, chunk.method, chunk.page) == ("Guide", "document", 1)


def test_a_document_longer_than_the_window_is_cut_by_tokens_and_says_so(embedder: Embedder) -> None:
    found = cut(page("The kettle is red. " * 60, "text", "a.txt"), embedder, size=16, method="document", window=100)
    assert len(found) > 2 and {chunk.method for chunk in found} == {"tokens"}
    assert 64 < max(chunk.tokens for chunk in found) <= 100


@pytest.mark.parametrize(
    ("document", "method"),
    [
        (page(GUIDE), "headings"),
        (page("No headings here.", "text", "a.txt"), "tokens"),
        (page("x = 1\n", "code", "a.py"), "code"),
        (page("x = 1\n", "code", "a", metadata={"language": "Python"}), "code"),
        (page("X EQU 1\n", "code", "a.asm", metadata={"language": "asm"}), "tokens"),
        (page("Ahoj.\n", "text", "a.txt", metadata={"language": "cs"}), "tokens"),
    ],
)
def test_auto_chooses_by_kind_and_language(embedder: Embedder, document: Document, method: str) -> None:
    assert {chunk.method for chunk in cut(document, embedder, method="auto")} == {method}


def test_parents_hold_small_sections_together_and_cut_long_ones(embedder: Embedder) -> None:
    body = "The kettle boils the water in two minutes. " * 40
    document = page(f"# Guide\n\n## One\n\nShort.\n\n## Two\n\nShort too.\n\n## Three\n\n{body}")
    found = cut(document, embedder, 40, parent_tokens=160)
    parents = [document.text[slice(*chunk.parent)] for chunk in found if chunk.parent]
    assert parents[0] == parents[1] == "# Guide\n\n## One\n\nShort.\n\n## Two\n\nShort too."
    assert [chunk.text for chunk in found[:2]] == ["Short.", "Short too."]
    assert len({chunk.parent for chunk in found[2:]}) == 3 and all(parent.endswith("minutes.") for parent in parents[2:])


def test_indentation_of_the_first_line_is_kept(embedder: Embedder) -> None:
    [chunk] = cut(page("# Guide\n\n    name: a\n    size: 2\n"), embedder)
    assert chunk.text == "    name: a\n    size: 2"
