"""A race of pipelines whose quality is known: the bad are stopped early, the cheap good one is chosen, a stop loses nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbench.errors import RecipeError
from llmbench.recipe import ChunkingSpec, RagRecipe, SearchSpec, SourceSpec
from llmbench.retrieval.evaluation import Collection
from llmbench.retrieval.evaluation.grid import Journal, Pipeline, cheapest, index_name, pipelines, race, rounds

QUERIES = {f"q{i}": f"q{i}" for i in range(200)}
COLLECTION = Collection("many/test", QUERIES, {query: {f"d{query}": 1} for query in QUERIES})
SHARES = {"terms": 0.4, "dense": 0.9, "hybrid": 0.905}
"""How many queries each mode finds the document of at once; the others it finds in second place."""


@dataclass
class Piece:
    id: str
    source: str


@dataclass
class Found:
    chunk: Piece
    score: float


@dataclass
class Drawn:
    recipe: RagRecipe
    asked: list[tuple[str, str]]
    stop_after: int = 10**9

    def search(self, query: str, top_k: int | None = None) -> Sequence[Any]:
        if len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        mode = self.recipe.search.mode
        self.asked.append((mode, query))
        luck = np.random.default_rng(int(query[1:])).random()
        right = Found(Piece("1", f"d{query}"), 1.0)
        wrong = Found(Piece("2", "other"), 0.9)
        return [right, wrong] if luck < SHARES[mode] else [wrong, right]

    def unmet(self) -> list[str]:
        return []

    def weight(self, query: str) -> float:
        return 0.6

    def sources(self) -> list[tuple[str, str, int]]:
        return [(f"d{query}", "", 1) for query in QUERIES]


@pytest.fixture
def entries(tmp_path: Path) -> list[Pipeline]:
    (tmp_path / "page.md").write_text("text")
    base = RagRecipe(name="pages", documents=[SourceSpec(path=tmp_path / "page.md")])

    def load(overrides: Sequence[str]) -> RagRecipe:
        return base.model_copy(update={"search": SearchSpec.model_validate({"mode": overrides[0].partition("=")[2]})})

    return pipelines(base, {"search.mode": ["hybrid", "dense", "terms"]}, load)


def opener(asked: list[tuple[str, str]], stop_after: int = 10**9) -> Any:
    @contextmanager
    def opening(recipe: RagRecipe) -> Iterator[Drawn]:
        yield Drawn(recipe, asked, stop_after)

    return opening


def test_the_bad_are_stopped_and_the_cheapest_good_one_is_chosen(entries: list[Pipeline], tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []
    found = race(entries, COLLECTION, opener(asked), Journal(tmp_path / "journal.jsonl", COLLECTION))
    assert [one.pipeline.label for one in found] == ["search.mode=hybrid", "search.mode=dense", "search.mode=terms"]
    assert [one.stopped for one in found] == [False, False, True]
    assert found[2].queries < 200 == found[0].queries
    assert len([query for mode, query in asked if mode == "terms"]) == found[2].queries, "a stopped pipeline is asked no more"
    assert cheapest(found).pipeline.label == "search.mode=dense"
    assert found[2].high < 0 and not found[2].as_good


def test_a_race_that_was_stopped_goes_on_where_it_was(entries: list[Pipeline], tmp_path: Path) -> None:
    path, asked = tmp_path / "journal.jsonl", list[tuple[str, str]]()
    with pytest.raises(KeyboardInterrupt):
        race(entries, COLLECTION, opener(asked, 130), Journal(path, COLLECTION))
    kept = len(path.read_text().splitlines())
    assert 100 <= kept <= 130
    path.write_text(path.read_text() + '["cut sho')
    again: list[tuple[str, str]] = []
    found = race(entries, COLLECTION, opener(again), Journal(path, COLLECTION))
    whole: list[tuple[str, str]] = []
    fresh = race(entries, COLLECTION, opener(whole), Journal(tmp_path / "other.jsonl", COLLECTION))
    assert len(again) == len(whole) - kept
    assert [(one.pipeline, one.ndcg, one.queries, one.low) for one in found] == [
        (one.pipeline, one.ndcg, one.queries, one.low) for one in fresh
    ]
    third: list[tuple[str, str]] = []
    race(entries, COLLECTION, opener(third), Journal(path, COLLECTION))
    assert third == [], "what stands in the journal is not asked again, also behind a line that was cut short"


def test_the_same_seed_asks_the_same_and_another_does_not(entries: list[Pipeline], tmp_path: Path) -> None:
    orders = []
    for number, seed in enumerate((1, 1, 2)):
        asked: list[tuple[str, str]] = []
        race(entries, COLLECTION, opener(asked), Journal(tmp_path / f"{number}.jsonl", COLLECTION), seed=seed)
        orders.append(asked)
    assert orders[0] == orders[1] != orders[2]


def test_answers_of_another_collection_or_pipeline_are_not_taken(entries: list[Pipeline], tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, COLLECTION)
    key = journal.key(entries[0].recipe, 10)
    assert key == Journal(path, COLLECTION).key(entries[0].recipe, 10)
    other = Collection("many/test", QUERIES, {**COLLECTION.qrels, "q1": {"dq2": 1}})
    assert key != Journal(path, other).key(entries[0].recipe, 10)
    assert key != journal.key(entries[1].recipe, 10) and key != journal.key(entries[0].recipe, 11)


def test_pipelines_that_cut_and_embed_alike_share_an_index(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("text")
    base = RagRecipe(name="pages", documents=[SourceSpec(path=tmp_path / "page.md")])
    assert index_name(base, base.model_copy(update={"search": SearchSpec(top_k=9)})) == "pages"
    cut = base.model_copy(update={"chunking": ChunkingSpec(max_tokens=100)})
    assert index_name(base, cut).startswith("pages.") and index_name(base, cut) == index_name(base, cut.model_copy())
    assert index_name(base, cut) != index_name(base, base.model_copy(update={"chunking": ChunkingSpec(max_tokens=99)}))


def test_every_combination_is_tried_and_an_empty_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("text")
    base = RagRecipe(name="pages", documents=[SourceSpec(path=tmp_path / "page.md")])
    found = pipelines(base, {"a": ["1", "2"], "b": ["x", "y"]}, lambda more: base)
    assert [one.label for one in found] == ["a=1 b=x", "a=1 b=y", "a=2 b=x", "a=2 b=y"]
    with pytest.raises(RecipeError, match="--grid b: no values"):
        pipelines(base, {"a": ["1"], "b": []}, lambda more: base)


def test_rounds_double_up_to_all_queries() -> None:
    assert rounds(10) == [10]
    assert rounds(200) == [25, 50, 100, 200]
    assert rounds(201) == [25, 50, 100, 200, 201]
