"""Why a hit stands where it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmbench.recipe import RagRecipe, Stage
from llmbench.retrieval import Retriever, build
from llmbench.retrieval.chunking import Chunk
from llmbench.retrieval.embedding import Embedder
from llmbench.retrieval.search.diversity import Move
from llmbench.retrieval.search.explain import Share, explain, shares
from llmbench.retrieval.search.hits import Hit, Step

CHUNK = Chunk("1", "kettle.md", "Kettle", "The kettle is red.", 0, 18, None, 1)


def hit(rank: int, stages: dict[Stage, Step], **more: Any) -> Hit:
    return Hit(CHUNK, 1.0, rank, "fused", stages, **more)


@pytest.mark.parametrize("query", ["kettle", "Alba kettle", "the red kettles of the shop", "boil boil water"])
def test_the_shares_add_up_to_the_score_of_the_index(recipe: RagRecipe, embedder: Embedder, query: str, pages: Path) -> None:
    build(recipe, embedder=embedder)
    with Retriever.open(recipe, embedder=embedder) as retriever:
        found = [one for one in retriever.search(query) if "terms" in one.stages]
        assert found
        for one in found:
            with retriever._now() as view:
                points = view.index.word_points(query, one.chunk.id)
            parts = shares(points)
            assert sum(part.points for part in parts) == pytest.approx(one.stages["terms"].score, rel=1e-6)
            assert sum(part.share for part in parts) == pytest.approx(1)
            assert [part.points for part in parts] == sorted((part.points for part in parts), reverse=True)
            assert retriever.explain(query, one).splitlines()[-1] == f"final  rank {one.rank}"


def test_no_word_is_no_share() -> None:
    assert shares({"kettle": 0.0}) == []
    assert shares({}) == []


def test_each_stage_has_its_line() -> None:
    stages: dict[Stage, Step] = {
        "dense": Step(4, 0.61234),
        "terms": Step(1, 3.5),
        "fused": Step(2, 0.0325),
        "rerank": Step(3, -1.25),
    }
    text = explain(
        hit(2, stages, windows=3, move=Move(3, 2, 0, 0.41)),
        terms=[Share("kettle", 2.8, 0.8), Share("red", 0.7, 0.2)],
        unmatched=["warranty"],
        reranker="models/judge",
        scale="logit, without bounds",
    )
    assert text.splitlines() == [
        "dense  rank 4, cosine 0.6123",
        "terms  rank 1, BM25 3.5000 (kettle 80%, red 20%; not in it: warranty)",
        "fused  rank 2, score 0.0325",
        "rerank rank 3, models/judge -1.2500 (logit, without bounds, best of 3 windows)",
        "mmr    3 -> 2: moved up, it repeats less (most like the one chosen as candidate 1, cosine 0.41)",
        "final  rank 2",
    ]


def test_a_stage_that_did_not_have_it_says_so() -> None:
    assert explain(hit(1, {"terms": Step(1, 2.0), "fused": Step(1, 0.4)})).splitlines() == [
        "dense  not among the candidates",
        "terms  rank 1, BM25 2.0000",
        "fused  rank 1, score 0.4000",
        "final  rank 1",
    ]
    moved = explain(hit(5, {"dense": Step(2, 0.5)}, move=Move(2, 5, 0, 0.97)))
    assert "mmr    2 -> 5: moved down, most like the one chosen as candidate 1, cosine 0.97" in moved
