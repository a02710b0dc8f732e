"""A home that cannot be written: searching, verifying and asking do without a cache, also on an index copied with its log."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import pytest

from llmbench import workspace
from llmbench.recipe import EmbedderSpec, RagRecipe
from llmbench.retrieval import Retriever, build
from llmbench.retrieval.embedding import Embedder, fingerprint
from llmbench.retrieval.store import verify
from llmbench.retrieval.store.layout import current

Closed = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def frozen(closed: Closed) -> Callable[[Path], AbstractContextManager[None]]:
    """Takes the right to write from a folder and all folders in it."""

    @contextmanager
    def freeze(home: Path) -> Iterator[None]:
        with ExitStack() as stack:
            for path in sorted([home, *(p for p in home.rglob("*") if p.is_dir())], reverse=True):
                stack.enter_context(closed(path, 0o555))
            yield

    return freeze


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: RagRecipe, embedder: Embedder) -> Path:
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "home"))
    build(recipe, embedder=embedder)
    return tmp_path / "home"


@pytest.mark.parametrize("backend", ["auto", "onnx"])
def test_a_search_needs_no_cache(
    home: Path,
    frozen: Callable[[Path], AbstractContextManager[None]],
    recipe: RagRecipe,
    monkeypatch: pytest.MonkeyPatch,
    backend: Literal["auto", "onnx"],
) -> None:
    shutil.rmtree(home / "cache", ignore_errors=True)
    monkeypatch.setattr(fingerprint, "_known", {})
    own = recipe.model_copy(update={"embedder": EmbedderSpec.model_validate({"backend": backend})})
    with frozen(home), Retriever.open(own) as retriever:
        assert retriever.search("What colour is the kettle?")[0].chunk.source == "kettle.md"
        assert verify.verify(workspace.indexes() / recipe.name).faults == ()
    assert not (home / "cache").exists()


def test_a_cache_of_another_user_is_passed_over(
    home: Path, closed: Closed, recipe: RagRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "cache" / "embedders").mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(fingerprint, "_known", {})
    own = recipe.model_copy(update={"embedder": EmbedderSpec(backend="onnx")})
    with closed(home / "cache"), closed(home, 0o555), Retriever.open(own) as retriever:
        assert retriever.search("lamp")[0].chunk.source == "lamp.md"


def test_an_index_copied_while_it_was_written_is_searched_with_its_log(
    home: Path, frozen: Callable[[Path], AbstractContextManager[None]], recipe: RagRecipe, embedder: Embedder
) -> None:
    generation = current(workspace.indexes() / recipe.name)
    assert generation is not None
    writer = sqlite3.connect(generation / "index.sqlite", isolation_level=None)
    writer.execute("PRAGMA wal_autocheckpoint = 0")
    writer.execute("INSERT OR REPLACE INTO meta VALUES ('alpha', '0.25')")  # in the log alone
    log = (generation / "index.sqlite-wal").read_bytes()
    assert log
    writer.close()
    (generation / "index.sqlite-wal").write_bytes(log)  # as a copy has it, without the file by which it is read
    (generation / "index.sqlite-shm").unlink(missing_ok=True)
    with frozen(home), Retriever.open(recipe, embedder=embedder) as retriever:
        assert retriever.search("lamp")[0].chunk.source == "lamp.md"
        with retriever._now() as view:
            assert view.index.get("alpha") == 0.25
        assert sorted(path.name for path in generation.iterdir()) == ["index.sqlite", "index.sqlite-wal", "vectors.bin"]
