"""Small seeded versions of benchmarks/statistics_coverage.py: intervals cover, gates hold, and what is promised is found."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from llmbench.statistics import intervals, power
from llmbench.statistics.clusters import clusters
from llmbench.statistics.paired import difference, differences, estimate
from llmbench.statistics.values import Kind

Draws = NDArray[np.float64]


def ids(values: Draws) -> dict[str, float]:
    return dict(zip((f"q{i:04}" for i in range(len(values))), values.tolist(), strict=True))


def shares(rng: np.random.Generator, n: int, only_a: float, only_b: float) -> tuple[dict[str, float], dict[str, float]]:
    u = rng.random(n)
    return ids((u < only_a + 0.5).astype(float)), ids(((u >= only_a) & (u < 0.5 + only_a + only_b)).astype(float))


@pytest.mark.parametrize(("n", "only_a", "only_b"), [(150, 0.02, 0.01), (150, 0.03, 0.0), (40, 0.05, 0.05), (60, 0.3, 0.1)])
def test_the_interval_of_a_difference_of_shares_covers_it(n: int, only_a: float, only_b: float) -> None:
    rng, held = np.random.default_rng(5), 0
    for _ in range(400):
        found = difference("m", "a", "b", *shares(rng, n, only_a, only_b), "share")
        assert found is not None
        held += found.low <= only_a - only_b <= found.high
    assert held >= 0.925 * 400  # 95 % less two and a half standard errors


@pytest.mark.parametrize(("n", "margin"), [(30, 0.02), (60, 0.02), (150, 0.02)])
def test_a_gate_at_its_boundary_passes_at_most_its_level(n: int, margin: float) -> None:
    rng, passed = np.random.default_rng(6), 0
    for _ in range(600):
        found = difference("m", "a", "b", *shares(rng, n, 0.01, 0.01 + margin), "share")
        assert found is not None
        passed += found.low > -margin
    assert passed <= 0.042 * 600  # 2.5 %, and 2.5 standard errors


def test_pages_that_are_right_or_wrong_as_a_whole_are_not_called_different_too_often() -> None:
    rng = np.random.default_rng(7)
    groups = {f"q{i:04}": str(i // 4) for i in range(112)}
    wrong = {"by page": 0, "each alone": 0}
    for _ in range(400):
        # 28 pages of 4: on some pages one variant is ahead in all, on some the other, on average neither.
        page = np.repeat(rng.choice((-1, 0, 1), 28, p=(0.2, 0.6, 0.2)), 4)
        noise = rng.random(112)
        a = np.where(page > 0, noise < 0.95, noise < 0.2).astype(float)
        b = np.where(page < 0, noise < 0.95, noise < 0.2).astype(float)
        for name, of in (("by page", groups), ("each alone", None)):
            found = difference("m", "a", "b", ids(a), ids(b), "share", groups=of)
            assert found is not None
            wrong[name] += found.p < 0.05
    assert wrong["by page"] <= 0.08 * 400
    assert wrong["each alone"] > 0.08 * 400


@pytest.mark.parametrize(("count", "size"), [(5, 24), (10, 8), (20, 8), (30, 8), (60, 4)])
def test_a_gate_over_pages_at_its_boundary_passes_at_most_its_level(count: int, size: int) -> None:
    rng, passed = np.random.default_rng(10), 0
    groups = {f"q{i:04}": str(i // size) for i in range(count * size)}
    for _ in range(300):
        # Two questions of a page share whether, and which way, the variants differ with a correlation of 0.3.
        shared = rng.random(count * size) < np.sqrt(0.3)
        u = np.where(shared, np.repeat(rng.random(count), size), rng.random(count * size))
        a, b = (u < 0.01) | (u > 0.5), (u < 0.07) & (u >= 0.01) | (u > 0.5)
        found = difference("m", "a", "b", ids(a.astype(float)), ids(b.astype(float)), "share", groups=groups)
        assert found is not None
        passed += found.low > -0.05
    assert passed <= 0.06 * 300  # at most 3.5 %, and 2.5 standard errors


@pytest.mark.parametrize(
    ("kind", "n", "least"), [("score", 20, 0.92), ("score", 100, 0.92), ("amount", 20, 0.9), ("amount", 100, 0.92)]
)
def test_the_interval_of_a_mean_covers_it(kind: Kind, n: int, least: float) -> None:
    rng, held = np.random.default_rng(8), 0
    for _ in range(400):
        x = rng.lognormal(0, 0.5, n) if kind == "amount" else np.where(rng.random(n) < 0.9, 1.0, rng.random(n))
        found = estimate(ids(x), kind)
        assert found is not None
        held += found.low <= (np.exp(0.125) if kind == "amount" else 0.95) <= found.high
    assert held >= least * 400


@pytest.mark.parametrize("variants", [2, 4])
def test_what_is_called_detectable_is_found_in_four_of_five_tries_after_holms_correction(variants: int) -> None:
    rng, n = np.random.default_rng(9), 120

    def drawn(gain: float) -> dict[str, dict[str, float]]:
        hard, fresh = rng.random(n), rng.random((variants, n)) < 0.3
        rows = (np.where(fresh[j], rng.random(n), hard) < 0.6 + gain * (j == variants - 1) for j in range(variants))
        return {"abcd"[j]: ids(row.astype(float)) for j, row in enumerate(rows)}

    def last(values: dict[str, dict[str, float]]) -> tuple[float, float]:
        pairs = differences("m", values, "share")
        found = next(one for one in pairs if (one.a, one.b) == ("abcd"[variants - 1], "a"))
        assert found.detectable is not None
        return found.detectable, found.p_holm

    size = float(np.mean([last(drawn(0))[0] for _ in range(30)]))
    found = sum(last(drawn(size))[1] < 0.05 for _ in range(200))
    assert 0.75 * 200 <= found <= 0.93 * 200


def test_equal_variants_are_called_different_no_more_often_than_alpha_allows() -> None:
    rng, found = np.random.default_rng(11), {"share": 0, "score": 0, "amount": 0}
    for _ in range(300):
        hard = rng.random(30)  # what makes a question hard is shared, as it is between real variants
        draws: dict[Kind, tuple[Draws, Draws]] = {
            "share": ((rng.random(30) < hard).astype(float), (rng.random(30) < hard).astype(float)),
            "score": (hard**2 * rng.random(30), hard**2 * rng.random(30)),
            "amount": (hard + rng.exponential(0.2, 30), hard + rng.exponential(0.2, 30)),
        }
        for kind, (x, y) in draws.items():
            one = difference("m", "a", "b", ids(x), ids(y), kind)
            assert one is not None
            found[kind] += one.p < 0.05
    assert all(count <= 0.085 * 300 for count in found.values()), found
    assert found["amount"] >= 0.02 * 300


@pytest.mark.parametrize(("count", "size", "right"), [(5, 8, 0.8), (10, 8, 0.8), (28, 4, 0.95)])
def test_a_share_over_pages_whose_answers_are_much_alike_is_covered(count: int, size: int, right: float) -> None:
    rng, covered = np.random.default_rng(11), 0
    groups = {f"q{i:04}": str(i // size) for i in range(count * size)}
    for _ in range(400):
        chance = np.repeat(rng.beta(right * 2 / 3, (1 - right) * 2 / 3, count), size)  # a correlation of 0.6
        found = estimate(ids((rng.random(count * size) < chance).astype(float)), "share", groups=groups)
        assert found is not None
        covered += found.low <= right <= found.high
    assert covered >= 0.925 * 400  # 95 %, and 2.3 standard errors; 86 to 92 % where nothing is assumed


def test_a_gate_of_seconds_at_its_boundary_passes_at_most_its_level() -> None:
    rng, passed = np.random.default_rng(13), 0
    alone = clusters([str(i) for i in range(50)], None)
    for _ in range(600):
        long = rng.lognormal(0, 1, 50)  # some questions take very long, which makes skewness a guess
        d = 1.1 * long * rng.lognormal(0, 0.2, 50) - 1.1 * long * rng.lognormal(0, 0.2, 50)
        passed += intervals.against(d, alone, "amount")[0] < 0.025
    assert passed <= 0.042 * 600  # 2.5 %, and 2.5 standard errors; 5 % by Hall's limits alone


@pytest.mark.parametrize(("n", "differ", "margin", "size"), [(150, 0.04, 0.05, 1), (60, 0.2, 0.1, 1), (600, 0.2, 0.08, 4)])
def test_the_power_of_a_gate_is_foretold(n: int, differ: float, margin: float, size: int) -> None:
    rng, passed = np.random.default_rng(14), 0
    groups = clusters([f"q{i:04}" for i in range(n)], {f"q{i:04}": str(i // size) for i in range(n)} if size > 1 else None)
    for _ in range(600):
        page = np.repeat(rng.random(n // size), size)
        u = np.where(rng.random(n) < np.sqrt(0.3), page, rng.random(n)) if size > 1 else rng.random(n)
        d = np.where(u < differ / 2, 1.0, np.where(u < differ, -1.0, 0.0))
        passed += intervals.against(d, groups, "share", -margin)[0] < 0.025
    said = power.passes(n, margin, 0.05, power.Assumed(differ / 2, differ / 2, deff=1 + (size - 1) * 0.3, size=size))
    assert abs(passed / 600 - said) < 0.08
