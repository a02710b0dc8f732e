"""Intervals and tests: what they must do on data whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from llmbench.retrieval.evaluation import difference, differences, interval
from llmbench.retrieval.evaluation.statistics import detectable, holm, student


def of(values: list[float]) -> dict[str, float]:
    return {f"q{i}": value for i, value in enumerate(values)}


def test_the_interval_holds_the_mean_and_narrows_with_more_queries() -> None:
    few, many = interval([0.0, 1.0] * 10), interval([0.0, 1.0] * 1000)
    assert few[0] < many[0] < 0.5 < many[1] < few[1]
    assert few == interval([0.0, 1.0] * 10)
    assert interval([1.0, 1.0, 1.0]) == (1.0, 1.0)
    assert all(math.isnan(bound) for bound in interval([]))


def test_the_interval_is_the_one_that_scipy_finds() -> None:
    values = np.random.default_rng(1).beta(0.5, 0.7, 300)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=9999).confidence_interval
    assert interval(values.tolist()) == pytest.approx((theirs.low, theirs.high), abs=0.005)


def test_a_small_steady_gain_is_seen_though_queries_differ_widely() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(300)
    one = difference("a", "b", of((hard + 0.02 + rng.normal(0, 0.05, 300)).tolist()), of(hard.tolist()))
    assert 0 < one.low < 0.02 < one.high < 0.04
    assert one.p_randomisation < 0.001 and one.p_bootstrap < 0.001
    assert one.better + one.worse == one.queries == 300
    assert one.detectable == pytest.approx(0.0081, abs=0.001)


def test_chance_alone_is_called_a_difference_as_often_as_promised() -> None:
    rng = np.random.default_rng(3)
    found = [difference("a", "b", of(rng.normal(0, 1, 40).tolist()), of(rng.normal(0, 1, 40).tolist())) for _ in range(60)]
    assert sum(one.p_randomisation < 0.05 for one in found) <= 8
    assert sum(one.p_bootstrap < 0.05 for one in found) <= 9
    assert [one.p_randomisation for one in found] == pytest.approx([one.p_bootstrap for one in found], abs=0.12)


def test_few_queries_are_tested_exactly() -> None:
    one = difference("a", "b", of([0.3, 0.2, 0.4, 0.1, 0.2]), of([0.0] * 5))
    assert one.p_randomisation == pytest.approx(2 / 2**5)


def test_no_difference_at_all() -> None:
    one = difference("a", "b", of([0.5, 0.1]), of([0.5, 0.1]))
    assert (one.mean, one.low, one.high, one.p_bootstrap, one.p_randomisation, one.detectable) == (0, 0, 0, 1, 1, 0)


def test_one_query_shows_nothing() -> None:
    one = difference("a", "b", of([1.0]), of([0.0]))
    assert (one.mean, one.p_bootstrap, one.p_randomisation) == (1, 1, 1) and math.isnan(one.detectable)


def test_several_differences_are_corrected_together() -> None:
    rng = np.random.default_rng(5)
    base = rng.random(60)
    values = {
        "first": of(base.tolist()),
        "near": of((base + rng.normal(0.03, 0.1, 60)).tolist()),
        "far": of((base - 0.2).tolist()),
    }
    found = differences("first", values)
    assert [(one.a, one.b) for one in found] == [("first", "near"), ("first", "far")]
    assert [one.p_holm for one in found] == holm([one.p_randomisation for one in found])
    assert found[1].p_holm == 2 * found[1].p_randomisation


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_what_is_called_detectable_is_seen_in_four_of_five_tries() -> None:
    rng = np.random.default_rng(7)
    d = rng.normal(0, 1, 200)
    size = detectable(0.3 * (d - d.mean()) / d.std(ddof=1))
    seen = sum(stats.ttest_1samp(rng.normal(size, 0.3, 200), 0).pvalue < 0.05 for _ in range(500))
    assert 0.7 < seen / 500 < 0.9


def test_students_interval_is_the_one_that_scipy_finds() -> None:
    d = np.random.default_rng(2).normal(0.1, 1, 30)
    theirs = stats.ttest_1samp(d, 0).confidence_interval(0.99)
    assert student(d, 0.99) == pytest.approx((theirs.low, theirs.high))
    assert student(d[:1], 0.99) == (-math.inf, math.inf)
