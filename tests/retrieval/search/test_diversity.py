"""Maximal marginal relevance against the formula written out, and what counts as a repetition."""

from __future__ import annotations

import numpy as np
import pytest

from llmbench.retrieval.embedding import Embedder
from llmbench.retrieval.search.diversity import duplicates, mmr, moves

KETTLES = [
    "The Alba kettle is red and boils water in two minutes.",
    "The Alba kettle is red; it boils water within two minutes.",
    "The Alba kettle comes with a warranty of three years.",
    "The shop opens at nine in the morning.",
]


def by_the_formula(vectors: np.ndarray, relevance: list[float], k: int, weight: float) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < min(k, len(relevance)):
        left = [i for i in range(len(relevance)) if i not in chosen]
        nearest = {i: max((float(vectors[i] @ vectors[j]) for j in chosen), default=None) for i in left}
        first = [i for i in left if relevance[i] == max(relevance)] if not chosen else left
        chosen.append(max(first, key=lambda i: weight * relevance[i] - (1 - weight) * (nearest[i] or 0.0)))
    return chosen


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_mmr_is_the_formula_of_its_paper(weight: float) -> None:
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(30, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = rng.normal(size=30).astype(np.float32)
    relevance = [float(s - scores.min()) / float(scores.max() - scores.min()) for s in scores]
    assert mmr(vectors, scores, 12, weight) == by_the_formula(vectors, relevance, 12, weight)


def test_the_scale_of_the_scores_does_not_matter() -> None:
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(20, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = rng.uniform(0.2, 0.8, 20)
    assert mmr(vectors, cosines, 20, 0.5) == mmr(vectors, 40 * cosines - 11, 20, 0.5)
    assert mmr(vectors, cosines, 20, 1.0) == list(np.argsort(-cosines))


def test_a_passage_that_repeats_goes_behind_one_that_says_something_new(embedder: Embedder) -> None:
    vectors = embedder.embed(KETTLES)
    scores = (vectors @ embedder.embed(["Tell me about the Alba kettle that boils water"])[0]).astype(np.float32)
    by_score = mmr(vectors, scores, 4, 1.0)
    assert by_score[2:] == [2, 3] and set(by_score[:2]) == {0, 1}
    order = mmr(vectors, scores, 3, 0.5)
    assert order[:2] == [by_score[0], 2]
    first, second, _ = moves(vectors, scores, order)
    assert (first.before, first.after, first.nearest) == (1, 1, None)
    assert (second.before, second.after, second.nearest) == (3, 2, by_score[0])
    assert second.cosine == pytest.approx(float(vectors[2] @ vectors[by_score[0]]))


def test_few_none_and_equal_candidates() -> None:
    vectors = np.eye(3, dtype=np.float32)
    assert mmr(vectors[:0], np.zeros(0, dtype=np.float32), 5, 0.5) == []
    assert mmr(vectors, np.ones(3, dtype=np.float32), 10, 0.5) == [0, 1, 2]
    assert mmr(vectors, np.ones(3, dtype=np.float32), 0, 0.5) == []


def test_repetitions_are_left_out() -> None:
    texts = ["The kettle  is\nred.", "the KETTLE is red.", "kettle is", "A red kettle: The kettle is red. It boils.", "kett"]
    assert duplicates(texts) == [0, 3, 4]


def test_most_of_the_same_span_is_a_repetition_and_the_same_span_elsewhere_is_not() -> None:
    texts = ["one", "two", "three", "four", "five"]
    spans = [("a", 0, 100), ("a", 19, 119), ("a", 21, 121), ("b", 0, 100), ("a", 0, 1000)]
    assert duplicates(texts, spans) == [0, 2, 3, 4]
