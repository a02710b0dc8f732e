"""A real Ray on this machine: its shards become the index that one process makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbench import retrieval, workspace
from llmbench.recipe import RagRecipe, SearchSpec
from llmbench.retrieval import cluster
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
