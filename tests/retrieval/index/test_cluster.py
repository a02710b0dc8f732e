"""A real Ray on this machine: its shards become the index that one process makes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbench import retrieval, workspace
from llmbench.recipe import ColumnsSpec, RagRecipe, SearchSpec, SourceSpec
from llmbench.retrieval import reading
from llmbench.retrieval.documents import Document
from llmbench.retrieval.embedding import Embedder
from llmbench.retrieval.index import cluster
from llmbench.retrieval.reading import children
from llmbench.retrieval.store.contract import Contract
from llmbench.retrieval.store.rows import FileState
from llmbench.retrieval.store.verify import verify


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # sockets of Ray's own processes, closed by their ends
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # ray 2.60 sets an option of its own that it deprecates
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")  # ray 2.60: of its own environment variable for GPUs
def test_shards_of_a_cluster_become_the_index_of_one_process(
    recipe: RagRecipe, pages: Path, ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "FILES", 2)
    (pages / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    spread = retrieval.build(recipe, engine="ray")
    alone = retrieval.build(recipe.model_copy(update={"name": "alone"}))
    assert (spread.added, spread.embedded, spread.chunks) == (alone.added, alone.embedded, alone.chunks)
    assert spread.skipped == alone.skipped != ()
    assert verify(workspace.indexes() / "pages").faults == ()
    (pages / "lamp.md").write_text("# Borin lamp\n\nNow it is made of tin.\n")
    (pages / "kettle.md").unlink()
    again = retrieval.build(recipe, engine="ray")
    assert (again.added, again.changed, again.removed, again.embedded) == (0, 1, 1, 1)
    assert verify(workspace.indexes() / "pages").faults == ()
    with retrieval.Retriever.open(recipe.model_copy(update={"search": SearchSpec(top_k=1)})) as retriever:
        assert retriever.search("What is the lamp made of?")[0].chunk.text == "Now it is made of tin."
    assert not (workspace.indexes() / "pages" / "shards").exists()


def test_what_a_worker_cannot_read_now_is_told_and_is_in_no_shard(
    recipe: RagRecipe, tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrieval.build(recipe, embedder=embedder)
    contract = Contract.of(recipe, embedder.contract)
    worker = cluster._Worker(recipe.model_dump_json(), json.dumps(contract.to_json()))
    files = [(file, FileState(file.source, "sha", 1, 1, "", "")) for file in reading.walk(recipe.documents).files]
    monkeypatch.setattr(children, "PATIENCE", 0)  # a page of HTML is read by a process, which is waited for
    row = {"folder": str(tmp_path / "shards" / "0"), "files": json.dumps([cluster._plain(*pair) for pair in files])}
    told = worker(row)
    assert json.loads(told["unread"]) == [["refunds.html", "not read within 0 seconds"]]
    states = tuple(FileState(*values) for values in json.loads(told["states"]))
    assert [state.source for state in states] == ["kettle.md", "lamp.md", "shop/hours.txt"]
    with retrieval.Writer.open(recipe, embedder=embedder) as writer:
        cluster.merge(writer, cluster.Shard(Path(told["folder"]), states, (("refunds.html", "slow"),), told["embedded"]))
        assert {source for source, _, _ in writer.index.sources()} >= {"refunds.html", "lamp.md"}


def test_what_a_shard_holds_of_a_name_that_is_taken_is_left_out_and_told(
    recipe: RagRecipe, pages: Path, tmp_path: Path, embedder: Embedder
) -> None:
    (pages / "rows.jsonl").write_text('{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n{"id": 2, "text": "c"}\n')
    place = SourceSpec(path=pages, columns=ColumnsSpec())
    with retrieval.Writer.open(recipe, embedder=embedder) as writer:
        writer.upsert([Document("v1", name, "Title", "of a program", "text") for name in ("lamp.md", "rows.jsonl#2")])
        worker = cluster._Worker(recipe.model_dump_json(), json.dumps(writer.index.contract.to_json()))
    files = [(file, FileState(file.source, "sha", 1, 1, "", "")) for file in reading.walk([place]).files]
    told = worker({"folder": str(tmp_path / "0"), "files": json.dumps([cluster._plain(*pair) for pair in files])})
    states = tuple(FileState(*values) for values in json.loads(told["states"]))
    with retrieval.Writer.open(recipe, embedder=embedder) as writer:
        left_out = cluster.merge(writer, cluster.Shard(Path(told["folder"]), states, (), told["embedded"]))
        assert writer.tally.added == 4 and writer.tally.changed == 0
        assert {source: state.sha256 for source, state in writer.index.files().items() if not state.sha256} == {
            "lamp.md": "",
            "rows.jsonl": "",
        }
    taken = "a program wrote a document with this name"
    again = f"1 row left out: line 2: id '1' already appears on line 1; 1 row left out: line 3: {taken}"
    assert left_out == [("lamp.md", taken), ("rows.jsonl", again)]
