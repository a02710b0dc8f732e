"""What estimates and differences must do on data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from llmbench.statistics.clusters import clusters
from llmbench.statistics.paired import difference, differences, estimate, holm, quantile
from llmbench.statistics.values import Kind
from llmbench.statistics.words import clustering


def ids(values: list[float]) -> dict[str, float]:
    return {f"q{i:04}": value for i, value in enumerate(values)}


def pages(n: int, size: int) -> dict[str, str]:
    return {f"q{i:04}": f"page {i // size}" for i in range(n)}


def test_binary_pairs_are_tested_by_exact_mcnemar() -> None:
    # 9 questions only a has right, 1 only b: p = 2 * (C(10,0) + C(10,1)) / 2^10 = 22 / 1024.
    a, b = ids([1.0] * 9 + [0.0] + [1.0] * 10), ids([0.0] * 9 + [1.0] + [1.0] * 10)
    found = difference("grounded", "a", "b", a, b, "share")
    assert found is not None
    assert found.p == pytest.approx(22 / 1024)
    assert (found.a_only, found.b_only, found.n, found.mean) == (9, 1, 20, 0.4)


def test_means_are_tested_by_flipping_signs() -> None:
    # All 8 differences positive: 2 of the 2^8 sign patterns reach this far from 0.
    of_b = ids([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7])
    found = difference("latency", "a", "b", ids([2.0] * 8), of_b, "amount")
    assert found is not None
    assert found.p == pytest.approx(2 / 256)
    assert found.mean == pytest.approx(0.65)


@pytest.mark.parametrize("kind", ["share", "score", "amount"])
def test_equal_differences_on_few_questions_are_not_certain(kind: Kind) -> None:
    found = difference("m", "a", "b", ids([1.0] * 4), ids([0.0] * 4), kind)
    assert found is not None
    assert found.p == 0.125
    assert found.low <= 0


def test_only_questions_that_both_answered_count() -> None:
    found = difference("grounded", "a", "b", {"x": 1, "y": 1, "z": 0}, {"y": 0, "z": 0, "w": 1}, "share")
    assert found is not None
    assert (found.n, found.mean) == (2, 0.5)
    assert difference("grounded", "a", "b", {"x": 1.0}, {"x": 0.0}, "share") is None
    assert differences("grounded", {"a": {"x": 1.0}, "b": {"y": 0.0}}, "share") == []


def test_every_pair_is_there_with_holms_correction() -> None:
    values = {"a": ids([0.0] * 20), "b": ids([1.0] * 8 + [0.0] * 12), "c": ids([1.0] * 20)}
    found = differences("grounded", values, "share")
    assert [(one.a, one.b) for one in found] == [("b", "a"), ("c", "a"), ("c", "b")]
    assert [one.p_holm for one in found] == pytest.approx(holm([one.p for one in found]))
    chosen = differences("grounded", values, "share", pairs=[("c", "a"), ("c", "b")], tests=3)
    assert [(one.a, one.b) for one in chosen] == [("c", "a"), ("c", "b")]
    assert [one.p_holm for one in chosen] == pytest.approx([3 * one.p for one in chosen])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], []),
        ([0.04], [0.04]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.6, 0.5], [1.0, 1.0]),
        ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
    ],
)
def test_holm(given: list[float], expected: list[float]) -> None:
    assert holm(given) == pytest.approx(expected)


def test_quantiles() -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.5
    assert quantile([], 0.5) is None


def test_questions_asked_four_times_say_as_much_as_once() -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.random(60) < 0.7).astype(float), (rng.random(60) < 0.4).astype(float)
    once = difference("grounded", "a", "b", ids(list(a)), ids(list(b)), "share")
    of_a, of_b = ids(list(np.repeat(a, 4))), ids(list(np.repeat(b, 4)))
    page = difference("grounded", "a", "b", of_a, of_b, "share", groups=pages(240, 4))
    naive = difference("grounded", "a", "b", of_a, of_b, "share")
    assert once is not None and page is not None and naive is not None
    assert page.deff == pytest.approx(4, rel=0.02)
    assert page.p == pytest.approx(once.p)
    assert (page.low, page.high) == pytest.approx((once.low, once.high), abs=0.01)
    assert naive.p < page.p and naive.high - naive.low < 0.6 * (page.high - page.low)
    assert page.detectable is not None and once.detectable is not None
    assert page.detectable == pytest.approx(once.detectable, rel=0.1)


def test_the_clustered_error_is_that_of_liang_and_zeger() -> None:
    # Two pages of two and two of one: deviations from 0.5 sum to 1, -1, 0.5, -0.5; 4/3 * (1 + 1 + .25 + .25) / 36 = 0.0926.
    from llmbench.statistics.clusters import Clusters, variance

    x = np.array([1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    sizes = np.array([2.0, 2.0, 1.0, 1.0])
    assert variance(x, Clusters(np.array([0, 0, 1, 1, 2, 3]), sizes, 3.6, 2.6)) == pytest.approx(4 / 3 * 2.5 / 36)


def test_a_variance_that_few_pages_carry_is_known_no_better_than_by_those_few() -> None:
    from llmbench.statistics.clusters import degrees

    groups = clusters(list(ids([0.0] * 160)), pages(160, 4))
    spread = np.random.default_rng(3).normal(size=160)
    assert groups.degrees == 39 and 15 < degrees(spread, groups) < 30
    assert degrees(np.tile([1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0], 20), groups) == 39  # all alike, up to their sign
    few = np.zeros(160)
    few[:4], few[40:44], few[80:84] = 1.0, -1.0, 1.0  # 3 of 40 pages: 1.5 * 3
    assert degrees(few, groups) == pytest.approx(4.5, rel=0.05)
    assert degrees(few, clusters(list(ids([0.0] * 160)), None)) == np.inf


@pytest.mark.parametrize(("count", "tests", "can"), [(5, 1, False), (6, 1, True), (6, 3, False), (8, 3, True)])
def test_where_the_signs_of_all_pages_are_too_few_nothing_is_called_detectable(count: int, tests: int, can: bool) -> None:
    a, b = ids([1.0] * 10 * count), ids([0.0] * 10 * count)
    found = difference("grounded", "a", "b", a, b, "share", groups=pages(10 * count, 10), tests=tests)
    assert found is not None and (found.detectable is not None) is can
    assert (found.p * tests < 0.05) is can


@pytest.mark.parametrize(
    ("n", "size", "counted"), [(60, 10, 6), (60, 12, 5), (60, 15, 60), (60, 60, 60), (60, 1, 60), (60, 4, 15)]
)
def test_fewer_than_five_pages_count_for_nothing(n: int, size: int, counted: int) -> None:
    found = clusters(list(ids([0.0] * n)), pages(n, size))
    assert len(found.sizes) == counted


def test_one_page_that_holds_nearly_all_questions_is_no_cluster_of_many() -> None:
    groups = {f"q{i:04}": "big" if i < 200 else str(i) for i in range(220)}
    assert len(clusters(list(groups), groups).sizes) == 220, "twenty-one pages, of which the mean hangs on one"


def test_clusters_are_told_in_a_sentence() -> None:
    some, few = pages(40, 4), pages(40, 20)
    one = estimate(ids([0.0, 1.0] * 20), "share", groups=some)
    assert one is not None
    assert clustering(list(some), some, [one]) == (
        "40 questions are about 10 pages, and are clustered by page. "
        "Design effect of the means: 1.0 (1 if no two shared a page).",
    )
    five = pages(40, 8)
    assert clustering(list(five), five, [one])[0].endswith("Showing a difference takes at least 6 pages.")
    assert clustering(list(few), few, [one])[0].startswith("40 questions are about 2 pages: too few to cluster by page")
    assert clustering(list(some), {}, [one]) == clustering(list(some), pages(40, 1), [one]) == ()


@pytest.mark.parametrize(("only", "n", "expected"), [(0, 20, 0.37), (0, 4, None), (0, 5, None), (0, 2000, 0.00395)])
def test_what_can_be_detected_is_at_least_what_the_exact_test_can_reach(only: int, n: int, expected: float | None) -> None:
    found = difference("grounded", "a", "b", ids([1.0] * n), ids([1.0] * n), "share")
    assert found is not None
    # Six questions must all favour one side: 2 * 0.5^6 < 0.05. Of 20, at least six do in four of five tries when 0.37 do.
    assert found.detectable == (None if expected is None else pytest.approx(expected, rel=0.02))
    if expected is not None and n == 20:
        assert stats.binom.sf(5, n, found.detectable) == pytest.approx(0.8, abs=0.001)


def test_what_can_be_detected_counts_how_many_pairs_are_tested() -> None:
    rng = np.random.default_rng(1)
    values = {name: ids(list((rng.random(100) < 0.6).astype(float))) for name in "abcd"}
    alone = differences("grounded", {name: values[name] for name in "ab"}, "share")[0]
    among = next(one for one in differences("grounded", values, "share") if (one.a, one.b) == ("b", "a"))
    assert alone.detectable is not None and among.detectable is not None
    assert 1.15 < among.detectable / alone.detectable < 1.4
