"""Why a hit stands where it does."""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from dataclasses import dataclass, field

import pytest

from llmbench.recipe.rag import Stage
from llmbench.retrieval.search.diversity import Move
from llmbench.retrieval.search.explain import Share, Term, explain, shares

TEXTS = [
    "the kettle is red and the kettle is small", "the lamp is made of brass", "a kettle of brass",
    "the shop opens at nine in the morning and closes at six", "money is paid back", "nothing at all",
]  # fmt: skip


@dataclass
class Hit:
    rank: int
    stages: dict[Stage, float] = field(default_factory=dict)


@pytest.mark.parametrize("query", ["kettle", "brass kettle", "red kettle of the shop"])
def test_the_shares_add_up_to_what_sqlite_computes(query: str) -> None:
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE t USING fts5(text)")
    database.executemany("INSERT INTO t(rowid, text) VALUES (?, ?)", enumerate(TEXTS))
    bags = [Counter(re.findall(r"\w+", text)) for text in TEXTS]
    lengths = [bag.total() for bag in bags]
    words = query.split()
    for number, score in database.execute("SELECT rowid, bm25(t) FROM t WHERE t MATCH ?", (" OR ".join(words),)):
        terms = [Term(word, bags[number][word], sum(word in bag for bag in bags)) for word in words]
        found = shares(terms, length=lengths[number], average=sum(lengths) / len(lengths), count=len(TEXTS))
        assert sum(part.points for part in found) == pytest.approx(-score, rel=1e-6)
        assert sum(part.share for part in found) == pytest.approx(1)
        assert [part.points for part in found] == sorted((part.points for part in found), reverse=True)
        assert {part.term for part in found} == {word for word in words if bags[number][word]}


def test_no_word_is_no_share() -> None:
    assert shares([Term("kettle", 0, 3)], length=5, average=5.0, count=9) == []
    assert shares([], length=5, average=5.0, count=9) == []


def test_each_stage_has_its_line() -> None:
    hit = Hit(2, {"dense": 0.61234, "terms": 3.5, "fused": 0.0325, "rerank": -1.25})
    text = explain(
        hit,
        ranks={"dense": 4, "terms": 1, "fused": 2, "rerank": 3},
        terms=[Share("kettle", 2.8, 0.8), Share("red", 0.7, 0.2)],
        unmatched=["warranty"],
        reranker="models/judge",
        scale="logit, without bounds",
        windows=3,
        move=Move(3, 2, 0, 0.41),
    )
    assert text.splitlines() == [
        "dense  rank 4, cosine 0.6123",
        "terms  rank 1, BM25 3.5000 (kettle 80%, red 20%; not in it: warranty)",
        "fused  rank 2, score 0.0325",
        "rerank rank 3, models/judge -1.2500 (logit, without bounds, best of 3 windows)",
        "mmr    3 -> 2: put forward, it repeats less (most like the one chosen as candidate 1, cosine 0.41)",
        "final  rank 2",
    ]


def test_a_stage_that_did_not_have_it_says_so() -> None:
    assert explain(Hit(1, {"terms": 2.0}), ranks={"terms": 1}).splitlines() == [
        "dense  not among the candidates",
        "terms  rank 1, BM25 2.0000",
        "final  rank 1",
    ]
    moved = explain(Hit(5, {"dense": 0.5}), ranks={"dense": 2}, move=Move(2, 5, 0, 0.97))
    assert "mmr    2 -> 5: put back, most like the one chosen as candidate 1, cosine 0.97" in moved
