"""Writing: what is replaced, deleted, embedded and left alone; passes over files that change, fail and go on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmbench import retrieval
from llmbench.errors import LlmbenchError
from llmbench.recipe import ColumnsSpec, RagRecipe, SearchSpec, SourceSpec
from llmbench.retrieval import Document, Retriever
from llmbench.retrieval.index import pipeline
from llmbench.retrieval.index.writer import Writer
from llmbench.retrieval.store import Filter, WritableIndex
from llmbench.retrieval.store.layout import current
from llmbench.retrieval.store.rows import FileState
from llmbench.retrieval.store.verify import holds, verify

Make = Callable[..., Document]
Rows = Callable[..., list[tuple[Any, ...]]]


def long(*topics: str) -> str:
    """A text of one passage for each topic."""
    return "\n\n".join(" ".join(f"{topic}{i}" for i in range(20)) + "." for topic in topics)


def sources(query: Rows) -> list[str]:
    return [source for (source,) in query("SELECT source FROM documents ORDER BY source")]


def age(folder: Path, seconds: int = 3600) -> None:
    """Makes files look as if they had been written long ago."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - seconds,) * 2)


def test_a_document_is_replaced_by_its_source(upsert: Any, ask: Any, doc: Make, query: Rows) -> None:
    upsert(doc("a", "alpha"), doc("b", "beta"))
    upsert(doc("a", "gamma"))
    assert sources(query) == ["a", "b"]
    assert ask("alpha")[-1:] != ["alpha"] and set(ask("gamma")) == {"gamma", "beta"}


@pytest.mark.parametrize(
    ("how", "left"),
    [
        ({"sources": ["a/1.md", "a/1.md", "never"]}, ["a/10.md", "b[1].md", "b1.md"]),
        ({"where": {"source": {"$glob": "a/*"}}}, ["b[1].md", "b1.md"]),
        ({"where": {"source": {"$glob": "b[[]1].md"}}}, ["a/1.md", "a/10.md", "b1.md"]),
        ({"where": {"year": {"$lt": 2001}}}, ["a/10.md", "b[1].md", "b1.md"]),
        ({"sources": ["b1.md"], "where": {"source": "b1.md"}}, ["a/1.md", "a/10.md", "b[1].md"]),
    ],
)
def test_documents_are_deleted_by_source_by_glob_and_by_filter(
    recipe: RagRecipe, words: Any, doc: Make, query: Rows, folder: Path, how: dict[str, Any], left: list[str]
) -> None:
    names = ("a/1.md", "a/10.md", "b[1].md", "b1.md")
    with Writer.open(recipe, embedder=words) as writing:
        writing.upsert(doc(name, f"text of {name}", year=2000 + i) for i, name in enumerate(names))
        where = Filter.of(how["where"]) if "where" in how else None
        assert writing.delete(sources=how.get("sources", ()), where=where) == 4 - len(left)
    assert set(sources(query)) == set(left)
    assert query("SELECT count(*) FROM chunks") == query("SELECT count(DISTINCT document) FROM facts") == [(len(left),)]
    assert verify(folder).faults == ()


def test_what_was_deleted_is_in_no_file_after_the_block(
    recipe: RagRecipe, words: Any, doc: Make, upsert: Any, folder: Path
) -> None:
    upsert(doc("a", "zanzibar", title="quetzal", secret="xylophone"), doc("b", "beta"))
    assert all(holds(folder, word) for word in ("zanzibar", "quetzal", "xylophone"))
    with Writer.open(recipe, embedder=words) as writing:
        writing.delete(sources=["a"])
    assert not any(holds(folder, word) for word in ("zanzibar", "quetzal", "xylophone"))


def test_only_changed_passages_are_embedded_again(upsert: Any, words: Any, doc: Make, query: Rows) -> None:
    upsert(doc("a", long("one", "two", "three")))
    before: dict[str, int] = dict(query("SELECT text, vector_id FROM chunks"))
    assert words.embedded == len(before) == 3
    upsert(doc("a", long("one", "two", "four")))
    after: dict[str, int] = dict(query("SELECT text, vector_id FROM chunks"))
    assert words.embedded == 4
    assert [after[text] for text in before if text in after] == [1, 2]
    assert max(after.values()) == 4


def test_the_same_words_are_embedded_once(
    upsert: Any, words: Any, doc: Make, query: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "BATCH", 2)  # so that equal documents lie in the same, the next and a later batch
    upsert(*(doc(f"{i}", "the same words") for i in range(9)))
    assert words.embedded == 1
    assert query("SELECT count(*), count(DISTINCT digest) FROM chunks") == [(9, 1)]
    upsert(doc("later", "the same words"))
    assert words.embedded == 1


def test_a_batch_is_as_large_as_the_embedder_is_fast(
    recipe: RagRecipe, words: Any, doc: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "SECONDS", 0.1)
    monkeypatch.setattr(pipeline, "FIRST", 400)
    embed, batches = words.embed, list[int]()

    def slowly(texts: Sequence[str]) -> Any:
        time.sleep(sum(map(len, map(str.split, texts))) / 1000)
        batches.append(len(texts))
        return embed(texts)

    monkeypatch.setattr(words, "embed", slowly)
    with Writer.open(recipe, embedder=words) as writing:
        writing.upsert(doc(f"{i}", f"w{i} " * 20) for i in range(300))
    assert sum(batches) == 300 and batches[0] == 20
    assert max(batches[2:]) <= 6  # the second gathered while the first one's speed was not known


def test_what_is_embedded_is_written_while_the_next_is_read(
    recipe: RagRecipe, words: Any, doc: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "FIRST", 1)
    with Writer.open(recipe, embedder=words) as writing:

        def read() -> Iterator[Document]:
            yield doc("a", "alpha")
            assert writing.batches._ahead is not None and writing.batches._ahead.vectors is not None
            writing.batches._ahead.vectors.result()
            writing.batches._room = 1000
            yield doc("b", "beta")
            assert writing.index.document_count() == 1
            writing.batches._batch.began -= 2 * pipeline.SECONDS
            yield doc("c", "gamma")
            assert writing.batches._batch.steps == []  # what waits for long goes on its way

        for document in read():  # as files come: a call of `upsert` looks at all of its documents first
            writing.add(document)
        writing.flush()
        assert writing.index.document_count() == 3


def test_a_title_beyond_what_is_embedded_may_change(upsert: Any, ask: Any, doc: Make, folder: Path) -> None:
    steps = " > ".join(f"step{i}" for i in range(40))
    upsert(doc("a", "alpha", title=f"Old > {steps}"))
    upsert(doc("a", "alpha", title=f"New > {steps}"))
    assert ask("alpha") == ["alpha"]
    assert verify(folder).faults == ()


def test_an_unchanged_corpus_embeds_and_writes_nothing(recipe: RagRecipe, words: Any, pages: Path, folder: Path) -> None:
    for i in range(5):
        (pages / f"{i}.txt").write_text(f"page {i}")
    age(pages)
    retrieval.build(recipe, embedder=words)
    generation = current(folder)
    assert generation is not None

    def state() -> dict[str, Any]:
        return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in generation.iterdir()}

    before, words.embedded = state(), 0
    report = retrieval.build(recipe, embedder=words)
    assert (report.unchanged, report.embedded, words.embedded) == (5, 0, 0)
    assert state() == before


def test_a_change_is_seen_though_size_and_time_are_the_same(recipe: RagRecipe, words: Any, pages: Path, ask: Any) -> None:
    path = pages / "a.txt"
    path.write_text("alpha")
    stat = path.stat()
    retrieval.build(recipe, embedder=words)
    path.write_text("gamma")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert retrieval.build(recipe, embedder=words).changed == 1
    assert ask("gamma") == ["gamma"]


def test_other_rules_for_a_place_have_it_read_again(recipe: RagRecipe, words: Any, pages: Path) -> None:
    (pages / "a.txt").write_text("alpha")
    age(pages)
    retrieval.build(recipe, embedder=words)
    assert retrieval.build(recipe, embedder=words).changed == 0
    other = recipe.model_copy(update={"documents": [SourceSpec(path=pages, metadata={"team": "blue"})]})
    words.embedded = 0
    assert retrieval.build(other, embedder=words).changed == 1
    assert words.embedded == 0


def test_rules_changed_interrupted_and_changed_back_leave_nothing_trusted(recipe: RagRecipe, words: Any, doc: Make) -> None:
    old = FileState("rows", "sha", 1, 1, "old rules", "")
    with Writer.open(recipe, embedder=words) as writing:
        writing.begin("rows", old.settings)
        writing.add(doc("rows#1", "alpha"), file="rows")
        writing.end(old)
    with Writer.open(recipe, embedder=words) as writing:
        assert writing.index.files()["rows"] == old
        writing.begin("rows", "new rules")
        writing.add(doc("rows#1", "alpha", team="blue"), file="rows")
    with Writer.open(recipe, embedder=words) as writing:
        state = writing.index.files()["rows"]
        assert (state.sha256, state.settings) == ("", "")


def test_numbers_only_grow(upsert: Any, recipe: RagRecipe, words: Any, doc: Make, query: Rows) -> None:
    upsert(doc("a", "alpha"), doc("b", "beta"))
    with Writer.open(recipe, embedder=words) as writing:
        writing.delete(sources=["b"])
        writing.compact()
    upsert(doc("c", "gamma"), doc("b", "beta"))
    assert query("SELECT source, vector_id FROM chunks JOIN documents ON document = number ORDER BY 1") == [
        ("a", 1), ("b", 4), ("c", 3),
    ]  # fmt: skip


def test_a_programs_document_survives_a_build_and_files_go_with_theirs(
    recipe: RagRecipe, words: Any, pages: Path, upsert: Any, doc: Make, query: Rows
) -> None:
    upsert(doc("given", "alpha"))
    (pages / "a.txt").write_text("beta")
    (pages / "b.txt").write_text("gamma")
    assert retrieval.build(recipe, embedder=words).added == 2
    (pages / "a.txt").unlink()
    assert retrieval.build(recipe, embedder=words).removed == 1
    assert sources(query) == ["b.txt", "given"]


def of_rows(recipe: RagRecipe, pages: Path) -> RagRecipe:
    return recipe.model_copy(update={"documents": [SourceSpec(path=pages, columns=ColumnsSpec())]})


def test_a_second_row_of_an_id_is_told_and_counts_are_of_documents(
    recipe: RagRecipe, words: Any, pages: Path, ask: Any, query: Rows
) -> None:
    rows = of_rows(recipe, pages)
    path = pages / "rows.jsonl"
    path.write_text('{"id": 1, "text": "alpha"}\n{"id": 1, "text": "beta"}\n{"id": 2, "text": "gamma"}\n{broken\n')
    reason = "1 row left out: line 4: not JSON (Expecting property name enclosed in double quotes); "
    reason += "1 row left out: line 2: id '1' already appears on line 1"
    for _ in range(2):  # a file that is known is not read again, and tells the same
        report = retrieval.build(recipe=rows, embedder=words)
        assert report.skipped == (("rows.jsonl", reason),)
    assert (report.added, report.unchanged) == (0, 2)
    assert sources(query) == ["rows.jsonl#1", "rows.jsonl#2"] and "alpha" in ask("alpha") and "beta" not in ask("beta")
    path.write_text('{"id": 1, "text": "alpha"}\n{"id": 1, "text": "beta"}\n{"id": 2, "text": "delta"}\n')
    report = retrieval.build(recipe=rows, embedder=words)
    assert (report.added, report.changed, report.removed, report.unchanged) == (0, 1, 0, 1)
    assert report.skipped == (("rows.jsonl", "1 row left out: line 2: id '1' already appears on line 1"),)


def test_many_rows_of_an_id_in_many_batches_count_once(
    recipe: RagRecipe, words: Any, pages: Path, query: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "BATCH", 2)
    (pages / "rows.jsonl").write_text("".join(f'{{"id": {i % 5}, "text": "row {i}"}}\n' for i in range(40)))
    report = retrieval.build(of_rows(recipe, pages), embedder=words)
    assert (report.added, report.changed, report.unchanged) == (5, 0, 0)
    [(_, reason)] = report.skipped
    assert reason.startswith("35 rows left out: line 6: id '0' already appears on line 1; line 7: id '1'")
    assert query("SELECT text FROM documents ORDER BY source") == [(f"row {i}",) for i in range(5)]


def test_a_row_without_an_id_has_a_name_that_no_id_can_be(recipe: RagRecipe, words: Any, pages: Path, query: Rows) -> None:
    lines = ('{"text": "Curtains"}', '{"id": 1, "text": "Lamps"}', '{"id": ":1", "text": "Rugs"}')
    (pages / "rows.jsonl").write_text("\n".join(lines))
    assert retrieval.build(of_rows(recipe, pages), embedder=words).added == 3
    assert sources(query) == ["rows.jsonl#1", "rows.jsonl#:1", "rows.jsonl:1"]


def test_a_document_given_twice_counts_once(recipe: RagRecipe, words: Any, doc: Make, ask: Any) -> None:
    with Writer.open(recipe, embedder=words) as writing:
        writing.upsert([doc("a", "alpha"), doc("a", "beta")])
        writing.upsert([doc("a", "gamma")])
        assert (writing.tally.added, writing.tally.changed) == (1, 0)
    assert ask("gamma") == ["gamma"]


def test_a_file_whose_name_is_a_rows_is_told_until_it_is_free(recipe: RagRecipe, words: Any, pages: Path, query: Rows) -> None:
    rows = of_rows(recipe, pages)
    (pages / "rows.jsonl").write_text('{"id": "x.md", "text": "of the row"}\n')
    (pages / "rows.jsonl#x.md").write_text("of the file")
    for _ in range(2):
        report = retrieval.build(rows, embedder=words)
        assert report.skipped == (("rows.jsonl#x.md", "rows.jsonl has a document with this name"),)
        assert query("SELECT text FROM documents") == [("of the row",)]
    (pages / "rows.jsonl").unlink()
    retrieval.build(rows, embedder=words)
    assert retrieval.build(rows, embedder=words).skipped == ()
    assert query("SELECT text FROM documents") == [("of the file",)]


def test_names_that_are_not_utf_8_are_shown_and_told_apart(recipe: RagRecipe, words: Any, pages: Path, query: Rows) -> None:
    for name in (b"bad\xff.md", b"bad\xfe.md", b"bad\xff.html", b"bad\\xff.md"):
        Path(os.fsdecode(bytes(pages) + b"/" + name)).write_text("<p>words")
    report = retrieval.build(recipe, embedder=words)
    assert report.added == 3
    assert report.skipped == ((r"bad\xff.md", "another file has the same name; rename one of them"),)
    assert sources(query) == [r"bad\xfe.md", r"bad\xff.html", r"bad\xff.md"]


def test_a_deleted_document_comes_back_while_its_file_is_there(recipe: RagRecipe, words: Any, pages: Path, query: Rows) -> None:
    (pages / "a.txt").write_text("beta")
    age(pages)
    retrieval.build(recipe, embedder=words)
    with Writer.open(recipe, embedder=words) as writing:
        writing.delete(sources=["a.txt"])
    assert sources(query) == []
    assert retrieval.build(recipe, embedder=words).added == 1
    assert sources(query) == ["a.txt"]


def test_an_interrupted_pass_goes_on_where_it_stopped(
    recipe: RagRecipe, words: Any, pages: Path, query: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(8):
        (pages / f"{i}.txt").write_text(f"page {i}")
    age(pages)
    monkeypatch.setattr(pipeline, "BATCH", 1)

    def stop(done: int, total: int, source: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retrieval.build(recipe, embedder=words, progress=stop)
    left = len(sources(query))
    assert 0 < left < 8
    with Retriever.open(recipe, embedder=words) as retriever:
        assert not retriever.complete
    words.embedded = 0
    report = retrieval.build(recipe, embedder=words)
    assert (report.added, report.unchanged, words.embedded) == (8 - left, left, 8 - left)
    with Retriever.open(recipe, embedder=words) as retriever:
        assert retriever.complete


def test_an_error_in_the_middle_of_a_batch_writes_nothing_of_it(
    recipe: RagRecipe, words: Any, doc: Make, query: Rows, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Writer.open(recipe, embedder=words) as writing:
        writing.upsert([doc("a", "alpha")])
        put, calls = writing.index.put, iter(range(9))

        def fails(*arguments: Any, **named: Any) -> None:
            put(*arguments, **named)
            if next(calls) == 1:
                raise RuntimeError("in the middle")

        monkeypatch.setattr(writing.index, "put", fails)
        with pytest.raises(RuntimeError, match="in the middle"):
            writing.upsert([doc("b", "beta"), doc("c", "gamma")])
        assert writing.index.vectors.rows == 1
        writing.upsert([doc("d", "delta")])
    assert sources(query) == ["a", "d"]
    assert verify(folder).faults == ()


@pytest.mark.parametrize("bad", [{"team": None}, {"team": [["a"]]}, {"team": ["a", None]}, {"half": "\ud800"}, {"\ud800": 1}])
def test_fields_that_cannot_be_kept_are_one_line(upsert: Any, doc: Make, bad: dict[str, Any]) -> None:
    with pytest.raises(LlmbenchError, match=r"^document 'a'.+\.$"):
        upsert(doc("a", "alpha", **bad))


def test_a_full_disk_is_one_line_and_what_was_there_stays(
    recipe: RagRecipe, words: Any, doc: Make, upsert: Any, query: Rows, folder: Path
) -> None:
    import resource

    upsert(doc("a", "alpha"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        with (
            pytest.raises(LlmbenchError, match=r"cannot be written .+ Free some space"),
            Writer.open(recipe, embedder=words) as writing,
        ):
            writing.upsert(doc(f"{i}", long(f"a{i}", f"b{i}", f"c{i}")) for i in range(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "a" in sources(query)
    assert verify(folder).faults == ()
    upsert(doc("after", "omega"))
    assert verify(folder).faults == () and "after" in sources(query)


@pytest.mark.parametrize(
    ("questions", "told"),
    [
        (
            "".join(f'{{"id": "{i}", "question": "which w{i} and w{i + 5}?", "source": "d1"}}\n' for i in range(230)),
            "on 115 of the",
        ),
        ('{"id": "1", "question": "which w1?", "source": "d1"}\n', "on 1 of the pipeline's questions."),
        ('{"id": "1", "question": "which w1?"}\n', "Recall was not measured on the pipeline's questions: "),
        (None, "on 500 synthetic queries."),
    ],
)
def test_an_approximate_index_is_measured_with_the_pipelines_own_questions(
    recipe: RagRecipe, words: Any, doc: Make, tmp_path: Path, questions: str | None, told: str
) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(questions or "")
    own = recipe.model_copy(update={"search": SearchSpec(index="ivf"), "questions": path if questions else None})
    with Writer.open(own, embedder=words) as writing:
        writing.upsert(doc(f"d{i}", long(*(f"t{i}p{n}" for n in range(50)))) for i in range(42))
        found = writing.finish()
    assert found["kind"] == "ivf" and told in found["words"]
    assert retrieval.build(own, embedder=words).vectors["kind"] == "ivf"  # what was kept is read again


GOOD = Document("v1", "good", "Title", "alpha", "text")


def given(**fields: Any) -> Document:
    return replace(GOOD, **fields)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (given(id=None), r"^document 'good': its id is None, but must be text\.$"),
        (given(kind=3), r"^document 'good': its kind is 3, but"),
        (given(title=None), r"^document 'good': its title is None, but"),
        (given(source=7), r"^document 7: its source is 7, but"),
        (given(metadata=None), r"^document 'good': its metadata is None, but must be a mapping\.$"),
        (given(text=" "), r"^document 'good' has no text, so no search could find it\. Add some\.$"),
        (given(source=""), r"^a document has no source \('alpha'\)"),
        ({"source": "x"}, r"^\{'source': 'x'\} is not a Document\."),
        (given(source="a.txt"), r"^document 'a.txt' has the same source as one from file a.txt\. Give it another source"),
    ],
)
def test_a_bad_document_is_one_line_and_nothing_of_its_call_is_written(
    recipe: RagRecipe, words: Any, pages: Path, query: Rows, bad: Any, told: str
) -> None:
    (pages / "a.txt").write_text("of the file")
    retrieval.build(recipe, embedder=words)
    with Writer.open(recipe, embedder=words) as writing:
        with pytest.raises(LlmbenchError, match=told):
            writing.upsert([GOOD, bad])
        assert writing.tally.added == 0
    assert sources(query) == ["a.txt"]


def test_what_takes_several_says_so(recipe: RagRecipe, words: Any, doc: Make, query: Rows) -> None:
    with Writer.open(recipe, embedder=words) as writing:
        with pytest.raises(LlmbenchError, match=r"writer\.upsert\(\[document\]\)"):
            writing.upsert(GOOD)  # type: ignore[arg-type]
        writing.upsert([doc("1", "alpha", year=1), doc("2", "beta", year=2)])
        with pytest.raises(LlmbenchError, match=r"writer\.delete\(sources=\['12'\]\)"):
            writing.delete(sources="12")
        with pytest.raises(LlmbenchError, match="an empty filter matches every document"):
            writing.delete(where={})
        assert writing.delete(where={"year": {"$lt": 2}}) == 1
    assert sources(query) == ["2"]


def test_a_call_that_fails_while_it_is_written_leaves_nothing_behind(
    recipe: RagRecipe, words: Any, doc: Make, query: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "BATCH", 1)
    with Writer.open(recipe, embedder=words) as writing:
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="out of memory"):
            patch.setattr(words, "embed_documents", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("out of memory")))
            writing.upsert([doc("a", "alpha"), doc("b", "beta"), doc("c", "gamma")])
        assert writing.tally.added == 0
    assert sources(query) == []


def test_threads_may_share_a_writer(recipe: RagRecipe, words: Any, doc: Make, query: Rows, folder: Path) -> None:
    with Writer.open(recipe, embedder=words) as writing, ThreadPoolExecutor(4) as pool:

        def work(thread: int) -> None:
            for i in range(5):
                writing.upsert([doc(f"{thread}/{i}", f"words of {thread} and {i}")])
                writing.delete(sources=[f"{thread}/{i - 1}"])

        list(pool.map(work, range(4)))
        assert writing.tally.added == 20
    assert sources(query) == [f"{thread}/4" for thread in range(4)]
    assert verify(folder).faults == ()


def test_a_closed_writer_says_so(recipe: RagRecipe, words: Any, doc: Make) -> None:
    with Writer.open(recipe, embedder=words) as writing:
        writing.upsert([doc("a", "alpha")])
    for call in (lambda: writing.upsert([doc("b", "beta")]), lambda: writing.delete(sources=["a"]), writing.finish):
        with pytest.raises(LlmbenchError, match=r"index.sqlite is closed\. Open it again: Writer\.open"):
            call()


def test_what_sqlite_refuses_is_told_by_its_kind(upsert: Any, doc: Make, folder: Path) -> None:
    upsert(doc("a", "alpha"))
    generation = current(folder)
    assert generation is not None
    index = WritableIndex(generation)
    try:
        with pytest.raises(LlmbenchError, match=r"rejected a change \(NOT NULL constraint failed.+ verify PIPELINE$"):
            index._execute("UPDATE documents SET title = NULL")
        index._execute("PRAGMA query_only = ON")
        with pytest.raises(
            LlmbenchError, match=r"cannot be written \(attempt to write a readonly database\)\. Make its folder"
        ):
            index._execute("UPDATE documents SET title = ''")
    finally:
        index.close()
