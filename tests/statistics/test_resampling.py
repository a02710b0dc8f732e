"""Intervals and tests of what is no mean of questions."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from llmbench.statistics import intervals, resampling
from llmbench.statistics.clusters import clusters
from llmbench.statistics.resampling import Addends

Floats = NDArray[np.float64]


def mean(sums: Floats) -> Floats:
    """A mean as a function of sums: a count, and a total."""
    return np.asarray(sums[..., 1] / np.maximum(1, sums[..., 0]))


def answers(values: Floats, prefix: str = "q") -> Addends:
    return Addends(tuple(f"{prefix}{i}" for i in range(len(values))), np.stack([np.ones(len(values)), values], axis=1), mean)


def test_of_a_mean_it_is_what_the_closed_form_says() -> None:
    x = np.random.default_rng(1).beta(4, 2, 300)
    found = resampling.estimate(answers(x))
    ids = [f"q{i}" for i in range(300)]
    low, high, _ = intervals.mean(x, clusters(ids, None), "amount", 0.95)
    assert found is not None
    assert (found.n, found.deff) == (300, 1.0)
    assert found.mean == pytest.approx(x.mean())
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.003)


def test_the_same_answers_give_the_same_figures_and_another_seed_others() -> None:
    x = np.random.default_rng(2).random(40)
    assert resampling.estimate(answers(x)) == resampling.estimate(answers(x))
    assert resampling.estimate(answers(x), seed=1) != resampling.estimate(answers(x))


def test_pages_widen_it() -> None:
    rng = np.random.default_rng(3)
    x = np.repeat((rng.random(30) < 0.5).astype(float), 5)
    groups = {f"q{i}": f"page {i // 5}" for i in range(150)}
    alone, together = resampling.estimate(answers(x)), resampling.estimate(answers(x), groups=groups)
    assert alone is not None
    assert together is not None
    assert together.deff == pytest.approx(5, rel=0.1)
    assert together.high - together.low > 1.8 * (alone.high - alone.low)


def test_answers_that_are_all_right_do_not_show_that_every_one_is() -> None:
    found = resampling.estimate(answers(np.ones(20)))
    assert found is not None
    assert (found.mean, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(20 / (20 + 1.959964**2))
    one = resampling.difference("m", "a", "b", answers(np.ones(20)), answers(np.ones(20)))
    assert one is not None
    assert [one.mean, one.p, one.low, one.high] == pytest.approx([0.0, 1.0, -0.1611, 0.1611], abs=1e-3)


def test_none_where_there_is_nothing_to_compare() -> None:
    assert resampling.estimate(answers(np.zeros(0))) is None
    assert resampling.difference("m", "a", "b", answers(np.ones(3), "a"), answers(np.ones(3), "b")) is None
    assert resampling.differences("m", {"a": answers(np.ones(3))}) == []


def test_p_and_interval_agree_and_holm_corrects_over_all_pairs() -> None:
    rng = np.random.default_rng(4)
    base = rng.random(60)
    of = {
        f"v{i}": answers(np.clip(base + shift + rng.normal(0, 0.1, 60), 0, 1)) for i, shift in enumerate((0, 0.01, 0.03, 0.2))
    }
    found = resampling.differences("m", of)
    assert [(one.a, one.b) for one in found] == [
        ("v1", "v0"), ("v2", "v0"), ("v3", "v0"), ("v2", "v1"), ("v3", "v1"), ("v3", "v2"),
    ]  # fmt: skip
    assert all((one.low > 0 or one.high < 0) == (one.p_holm < 0.05) for one in found)
    assert sum(one.p_holm < 0.05 for one in found) >= 3
    assert all(one.p <= one.p_holm for one in found)
    (wanted,) = resampling.differences("m", of, pairs=[("v3", "v0")], tests=6)
    assert wanted.p_holm == pytest.approx(min(1, 6 * wanted.p))


def test_the_test_errs_no_more_often_than_it_says() -> None:
    """200 pairs of variants that are alike: at 5 %, 10 are expected, and over 20 have a chance of 0.0004."""
    rng = np.random.default_rng(5)
    shown = 0
    for run in range(200):
        x, y = (rng.random(30) < 0.7 for _ in range(2))
        one = resampling.difference("m", "a", "b", answers(x.astype(float)), answers(y.astype(float)), seed=run)
        assert one is not None
        shown += one.p < 0.05
    assert shown <= 20
