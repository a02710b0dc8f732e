"""The sign-flip test against enumeration, McNemar's exact test, and a million random signs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from llmbench.statistics.flips import flips


def enumerated(x: list[float]) -> float:
    sums = np.array([np.dot(x, signs) for signs in itertools.product((-1, 1), repeat=len(x))])
    return float((np.abs(sums) >= abs(sum(x)) * (1 - 1e-9)).mean())


@pytest.mark.parametrize(("ahead", "behind"), [(9, 1), (1, 0), (5, 5), (30, 12), (400, 300), (3000, 2500), (60, 0)])
def test_ones_give_mcnemars_exact_test(ahead: int, behind: int) -> None:
    x = np.array([1.0] * ahead + [-1.0] * behind + [0.0] * 7)
    assert flips(x) == pytest.approx(stats.binomtest(ahead, ahead + behind).pvalue, rel=1e-6)


@pytest.mark.parametrize(
    "x",
    [
        [3.0, -1.0, 2.0, 2.0, 4.0, 0.0, 1.0],
        [0.5, 0.5, -0.25, 1.0, 0.75],
        [0.31, -0.17, 1.9, 0.02, 0.44, 0.44],
        [1e300, 1e300, -1e299],
        [1e-12, 2e-12, 3e-12],
        [0.0, 0.0],
        [5.0],
    ],
)
def test_few_numbers_are_counted_out(x: list[float]) -> None:
    assert flips(np.array(x)) == pytest.approx(enumerated(x) if any(x) else 1.0)


@pytest.mark.parametrize(("n", "shift"), [(18, 0.0), (18, 0.5), (40, 0.3), (200, 0.15)])
def test_many_numbers_have_the_tail_of_random_signs(n: int, shift: float) -> None:
    rng = np.random.default_rng(n)
    x = rng.exponential(1, n) * np.where(rng.random(n) < 0.5 + shift / 2, 1, -1)
    sums = np.concatenate([rng.choice((-1.0, 1.0), (50_000, n)) @ np.abs(x) for _ in range(4)])
    drawn = (np.abs(sums) >= abs(x.sum())).mean()
    assert flips(x) == pytest.approx(drawn, abs=4 * np.sqrt(drawn / 200_000) + 0.03 * drawn)


def test_all_of_one_sign_is_as_sure_as_their_number_allows() -> None:
    assert flips(np.linspace(1, 2, 30)) == pytest.approx(2.0**-29)
