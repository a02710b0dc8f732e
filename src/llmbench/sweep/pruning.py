"""Whether a training that runs looks too bad to be continued, judged by its evaluations and those of the other trials."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from llmbench.runs.best import Goal
from llmbench.sweep.trial import Trial

__all__ = ["hopeless"]

_REDUCTION = 3
"""eta of successive halving: the share that is kept at a rung is 1 / eta, and each rung has eta times the evaluations."""
_STARTUP = 5
"""Finished trials before the median says anything, as Optuna's MedianPruner has it."""


def hopeless(
    pruner: Literal["none", "median", "asha"], trial: Trial, trials: Sequence[Trial], goal: Goal, *, judged: int = 0
) -> str:
    """Why a running trial should be stopped, in a few words; empty where it should not.

    `median` is the median stopping rule of Vizier (Golovin and others, 2017, 3.2): stop where the best evaluation so far is
    worse than the median of what finished trials had at that evaluation. `asha` is asynchronous successive halving (Li and
    others, 2020, arXiv 1810.05934) in the form that stops trials instead of pausing them: at its evaluations 1, 3, 9, ... a
    trial continues where it is in the best third of those that came so far, or the best of fewer than three.

    Args:
        pruner: the rule.
        trial: one that trains, with its evaluations.
        trials: all trials of the sweep.
        goal: what is judged, and which way.
        judged: how many of its evaluations were judged before. A trial that passed a rung is not asked there again, however
            good those are that come to it later.
    """
    values = [value for _, value in trial.evaluations]
    if len(values) <= judged:
        return ""
    others = [[value for _, value in one.evaluations] for one in trials if one.number != trial.number and one.state != "failed"]
    match pruner:
        case "median":
            finished = [
                [value for _, value in one.evaluations]
                for one in trials
                if one.state == "finished" and one.number != trial.number
            ]
            there = [seen[len(values) - 1] for seen in finished if len(seen) >= len(values)]
            if len(there) < _STARTUP:
                return ""
            mine, middle = _best(values, goal), statistics.median(there)
            if _better(middle, mine, goal):
                return f"{mine:.4g} at evaluation {len(values)}, and the median is {middle:.4g}"
        case "asha":
            rung = 1
            while rung <= len(values):
                if rung <= judged:
                    rung *= _REDUCTION
                    continue
                mine = values[rung - 1]
                there = [seen[rung - 1] for seen in others if len(seen) >= rung]
                kept = max(1, (len(there) + 1) // _REDUCTION)
                rank = 1 + sum(_better(value, mine, goal) for value in there)
                if rank > kept:
                    return f"{mine:.4g} at evaluation {rung} is place {rank} of {len(there) + 1}, and {kept} may continue"
                rung *= _REDUCTION
    return ""


def _best(values: Sequence[float], goal: Goal) -> float:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return math.nan
    return max(finite) if goal.greater_is_better else min(finite)


def _better(a: float, b: float, goal: Goal) -> bool:
    """Whether a is better than b. What is no number is worse than any."""
    if math.isnan(a) or math.isnan(b):
        return math.isnan(b) and not math.isnan(a)
    return a > b if goal.greater_is_better else a < b
