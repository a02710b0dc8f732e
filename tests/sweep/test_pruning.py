from __future__ import annotations

from typing import Any

import pytest

from llmbench.runs.best import Goal
from llmbench.sweep.pruning import hopeless
from llmbench.sweep.trial import Trial, best

LESS, MORE = Goal("eval_loss", False), Goal("eval_exact_match", True)


def trial(number: int, *values: float, state: Any = "finished", value: float | None = None) -> Trial:
    return Trial(
        number, {"a": number}, "", state=state, value=value, evaluations=tuple((10 * i, v) for i, v in enumerate(values, 1))
    )


def test_asha_keeps_the_best_third_at_each_rung() -> None:
    others = [trial(i, i / 10, i / 10, i / 10) for i in range(5)]
    assert hopeless("asha", trial(9, 0.05, state="running"), others, LESS) == "", "second of six, and two may continue"
    assert "place 4 of 6, and 2 may continue" in hopeless("asha", trial(9, 0.25, state="running"), others, LESS)
    assert "place 6 of 6" in hopeless("asha", trial(9, -1.0, state="running"), others, MORE)


def test_asha_asks_at_a_rung_once_and_between_rungs_never() -> None:
    others = [trial(i, 0.1, 0.1, 0.1) for i in range(5)]
    assert hopeless("asha", trial(9, 0.5, 0.5, state="running"), others, LESS, judged=1) == "", "2 is no rung"
    assert "evaluation 3" in hopeless("asha", trial(9, 0.5, 0.5, 0.5, state="running"), others, LESS, judged=2)
    assert hopeless("asha", trial(9, 0.5, 0.5, 0.5, state="running"), others, LESS, judged=3) == ""


def test_the_first_trial_at_a_rung_continues() -> None:
    assert hopeless("asha", trial(0, 9.0, state="running"), [], LESS) == ""


def test_median_waits_for_five_finished_trials() -> None:
    bad = trial(9, 5.0, state="running")
    assert hopeless("median", bad, [trial(i, 1.0) for i in range(4)], LESS) == ""
    assert "the median is 1" in hopeless("median", bad, [trial(i, 1.0) for i in range(5)], LESS)
    assert hopeless("median", bad, [trial(i, 1.0, state="pruned") for i in range(5)], LESS) == ""
    assert hopeless("median", trial(9, 0.9, 5.0, state="running"), [trial(i, 1.0, 1.0) for i in range(5)], LESS) == "", (
        "its best counts"
    )


def test_a_figure_that_is_no_number_is_worse_than_any() -> None:
    others = [trial(i, 100.0) for i in range(5)]
    for pruner in ("median", "asha"):
        assert hopeless(pruner, trial(9, float("nan"), state="running"), others, LESS)


def test_none_prunes_nothing() -> None:
    assert hopeless("none", trial(9, 1e9, state="running"), [trial(i, 0.0) for i in range(9)], LESS) == ""


@pytest.mark.parametrize(("goal", "number"), [(LESS, 2), (MORE, 3)])
def test_a_pruned_or_failed_trial_never_is_the_best(goal: Goal, number: int) -> None:
    found = [
        trial(0, 0.0, state="pruned", value=None),
        trial(1, 9.0, state="failed", value=None),
        trial(2, 1.0, value=1.0),
        trial(3, 2.0, value=2.0),
        trial(4, 1.0, value=1.0),
    ]
    chosen = best(found, goal)
    assert chosen is not None and chosen.number == number, "the earlier one of equals"
    assert best(found[:2], goal) is None
