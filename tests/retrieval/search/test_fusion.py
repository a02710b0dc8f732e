"""Fusion against values worked out by hand, and what must hold whatever the scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from llmbench.retrieval.search.fusion import List, convex, ranked, rrf


def pair(*items: tuple[Any, float]) -> List:
    return np.array([one for one, _ in items]), np.array([score for _, score in items], dtype=np.float64)


def told(found: List) -> list[tuple[Any, float]]:
    return [(one, round(score, 6)) for one, score in zip(found[0].tolist(), found[1].tolist(), strict=True)]


NOTHING = (np.zeros(0, dtype=np.int64), np.zeros(0))
DENSE = pair((1, 0.9), (2, 0.7), (3, 0.5))
TERMS = pair((3, 12.0), (4, 9.0), (1, 2.0))


def test_convex_adds_what_each_list_makes_of_a_candidate_on_a_scale_from_0_to_1() -> None:
    assert told(convex(DENSE, TERMS, 0.5)) == [(1, 0.5), (3, 0.5), (4, 0.35), (2, 0.25)]
    assert told(convex(DENSE, TERMS, 0.75)) == [(1, 0.75), (2, 0.375), (3, 0.25), (4, 0.175)]


def test_at_its_ends_convex_is_one_of_the_lists_and_holds_nothing_else() -> None:
    assert told(convex(DENSE, TERMS, 1)) == [(1, 1.0), (2, 0.5), (3, 0.0)]
    assert told(convex(DENSE, TERMS, 0)) == [(3, 1.0), (4, 0.7), (1, 0.0)]


@pytest.mark.parametrize("seed", range(20))
def test_at_its_ends_convex_ranks_as_the_list_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense, terms = ((rng.permutation(60)[:40], np.round(rng.normal(size=40), 1)) for _ in range(2))
    assert convex(dense, terms, 1.0)[0].tolist() == ranked(dense)[0].tolist()
    assert convex(dense, terms, 0.0)[0].tolist() == ranked(terms)[0].tolist()


@pytest.mark.parametrize("seed", range(20))
def test_the_order_that_candidates_come_in_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lists = [(rng.permutation(50)[:30], rng.integers(0, 5, 30).astype(float)) for _ in range(2)]
    shuffled = [(ids[order], scores[order]) for ids, scores in lists for order in [rng.permutation(30)]]
    (a, b), (c, d) = lists, shuffled
    for found, again in ((convex(a, b, 0.4), convex(c, d, 0.4)), (rrf(lists), rrf(shuffled))):
        assert told(found) == told(again)
        assert (np.diff(found[1]) <= 0).all()
        assert len(set(found[0].tolist())) == len(found[0]) == len(set(lists[0][0]) | set(lists[1][0]))


def test_rrf_adds_reciprocal_ranks_and_looks_at_no_score() -> None:
    expected = [(1, 1 / 61 + 1 / 63), (3, 1 / 63 + 1 / 61), (2, 1 / 62), (4, 1 / 62)]
    assert told(rrf([DENSE, TERMS])) == [(one, round(score, 6)) for one, score in expected]
    assert told(rrf([DENSE, pair((3, 1e9), (4, 1.0), (1, 0.1))])) == told(rrf([DENSE, TERMS]))
    assert told(rrf([DENSE], k=0)) == [(1, 1.0), (2, 0.5), (3, round(1 / 3, 6))]


def test_equals_go_by_id() -> None:
    assert rrf([pair((9, 1.0), (4, 1.0), (7, 1.0))])[0].tolist() == [4, 7, 9]
    assert convex(pair(("b", 1.0), ("a", 1.0)), NOTHING, 0.5)[0].tolist() == ["a", "b"]


@pytest.mark.parametrize("empty", [NOTHING, (np.array([], dtype=str), np.zeros(0))])
def test_a_list_without_candidates_leaves_the_other_as_it_is(empty: List) -> None:
    assert convex(DENSE, empty, 0.5)[0].tolist() == convex(empty, DENSE, 0.5)[0].tolist() == [1, 2, 3]
    assert convex(DENSE, empty, 0.5)[0].dtype == DENSE[0].dtype
    assert rrf([DENSE, empty])[0].tolist() == [1, 2, 3]
    assert [len(part) for part in (*convex(empty, empty, 0.5), *rrf([empty, empty]), *rrf([]))] == [0] * 6


def test_to_be_found_alone_is_more_than_not_to_be_found() -> None:
    assert told(convex(pair((5, 0.2)), pair((6, 3.0), (7, 1.0)), 0.5)) == [(5, 0.5), (6, 0.5), (7, 0.0)]


def test_an_id_that_stands_twice_counts_with_its_best_score() -> None:
    assert told(convex(pair((1, 0.1), (2, 0.5), (1, 0.9)), NOTHING, 1)) == [(1, 1.0), (2, 0.0)]


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_a_weight_outside_0_to_1_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        convex(DENSE, TERMS, alpha)


@pytest.mark.parametrize("wrong", [(np.array([1, 2]), np.array([1.0])), (np.array([[1]]), np.array([[1.0]]))])
def test_ids_without_a_score_each_are_refused(wrong: Sequence[Any]) -> None:
    with pytest.raises(ValueError, match="one score an id"):
        rrf([(wrong[0], wrong[1])])
    with pytest.raises(ValueError, match="k is -1"):
        rrf([DENSE], -1)
