"""Cutting: exact spans, the limit in the embedder's own tokens, and where cuts are made."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from llmbench.recipe import SourceSpec
from llmbench.retrieval.chunking import Chunk, chunks, embedded_text
from llmbench.retrieval.documents import Document
from llmbench.retrieval.embedding import Embedder
from llmbench.retrieval.reading import File, read


def markdown(folder: Path, text: str, name: str = "page.md") -> Document:
    path = folder / name
    path.write_bytes(text.encode())
    return read(File(path, name, SourceSpec(path=path)))


def cut(document: Document, embedder: Embedder, size: int = 32, overlap: int = 0) -> list[Chunk]:
    return chunks(document, embedder, max_tokens=size, overlap=overlap)


def prose(seed: int, words: int) -> str:
    """Text with sentences, paragraphs, lists, odd letters and a word longer than any passage."""
    rng = Random(seed)
    parts = []
    for _ in range(words):
        word = "".join(rng.choice("abcdefghijklmnopqrstuvwxyzäß漢字é") for _ in range(rng.randint(1, 9)))
        parts.append(word + rng.choice(["", "", "", "", ",", ". The", ".\n\n", "\n", "\r\n", "\n- ", " 🙂", "  "]))
    return " ".join(parts) + " " + "x" * 400


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("overlap", [0, 10])
def test_spans_are_exact_within_the_limit_and_cover_every_word(
    tmp_path: Path, embedder: Embedder, seed: int, overlap: int
) -> None:
    document = markdown(tmp_path, prose(seed, 300), "page.txt")
    found = cut(document, embedder, overlap=overlap)
    assert len(found) > 10
    for chunk in found:
        assert document.text[chunk.start : chunk.end] == chunk.text == chunk.text.strip("\n\r").rstrip() != ""
        assert len(embedder.starts(chunk.text)) <= 32
        assert chunk.line == document.text.count("\n", 0, chunk.start) + 1
    covered = set().union(*(range(chunk.start, chunk.end) for chunk in found))
    assert not [i for i, letter in enumerate(document.text) if not letter.isspace() and i not in covered]
    assert len({chunk.id for chunk in found}) == len(found)
    twice = sum(chunk.end - chunk.start for chunk in found) - len(covered)
    assert twice == 0 if overlap == 0 else twice > 0


def test_a_short_page_is_one_passage_without_its_title_line(tmp_path: Path, embedder: Embedder) -> None:
    document = markdown(tmp_path, "# Alba kettle\n\nThe kettle is red.\nIt is heavy.\n")
    [chunk] = cut(document, embedder)
    assert (chunk.text, chunk.title, chunk.line) == ("The kettle is red.\nIt is heavy.", "Alba kettle", 3)


def test_a_passage_keeps_to_its_section_and_is_titled_by_the_path_of_headings(tmp_path: Path, embedder: Embedder) -> None:
    text = "# Guide\n\nStart.\n\n## Install\n\n### Linux\n\nUse pip.\n\n## Run\n\nType it.\n"
    found = cut(markdown(tmp_path, text), embedder, size=200)
    assert [(chunk.title, chunk.text) for chunk in found] == [
        ("Guide", "Start."),
        ("Guide > Install > Linux", "Use pip."),
        ("Guide > Run", "Type it."),
    ]


def test_cuts_prefer_paragraphs_then_sentences(tmp_path: Path, embedder: Embedder) -> None:
    sentence = "The red kettle boils the water quickly."
    paragraphs = "\n\n".join([f"{sentence} {sentence}"] * 4)
    for chunk in cut(markdown(tmp_path, paragraphs), embedder, size=40):
        assert chunk.text == "\n\n".join([f"{sentence} {sentence}"] * 2)
    for chunk in cut(markdown(tmp_path, " ".join([sentence] * 12)), embedder, size=30):
        assert chunk.text.endswith(".") and chunk.text.startswith("The")


def test_overlap_repeats_whole_sentences(tmp_path: Path, embedder: Embedder) -> None:
    text = " ".join(f"This is sentence number {n}." for n in range(20))
    found = cut(markdown(tmp_path, text), embedder, size=30, overlap=8)
    for before, after in pairwise(found):
        assert before.text.endswith(after.text.split(".")[0] + ".")


def test_a_page_of_nothing_but_headings_is_still_found(tmp_path: Path, embedder: Embedder) -> None:
    [chunk] = cut(markdown(tmp_path, "# Contents\n\n## Kettles\n"), embedder)
    assert chunk.text == "# Contents\n\n## Kettles"


def test_the_title_is_embedded_with_the_passage_and_cut_to_its_last_headings(embedder: Embedder) -> None:
    assert embedded_text("Guide > Run", "Type it.", embedder) == "Guide > Run\nType it."
    long = " > ".join(["A very long heading that goes on and on"] * 6 + ["Last"])
    title, text = embedded_text(long, "Type it.", embedder).split("\n")
    assert title.endswith("> Last") and len(embedder.starts(title)) <= 32 and text == "Type it."
    assert len(embedder.starts(embedded_text("word " * 90, "x", embedder))) <= 33


def test_other_settings_make_other_ids(tmp_path: Path, embedder: Embedder) -> None:
    document = markdown(tmp_path, "Just this.")
    assert cut(document, embedder, 32)[0].id != cut(document, embedder, 33)[0].id
    assert cut(document, embedder, 32)[0].id == cut(document, embedder, 32)[0].id
