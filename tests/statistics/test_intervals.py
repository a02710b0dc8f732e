"""Intervals by hand, against others' figures, and at their edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from llmbench.statistics import intervals
from llmbench.statistics.clusters import clusters
from llmbench.statistics.paired import difference, differences, estimate, interaction
from llmbench.statistics.values import Kind

ALONE = clusters([str(i) for i in range(40)], None)


def ids(values: list[float]) -> dict[str, float]:
    return {f"q{i:04}": value for i, value in enumerate(values)}


def pair(only_a: int, only_b: int, n: int) -> tuple[dict[str, float], dict[str, float]]:
    a = [1.0] * only_a + [0.0] * only_b + [1.0] * (n - only_a - only_b)
    return ids(a), ids([0.0] * only_a + [1.0] * (n - only_a))


def test_a_share_has_wilsons_interval() -> None:
    # By hand for 6 of 10, z = 1.959964: centre (0.6 + z2/20) / (1 + z2/10) = 0.572245, half width 0.259572.
    found = estimate(ids([1.0] * 6 + [0.0] * 4), "share")
    assert found is not None
    assert (found.mean, found.n, found.deff) == (0.6, 10, 1.0)
    assert (found.low, found.high) == pytest.approx((0.312673, 0.831818), abs=1e-5)


@pytest.mark.parametrize(("wrong", "limit"), [(1, 0.0512933), (2, 0.3553615), (3, 0.8176914)])
def test_a_share_that_few_questions_keep_from_1_has_a_poisson_limit(wrong: int, limit: float) -> None:
    # The mean of a Poisson distribution of which `wrong` or more are seen in 5 %, from tables.
    found = estimate(ids([0.0] * wrong + [1.0] * (50 - wrong)), "share")
    assert found is not None
    assert found.high == pytest.approx(1 - limit / 50, abs=1e-6)
    other = estimate(ids([1.0] * wrong + [0.0] * (50 - wrong)), "share")
    assert other is not None and (other.low, other.high) == pytest.approx((1 - found.high, 1 - found.low))


@pytest.mark.parametrize("n", [20, 50, 150, 1000])
def test_single_shares_are_covered_within_two_points_or_more(n: int) -> None:
    limits = [estimate(ids([1.0] * k + [0.0] * (n - k)), "share") for k in range(n + 1)]
    for p in (0.02, 0.05, 0.1, 0.2, 0.5, 0.95, 0.99):
        inside = [one is not None and one.low <= p <= one.high for one in limits]
        assert float(stats.binom.pmf(np.arange(n + 1), n, p)[inside].sum()) >= 0.93


@pytest.mark.parametrize("kind", ["share", "score"])
def test_none_and_all_still_have_a_limit(kind: Kind) -> None:
    none, every = estimate(ids([0.0] * 20), kind), estimate(ids([1.0] * 20), kind)
    assert none is not None and every is not None
    z = 1.959964 if kind == "share" else stats.t.ppf(0.975, 19)
    assert (none.low, none.high) == pytest.approx((0.0, z * z / (20 + z * z)), abs=1e-6)
    assert (every.low, every.high) == pytest.approx((1 - none.high, 1.0), abs=1e-6)


def score(only_a: int, only_b: int, n: int, delta: float) -> float:
    """Tango's statistic by its definition: the other share is the one that makes the counts most likely, given delta."""
    least, most = max(0.0, -delta), (1 - delta) / 2

    def unlikely(q: float) -> float:
        chances = np.clip([q + delta, q, 1 - 2 * q - delta], 1e-300, 1)
        return -float(np.dot([only_a, only_b, n - only_a - only_b], np.log(chances)))

    q = optimize.minimize_scalar(unlikely, bounds=(least, most), method="bounded", options={"xatol": 1e-12}).x
    return float((only_a - only_b - n * delta) / math.sqrt(n * (2 * q + delta - delta**2)))


@pytest.mark.parametrize(("only_a", "only_b", "n"), [(43, 2, 50), (8, 4, 44), (3, 1, 150), (20, 20, 60), (1, 12, 400)])
def test_a_difference_of_shares_has_tangos_interval(only_a: int, only_b: int, n: int) -> None:
    x, y = (np.array(list(of.values())) for of in pair(only_a, only_b, n))
    found = intervals.difference(x - y, clusters(list(map(str, range(n))), None), "share", 0.95)
    assert score(only_a, only_b, n, found.low) == pytest.approx(1.959964, abs=1e-3)
    assert score(only_a, only_b, n, found.high) == pytest.approx(-1.959964, abs=1e-3)


def test_three_against_none_of_150_do_not_exclude_0() -> None:
    found = difference("grounded", "a", "b", *pair(3, 0, 150), "share")
    assert found is not None
    assert (found.low, found.high, found.p) == pytest.approx((-0.0055, 0.0571, 0.25), abs=1e-4)


def test_tangos_p_is_that_of_mcnemars_score_test() -> None:
    x, y = (np.array(list(of.values())) for of in pair(9, 2, 40))
    found = intervals.difference(x - y, ALONE, "share", 0.95)
    assert found.p == pytest.approx(2 * stats.norm.sf(7 / math.sqrt(11)))


def test_an_amount_without_skewness_has_students_interval() -> None:
    x = np.concatenate([np.linspace(1, 9, 20), 10 - np.linspace(1, 9, 20)])
    theirs = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert intervals.amount(x, ALONE, 0.95) == pytest.approx((theirs.low, theirs.high))


def test_a_skewed_amount_reaches_further_to_the_long_side_and_never_below_0() -> None:
    x = np.random.default_rng(1).lognormal(0, 1.2, 40)
    found = estimate(ids(list(x)), "amount")
    assert found is not None
    theirs = stats.ttest_1samp(x, 0).confidence_interval(0.95)
    assert 0 <= theirs.low < found.low < found.mean < theirs.high < found.high


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e200])
def test_amounts_of_any_size_have_finite_intervals(scale: float) -> None:
    found = estimate(ids([scale * x for x in (1.0, 2.0, 3.0, 7.0)]), "amount")
    assert found is not None
    assert 0 < found.low / scale < 3.25 < found.high / scale < 40


def test_a_constant_amount_is_its_own_interval_and_too_few_values_have_none() -> None:
    found = estimate(ids([7.0] * 5), "amount")
    assert found is not None
    assert (found.low, found.high) == (7.0, 7.0)
    assert estimate({}, "share") is None
    assert estimate({"q": 1.0}, "amount") is None
    one = estimate({"q": 1.0}, "score")
    assert one is not None and (one.low, one.high) == pytest.approx((0.006, 1.0), abs=0.01)


def test_scores_that_happen_to_be_alike_are_not_certain() -> None:
    found = difference("f1", "a", "b", ids([0.8] * 12), ids([0.5] * 12), "score")
    assert found is not None
    assert found.low < 0.25 < 0.35 < found.high
    same = differences("f1", {name: ids([1.0] * 20) for name in "ab"}, "score")[0]
    assert same.low == pytest.approx(-same.high) and same.high > 0.15 and same.detectable is not None and same.detectable > 0.15


@pytest.mark.parametrize("n", [10, 33, 150])
def test_the_interval_excludes_0_exactly_where_p_is_below_alpha(n: int) -> None:
    touched = 0
    for only_a in range(0, n + 1, max(1, n // 40)):
        for only_b in range(0, n + 1 - only_a, max(1, n // 10)):
            found = difference("grounded", "a", "b", *pair(only_a, only_b, n), "share")
            assert found is not None
            assert (found.low > 0 or found.high < 0) == (found.p < 0.05), (only_a, only_b, found)
            exact = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
            assert found.p == pytest.approx(exact)
            touched += 0.0 in (found.low, found.high)
    assert touched > 1


def test_the_interval_agrees_with_holms_p_among_several_and_in_clusters() -> None:
    rng, disagree, alone = np.random.default_rng(4), 0, 0
    groups = {f"q{i:04}": str(i // 3) for i in range(90)}
    for _ in range(60):
        page = np.repeat(rng.random(30), 3)
        values = {
            name: ids(list((rng.random(90) < 0.3 + 0.4 * page + 0.04 * j).astype(float))) for j, name in enumerate("abcd")
        }
        for one in differences("grounded", values, "share", groups=groups):
            disagree += (one.low > 0 or one.high < 0) != (one.p_holm < 0.05)
            alone += one.p < 0.05 <= one.p_holm
    assert disagree == 0
    assert alone > 0


def test_interaction_is_what_both_bring_beyond_the_sum() -> None:
    none, a, b, both = ids([0.0] * 20), ids([1.0] * 2 + [0.0] * 18), ids([0.0] * 16 + [1.0] * 4), ids([1.0] * 20)
    found = interaction([none, a, b, both], "share")
    assert found is not None
    assert found.mean == pytest.approx(1 - 0.1 - 0.2)
    assert 0 < found.low < found.mean < found.high <= 2
    assert interaction([none, none, none, none], "share") is not None
    assert interaction([{}, a, b, both], "share") is None
    two = interaction([{"x": 0.0, "y": 0.0}, {"x": 0.0, "y": 0.0}, {"x": 0.0, "y": 0.0}, {"x": 1.0, "y": 1.0}], "share")
    assert two is not None and two.low <= 0, "two questions show nothing: their signs are alike by chance one time in two"


def test_few_wrong_answers_among_28_pages_are_not_all_there_is_to_know_of_these() -> None:
    names = [str(i) for i in range(112)]
    pages = clusters(names, {name: str(int(name) // 4) for name in names})
    widths = []
    for wrong in range(3):
        right = np.ones(112)
        right[: 4 * wrong : 4] = 0
        low, high, _ = intervals.mean(right, pages, "share", 0.95)
        assert low < right.mean() <= high
        widths.append(high - low)
    assert widths[0] > 0.06 and widths == sorted(widths), "all right: how alike a page's answers are is not seen, and assumed"
    assert max(widths) < 0.11, "0.16 where the page of the wrong answer alone tells the variance"


@pytest.mark.parametrize("kind", ["share", "score", "amount"])
@pytest.mark.parametrize("paged", [False, True])
def test_the_one_sided_p_is_what_the_limits_invert(kind: Kind, paged: bool) -> None:
    rng = np.random.default_rng(12)
    draws = {
        "share": rng.choice([-1.0, 0.0, 1.0], 80, p=[0.1, 0.8, 0.1]),
        "score": rng.random(80) - 0.4,
        "amount": rng.exponential(1, 80) - 0.7,
    }
    groups = clusters([str(i) for i in range(80)], {str(i): str(i // 4) for i in range(80)} if paged else None)
    for d in (draws[kind], -draws[kind]):
        found = intervals.difference(d, groups, kind, 0.95)
        assert intervals.against(d, groups, kind, found.low)[0] == pytest.approx(0.025, abs=1e-6)
        assert intervals.against(d, groups, kind, found.high)[1] == pytest.approx(0.025, abs=1e-6)
        both = intervals.against(d, groups, kind, 0.0)
        assert min(1.0, 2 * min(both)) == pytest.approx(found.p, abs=1e-9)


def test_a_difference_of_amounts_has_the_wider_of_halls_and_students_limits() -> None:
    d = np.random.default_rng(1).lognormal(0, 1.2, 40)
    theirs, hall = stats.ttest_1samp(d, 0).confidence_interval(0.95), intervals.amount(d, ALONE, 0.95)
    found = intervals.difference(d, ALONE, "amount", 0.95)
    assert (found.low, found.high) == pytest.approx((theirs.low, hall[1])) and hall[0] > theirs.low


@pytest.mark.parametrize("value", [0.0, 0.2, -3.0])
def test_differences_of_amounts_that_are_all_the_same_are_not_certain(value: float) -> None:
    found = difference("latency", "a", "b", ids([4.0 + value] * 12), ids([4.0] * 12), "amount")
    assert found is not None and found.low < value - 0.3 and found.high > value + 0.3
