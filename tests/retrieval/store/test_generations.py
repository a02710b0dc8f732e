"""Generations: what is searched while another is made, kept, switched to and removed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench import retrieval
from llmbench.cli import index_care as care
from llmbench.errors import IndexError_
from llmbench.recipe import ChunkingSpec, RagRecipe
from llmbench.retrieval import Document, Retriever
from llmbench.retrieval.index.writer import Writer
from llmbench.retrieval.store import layout, writable
from llmbench.retrieval.store.layout import current, generations, point
from llmbench.retrieval.store.verify import verify

Make = Callable[..., Document]


@pytest.fixture(autouse=True)
def built(recipe: RagRecipe, words: Any, pages: Path) -> None:
    """An index of three files."""
    for name in ("alpha", "beta", "gamma"):
        (pages / f"{name}.txt").write_text(f"the page of {name}")
    retrieval.build(recipe, embedder=words)


def names(folder: Path) -> list[str]:
    return [path.name for path in generations(folder)]


def found(retriever: Retriever) -> set[str]:
    return {hit.chunk.source for hit in retriever.search("page", 100)}


def test_a_rebuild_is_searched_when_it_is_whole(recipe: RagRecipe, words: Any, pages: Path, folder: Path) -> None:
    (pages / "new.txt").write_text("the page of delta")
    old = {"alpha.txt", "beta.txt", "gamma.txt"}
    with Retriever.open(recipe, embedder=words) as retriever:

        def look(done: int, total: int, source: str) -> None:
            assert found(retriever) == old

        report = retrieval.build(recipe, rebuild=True, embedder=words, progress=look)
        assert (report.added, report.generation) == (4, 2)
        assert found(retriever) == old | {"new.txt"}
    assert names(folder) == ["2"] and verify(folder).faults == ()


def test_stay_use_and_prune(
    recipe: RagRecipe, words: Any, pages: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pages / "beta.txt").unlink()
    with Retriever.open(recipe, embedder=words) as retriever:
        assert retrieval.build(recipe, rebuild=True, switch=False, embedder=words).generation == 2
        assert names(folder) == ["1", "2"] and "beta.txt" in found(retriever)
        care.use(recipe, 2, 0, as_json=False)
        assert "beta.txt" not in found(retriever)
        care.use(recipe, 1, 0, as_json=False)
        assert "beta.txt" in found(retriever)
        care.prune(recipe, 0, as_json=False)
        assert names(folder) == ["1"] and "beta.txt" in found(retriever)
    assert "1 generation removed" in capsys.readouterr().out
    with pytest.raises(Exception, match=r"has no generation 2\. Available: 1\."):
        care.use(recipe, 2, 0, as_json=False)


def test_a_generation_of_a_name_that_was_used_before_is_opened_anew(
    recipe: RagRecipe, words: Any, pages: Path, folder: Path
) -> None:
    retrieval.build(recipe, rebuild=True, switch=False, embedder=words)
    care.use(recipe, 2, 0, as_json=False)
    with Retriever.open(recipe, embedder=words) as retriever:
        assert len(found(retriever)) == 3
        care.use(recipe, 1, 0, as_json=False)
        care.prune(recipe, 0, as_json=False)
        (pages / "new.txt").write_text("the page of delta")
        assert retrieval.build(recipe, rebuild=True, embedder=words).generation == 2
        assert len(found(retriever)) == 4
        shutil.rmtree(folder)
        (pages / "new.txt").unlink()
        retrieval.build(recipe, embedder=words)
        retrieval.build(recipe, rebuild=True, embedder=words)
        assert len(found(retriever)) == 3


def test_packing_under_a_reader_and_what_is_packed(recipe: RagRecipe, words: Any, folder: Path) -> None:
    with Retriever.open(recipe, embedder=words) as retriever:
        before = {(hit.chunk, hit.score) for hit in retriever.search("page alpha", 10) if hit.chunk.source != "beta.txt"}
        with Writer.open(recipe, embedder=words) as writer:
            writer.delete(sources=["beta.txt"])
            with retriever._now() as view:  # reads the old generation while it is packed and removed
                writer.compact()
                assert view.index.count() == 2 and len(view.dense(words.embed(["page"])[0], 9, None)) == 2
        assert {hit.chunk for hit in retriever.search("page alpha", 10)} == {chunk for chunk, _ in before}
    assert names(folder) == ["2"]
    assert (folder / "2" / "vectors.bin").stat().st_size == 2 * 144
    assert verify(folder).faults == ()


def test_packing_a_rebuild_that_stays_leaves_searches_where_they_are(recipe: RagRecipe, words: Any, folder: Path) -> None:
    with Writer.open(recipe, rebuild=True, switch=False, embedder=words) as writer:
        writer.compact()
        assert current(folder) == folder / "1"
    assert current(folder) == folder / "1" and names(folder) == ["1", "3"]


def test_a_killed_rebuild_goes_on(recipe: RagRecipe, words: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbench.retrieval.index.pipeline.BATCH", 1)

    def stop(done: int, total: int, source: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    words.embedded = 0
    with pytest.raises(KeyboardInterrupt):
        retrieval.build(recipe, rebuild=True, embedder=words, progress=stop)
    assert names(folder) == ["1", "2"] and current(folder) == folder / "1" and words.embedded > 0
    retrieval.build(recipe, embedder=words)  # of the generation that is searched
    assert names(folder) == ["1", "2"]
    report = retrieval.build(recipe, rebuild=True, embedder=words)
    assert (report.generation, report.unchanged > 0, report.added + report.unchanged) == (2, True, 3)
    assert names(folder) == ["2"] and verify(folder).faults == ()


def test_what_a_killed_packing_left_is_no_rebuild(
    recipe: RagRecipe, words: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    for where, what in ((writable.WritableIndex, "pack"), (layout, "point")):
        with monkeypatch.context() as patch, Writer.open(recipe, embedder=words) as writer:
            writer.index.set(complete=False)
            patch.setattr(where, what, killed)
            with pytest.raises(KeyboardInterrupt):
                writer.compact()
            raise_in_block = writer.batches.dirty
            assert not raise_in_block
        words.embedded = 0
        assert retrieval.build(recipe, rebuild=True, embedder=words).added == 3
        assert words.embedded == 3 and verify(folder).faults == ()


def test_another_embedder_of_the_same_dimension_is_refused(recipe: RagRecipe, words: Any, other_words: Any) -> None:
    message = r"index store was built with another embedder \(words, not other\)\. Run: llmbench index .+ --rebuild"
    with pytest.raises(IndexError_, match=message):
        Retriever.open(recipe, embedder=other_words)
    with pytest.raises(IndexError_, match=message):
        retrieval.build(recipe, embedder=other_words)
    assert retrieval.build(recipe, rebuild=True, embedder=other_words).added == 3
    with pytest.raises(IndexError_, match=r"\(other, not words\)"):
        Retriever.open(recipe, embedder=words)


def test_other_chunks_are_refused_also_by_a_retriever_that_is_open(recipe: RagRecipe, words: Any) -> None:
    other = recipe.model_copy(update={"chunking": ChunkingSpec(max_tokens=100)})
    with pytest.raises(IndexError_, match=r"another max_tokens \(200, not 100\)\. Run: llmbench index .+ --rebuild"):
        Retriever.open(other, embedder=words)
    with Retriever.open(recipe, embedder=words) as retriever:
        retrieval.build(other, rebuild=True, embedder=words)
        with pytest.raises(IndexError_, match=r"another max_tokens \(100, not 200\)"):
            retriever.search("page")


def test_a_pointer_that_is_broken_or_points_nowhere_is_one_line(recipe: RagRecipe, words: Any, folder: Path) -> None:
    (folder / "index.json").write_text("{")
    with pytest.raises(IndexError_, match=r"index\.json is broken"):
        Retriever.open(recipe, embedder=words)
    (folder / "index.json").write_text(json.dumps({"generation": 7}))
    with pytest.raises(IndexError_, match="is not built"):
        Retriever.open(recipe, embedder=words)
    point(folder, folder / "1")
    with Retriever.open(recipe, embedder=words) as retriever:
        assert len(found(retriever)) == 3
