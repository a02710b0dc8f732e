"""What other stores lost: numbers that came back, halves of maps; and documents and names of every kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench import retrieval
from llmbench.errors import LlmbenchError
from llmbench.recipe import ColumnsSpec, RagRecipe, SearchSpec, SourceSpec
from llmbench.retrieval import Document, Retriever
from llmbench.retrieval.index.writer import Writer
from llmbench.retrieval.search.retriever import Retriever as Opened
from llmbench.retrieval.store import Index
from llmbench.retrieval.store.layout import current
from llmbench.retrieval.store.verify import verify

Make = Callable[..., Document]


def test_a_number_that_became_free_never_names_another_text(recipe: RagRecipe, words: Any, doc: Make, ask: Any) -> None:
    with Writer.open(recipe, embedder=words) as writer:
        writer.upsert([doc("A", "apple"), doc("B", "banana"), doc("C", "cherry")])
        writer.delete(sources=["A"])
        writer.upsert([doc("D", "damson")])
    for fruit in ("banana", "cherry", "damson"):
        assert ask(fruit, 1) == [fruit]
    assert "apple" not in ask("apple", 10)


def test_vectors_and_texts_are_never_of_two_states(recipe: RagRecipe, words: Any, doc: Make, folder: Path, ask: Any) -> None:
    with Writer.open(recipe, embedder=words) as writer:
        writer.upsert(doc(f"{i}", f"fruit number{i}") for i in range(50))
    path = current(folder)
    assert path is not None
    vectors = (path / "vectors.bin").read_bytes()
    with Writer.open(recipe, embedder=words) as writer:
        writer.upsert(doc(f"{i}", f"fruit number{i}") for i in range(50, 60))
    (path / "vectors.bin").write_bytes(vectors)  # one file of an older backup
    with pytest.raises(LlmbenchError, match="too short"):
        ask("fruit number7")


def test_two_documents_of_the_same_text(upsert: Any, doc: Make, recipe: RagRecipe, words: Any, folder: Path) -> None:
    upsert(doc("one", "the same"), doc("two", "the same"))
    both = recipe.model_copy(update={"search": SearchSpec(deduplicate=False)})
    with Retriever.open(both, embedder=words) as retriever:
        hits = retriever.search("same")
        assert {hit.chunk.source for hit in hits} == {"one", "two"} and hits[0].score == pytest.approx(hits[1].score)
    with Retriever.open(recipe, embedder=words) as retriever:
        assert len(retriever.search("same")) == 1
    with Writer.open(recipe, embedder=words) as writer:
        writer.delete(sources=["one"])
    with Retriever.open(recipe, embedder=words) as retriever:
        assert [hit.chunk.source for hit in retriever.search("same")] == ["two"]
    assert verify(folder).faults == ()


def test_an_empty_document_is_there_and_never_found(
    upsert: Any, doc: Make, recipe: RagRecipe, words: Any, folder: Path
) -> None:
    upsert(doc("full", "alpha"))
    with Writer.open(recipe, embedder=words) as writer:  # as indexes hold that were written when `upsert` took them
        for document in (doc("empty", ""), doc("blank", " \n\t ")):
            writer.add(document)
    with Retriever.open(recipe, embedder=words) as retriever:
        assert retriever.document("empty").text == ""
        assert {hit.chunk.source for hit in retriever.search("alpha empty blank", 100)} <= {"full", "blank"}
    assert verify(folder).faults == ()


def test_a_document_of_10_000_passages(upsert: Any, doc: Make, recipe: RagRecipe, words: Any, query: Any) -> None:
    text = "\n\n".join(f"place{i} " + "word " * 17 + f"end{i}." for i in range(10_000))
    upsert(doc("long", text))
    [(count,)] = query("SELECT count(*) FROM chunks")
    assert count == words.embedded == 10_000
    upsert(doc("long", text.replace("place5000 ", "plate5000 ")))
    assert words.embedded == 10_001
    with Retriever.open(recipe, embedder=words) as retriever:
        hit = retriever.search("plate5000 end5000", 1)[0]
        assert hit.chunk.text.startswith("plate5000")
        around = retriever.around(hit.chunk.id, 1, 1)
        assert [chunk.text.split()[0] for chunk in around] == ["place4999", "plate5000", "place5001"]


@pytest.mark.parametrize(
    "name", ['it\'s "quoted".md', "two\nlines.md", "😀/日本.md", "nul\0l", "x" * 5000, "; DROP TABLE documents", "%_*[a]?"]
)
def test_a_source_may_be_any_text(upsert: Any, doc: Make, recipe: RagRecipe, words: Any, name: str, folder: Path) -> None:
    upsert(doc(name, "alpha", title=name, field=name), doc("other", "beta"))
    with Retriever.open(recipe, embedder=words) as retriever:
        assert retriever.document(name).metadata == {"field": name}
        for where in ({"source": name}, {"field": name}, {"title": {"$in": [name]}}):
            assert [hit.chunk.source for hit in retriever.search("alpha", where=where)] == [name]
    with Writer.open(recipe, embedder=words) as writer:
        assert writer.delete(sources=[name]) == 1
    assert verify(folder).faults == ()


@pytest.mark.parametrize("part", ["source", "title", "text"])
def test_half_of_a_character_is_one_line(upsert: Any, doc: Make, part: str, query: Any) -> None:
    upsert(doc("there", "alpha"))
    words = {"source": "a", "title": "b", "text": "c"} | {part: "half \udcff"}
    with pytest.raises(LlmbenchError, match=r"contains an unpaired surrogate at 'half \\udcff'") as caught:
        upsert(doc(words["source"], words["text"], title=words["title"]))
    assert str(caught.value).isascii()
    assert query("SELECT count(*) FROM documents") == [(1,)]


def test_asking_for_half_of_a_character_is_one_line(upsert: Any, doc: Make, recipe: RagRecipe, words: Any) -> None:
    upsert(doc("there", "alpha"))
    with Retriever.open(recipe, embedder=words) as retriever:
        with pytest.raises(LlmbenchError, match="unpaired surrogate"):
            retriever.document("half \udcff")
        assert retriever.search("alpha", 1)[0].chunk.source == "there"  # and the index is as usable as before


def test_one_moment_within_another_is_the_same_moment(upsert: Any, doc: Make, recipe: RagRecipe, words: Any) -> None:
    upsert(doc("a", "alpha"))
    with Opened.open(recipe, embedder=words) as retriever, retriever._now() as view:
        with retriever._now() as again:
            assert again is view
        with Writer.open(recipe, embedder=words) as writer:
            writer.upsert([doc("b", "beta")])
            writer.batches.dirty = False  # else it would wait for this search to end
        assert [source for source, _, _ in retriever.sources()] == ["a"]
        assert len(retriever.search("alpha beta")) == 1
        grounded = retriever.ground([{"role": "user", "content": "alpha"}])
        assert [source["source"] for source in grounded.sources] == ["a"]


def test_rows_of_a_million_come_without_an_object_each(upsert: Any, doc: Make, folder: Path) -> None:
    upsert(doc("a", "alpha"))
    path = current(folder)
    assert path is not None
    index = Index(path)
    try:
        numbers = index._numbers(
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 99999) SELECT i FROM n"
        )
        assert (len(numbers), numbers.nbytes, int(numbers[-1])) == (100_000, 800_000, 99_999)
    finally:
        index.close()


def test_a_row_keeps_its_line_in_its_file(recipe: RagRecipe, words: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": "a", "text": "First row."}\n{"id": "b", "text": "Second row."}\n')
    rows = recipe.model_copy(update={"documents": [SourceSpec(path=path, columns=ColumnsSpec())]})
    retrieval.build(rows, embedder=words)
    with Retriever.open(rows, embedder=words) as retriever:
        assert retriever.document("rows.jsonl#b").line(0) == 2
        assert [hit.chunk.line for hit in retriever.search("Second")][:1] == [2]


def test_an_index_in_a_folder_that_cannot_be_written_is_searched(
    recipe: RagRecipe, words: Any, upsert: Any, doc: Make, ask: Any, folder: Path, closed: Any
) -> None:
    upsert(doc("a", "alpha"), doc("b", "beta"))
    path = current(folder)
    assert path is not None
    names = sorted(file.name for file in path.iterdir())
    with closed(path / "index.sqlite", 0o444), closed(path, 0o555), closed(folder, 0o555):
        assert ask("alpha", 1) == ["alpha"] and ask("beta", 1, where={"source": "b"}) == ["beta"]
        with pytest.raises(LlmbenchError, match=r"cannot be written \(.+\)\."), Writer.open(recipe, embedder=words) as writer:
            writer.upsert([doc("c", "gamma")])
    assert sorted(file.name for file in path.iterdir()) == names
