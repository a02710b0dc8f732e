"""The winner and the recipe as it stands, trained with other seeds and compared on what no trial saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmbench import workspace
from llmbench.errors import LlmbenchError
from llmbench.recipe import SweepRecipe, TrainRecipe
from llmbench.runs import Run
from llmbench.runs.best import Goal
from llmbench.statistics import Kind
from llmbench.sweep.claim import Claim, answers, averaged, judge
from llmbench.sweep.holdout import Holdout
from llmbench.sweep.place import Workplace
from llmbench.sweep.pool import Interruption, Pool, Watcher
from llmbench.sweep.trial import Trial, key

__all__ = ["confirm", "searched"]

_TO_THE_END = (
    "training.load_best_model_at_end=false", "training.metric_for_best_model=null", "training.early_stopping_patience=null",
    "training.eval_steps=null", "training.eval_on_start=false",
)  # fmt: skip
"""A confirmation trains to the last step and is evaluated once: no step of it may be chosen by what it is judged by."""
_SEEDS = 2**32


def confirm(
    spec: SweepRecipe,
    base: TrainRecipe,
    away: Holdout,
    goal: Goal,
    folder: Path,
    winner: Trial,
    place: Workplace,
    stop: Interruption,
    watcher: Watcher,
) -> Claim | None:
    """Trains what is not trained yet, and says whether the winner is better; None where it cannot be told.

    Raises:
        LlmbenchError: one of the trainings failed.
        KeyboardInterrupt: stopped; the same command continues.
    """
    asked = spec.confirm
    assert asked is not None
    pool = Pool(folder / "confirm", str(spec.recipe), goal, place=place, stop=stop,
                ended=lambda one: watcher.ended(one, None))  # fmt: skip
    wanted: dict[str, dict[str, Any]] = {}
    for seed in range(1, asked.seeds + 1):
        wanted[f"{spec.name}-own-s{seed}"] = {}
        wanted[f"{spec.name}-{winner.file}-s{seed}"] = winner.params
    by_run = {one.run: one for one in pool.trials.values()}

    def following() -> Trial | None:
        run = next((run for run in wanted if run not in by_run), None)
        if run is None:
            return None
        seed = (base.training.seed + int(run.rpartition("-s")[2])) % _SEEDS
        settings = {**spec.overrides, **wanted[run], "training.seed": seed}
        overrides = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
        number = max((one.number for one in by_run.values()), default=-1) + 1
        made = Trial(number, wanted[run], run, overrides=(*overrides, *away.shared, *_TO_THE_END, *away.asked))
        by_run[run] = made
        return made

    watcher.phase("Confirming", len(wanted), sum(run in by_run and by_run[run].state != "running" for run in wanted))
    pool.run(following, watcher.running)
    done = {one.run: one for one in pool.trials.values()}
    if any(run not in done or done[run].state == "running" for run in wanted):
        return None  # the time was over
    answered = base.evaluation is not None and goal.metric.removeprefix("eval_") in base.evaluation.metrics
    _refuse_incomplete(folder / "confirm", [done[run] for run in wanted], answered=answered)
    looks = _looked(folder, winner.number)
    names = [
        [f"{side}-s{seed}" for seed in range(1, asked.seeds + 1)] for side in (f"{spec.name}-{winner.file}", f"{spec.name}-own")
    ]
    (of_winner, places), (of_own, _) = (_measured([done[name] for name in each], goal, answered=answered) for each in names)
    groups = {key: away.groups.get(place, place) for key, place in places.items()} if away.groups else None
    kind: Kind = "amount" if not answered else "share" if asked.seeds == 1 else "score"
    return judge(
        of_winner, of_own, kind, metric=goal.metric, number=winner.number, seen="held out", looks=looks, seeds=asked.seeds,
        minimizes=not goal.greater_is_better, confidence=asked.confidence, groups=groups,
    )  # fmt: skip


def _refuse_incomplete(folder: Path, trained: list[Trial], *, answered: bool) -> None:
    """Raises LlmbenchError where a training failed, or its answers are needed and gone."""
    if failed := next((one for one in trained if one.state != "finished"), None):
        raise LlmbenchError(
            f"The confirmation failed: run {failed.run}: {failed.reason}. See {folder / failed.file}.log. To train it again, "
            f"remove {folder / failed.file}.json and the run (llmbench runs rm {failed.run}), and repeat the command."
        )
    gone = next((one for one in trained if not Run(workspace.runs() / one.run).exists), None)
    if answered and gone is not None:
        raise LlmbenchError(
            f"Run {gone.run} was removed, and its answers with it. Remove {folder / gone.file}.json too: the same command then "
            "trains it again."
        )


def _measured(trained: list[Trial], goal: Goal, *, answered: bool) -> tuple[dict[str, float], dict[str, str]]:
    """What one side's trainings give: question -> mean score, and where it stands; or seed -> objective, and nothing."""
    if not answered:
        return {f"seed {i}": one.value for i, one in enumerate(trained) if one.value is not None}, {}
    each = [answers(Run(workspace.runs() / one.run), goal.metric) for one in trained]
    return averaged([scores for scores, _ in each]), {key: place for _, found in each for key, place in found.items()}


def searched(spec: SweepRecipe, trials: list[Trial], winner: Trial, own: dict[str, Any] | None) -> Claim | None:
    """The winner against the trial that has the recipe's own settings, on the questions that it was chosen by.

    None where there is no such trial, it is the winner, or the objective is one value a training.
    """
    first = next((one for one in trials if own is not None and key(one.params) == key(own) and one.state == "finished"), None)
    if first is None or first.number == winner.number:
        return None
    (of_winner, _), (of_first, _) = (answers(Run(workspace.runs() / one.run), spec.objective) for one in (winner, first))
    return judge(
        of_winner, of_first, "share", metric=spec.objective, number=winner.number, seen="searched",
        looks=len(trials) - 1, seeds=1, minimizes=spec.minimizes,
    )  # fmt: skip


def _looked(folder: Path, winner: int) -> int:
    """Notes that a winner is compared on what was put away, and how many were in all: each is one more look at it."""
    path = folder / "confirm" / "looks.json"
    try:
        looked = list(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        looked = []
    if winner not in looked:
        looked.append(winner)
        workspace.write_json(path, looked)
    return len(looked)
