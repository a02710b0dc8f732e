"""Indexing: what is touched and what is not, what a kill leaves, and which index is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmbench import retrieval, workspace, written
from llmbench.errors import IndexError_, LlmbenchError
from llmbench.recipe import ChunkingSpec, EmbedderSpec, RagRecipe, SearchSpec, SourceSpec
from llmbench.retrieval import Retriever
from llmbench.retrieval.embedding import Embedder
from llmbench.retrieval.store import Index
from llmbench.retrieval.store.layout import current


def opened(recipe: RagRecipe) -> Index:
    path = current(workspace.indexes() / recipe.name)
    assert path is not None
    return Index(path)


def rows(recipe: RagRecipe, query: str) -> list[tuple[Any, ...]]:
    index = opened(recipe)
    try:
        return index._rows(query)
    finally:
        index.close()


def numbers(recipe: RagRecipe) -> dict[str, list[int]]:
    """The vectors' numbers, by source."""
    found: dict[str, list[int]] = {}
    for source, number in rows(
        recipe, "SELECT source, vector_id FROM chunks JOIN documents ON document = number ORDER BY vector_id"
    ):
        found.setdefault(source, []).append(number)
    return found


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every passage that the real embedder is given from now on."""
    texts: list[str] = []
    embed = Embedder.embed_documents

    def counted(self: Embedder, given: Sequence[str], tokens: Sequence[int] | None = None, **more: Any) -> Any:
        texts.extend(given)
        return embed(self, given, tokens, **more)

    monkeypatch.setattr(Embedder, "embed_documents", counted)
    return texts


def test_only_what_changed_is_embedded_again(recipe: RagRecipe, pages: Path, embedded: list[str], embedder: Embedder) -> None:
    seen: list[tuple[int, int, str]] = []
    first = retrieval.build(recipe, embedder=embedder, progress=lambda done, total, source: seen.append((done, total, source)))
    assert (first.added, first.changed, first.removed, first.unchanged, first.skipped) == (4, 0, 0, 0, ())
    assert first.chunks == first.embedded == len(embedded) == 4
    assert seen == [(1, 4, "kettle.md"), (2, 4, "lamp.md"), (3, 4, "refunds.html"), (4, 4, "shop/hours.txt")]
    assert embedded[0] == "Alba kettle\nThe Alba kettle is red. It weighs 300 grams and boils water in two minutes."
    before = numbers(recipe)

    embedded.clear()
    os.utime(pages / "kettle.md", (1, 1))
    second = retrieval.build(recipe, embedder=embedder)
    assert (second.unchanged, second.embedded, embedded) == (4, 0, [])
    assert numbers(recipe) == before

    (pages / "lamp.md").write_text("# Borin lamp\n\nThe Borin lamp is made of copper.\n")
    (pages / "shop" / "hours.txt").unlink()
    (pages / "new.txt").write_text("A new page.")
    third = retrieval.build(recipe, embedder=embedder)
    assert (third.added, third.changed, third.removed, third.unchanged) == (1, 1, 1, 2)
    assert embedded == ["Borin lamp\nThe Borin lamp is made of copper.", "new\nA new page."]
    after = numbers(recipe)
    assert after["kettle.md"] == before["kettle.md"]
    assert min(after["lamp.md"] + after["new.txt"]) > max(n for values in before.values() for n in values)
    assert after.keys() == {"kettle.md", "lamp.md", "new.txt", "refunds.html"}


def test_a_number_is_never_given_twice(recipe: RagRecipe, pages: Path, embedder: Embedder) -> None:
    retrieval.build(recipe, embedder=embedder)
    last = max(n for values in numbers(recipe).values() for n in values)
    shutil.rmtree(pages / "shop")
    retrieval.build(recipe, embedder=embedder)
    (pages / "again.txt").write_text("Something else.")
    retrieval.build(recipe, embedder=embedder)
    assert numbers(recipe)["again.txt"] == [last + 1]


def test_bad_files_are_skipped_told_and_counted(
    recipe: RagRecipe, pages: Path, write_pdf: Callable[..., Path], embedder: Embedder
) -> None:
    write_pdf("good.pdf", "The pump is blue.")
    write_pdf("locked.pdf", "Secret", password="word")
    (pages / "broken.pdf").write_bytes((pages / "good.pdf").read_bytes()[:200])
    (pages / "empty.md").touch()
    report = retrieval.build(recipe, embedder=embedder)
    assert report.added == 5
    assert [source for source, _ in report.skipped] == ["broken.pdf", "empty.md", "locked.pdf"]
    assert "password" in dict(report.skipped)["locked.pdf"]
    assert retrieval.build(recipe, embedder=embedder).skipped == report.skipped


def test_a_file_that_goes_bad_leaves_the_index(recipe: RagRecipe, pages: Path, embedder: Embedder) -> None:
    retrieval.build(recipe, embedder=embedder)
    (pages / "lamp.md").write_bytes(b"\0\0")
    report = retrieval.build(recipe, embedder=embedder)
    assert (report.removed, report.skipped) == (1, (("lamp.md", "binary, not text"),))


def test_stored_spans_point_into_the_stored_text(
    recipe: RagRecipe, pages: Path, write_pdf: Callable[..., Path], embedder: Embedder
) -> None:
    write_pdf("report.pdf", *(f"Page {n} says much. " * 30 for n in range(3)), title="The report")
    (pages / "long.md").write_text("# Long\n\n" + "\n\n".join(f"Paragraph {n} of the text. " * 9 for n in range(9)))
    recipe = recipe.model_copy(update={"search": SearchSpec(mode="dense", deduplicate=False)})
    retrieval.build(recipe, embedder=embedder)
    with Retriever.open(recipe, embedder=embedder) as retriever:
        hits = retriever.search("says much", 1000)
        assert len(hits) == sum(count for _, _, count in retriever.sources()) > 12
        for hit in hits:
            document = retriever.document(hit.chunk.source)
            assert document.text[hit.chunk.start : hit.chunk.end] == hit.chunk.text
            assert document.page(hit.chunk.start) == document.page(hit.chunk.end - 1) == hit.chunk.page
        assert {hit.chunk.page for hit in hits if hit.chunk.source == "report.pdf"} == {1, 2, 3}
        assert retriever.document("long.md").text == (pages / "long.md").read_text()


def test_no_passage_outgrows_the_embedders_window(pages: Path, embedded: list[str], embedder: Embedder) -> None:
    (pages / "long.md").write_text("# " + "A title without end " * 30 + "\n\n" + "many words in a row " * 600)
    recipe = RagRecipe(
        name="wide", documents=[SourceSpec(path=pages / "long.md")], chunking=ChunkingSpec(max_tokens=500, overlap=0)
    )
    retrieval.build(recipe, embedder=embedder)
    lengths = [len(embedder.starts(text)) + embedder.special_tokens for text in embedded]
    assert max(lengths) <= embedder.max_tokens
    assert min(lengths[:-1]) > 200


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from llmbench.recipe import ChunkingSpec, RagRecipe
    from llmbench.retrieval import build
    from llmbench.retrieval.index import pipeline
    from llmbench.retrieval.store import WritableIndex, layout

    recipe = RagRecipe(name="pages", documents=[Path(sys.argv[1])], chunking=ChunkingSpec(max_tokens=64, overlap=8))
    pipeline.BATCH = 3
    import onnx, onnxruntime, tokenizers

    def dies_at(owner, name, number):
        function, calls = getattr(owner, name), iter(range(1, 99))
        def wrapped(*arguments, **named):
            result = function(*arguments, **named)
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return result
        setattr(owner, name, wrapped)

    # Forked before a session starts a thread, so that the imports are paid for once.
    for point in sys.argv[2:]:
        name, number = point.split("-")
        child = os.fork()
        if child == 0:
            os.environ["LLMBENCH_HOME"] += "-" + point
            match name:
                case "put":
                    dies_at(WritableIndex, "put", int(number))
                case "set":
                    dies_at(WritableIndex, "set", int(number))
                case "settle":
                    dies_at(WritableIndex, "settle", int(number))
                case "point":
                    dies_at(layout, "point", int(number))
                case "connect":
                    dies_at(WritableIndex, "__init__", int(number))
            build(recipe)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL, point
"""
POINTS = {"connect-1": 0, "set-1": 0, "point-1": 0, "put-1": 0, "put-3": 0, "put-4": 3, "put-8": 6, "settle-1": 10}
"""Where indexing is killed, and how many documents it leaves: batches of three are written whole."""


def test_a_kill_leaves_whole_documents_and_the_next_run_finishes(
    recipe: RagRecipe, pages: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        (pages / f"page{number}.txt").write_text(f"Page {number} tells of {number} cups. " * 5)
    program = textwrap.dedent(KILLED)
    done = subprocess.run([sys.executable, "-c", program, str(pages), *POINTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    own = Embedder(recipe.embedder, gpu=True)  # as the processes that are killed have it
    retrieval.build(recipe, embedder=own)
    query = "SELECT id, source, chunks.text, start FROM chunks JOIN documents ON document = number ORDER BY id"
    whole, of_source = rows(recipe, query), {source: len(found) for source, found in numbers(recipe).items()}
    for point, documents in POINTS.items():
        monkeypatch.setenv("LLMBENCH_HOME", f"{home}-{point}")
        if point not in ("connect-1", "set-1"):
            left = numbers(recipe)
            assert len(left) == documents, point
            assert all(len(found) == of_source[source] for source, found in left.items()), point
            with Retriever.open(recipe, embedder=own) as retriever:
                assert not retriever.complete or point == "settle-1"
                assert len(retriever.search("cups", 100)) == sum(map(len, left.values()))
        report = retrieval.build(recipe, embedder=own)
        assert (report.added, report.unchanged) == (10 - documents, documents), point
        assert rows(recipe, query) == whole, point


def test_another_writer_is_refused_while_one_writes(recipe: RagRecipe, embedder: Embedder) -> None:
    def again(done: int, total: int, source: str) -> None:
        if done == 1:
            with pytest.raises(LlmbenchError, match=f"index pages is in use by process {os.getpid()}"):
                retrieval.build(recipe, embedder=embedder)

    assert retrieval.build(recipe, embedder=embedder, progress=again).added == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"chunking": ChunkingSpec(max_tokens=32, overlap=8)}, r"another max_tokens \(64, not 32\)"),
        (
            {"embedder": EmbedderSpec(document_prefix="passage: ")},
            r"another embedder \(document_prefix is '' in the index and 'passage: ' now\)",
        ),
    ],
)
def test_an_index_that_does_not_fit_the_recipe_is_refused_with_the_command(
    recipe: RagRecipe, change: dict[str, Any], words: str
) -> None:
    retrieval.build(recipe)
    other = recipe.model_copy(update=change)
    for use in (lambda: retrieval.build(other), lambda: Retriever.open(other)):
        with pytest.raises(IndexError_, match=rf"index pages was built with {words}\. Run: llmbench index .+ --rebuild"):
            use()
    assert retrieval.build(other, rebuild=True).added == 4
    with Retriever.open(other) as retriever:
        assert retriever.search("lamp")


def test_an_index_of_a_like_named_model_is_refused(recipe: RagRecipe, tmp_path: Path) -> None:
    from llmbench.retrieval.embedding import locate

    folder = tmp_path / "model"
    shutil.copytree(locate("all-MiniLM-L6-v2"), folder)
    own = recipe.model_copy(update={"embedder": EmbedderSpec(model_name_or_path=str(folder))})
    retrieval.build(own)
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace('"pooling_mode_mean_tokens": true', '"pooling_mode_mean_tokens": false'))
    with pytest.raises(IndexError_, match=r"another embedder \(the files of .+ have changed\)"):
        Retriever.open(own)


def test_a_rebuild_serves_the_old_index_until_the_new_one_is_whole(recipe: RagRecipe, pages: Path, embedder: Embedder) -> None:
    retrieval.build(recipe, embedder=embedder)
    (pages / "new.txt").write_text("A pump.")
    with Retriever.open(recipe, embedder=embedder) as retriever:

        def look(done: int, total: int, source: str) -> None:
            assert len(retriever.search("pump", 100)) == 4

        retrieval.build(recipe, embedder=embedder, rebuild=True, progress=look)
        assert len(retriever.search("pump", 100)) == 5
    folder = workspace.indexes() / "pages"
    assert json.loads((folder / "index.json").read_text()) == {"generation": 2}
    assert sorted(path.name for path in folder.iterdir()) == [written.RECORD, ".lock", "2", "index.json"]


def test_a_broken_database_says_how_to_build_it_again(recipe: RagRecipe) -> None:
    retrieval.build(recipe)
    (workspace.indexes() / "pages" / "1" / "index.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(IndexError_, match=r"index\.sqlite cannot be used .*--rebuild"):
        Retriever.open(recipe)
    assert retrieval.build(recipe, rebuild=True).added == 4
    (workspace.indexes() / "pages" / "index.json").write_text("{")
    with pytest.raises(IndexError_, match=r"index\.json is broken"):
        Retriever.open(recipe)


def test_a_folder_without_documents_makes_an_empty_index(tmp_path: Path, embedder: Embedder) -> None:
    (tmp_path / "nothing").mkdir()
    recipe = RagRecipe(name="nothing", documents=[SourceSpec(path=tmp_path / "nothing")])
    assert retrieval.build(recipe, embedder=embedder).chunks == 0
    with Retriever.open(recipe, embedder=embedder) as retriever:
        assert retriever.search("anything") == []
        assert retriever.sources() == []
