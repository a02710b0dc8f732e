"""What holds of every method on random texts: exact spans, the limit, nothing left out, stable ids, parents around all."""

from __future__ import annotations

from itertools import groupby
from random import Random
from typing import get_args

import pytest

from llmbench.recipe import ChunkingSpec
from llmbench.retrieval.chunking import Chunk, chunks, embedded_text
from llmbench.retrieval.chunking.measure import Stretch, line_start
from llmbench.retrieval.documents import Document, Heading
from llmbench.retrieval.embedding import Embedder

METHODS = get_args(ChunkingSpec.model_fields["method"].annotation)
ENDS = [
    "",
    "",
    "",
    "",
    ",",
    ". The",
    ".\n\n",
    "\n",
    "\r\n",
    "\n- ",
    " 🙂",
    "  ",
    "。",
    "\uff01",
    "\n    ",
    ":\n\n\tdef f(x):\n\t\t",
]
ALPHABET = "abcdefghijklmnopqrstuvwxyzäß漢字éñ(){}'\"0123456789" + "\u0301\u00ad\u200b"


def written(seed: int, parts: int) -> Document:
    """Random words under random headings and on random pages, some of them longer than a passage."""
    rng = Random(seed)
    text, headings, pages = "", [], [0]
    for number in range(parts):
        match rng.randrange(12):
            case 0:
                level, words = rng.randint(1, 3), f"Heading {number}"
                text += "\n\n"
                headings.append(Heading(len(text), len(text) + len(words), level, words))
                text += words + "\n\n"
            case 1 if rng.random() < 0.4:
                text += "\n"
                pages.append(len(text))
            case 2 if rng.random() < 0.2:
                text += "".join(rng.choices("abc漢-", k=rng.randint(100, 600)))
            case _:
                for _ in range(rng.randint(1, 20)):
                    text += "".join(rng.choices(ALPHABET, k=rng.randint(1, 9))) + rng.choice(ENDS) + " "
    return Document("0", f"{seed}.py", f"Page {seed}", text, "code", {}, tuple(pages), tuple(headings))


def cut(document: Document, embedder: Embedder, method: str, parent: int | None = None, overlap: int = 8) -> list[Chunk]:
    spec = ChunkingSpec.model_validate({"method": method, "max_tokens": 32, "overlap": overlap, "parent_tokens": parent})
    return chunks(
        document,
        embedder,
        max_tokens=spec.max_tokens,
        overlap=spec.overlap,
        method=spec.method,
        sentences=3,
        parent_tokens=spec.parent_tokens,
        window=60,
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("parent", [None, 90])
def test_on_random_texts(embedder: Embedder, method: str, parent: int | None) -> None:
    limit = 60 if method == "document" else 32
    for seed in range(6):
        document = written(seed, 30)
        found = cut(document, embedder, method, parent)
        text = document.text
        for chunk in found:
            assert text[chunk.start : chunk.end] == chunk.text
            assert chunk.text.strip() == chunk.text.strip("\r\n\t ") and chunk.text[-1:].strip()
            assert len(embedder.starts(chunk.text)) == chunk.tokens <= limit
            assert len(embedder.starts(embedded_text(chunk.title, chunk.text, embedder))) <= limit + 34
            assert chunk.page == document.page(chunk.start)
        covered = set().union(*(range(c.start, c.end) for c in found), *(range(h.start, h.end) for h in document.headings))
        assert not [i for i, letter in enumerate(text) if not letter.isspace() and i not in covered]
        assert len({chunk.id for chunk in found}) == len(found)
        assert found == cut(document, embedder, method, parent)
        assert [chunk.start for chunk in found] == sorted(chunk.start for chunk in found)
        _check_parents(document, embedder, found, parent)


def _check_parents(document: Document, embedder: Embedder, found: list[Chunk], parent: int | None) -> None:
    if parent is None:
        assert {chunk.parent for chunk in found} == {None}
        return
    families = [key for key, _ in groupby(chunk.parent for chunk in found)]
    assert len(families) == len(set(families))
    end = 0
    for span in families:
        assert span is not None and span[0] >= end
        end = span[1]
        assert len(embedder.starts(document.text[slice(*span)])) <= parent
    for chunk in found:
        assert chunk.parent is not None and chunk.parent[0] <= chunk.start < chunk.end <= chunk.parent[1]


@pytest.mark.parametrize("method", ["tokens", "sentences", "headings"])
@pytest.mark.parametrize("parent", [None, 90])
def test_a_change_at_the_end_leaves_earlier_passages_their_ids(embedder: Embedder, method: str, parent: int | None) -> None:
    document = written(7, 40)
    before = cut(document, embedder, method, parent)
    longer = Document(
        "1", document.source, document.title, document.text + " And more.", "code", {}, document.pages, document.headings
    )
    after = {chunk.id for chunk in cut(longer, embedder, method, parent)}
    kept = [chunk.id in after for chunk in before]
    assert kept.index(False) > len(kept) * 0.8


def test_a_title_and_a_source_are_part_of_the_id(embedder: Embedder) -> None:
    one = Document("0", "a.txt", "A", "Just this.", "text")
    ids = {
        cut(document, embedder, "tokens")[0].id
        for document in (
            one,
            Document("0", "b.txt", "A", "Just this.", "text"),
            Document("0", "a.txt", "B", "Just this.", "text"),
        )
    }
    assert len(ids) == 3


class Pairs:
    """A tokenizer whose tokens reach across white space: each two characters, counted from the start of what it is given."""

    def starts(self, text: str) -> list[int]:
        return list(range(0, len(text), 2))


def test_a_tokenizer_that_joins_words_is_asked_about_every_passage() -> None:
    tokens = Pairs()
    document = Document("0", "a.txt", "A", "one two three four five six seven " * 20, "text")
    found = chunks(document, tokens, max_tokens=16, overlap=4)
    assert len(found) > 10 and all(len(tokens.starts(chunk.text)) == chunk.tokens <= 16 for chunk in found)


def test_a_word_longer_than_a_block_is_counted_as_it_stands(embedder: Embedder) -> None:
    text = "The kettle. " + "ab" * 30_000 + " Its lid. " + "漢" * 21_000
    stretch = Stretch(text, 0, len(text), embedder)
    assert stretch.count(0, 60_020) == len(embedder.starts(text[:60_020]))
    found = chunks(Document("0", "a.txt", "A", text, "text"), embedder, max_tokens=64, overlap=0)
    assert all(len(embedder.starts(chunk.text)) == chunk.tokens <= 64 for chunk in found)
    assert sum(len(chunk.text.replace(" ", "")) for chunk in found) == len(text.replace(" ", ""))


@pytest.mark.parametrize(
    ("text", "place", "least", "start"),
    [("  a", 2, 0, 0), ("x\n\t a", 4, 0, 2), ("x  a", 3, 0, None), ("x  a", 3, 1, 1), ("a", 0, 0, 0), ("\r\n  a", 4, 0, 2)],
)
def test_a_line_begins_where_only_white_space_stands_before(text: str, place: int, least: int, start: int | None) -> None:
    assert line_start(text, place, least) == start
