"""A small store, and the seam's hand-written embedder; tests/retrieval/test_build.py uses the real one."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from llmbench.recipe import RagRecipe

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
    return RagRecipe(name="store", documents=[tmp_path / "pages"])
