"""What is not shown does not pass: few questions, answers that are all alike, no spread; and what is worse is told."""

from __future__ import annotations

import numpy as np
import pytest
from tests.gate.conftest import one

from llmbench.compare.measures import known
from llmbench.errors import DataError, RecipeError
from llmbench.gate.judging import judge
from llmbench.gate.values import GatedMetric
from llmbench.recipe import Margin
from llmbench.statistics import intervals, paired
from llmbench.statistics.clusters import clusters


@pytest.mark.parametrize("n", [1, 2, 3, 10, 40])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_answers_that_are_all_alike_pass_no_close_margin(n: int, value: float) -> None:
    found = one([value] * n, [value] * n)
    assert (found.outcome, found.mean, found.wins, found.losses) == ("undecided", 0.0, 0, 0)
    assert found.needed is not None and found.needed.alike is not None and found.needed.alike > n


def test_many_answers_that_are_all_alike_do_pass() -> None:
    assert one([1.0] * 400, [1.0] * 400).outcome == "shown"


@pytest.mark.parametrize("metric", ["squad_f1", "latency", "prompt_tokens"])
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_no_spread_is_no_certainty(metric: str, n: int) -> None:
    margin = "0.02" if metric == "squad_f1" else "10%"
    assert one([0.5] * n, [0.5] * n, margin, metric).outcome == "undecided"
    if metric != "squad_f1":
        assert one([0.5] * n, [0.5] * n, "5", metric).outcome == "undecided", "a margin wider than anything seen"
        assert one([0.5] * n, [0.9] * n, margin, metric).outcome == "undecided", "always faster, but hardly asked"


@pytest.mark.parametrize("seed", range(5))
def test_three_answers_of_a_stable_server_pass_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert one(list(0.5 + 0.001 * rng.random(2)), [0.5, 0.5], "10%", "latency").outcome != "worse"
    found = one([1.0, 1.0, 0.0], [1.0, 1.0, 1.0], "0.3")
    assert found.outcome == "undecided" and found.low is not None and found.low < -0.5


def test_exactly_where_the_lower_limit_lies_above_the_margin_it_passes() -> None:
    a, b = np.ones(300), np.ones(300)
    a[:4], b[4:8] = 0.0, 0.0
    x = intervals.difference(a - b, clusters([str(i) for i in range(300)], None), "share", 0.95)
    assert one(list(a), list(b), f"{-x.low + 1e-6:.9f}").outcome == "shown"
    assert one(list(a), list(b), f"{-x.low - 1e-6:.9f}").outcome == "undecided"
    found = one(list(a), list(b), "0.05")
    assert (found.low, found.high) == pytest.approx((x.low, x.high))
    assert (found.wins, found.losses, found.n) == (4, 4, 300)


def test_a_candidate_that_loses_a_tenth_is_worse() -> None:
    found = one([0.0] * 40 + [1.0] * 260, [1.0] * 300)
    assert found.outcome == "worse" and found.high is not None and found.high < -0.02 and found.needed is None


def test_better_is_asked_for_by_name() -> None:
    better = one([1.0] * 60, [0.0] * 12 + [1.0] * 48, superior=True)
    assert better.outcome == "shown" and better.low is not None and better.low > 0
    alike = one([1.0] * 400, [1.0] * 400, superior=True)
    assert alike.outcome == "undecided" and alike.needed is not None and alike.needed.alike is None
    assert one([0.0] * 12 + [1.0] * 48, [1.0] * 60, superior=True).outcome == "worse"


def test_five_signs_show_no_superiority() -> None:
    groups = {f"q{i:04}": str(i // 8) for i in range(40)}
    assert one([1.0] * 40, [0.0] * 40, groups=groups, superior=True).outcome == "undecided"


def test_less_is_better_for_seconds_and_tokens() -> None:
    rng = np.random.default_rng(3)
    b = rng.lognormal(0, 0.3, 120)
    assert one(list(b * 0.9 + 0.01 * rng.random(120)), list(b), "5%", "latency").outcome == "shown"
    slow = one(list(b * 1.3), list(b), "5%", "latency")
    assert slow.outcome == "worse" and slow.losses == 120 and slow.wins == 0
    assert (slow.part_low, slow.part_high) == pytest.approx((0.3, 0.3), abs=1e-6)
    noisy = one(list(rng.lognormal(0, 1.2, 40)), list(rng.lognormal(0, 1.2, 40)), "5%", "latency")
    assert noisy.outcome == "undecided" and noisy.needed is not None
    assert one(list(b + 0.02 + 0.001 * rng.random(120)), list(b), "0.1", "latency").outcome == "shown"
    assert one(list(b + 0.02), list(b), "0.1", "latency").outcome == "undecided", "always exactly the same"


def test_parts_of_the_mean_are_bounded_as_fieller_has_it() -> None:
    rng = np.random.default_rng(5)
    b = rng.normal(10, 1, 60)
    a = 1.1 * b + rng.normal(0, 1, 60)
    found = one(list(a), list(b), "20%", "latency")
    assert found.part_low is not None and found.part_high is not None and found.relative == 0.2
    # Fieller (1954): those r for which |mean(a - r b)| is at most t standard errors; the quadratic by hand.
    t = 2.0009953780  # of 59 degrees at .975
    (va, vab), (_, vb) = np.cov(a, b) / 60
    ma, mb = a.mean(), b.mean()
    qa, qb, qc = mb**2 - t**2 * vb, -2 * (ma * mb - t**2 * vab), ma**2 - t**2 * va
    roots = sorted(np.roots([qa, qb, qc]).real - 1)
    assert (found.part_low, found.part_high) == pytest.approx(roots, abs=2e-3)  # the limits here also follow the skewness


def test_pages_that_are_alike_count_as_fewer_questions() -> None:
    rng = np.random.default_rng(8)
    wrong = np.repeat(rng.random(40) < 0.1, 8).astype(float)
    a, b = 1 - wrong, np.ones(320) - np.repeat(rng.random(40) < 0.1, 8)
    groups = {f"q{i:04}": str(i // 8) for i in range(320)}
    alone, together = one(list(a), list(b), "0.06"), one(list(a), list(b), "0.06", groups=groups)
    assert alone.low is not None and together.low is not None
    assert together.low < alone.low and together.pages == 40 and together.deff > 3
    assert alone.needed is None or together.needed is not None


def test_holm_corrects_and_a_fixed_sequence_stops() -> None:
    rng = np.random.default_rng(2)
    n = 220
    b = (rng.random(n) < 0.97).astype(float)
    values = {f"q{i:04}": x for i, x in enumerate(b)}
    flipped = values | {"q0001": 1 - values["q0001"], "q0002": 1 - values["q0002"]}
    wanted = [GatedMetric(known(name), Margin(0.03)) for name in ("grounded", "citation")]
    of = {"grounded": (values, values), "citation": (flipped, values)}
    single = [judge([w], of, {}, alpha=0.05, several="holm", superior=False)[0] for w in wanted]
    both = judge(wanted, of, {}, alpha=0.05, several="holm", superior=False)
    assert [x.p_adjusted for x in both] == pytest.approx(paired.holm([x.p for x in single if x.p is not None]))
    of = {"grounded": ({q: 1 - v for q, v in values.items()}, values), "citation": (values, values)}
    assert [x.outcome for x in judge(wanted, of, {}, alpha=0.05, several="fixed-sequence", superior=False)] == [
        "worse", "not tested",
    ]  # fmt: skip
    assert judge(wanted[::-1], of, {}, alpha=0.05, several="fixed-sequence", superior=False)[0].outcome == "shown"


def test_what_is_called_needed_decides_in_four_of_five_tries() -> None:
    rng = np.random.default_rng(4)
    first = one([0.0, 0.0, 1.0, 1.0] + [1.0] * 76, [1.0, 1.0, 0.0, 0.0] + [1.0] * 76, "0.04")
    assert first.needed is not None and first.needed.alike is not None
    n, passed = first.needed.alike, 0
    for _ in range(200):
        u = rng.random(n)
        passed += (
            one(list((u > 0.025).astype(float)), list(((u < 0.025) | (u > 0.05)).astype(float)), "0.04").outcome == "shown"
        )
    assert 0.72 * 200 <= passed <= 0.88 * 200


@pytest.mark.parametrize(("metric", "margin"), [("grounded", "2"), ("grounded", "2%"), ("squad_f1", "1")])
def test_a_margin_of_points_is_a_number_below_1(metric: str, margin: str) -> None:
    with pytest.raises(RecipeError, match=r"Write 0\.02 for 2 points"):
        one([1.0, 0.0], [1.0, 0.0], margin, metric)


def test_no_question_in_common_cannot_be_judged() -> None:
    with pytest.raises(DataError, match="no question has a value for both"):
        judge(
            [GatedMetric(known("grounded"), Margin(0.02))], {"grounded": ({"a": 1.0}, {"b": 1.0})}, {},
            alpha=0.05, several="holm", superior=False,
        )  # fmt: skip
