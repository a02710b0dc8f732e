from __future__ import annotations

import numpy as np

from llmbench.sweep.claim import Claim, averaged, judge

ALPHA = 0.05


def values(x: np.ndarray) -> dict[str, float]:
    return {str(i): float(v) for i, v in enumerate(x)}


def claimed(winner: np.ndarray, own: np.ndarray, looks: int, seen: str = "searched") -> Claim:
    found = judge(
        values(winner), values(own), "share", metric="eval_exact_match", number=1, seen=seen, looks=looks, seeds=1,  # type: ignore[arg-type]
        minimizes=False, confidence=1 - ALPHA,
    )  # fmt: skip
    assert found is not None
    return found


def test_where_nothing_differs_a_winner_is_claimed_better_in_at_most_alpha_of_all_sweeps() -> None:
    """The best of 20 alike trials, 300 sweeps: uncorrected many have a better one, corrected or on fresh rows few."""
    rng = np.random.default_rng(0)
    sweeps, tried, questions = 300, 20, 60
    naive = corrected = fresh = 0
    for _ in range(sweeps):
        own = rng.random(questions) < 0.5
        each = rng.random((tried, questions)) < 0.5
        winner = each[int(each.mean(axis=1).argmax())]
        naive += claimed(winner, own, 1).better
        corrected += claimed(winner, own, tried).better
        again, other = rng.random(questions) < 0.5, rng.random(questions) < 0.5
        fresh += claimed(again, other, 1, "held out").better
    slack = 3 * (ALPHA * (1 - ALPHA) / sweeps) ** 0.5
    assert naive / sweeps > 2 * ALPHA, "the chosen figure is too good, or this test shows nothing"
    assert corrected / sweeps <= ALPHA + slack
    assert fresh / sweeps <= ALPHA + slack


def test_a_real_difference_is_claimed_and_the_worse_side_is_not() -> None:
    own, winner = np.zeros(60), np.r_[np.ones(30), np.zeros(30)]
    one = claimed(winner, own, 20)
    assert one.better and one.difference is not None and one.difference.low > 0
    assert one.sentence().startswith("Better on the questions that the trials were chosen by")
    assert "corrected for 20 looks" in one.sentence()
    assert not claimed(own, winner, 20).better
    less = judge(
        values(own), values(winner), "amount", metric="eval_loss", number=1, seen="held out", looks=1, seeds=60, minimizes=True
    )
    assert less is not None and less.better


def test_one_value_each_shows_nothing_and_says_so() -> None:
    one = judge(
        {"seed 1": 0.1},
        {"seed 1": 0.9},
        "amount",
        metric="eval_loss",
        number=1,
        seen="held out",
        looks=1,
        seeds=1,
        minimizes=True,
    )
    assert one is not None and not one.better and one.difference is None
    assert "Raise confirm.seeds" in one.sentence()
    assert Claim.from_json(one.to_json()) == one


def test_seeds_are_averaged_over_the_questions_that_all_answered() -> None:
    assert averaged([{"a": 1.0, "b": 0.0}, {"a": 0.0, "c": 1.0}]) == {"a": 0.5}
    assert averaged([]) == {}
