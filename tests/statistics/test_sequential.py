"""Bounds under peeking: what they cover by simulation, and what they find."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import special

from llmbench.statistics.sequential import (
    Bounds,
    PairedEvidence,
    against_quantiles,
    against_share,
    against_shares,
    difference_bounds,
    paired_bounds,
    quantile_bounds,
    share_bounds,
)


def test_nothing_seen_rules_nothing_out() -> None:
    assert share_bounds(0, 0, 0.05) == Bounds(0.0, 1.0)
    assert quantile_bounds(np.array([]), 0.95, 0.05) == Bounds(-math.inf, math.inf)
    assert share_bounds(0, 1, 0.05).low == 0.0 and share_bounds(1, 1, 0.05).high == 1.0


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (1, 1_000), (999, 1_000), (4_000, 100_000)])
def test_the_bounds_of_a_share_are_where_the_evidence_is_one_in_alpha(k: int, n: int) -> None:
    """The martingale by its definition: the mixture's likelihood from the gamma function, over p^k (1 - p)^(n - k)."""

    def ratio(p: float) -> float:
        mixed = math.lgamma(k + 0.5) + math.lgamma(n - k + 0.5) - math.lgamma(n + 1) - 2 * math.lgamma(0.5)
        return mixed - (k * math.log(p) if k else 0) - ((n - k) * math.log1p(-p) if k < n else 0)

    found = share_bounds(k, n, 0.05)
    assert found.low <= k / n <= found.high
    for edge in {found.low, found.high} - {0.0, 1.0}:
        assert ratio(edge) == pytest.approx(math.log(20), abs=1e-6)
    mirrored = share_bounds(n - k, n, 0.05)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-9)


def test_more_of_the_same_narrows_them() -> None:
    widths = [found.high - found.low for n in (10, 100, 1_000, 10_000) for found in [share_bounds(n // 5, n, 0.05)]]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.04


@pytest.mark.parametrize("p", [0.01, 0.2, 0.8])
def test_looking_after_each_of_500_observations_a_share_is_missed_in_five_percent_at_most(p: float) -> None:
    """2,000 sequences; two standard errors of the simulation are one point."""
    rng = np.random.default_rng(7)
    n = np.arange(1, 501)
    k = np.cumsum(rng.random((2_000, 500)) < p, axis=1)
    mixed = special.betaln(0.5 + k, 0.5 + n - k) - special.betaln(0.5, 0.5)
    closest = np.argmax(mixed - special.xlogy(k, p) - special.xlog1py(n - k, -p), axis=1)  # where it is nearest to a miss
    found = [share_bounds(int(row[at]), int(at) + 1, 0.05) for row, at in zip(k, closest, strict=True)]
    assert np.mean([not one.low <= p <= one.high for one in found]) <= 0.06


def test_looking_often_a_quantile_is_missed_in_five_percent_at_most() -> None:
    rng = np.random.default_rng(8)
    truth = math.exp(1.6448536)
    missed = 0
    for _ in range(200):
        values = rng.lognormal(size=400)
        seen = [quantile_bounds(np.sort(values[:n]), 0.95, 0.05) for n in range(5, 401, 5)]
        missed += any(not one.low <= truth <= one.high for one in seen)
    assert missed / 200 <= 0.05


def test_equal_values_are_one_order_statistic_after_another() -> None:
    found = quantile_bounds(np.full(1_000, 2.5), 0.95, 0.05)
    assert (found.low, found.high) == (2.5, 2.5)


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5)])
def test_what_is_no_share_is_an_error(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        share_bounds(k, n, 0.05)


@pytest.mark.parametrize(
    "values", [{0.0: 0.3, 1.0: 0.7}, {0.0: 0.2, 0.5: 0.5, 1.0: 0.3}, {0.75: 0.6, 0.85: 0.4}, {0.1: 0.9, 0.9: 0.1}]
)
def test_the_evidence_against_the_mean_of_values_in_0_to_1_does_not_grow_on_average(values: dict[float, float]) -> None:
    """Over all sequences of four; for shares it stays what it is, and for values between 0 and 1 it falls."""
    mean, expected = sum(value * chance for value, chance in values.items()), []
    for n in range(5):
        every = itertools.product(values, repeat=n)
        ratios = ((math.prod(values[one] for one in seen), math.exp(against_share(sum(seen), n, mean))) for seen in every)
        expected.append(sum(chance * ratio for chance, ratio in ratios))
    if set(values) == {0.0, 1.0}:
        assert expected == pytest.approx([1.0] * 5)
    else:
        assert all(after < before for before, after in itertools.pairwise(expected))


def _least(new: tuple[int, int], control: tuple[int, int], difference: float) -> float:
    """The least evidence over a fine grid of pairs of shares that differ by this much."""
    p = np.linspace(max(0.0, -difference), min(1.0, 1 - difference), 20_001)[1:-1]
    return float(min(against_share(*new, x + difference) + against_share(*control, x) for x in p))


@pytest.mark.parametrize(
    ("new", "control", "difference"),
    [
        ((3, 40), (5, 60), 0.02),
        ((0, 40), (0, 60), 0.1),
        ((40, 40), (0, 60), 0.0),
        ((0, 9), (30, 300), -0.3),
        ((2, 5), (0, 0), 0.1),
    ],
)
def test_the_evidence_against_a_difference_is_the_least_of_all_pairs_that_differ_so(
    new: tuple[int, int], control: tuple[int, int], difference: float
) -> None:
    found, least = against_shares(new, control, difference), _least(new, control, difference)
    assert least - 0.05 <= found <= least + 1e-6
    assert against_shares(new, control, difference, reach=found + 1) < found + 1


def test_the_evidence_against_a_difference_of_quantiles_is_the_least_of_all_pairs() -> None:
    rng = np.random.default_rng(3)
    new, control = (np.sort(rng.normal(size=n)) for n in (60, 90))
    for q, difference in ((0.5, 0.3), (0.95, -1.0), (0.95, 1.5)):
        grid = np.concatenate([np.linspace(-4, 4, 2_001), control, new - difference])
        every = [against_quantiles(list(new), [], q, difference)]  # nothing of one side says nothing
        assert every == [0.0]
        least = min(
            min(
                against_share(k, 60, q)
                for k in range(int((new - difference < x).sum()), int((new - difference <= x).sum()) + 1)
            )
            + min(against_share(k, 90, q) for k in range(int((control < x).sum()), int((control <= x).sum()) + 1))
            for x in grid
        )
        found = against_quantiles(list(new), list(control), q, difference)
        assert least - 0.05 <= found <= least + 1e-6  # between whole counts it may be a little lower


def test_the_bounds_of_a_difference_end_where_the_evidence_is_one_in_alpha() -> None:
    def evidence(difference: float) -> float:
        return against_shares((30, 100), (10, 100), difference)

    found = difference_bounds(evidence, 0.2, 0.05, -1, 1)
    assert found.low < 0.2 < found.high
    assert evidence(found.low) == pytest.approx(math.log(20)) == evidence(found.high)
    lone = share_bounds(30, 100, 0.025), share_bounds(10, 100, 0.025)
    assert found.high - found.low < 0.9 * ((lone[0].high - lone[1].low) - (lone[0].low - lone[1].high))


def test_looking_after_each_of_200_a_difference_is_missed_in_five_percent_at_most() -> None:
    rng = np.random.default_rng(9)
    missed, limit = 0, math.log(20)
    for _ in range(200):
        bad = rng.random(200) < np.where(np.arange(200) % 2, 0.3, 0.2)
        looks = enumerate(zip(np.cumsum(bad[1::2]), np.cumsum(bad[::2]), strict=True), 1)
        missed += any(against_shares((int(a), n), (int(b), n), 0.1, reach=limit) >= limit for n, (a, b) in looks)
    assert missed / 200 <= 0.05


def test_looking_often_a_ratio_of_quantiles_is_missed_in_five_percent_at_most() -> None:
    rng = np.random.default_rng(10)
    missed = 0
    for _ in range(200):
        new, control = rng.normal(0.5, size=300), rng.normal(0.0, size=300)
        seen = [against_quantiles(sorted(new[:n]), sorted(control[:n]), 0.95, 0.5) for n in range(10, 301, 10)]
        missed += max(seen) >= math.log(20)
    assert missed / 200 <= 0.05


def test_the_evidence_of_pairs_is_the_mean_wealth_of_bets_by_its_definition() -> None:
    seen = [(1.0, 1), (0.0, 1), (-1.0, 1), (1.5, 2), (0.0, 2)]
    found = PairedEvidence(-0.1, 2)
    for total, count in seen:
        found.add(total, count)
    for sign, told in ((1, found.above), (-1, found.below)):
        wealth = []
        for half in range(24):
            bet = 0.98 * 2 ** (-half / 2) / (1 + sign * -0.1)
            wealth.append(math.prod(1 + bet * sign * (total + 0.1 * count) / 2 for total, count in seen))
        assert told == pytest.approx(math.log(sum(wealth) / 24))
    with pytest.raises(ValueError, match="3 questions of a page, where at most 2 were said"):
        found.add(0.0, 3)
    with pytest.raises(ValueError, match="no mean of differences"):
        PairedEvidence(1.5, 1)


@pytest.mark.parametrize("size", [1, 4])
def test_the_bounds_of_pairs_are_where_the_evidence_is_two_in_alpha(size: int) -> None:
    rng = np.random.default_rng(3)
    totals = rng.choice([-1.0, 0.0, 1.0], 200 * size, p=[0.1, 0.7, 0.2]).reshape(-1, size).sum(axis=1)
    bounds = paired_bounds(totals, np.full(200, float(size)), size, 0.05)
    low, high = PairedEvidence(bounds.low, size), PairedEvidence(bounds.high, size)
    for total in totals:
        low.add(float(total), size)
        high.add(float(total), size)
    assert (low.above, high.below) == pytest.approx((math.log(40), math.log(40)))
    assert bounds.low < totals.mean() / size < bounds.high
    assert paired_bounds(np.zeros(0), np.zeros(0), 1, 0.05) == Bounds(-1.0, 1.0)
    one = paired_bounds(np.ones(1), np.ones(1), 1, 0.05)
    assert one.low < -0.9 and one.high == 1.0
    flipped = paired_bounds(-totals, np.full(200, float(size)), size, 0.05)
    assert (flipped.low, flipped.high) == pytest.approx((-bounds.high, -bounds.low))


@pytest.mark.parametrize("size", [1, 4])
def test_looking_after_each_page_a_candidate_at_the_margin_is_passed_in_two_and_a_half_percent_at_most(size: int) -> None:
    rng, passed = np.random.default_rng(9), 0
    for _ in range(120):
        evidence = PairedEvidence(-0.05, size)
        page = rng.random(60)
        for shared in page:
            u = np.where(rng.random(size) < 0.55, shared, rng.random(size)) if size > 1 else rng.random(size)
            evidence.add(float((u < 0.05).sum() - ((u >= 0.05) & (u < 0.15)).sum()), size)
            if evidence.above >= math.log(40):
                passed += 1
                break
    assert passed <= 0.06 * 120  # 2.5 %, and 2.5 standard errors
