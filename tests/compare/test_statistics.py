from __future__ import annotations

import numpy as np
import pytest

from llmbench.compare.statistics import difference, differences, estimate, holm, interaction, quantile
from llmbench.recipe import StatisticsSpec

SPEC = StatisticsSpec(resamples=2000)


def ids(values: list[float]) -> dict[str, float]:
    return {f"q{i:04}": value for i, value in enumerate(values)}


def test_a_share_has_wilsons_interval() -> None:
    # By hand for 8 of 10, z = 1.959964: centre (0.8 + z2/20) / (1 + z2/10) = 0.716740, half width 0.226577.
    found = estimate(ids([1.0] * 8 + [0.0] * 2), binary=True, spec=SPEC)
    assert found is not None
    assert (found.mean, found.n) == (0.8, 10)
    assert (found.low, found.high) == pytest.approx((0.490162, 0.943317), abs=1e-5)


def test_a_share_of_none_still_has_an_upper_limit() -> None:
    found = estimate(ids([0.0] * 20), binary=True, spec=SPEC)
    assert found is not None
    # z2 / (n + z2)
    assert (found.low, found.high) == pytest.approx((0.0, 3.841459 / 23.841459), abs=1e-6)


def test_a_mean_has_a_bootstrap_interval_close_to_students() -> None:
    x = np.random.default_rng(1).normal(10, 2, 200)
    found = estimate(ids(list(x)), binary=False, spec=SPEC)
    assert found is not None
    half = 1.972 * x.std(ddof=1) / np.sqrt(200)
    assert (found.low, found.high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.05)


def test_too_few_values_have_no_estimate() -> None:
    assert estimate({}, binary=True, spec=SPEC) is None
    assert estimate({"q": 1.0}, binary=False, spec=SPEC) is None


def test_a_constant_mean_is_its_own_interval() -> None:
    found = estimate(ids([7.0] * 5), binary=False, spec=SPEC)
    assert found is not None
    assert (found.low, found.high) == (7.0, 7.0)


def test_binary_pairs_are_tested_by_exact_mcnemar() -> None:
    # 9 questions only a has right, 1 only b: p = 2 * (C(10,0) + C(10,1)) / 2^10 = 22 / 1024.
    a, b = ids([1.0] * 9 + [0.0] + [1.0] * 10), ids([0.0] * 9 + [1.0] + [1.0] * 10)
    found = difference("grounded", "a", "b", a, b, binary=True, spec=SPEC)
    assert found is not None
    assert found.p == pytest.approx(22 / 1024)
    assert (found.a_only, found.b_only, found.n, found.mean) == (9, 1, 20, 0.4)
    assert 0.05 < found.low < 0.3 < 0.5 < found.high < 0.7


def test_means_are_tested_by_flipping_signs() -> None:
    # All 8 differences positive: 2 of the 2^8 sign patterns reach this far from 0.
    found = difference(
        "latency", "a", "b", ids([2.0] * 8), ids([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7]), binary=False, spec=SPEC
    )
    assert found is not None
    assert found.p == pytest.approx(2 / 256)
    assert found.mean == pytest.approx(0.65)


def test_only_questions_that_both_answered_count() -> None:
    found = difference("grounded", "a", "b", {"x": 1, "y": 1, "z": 0}, {"y": 0, "z": 0, "w": 1}, binary=True, spec=SPEC)
    assert found is not None
    assert (found.n, found.mean) == (2, 0.5)


def test_fewer_than_two_shared_questions_are_no_pair() -> None:
    assert difference("grounded", "a", "b", {"x": 1.0}, {"x": 0.0}, binary=True, spec=SPEC) is None
    assert differences("grounded", {"a": {"x": 1.0}, "b": {"y": 0.0}}, binary=True, spec=SPEC) == []


def test_variants_that_agree_everywhere_still_have_an_interval() -> None:
    found = difference("grounded", "a", "b", ids([1.0] * 30), ids([1.0] * 30), binary=True, spec=SPEC)
    assert found is not None
    assert (found.mean, found.p) == (0.0, 1.0)
    assert found.low == pytest.approx(-found.high)
    assert found.high == pytest.approx(3.841459 / 33.841459, abs=1e-6)


def test_a_difference_on_every_question_does_not_claim_certainty() -> None:
    found = difference("grounded", "a", "b", ids([1.0] * 30), ids([0.0] * 30), binary=True, spec=SPEC)
    assert found is not None
    assert found.high == 1.0
    assert 0.85 < found.low < 0.9


def test_every_pair_is_there_with_holms_correction() -> None:
    values = {"a": ids([0.0] * 20), "b": ids([1.0] * 8 + [0.0] * 12), "c": ids([1.0] * 20)}
    found = differences("grounded", values, binary=True, spec=SPEC)
    assert [(one.a, one.b) for one in found] == [("b", "a"), ("c", "a"), ("c", "b")]
    assert [one.p_holm for one in found] == pytest.approx(holm([one.p for one in found]))
    assert found[0].p_holm == pytest.approx(found[0].p)  # the largest of the three is left as it is
    assert found[1].p_holm == pytest.approx(3 * found[1].p)


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


def test_the_same_seed_gives_the_same_figures_whoever_else_is_compared() -> None:
    rng = np.random.default_rng(3)
    values = {name: ids(list(rng.random(30))) for name in "abc"}
    alone = differences("latency", {"a": values["a"], "b": values["b"]}, binary=False, spec=SPEC)
    among = differences("latency", values, binary=False, spec=SPEC)
    assert (alone[0].low, alone[0].high, alone[0].p) == (among[0].low, among[0].high, among[0].p)


def test_what_would_show_is_at_least_what_the_exact_test_can_reach() -> None:
    found = difference("grounded", "a", "b", ids([1.0] * 20), ids([1.0] * 20), binary=True, spec=SPEC)
    assert found is not None
    assert found.detectable == 6 / 20  # 2 * 0.5^6 is below 0.05, 2 * 0.5^5 is not


def test_what_would_show_shrinks_with_the_root_of_the_questions() -> None:
    a, b = [1.0, 0.0, 1.0, 1.0] * 25, [0.0, 1.0, 1.0, 0.0] * 25
    few = difference("grounded", "a", "b", ids(a), ids(b), binary=True, spec=SPEC)
    many = difference("grounded", "a", "b", ids(a * 4), ids(b * 4), binary=True, spec=SPEC)
    assert few is not None
    assert many is not None
    assert few.detectable / many.detectable == pytest.approx(2, rel=0.01)


def test_interaction_is_what_both_bring_beyond_the_sum() -> None:
    none, a, b, both = ids([0.0] * 20), ids([1.0] * 2 + [0.0] * 18), ids([0.0] * 16 + [1.0] * 4), ids([1.0] * 20)
    found = interaction([none, a, b, both], SPEC)
    assert found is not None
    assert found.mean == pytest.approx(1 - 0.1 - 0.2)
    assert found.low < found.mean < found.high


def test_quantiles() -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.5
    assert quantile([], 0.5) is None


def test_equal_variants_are_called_different_no_more_often_than_alpha_allows() -> None:
    # 400 comparisons without any true difference: at 5% about 20 false findings, and more than 34 in one of 1,000 repetitions.
    rng, spec = np.random.default_rng(11), StatisticsSpec(resamples=199)
    binary = mean = 0
    for _ in range(400):
        hard = rng.random(30)  # what makes a question hard is shared, as it is between real variants
        a, b = (ids(list((rng.random(30) < hard).astype(float))) for _ in "ab")
        one = difference("grounded", "a", "b", a, b, binary=True, spec=spec)
        x, y = (ids(list(hard + rng.exponential(0.2, 30))) for _ in "ab")
        other = difference("latency", "a", "b", x, y, binary=False, spec=spec)
        assert one is not None
        assert other is not None
        binary, mean = binary + (one.p < 0.05), mean + (other.p < 0.05)
    assert binary <= 34
    assert 6 <= mean <= 34


def test_the_paired_interval_holds_the_true_difference_as_often_as_it_says() -> None:
    rng, spec = np.random.default_rng(5), StatisticsSpec(resamples=399)
    held = 0
    for _ in range(200):
        hard = rng.random(60)
        a, b = (
            ids(list((rng.random(60) < 0.3 + 0.5 * hard).astype(float))),
            ids(list((rng.random(60) < 0.5 * hard).astype(float))),
        )
        one = difference("grounded", "a", "b", a, b, binary=True, spec=spec)
        assert one is not None
        held += one.low <= 0.3 <= one.high
    assert held >= 180
