"""A small store, and the seam's hand-written embedder; tests/retrieval/index/test_build.py uses the real one."""

from __future__ import annotations

import hashlib
import runpy
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench import workspace
from llmbench.recipe import RagRecipe, SourceSpec
from llmbench.retrieval import Document, Retriever
from llmbench.retrieval.index.writer import Writer
from llmbench.retrieval.store.layout import current

_WORDS = runpy.run_path(str(Path(__file__).with_name("words.py")))["Words"]


@pytest.fixture
def words() -> Any:
    """An embedder whose vectors are counts of words."""
    return _WORDS()


@pytest.fixture
def other_words() -> Any:
    """Another model of the same dimension."""
    return _WORDS("other")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RagRecipe:
    """A pipeline over an empty folder, its outputs in a folder of the test."""
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "outputs"))
    (tmp_path / "pages").mkdir()
    return RagRecipe(name="store", documents=[SourceSpec(path=tmp_path / "pages")])


@pytest.fixture
def folder(recipe: RagRecipe) -> Path:
    """The index's folder."""
    return workspace.indexes() / recipe.name


@pytest.fixture
def pages(recipe: RagRecipe) -> Path:
    """The folder of documents."""
    return recipe.documents[0].path


@pytest.fixture
def doc() -> Callable[..., Document]:
    """A document as a program makes it."""

    def make(source: str, text: str, title: str = "Title", **metadata: Any) -> Document:
        identity = hashlib.sha256(f"{title}\0{text}\0{metadata}".encode("utf-8", "surrogatepass")).hexdigest()
        return Document(identity, source, title, text, "text", metadata)

    return make


@pytest.fixture
def upsert(recipe: RagRecipe, words: Any) -> Callable[..., None]:
    """Writes documents, and finishes."""

    def write(*documents: Document) -> None:
        with Writer.open(recipe, embedder=words) as writer:
            writer.upsert(documents)

    return write


@pytest.fixture
def ask(recipe: RagRecipe, words: Any) -> Callable[..., list[str]]:
    """The texts that a search finds, by a retriever that opens the index for it."""

    def search(query: str, k: int = 10, **options: Any) -> list[str]:
        with Retriever.open(recipe, embedder=words) as retriever:
            return [hit.chunk.text for hit in retriever.search(query, k, **options)]

    return search


@pytest.fixture
def query(folder: Path) -> Callable[..., list[tuple[Any, ...]]]:
    """Rows of the current generation's database, past the store."""

    def rows(sql: str, *values: Any) -> list[tuple[Any, ...]]:
        generation = current(folder)
        assert generation is not None
        db = sqlite3.connect(generation / "index.sqlite", isolation_level=None)
        try:
            return db.execute(sql, values).fetchall()
        finally:
            db.close()

    return rows
