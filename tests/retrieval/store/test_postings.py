"""Postings: the rows and scores of FTS5 to the last bit, whatever was added, deleted, merged or damaged meanwhile."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbench.errors import IndexError_
from llmbench.recipe import RagRecipe, SearchSpec
from llmbench.retrieval import Document, Retriever
from llmbench.retrieval.index import upkeep
from llmbench.retrieval.index.compact import compact
from llmbench.retrieval.index.repair import repair
from llmbench.retrieval.index.writer import Writer
from llmbench.retrieval.search.view import View
from llmbench.retrieval.store import Filter, Index
from llmbench.retrieval.store import verify as verifying
from llmbench.retrieval.store.layout import current
from llmbench.retrieval.store.verify import holds, verify, words_left
from llmbench.retrieval.store.words import postings, postings_build
from llmbench.retrieval.store.words.postings import BrokenPostings, Segment
from llmbench.retrieval.store.words.postings_build import cut, merge, to_merge

Make = Callable[..., Document]
VOCABULARY = [f"word{i}" for i in range(80)] + [
    "running",
    "runs",
    "ran",
    "naïve",
    "Zürich",
    "東京都",
    "서울시",
    "x-ray",
    "3.5%",
    "AL-4417",
    "AL4471",
    "maxRetryCount",
    "Kündigungsfrist",
    "ยกเลิกสัญญา",
    "हिन्दी",
    "🚩",
]
QUESTIONS = [
    "word1",
    "word3 runs",
    "word5 word5 word7",
    "naive in zurich",
    "東京",
    "What of the word9?",
    "absent",
    "3.5% x-ray running",
    "AL4417",
    "al-4471 and max retry count",
    "Kuendigungsfrist",
    "ยกเลิก 🚩",
    "हिन्दी",
]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Postings for collections of any size, made a few passages at a time."""
    monkeypatch.setattr(postings_build, "LEAST", 1)
    monkeypatch.setattr(postings_build, "BATCH", 30)


@pytest.fixture
def dice() -> random.Random:
    return random.Random(20261127)


@pytest.fixture
def corpus(doc: Make, dice: random.Random) -> Callable[[int, int], list[Document]]:
    """Documents of some words; common ones are in most of them."""

    def make(first: int, end: int) -> list[Document]:
        def text(count: int) -> str:
            return " ".join(VOCABULARY[min(int(dice.expovariate(0.06)), len(VOCABULARY) - 1)] for _ in range(count))

        return [doc(f"doc{i}", text(dice.randint(1, 60)), text(3), number=i) for i in range(first, end)]

    return make


@pytest.fixture
def view(folder: Path) -> Iterator[Callable[[], View]]:
    """The current generation as searches see it."""
    opened: list[View] = []

    def open_() -> View:
        generation = current(folder)
        assert generation is not None
        opened.append(View(generation))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/postings*"))


def same(view: View, *, where: Filter | None = None, postings_answer: bool = True) -> None:
    """Whether the postings say what FTS5 says of every question, to the last bit."""
    with view.now():
        assert (view._lexical is not None) == postings_answer
        for question in QUESTIONS:
            for k in (1, 5, 1000):
                found, wanted = view.terms(question, k, where), view.index.search_terms(question, k, where)
                assert [score for _, score in found] == [score for _, score in wanted]
                if k == 1000:
                    assert found == wanted


def test_scores_are_fts5s_to_the_last_bit(upsert: Any, corpus: Any, view: Any, folder: Path) -> None:
    upsert(*corpus(0, 200))
    assert len(files(folder)) < 5
    same(view())
    same(view(), where=Filter.of({"number": {"$lt": 50}}))
    same(view(), where=Filter.of({"number": {"$in": [7, 90, 150]}}))
    assert verify(folder).faults == ()


def test_what_was_deleted_is_not_found_before_and_after_its_words_are_dropped(
    upsert: Any, corpus: Any, view: Any, folder: Path, recipe: RagRecipe, words: Any
) -> None:
    upsert(*corpus(0, 100))
    seen = view()
    same(seen)
    with Writer.open(recipe, embedder=words) as writer:
        before = files(folder)
        writer.delete(sources=[f"doc{i}" for i in range(0, 100, 3)])
        same(seen)
        assert files(folder) == before
        assert verify(folder).faults == ()
        writer.finish()
    assert not set(files(folder)) & set(before)
    same(seen)
    same(view(), where=Filter.of({"number": {"$gt": 30}}))
    assert verify(folder).faults == ()


def test_what_is_added_is_found_at_once_and_changed_is_found_as_it_is(
    upsert: Any, corpus: Any, view: Any, recipe: RagRecipe, words: Any, folder: Path
) -> None:
    upsert(*corpus(0, 100))
    seen = view()
    with Writer.open(recipe, embedder=words) as writer:
        for document in corpus(90, 120):
            writer.add(document)
        writer.flush()
        same(seen, postings_answer=False)  # FTS5 answers until the words are in files
        writer.finish()
        same(seen)
    same(view())
    assert verify(folder).faults == ()


def test_packing_moves_rows(upsert: Any, corpus: Any, view: Any, recipe: RagRecipe, words: Any, folder: Path) -> None:
    upsert(*corpus(0, 100))
    with Writer.open(recipe, embedder=words) as writer:
        writer.delete(sources=[f"doc{i}" for i in range(50)])
        writer.batches.index = compact(writer.folder, writer.index)
        writer.finish()
    same(view())
    assert verify(folder).faults == ()


def test_questions_of_parts_of_words_are_fts5s(upsert: Any, corpus: Any, view: Any) -> None:
    upsert(*corpus(0, 60))
    with view().now() as seen:
        assert seen._lexical is not None
        totals = seen.index.totals()
        assert seen._lexical.search("東", 5, totals) is None
        assert seen.terms("東", 5, None) == seen.index.search_terms("東", 5)
        assert seen.terms("東", 5, None) != []
        # A letter that FTS5 takes for a space.
        assert seen._lexical.search("word1\u19b0word2", 5, totals) is None
        assert seen.terms("word1\u19b0word2", 5, None) == seen.index.search_terms("word1\u19b0word2", 5)


def test_a_words_points_are_fts5s(upsert: Any, corpus: Any, view: Any) -> None:
    upsert(*corpus(0, 80))
    with view().now() as seen:
        for question in QUESTIONS:
            for row, score in seen.terms(question, 5, None):
                chunk = seen.index.chunks([row])[row]
                points = seen.word_points(question, chunk.id)
                assert points == seen.index.word_points(question, chunk.id)
                assert sum(points.values()) == pytest.approx(score)


def test_small_files_become_large_ones() -> None:
    assert to_merge([100]) == 1
    assert to_merge([100, 30]) == 2
    assert to_merge([1000, 100]) == 1
    assert to_merge([1000, 300, 100]) == 3
    sizes: list[int] = []
    for _ in range(1000):
        sizes.append(1)
        count = to_merge(sizes)
        sizes = [*sizes[:-count], sum(sizes[-count:])]
    assert len(sizes) <= 6


@pytest.mark.parametrize("chunk", [1, 7, 4_000_000])
def test_merged_is_as_cut_at_once(tmp_path: Path, dice: random.Random, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("llmbench.retrieval.store.words.postings_build._CHUNK", chunk)
    texts = [(i, "title", "", " ".join(dice.choices(VOCABULARY, k=dice.randint(0, 30)))) for i in range(90)]
    texts[70] = (70, "", "", "often " * 300)
    alive = np.ones(90, dtype=bool)
    alive[[3, 40, 41, 89]] = False
    parts = [cut(texts[first : first + 30], first, first + 30) for first in range(0, 90, 30)]
    merged = Segment(tmp_path, merge([Segment(tmp_path, merge(parts[:2], None, tmp_path)), parts[2]], alive, tmp_path))
    whole = cut([one for one in texts if alive[one[0]]], 0, 90)
    assert merged.words() == whole.words()
    assert merged.counts.dtype == np.uint16
    for name in ("bounds", "starts", "lengths", "rows", "counts"):
        assert np.array_equal(getattr(merged, name), getattr(whole, name)), name


def test_no_words_at_all(tmp_path: Path) -> None:
    empty = Segment(tmp_path, merge([cut([(0, "", "", "..."), (2, "", "", "")], 0, 4)], None, tmp_path))
    assert empty.words() == [] and empty.lengths.tolist() == [0, 0, 0, 0] and empty.place(b"word") == -1


def test_all_that_was_deleted_before_the_files_follow(
    upsert: Any, corpus: Any, view: Any, recipe: RagRecipe, words: Any
) -> None:
    upsert(*corpus(0, 40))
    seen = view()
    same(seen)
    with Writer.open(recipe, embedder=words) as writer:
        writer.delete(where={"source": {"$glob": "*"}})
        with seen.now():
            assert seen._lexical is not None
            assert [seen.terms(question, 5, None) for question in QUESTIONS] == [[] for _ in QUESTIONS]
        writer.finish()
    same(seen, postings_answer=False)


def test_a_word_that_is_cut_inside_of_a_character(upsert: Any, corpus: Any, doc: Make, view: Any, folder: Path) -> None:
    long = "a" + "ж" * 20_000
    upsert(*corpus(0, 20), doc("long", "something", long), doc("kettle", "the kettle"))
    with view().now() as seen:
        for question in (f"{long} kettle", "kettle", long):
            found = seen.terms(question, 5, None)
            assert found and found == seen.index.search_terms(question, 5)
    assert verify(folder).faults == ()
    assert words_left(folder, long) == {}


def test_what_a_kill_leaves_goes_with_the_next_end(
    upsert: Any, corpus: Any, folder: Path, recipe: RagRecipe, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    upsert(*corpus(0, 40))
    before = files(folder)
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("postings-"):
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), Writer.open(recipe, embedder=words) as writer:
        writer.delete(sources=["doc0"])
        patch.setattr(Path, "unlink", killed)
        writer.finish()
    (before[0].parent / "postings.tmp").write_bytes(b"half")
    assert set(files(folder)) & set(before)
    with Writer.open(recipe, embedder=words) as writer:
        assert writer.index.get("purge")
        writer.finish()
        noted = {plan.file for plan in postings.plans(writer.index.get("postings"))}
        assert not writer.index.get("purge")
    assert {path.name for path in files(folder)} == noted and set(before) - set(files(folder))


def test_a_look_at_an_older_state_tells_no_fault(upsert: Any, corpus: Any, folder: Path, recipe: RagRecipe, words: Any) -> None:
    upsert(*corpus(0, 40))
    generation = current(folder)
    assert generation is not None
    index = Index(generation)
    with index.snapshot():
        assert index.count() > 0
        with Writer.open(recipe, embedder=words) as writer:
            writer.delete(sources=["doc0"])
            upkeep.update(writer.index, purge=True)
            assert list(verifying._postings(index)) == []
    index.close()


def test_a_file_cut_off_while_it_is_searched_is_told(upsert: Any, corpus: Any, folder: Path, view: Any) -> None:
    upsert(*corpus(0, 10))
    [path] = files(folder)
    seen = view()
    with seen.now():
        assert seen._lexical is not None
        os.truncate(path, 100)
        assert seen.terms("word1", 5, None) == seen.index.search_terms("word1", 5) != []
        assert "Until then SQLite looks up words" in seen.warning
    other = view()
    with pytest.raises(BrokenPostings, match=r"is damaged|cannot be read"), other.now():
        [plan] = postings.plans(other.index.get("postings"))
        Segment(path.parent, plan)


def test_a_full_disk_does_not_keep_a_rebuild_from_being_searched(
    upsert: Any, corpus: Any, folder: Path, recipe: RagRecipe, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    upsert(*corpus(0, 10))

    def full(*_: Any) -> None:
        raise IndexError_("postings cannot be written")

    monkeypatch.setattr(postings_build, "merge", full)
    writer = Writer.open(recipe, rebuild=True, embedder=words)
    with pytest.raises(IndexError_, match="postings cannot be written"), writer as one:
        one.upsert(corpus(0, 12))
        one.finish()
    generation = current(folder)
    assert generation is not None and generation.name == "2"
    index = Index(generation)
    assert index.get("complete") and index.document_count() == 12
    index.close()


HARM = ["header", "words", "lengths", "rows", "counts", "shorter", "gone", "other"]


@pytest.mark.parametrize("batch", [30, 1000])
@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_file_answers_nothing_and_is_made_anew(
    harm: str,
    batch: int,
    upsert: Any,
    corpus: Any,
    view: Any,
    folder: Path,
    recipe: RagRecipe,
    words: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postings_build, "BATCH", batch)
    upsert(*corpus(0, 30))
    [path] = files(folder)
    seen = view()
    with seen.now():
        segment = seen._lexical.segments[0]
        size = path.stat().st_size
        ends = {"words": segment.text, "lengths": segment.lengths, "rows": segment.rows, "counts": segment.counts}
        places = {name: array.__array_interface__["data"][0] for name, array in ends.items()}
        start = places["words"] - 4096
    data = bytearray(path.read_bytes())
    if harm == "gone":
        path.unlink()
    elif harm == "shorter":
        path.write_bytes(data[: size // 2])
    elif harm == "other":
        upsert(*corpus(30, 60))
        path = next(one for one in files(folder) if one != path)
        path.write_bytes(data)
    else:
        places["header"] = start + 20
        array = ends.get(harm)
        for i in range(len(array) if array is not None else 1):  # every word's
            data[places[harm] - start + i * (array.itemsize if array is not None else 1)] ^= 1
        path.write_bytes(data)
    damaged = view()
    with damaged.now():
        for question in QUESTIONS:
            assert damaged.terms(question, 1000, None) == damaged.index.search_terms(question, 1000)
    assert str(path) in damaged.warning and "Until then SQLite looks up words" in damaged.warning
    [fault] = verify(folder).faults
    assert fault.mend == "repair" and str(path) in fault.what
    with Writer.open(recipe, embedder=words) as writer:
        writer.finish()
    same(damaged)
    assert damaged.warning == "" and verify(folder).faults == ()


def test_words_that_are_not_the_passages_are_told_and_repaired(
    upsert: Any, corpus: Any, folder: Path, recipe: RagRecipe, words: Any, query: Any
) -> None:
    upsert(*corpus(0, 30))
    generation = current(folder)
    assert generation is not None
    noted = postings.plans(Index(generation).get("postings"))
    passages = [(row, title, "", text) for row, title, text in query("SELECT row, title, text FROM chunks ORDER BY row")]
    passages[4] = (*passages[4][:3], passages[4][3].replace("word", "ward", 1))
    plan = merge([cut(passages, 0, noted[0].end)], None, generation)
    query("UPDATE meta SET value = ? WHERE key = 'postings'", json.dumps(postings.to_json([plan])))
    [fault] = verify(folder).faults
    assert "the words do not match the passages" in fault.what
    assert repair(recipe, embedder=words).faults == ()
    assert verify(folder).faults == ()


def test_deleted_words_are_in_no_file(upsert: Any, corpus: Any, doc: Make, folder: Path, recipe: RagRecipe, words: Any) -> None:
    upsert(*corpus(0, 40), doc("secret", "the quicksilver flickering xylophone"))
    assert len(holds(folder, "xylophon")) == 2
    with Writer.open(recipe, embedder=words) as writer:
        writer.delete(sources=["secret"])
        assert "xylophon" in words_left(folder, "flickering xylophone")["1"]
        writer.finish()
    assert holds(folder, "xylophon") == [] and words_left(folder, "flickering xylophone") == {}


def test_too_few_passages_have_none(
    upsert: Any, corpus: Any, folder: Path, recipe: RagRecipe, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    upsert(*corpus(0, 40))
    assert files(folder)
    monkeypatch.setattr(postings_build, "LEAST", 1000)
    with Writer.open(recipe, embedder=words) as writer:
        writer.finish()
    assert not files(folder) and verify(folder).faults == ()


def test_a_full_disk_is_one_line_and_words_are_found_all_the_same(
    upsert: Any, corpus: Any, folder: Path, view: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limits = []

    def written(*arguments: Any) -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
        limits.append(arguments)
        try:
            return merge(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(postings_build, "merge", written)
    with pytest.raises(IndexError_, match=r"postings cannot be written \(File too large\). Free some space and run it again"):
        upsert(*corpus(0, 40))
    assert limits and not files(folder)
    same(view(), postings_answer=False)


def test_a_search_with_a_filter_and_repeats_goes_through_them(upsert: Any, corpus: Any, recipe: RagRecipe, words: Any) -> None:
    upsert(*corpus(0, 150))
    own = recipe.model_copy(update={"search": SearchSpec(mode="hybrid")})
    with Retriever.open(own, embedder=words) as retriever:
        assert retriever._view is not None and retriever._view._lexical is not None
        hits = retriever.search("word3 word4", 10, where={"number": {"$gte": 100}})
        assert len(hits) == 10 and all(int(hit.metadata["number"]) >= 100 for hit in hits)
        told = [retriever.explain("word3 word4", hit) for hit in hits]
        assert any("BM25" in words and "word3 " in words for words in told)
