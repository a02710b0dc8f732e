"""A rebuild: what programs wrote and a tuned alpha go over to the new index, cut and embedded as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench import retrieval
from llmbench.recipe import ChunkingSpec, RagRecipe
from llmbench.retrieval import Document, Retriever
from llmbench.retrieval.documents import Box, Heading
from llmbench.retrieval.index.writer import Writer
from llmbench.retrieval.store import WritableIndex
from llmbench.retrieval.store.layout import current
from llmbench.retrieval.store.verify import verify

Make = Callable[..., Document]
Rows = Callable[..., list[tuple[Any, ...]]]
LONG = "\n\n".join(" ".join(f"{topic}{i}" for i in range(20)) + "." for topic in ("one", "two", "three"))
GIVEN = Document(
    "v1", "crm/17", "Ticket", LONG, "pdf", {"year": 2026, "team": "blue"}, pages=(0, 150), headings=(Heading(0, 4, 1, "one0"),),
    boxes=(Box(0, 9, 1, 1.0, 2.0, 3.0, 4.0),), warnings=("odd",),
)  # fmt: skip


@pytest.fixture(autouse=True)
def built(recipe: RagRecipe, words: Any, pages: Path, upsert: Any) -> None:
    """An index of a file and of a program's document."""
    (pages / "alpha.txt").write_text("the page of alpha")
    retrieval.build(recipe, embedder=words)
    upsert(GIVEN)


def tuned(folder: Path) -> None:
    generation = current(folder)
    assert generation is not None
    index = WritableIndex(generation)
    with index.transaction():
        index.set(alpha=0.35, alpha_from={"collection": "mine"})
    index.close()


def facts(folder: Path, key: str) -> Any:
    generation = current(folder)
    assert generation is not None
    index = WritableIndex(generation)
    try:
        return index.get(key)
    finally:
        index.close()


def test_a_programs_document_is_cut_and_embedded_as_the_new_index_is(recipe: RagRecipe, words: Any, folder: Path) -> None:
    other = recipe.model_copy(update={"chunking": ChunkingSpec(max_tokens=30, overlap=0)})
    words.embedded = 0
    report = retrieval.build(other, embedder=words, rebuild=True)
    assert (report.added, report.carried, report.unchanged, report.notes) == (1, 1, 0, ())
    assert words.embedded == report.chunks == 4
    with Retriever.open(other, embedder=words) as retriever:
        assert retriever.document("crm/17") == GIVEN
        hits = retriever.search("two3", where={"team": "blue"})
        assert hits[0].chunk.source == "crm/17" and hits[0].chunk.page == 1 and "two3" in hits[0].chunk.text
    assert verify(folder).faults == ()
    again = retrieval.build(other, embedder=words)
    assert (again.unchanged, again.removed, again.carried) == (2, 0, 0)


@pytest.mark.parametrize("rebuild", [False, True])
def test_a_programs_document_keeps_its_name_from_files(
    recipe: RagRecipe, words: Any, pages: Path, upsert: Any, doc: Make, ask: Any, query: Rows, rebuild: bool
) -> None:
    upsert(doc("beta.txt", "as the program has it"))
    (pages / "beta.txt").write_text("as the file has it")
    for _ in range(2):
        report = retrieval.build(recipe, embedder=words, rebuild=rebuild)
        assert report.skipped == (("beta.txt", "a program wrote a document with this name"),)
        assert "as the program has it" in ask("program", 20) and "as the file has it" not in ask("file", 20)
    with Writer.open(recipe, embedder=words) as writing:
        writing.delete(sources=["beta.txt"])
    report = retrieval.build(recipe, embedder=words)
    assert (report.added, report.skipped) == (1, ()) and "as the file has it" in ask("file", 20)


def test_a_killed_rebuild_that_goes_on_takes_over_what_is_newest(
    recipe: RagRecipe, words: Any, upsert: Any, doc: Make, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Writer, "finish", killed)
        retrieval.build(recipe, embedder=words, rebuild=True)
    upsert(Document("v1", "crm/17", "Ticket", "written since, of the same id", "text"))
    report = retrieval.build(recipe, embedder=words, rebuild=True)
    assert (report.carried, report.unchanged, report.generation) == (1, 1, 2)
    assert "written since, of the same id" in ask("since", 20)


def test_a_damaged_document_is_named_and_the_rest_goes_over(
    recipe: RagRecipe, words: Any, upsert: Any, doc: Make, query: Rows, folder: Path
) -> None:
    upsert(doc("crm/18", "whole"))
    query("UPDATE documents SET text = 'changed' WHERE source = 'crm/17'")
    report = retrieval.build(recipe, embedder=words, rebuild=True)
    assert report.carried == 1
    assert report.notes == ("crm/17 is damaged in the old index, and was not carried over. Write it again.",)
    assert verify(folder).faults == ()


def test_a_tuned_alpha_goes_over_with_other_chunks(recipe: RagRecipe, words: Any, folder: Path) -> None:
    tuned(folder)
    other = recipe.model_copy(update={"chunking": ChunkingSpec(max_tokens=30, overlap=0)})
    assert retrieval.build(other, embedder=words, rebuild=True).notes == ()
    assert (facts(folder, "alpha"), facts(folder, "alpha_from")) == (0.35, {"collection": "mine"})


def test_a_tuned_alpha_of_another_embedder_is_dropped_and_told(
    recipe: RagRecipe, words: Any, other_words: Any, folder: Path
) -> None:
    tuned(folder)
    [note] = retrieval.build(recipe, embedder=other_words, rebuild=True).notes
    assert note.startswith("The tuned alpha 0.35 was dropped, since it was tuned on a different index (the embedder's files")
    assert note.endswith("Tune it again: llmbench evaluate rag recipe.yaml --tune")
    assert facts(folder, "alpha") is None


def test_a_tuned_alpha_of_other_words_is_dropped(recipe: RagRecipe, words: Any, folder: Path, query: Rows) -> None:
    tuned(folder)
    query("INSERT INTO terms(terms, rank) VALUES ('rank', 'bm25(1.0, 1.0)')")
    [note] = retrieval.build(recipe, embedder=words, rebuild=True).notes
    assert "(words are now indexed differently)" in note and facts(folder, "alpha") is None
