"""The sweep from its document to its report: draw, train, judge, confirm, write. Stopped or killed, it continues."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from llmbench import recipe as recipes
from llmbench import runs, workspace, written
from llmbench.changes import differences
from llmbench.errors import LlmbenchError, MissingPackage, RecipeError
from llmbench.recipe import SweepRecipe, TrainRecipe
from llmbench.runs.best import Goal
from llmbench.sweep import cluster, holdout, pruning, search, trial
from llmbench.sweep.confirm import confirm, searched
from llmbench.sweep.page import html
from llmbench.sweep.place import Here, Workplace
from llmbench.sweep.pool import Interruption, Pool, Watcher
from llmbench.sweep.result import Sweep
from llmbench.sweep.trial import Trial

__all__ = ["run"]

_HOPELESS = 3
"""Trials that have to fail, with none that did not, before the sweep ends as useless."""
_KEPT_ANSWERS = 10_000
"""Answers of an evaluation that a trial keeps, to be compared one by one."""


def run(spec: SweepRecipe, watcher: Watcher, ray: cluster.Asked | None = None) -> Sweep:
    """Searches until the trials, the time or the combinations are used up, confirms the winner, and writes the folder.

    Args:
        spec: the sweep.
        watcher: shows how far it is.
        ray: the cluster that the trainings run on; None runs them on this machine.

    Raises:
        LlmbenchError: the cluster does not answer or does not see the same files, the space or the recipe does not fit, is
            another one than the sweep of this name began with, another process runs the sweep, or no trial succeeded.
        KeyboardInterrupt: stopped; the trainings saved checkpoints, and the same command continues.
    """
    for package in ("optuna", "scipy"):
        if find_spec(package) is None:  # Told before anything is trained, not after.
            raise MissingPackage("sweep", package, "sweep")
    if ray is not None and spec.gpus:
        raise RecipeError("gpus: names GPUs of this machine. On a Ray cluster --trial-gpus says how many a training gets")
    base = _base(spec)
    if ray is not None and ray.gpus is None and base.model.device == "cpu":
        ray = replace(ray, gpus=0)
    holdout.check(spec, base)
    goal = Goal(spec.objective, not spec.minimizes)
    folder = workspace.sweeps() / spec.name
    known = written.shows(folder / "plan.json", "space", "recipe")
    written.check_claim(folder, "sweep", known=known)
    with workspace.lock(folder, "sweep"):
        plan = _plan(spec, base)
        _refuse_changed(folder, plan)
        written.claim(folder, "sweep", known=known)
        away = holdout.prepare(spec, base, folder / "data")
        workspace.write_json(folder / "plan.json", plan)
        workspace.write_text(
            folder / "recipe.yaml", yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        )
        stop = Interruption(spec.timeout)
        began = time.time()
        with _place(spec, folder, watcher, ray) as place, stop.listening():
            trials = _search(spec, base, away, goal, folder, place, stop, watcher)
            winner = trial.best(trials, goal)
            if winner is None:
                raise LlmbenchError(_nothing(trials, folder, late=stop.late))
            own = search.own(spec, base.model_dump(mode="json"))
            unchanged = own is not None and trial.key(winner.params) == trial.key(own)
            claim = None
            if spec.confirm is not None and not unchanged and not stop.late:
                claim = confirm(spec, base, away, goal, folder, winner, place, stop, watcher)
            elif spec.confirm is None:
                claim = searched(spec, trials, winner, own)
        notes = _notes(spec, base, trials, unchanged=unchanged, late=stop.late)
        best = _load(spec, [*_shared(spec), *_settings(winner.params), f"name={spec.name}-best"])
        workspace.write_text(folder / "best.yaml", _heading(spec, winner, folder / "best.yaml") + runs.resolved(best))
        sweep = Sweep(
            folder=folder,
            created=_created(folder, began),
            objective=spec.objective,
            minimizes=spec.minimizes,
            sampler=spec.sampler,
            pruner=spec.pruner,
            keys=tuple(spec.space),
            logarithmic=tuple(key for key, dimension in spec.space.items() if dimension.log),
            trials=tuple(trials),
            best=winner.number,
            importances=search.importances(spec, trials),
            claim=claim,
            notes=tuple(notes),
            confirmations=tuple(trial.read(folder / "confirm")),
        )
        workspace.write_text(sweep.report, html(sweep))
        workspace.write_json(folder / "summary.json", sweep.to_json())
    return sweep


@contextmanager
def _place(spec: SweepRecipe, folder: Path, watcher: Watcher, ray: cluster.Asked | None) -> Iterator[Workplace]:
    """Where the trainings run, for as long as the block does."""
    if ray is None:
        yield Here(spec.workers, spec.gpus)
        return
    with cluster.connected(ray, folder, spec.recipe, spec.parallel) as found:
        watcher.placed(found.describe())
        yield found


def _search(
    spec: SweepRecipe,
    base: TrainRecipe,
    away: holdout.Holdout,
    goal: Goal,
    folder: Path,
    place: Workplace,
    stop: Interruption,
    watcher: Watcher,
) -> list[Trial]:
    """Trains until nothing is left to try; all trials, by number."""
    first = search.own(spec, base.model_dump(mode="json"))
    shared = [*_shared(spec), *away.shared]
    if base.evaluation is not None:
        shared.append(f"evaluation.samples_shown={_KEPT_ANSWERS}")

    def known() -> list[Trial]:
        return [pool.trials[number] for number in sorted(pool.trials)]

    def ended(one: Trial) -> None:
        watcher.ended(one, trial.best(known(), goal))

    def following() -> Trial | None:
        trials = known()
        failed = [one for one in trials if one.state == "failed"]
        good = any(one.state in ("finished", "pruned") for one in trials)
        if len(trials) >= spec.trials or (len(failed) >= _HOPELESS and not good):
            return None
        params = search.suggest(spec, trials, first)
        if params is None:
            return None
        number = max((one.number for one in trials), default=-1) + 1
        overrides = (*shared, *_settings(params))
        return Trial(number, params, f"{spec.name}-{number:04}", overrides=overrides)

    pool = Pool(
        folder / "trials",
        str(spec.recipe),
        goal,
        place=place,
        stop=stop,
        prune=lambda one, judged: pruning.hopeless(spec.pruner, one, known(), goal, judged=judged),
        ended=ended,
    )
    done = sum(one.state != "running" for one in pool.trials.values())
    watcher.phase("Trials", spec.trials, done)
    pool.run(following, watcher.running)
    return [one for one in known() if one.state != "running"]


def _base(spec: SweepRecipe) -> TrainRecipe:
    """The training recipe with what all trials share, tried with a first choice of settings too.

    Raises:
        RecipeError: a field of the space or of the overrides does not exist or does not fit, the objective is not measured, or
            the pruner would see nothing.
    """
    base = _load(spec, _shared(spec))
    for key, dimension in spec.space.items():
        values = dimension.values or [dimension.low, dimension.high]
        for value in (values[0], values[-1]):
            if not dimension.when:
                _load(spec, [*_shared(spec), *_settings({key: value})])
    if spec.pruner != "none" and base.training.eval_steps is None:
        raise RecipeError(
            f"pruner: {spec.pruner} judges trials at their evaluations, and {spec.recipe} has none while it trains. Add "
            "training.eval_steps to overrides, or write `pruner: none`"
        )
    held_out = bool(base.data.eval) or base.data.eval_fraction > 0
    known = (["loss", "perplexity"] if held_out else []) + (list(base.evaluation.metrics) if base.evaluation else [])
    if base.method in ("sft", "pretrain") and spec.objective.removeprefix("eval_") not in known:
        measured = ", ".join(f"eval_{name}" for name in known) or "nothing; set data.eval, data.eval_fraction or evaluation"
        raise RecipeError(f"objective: {spec.objective} is not measured by {spec.recipe} (available: {measured})")
    return base


def _load(spec: SweepRecipe, overrides: list[str]) -> TrainRecipe:
    return recipes.load(spec.recipe, TrainRecipe, overrides)


def _shared(spec: SweepRecipe) -> list[str]:
    return _settings(spec.overrides)


def _settings(values: dict[str, Any]) -> list[str]:
    """Settings as `llmbench train` takes them."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def _plan(spec: SweepRecipe, base: TrainRecipe) -> dict[str, Any]:
    """What may not change while the sweep is continued."""
    values = spec.model_dump(mode="json")
    search_ = {key: values[key] for key in ("space", "sampler", "seed", "pruner", "objective", "direction")}
    asked = None
    if spec.confirm is not None:
        files = [spec.confirm.questions] if spec.confirm.questions else []
        asked = {"rows": spec.confirm.rows, "questions": holdout.hashes(files)}
    own = [base.evaluation.questions] if base.evaluation and base.evaluation.questions else []
    rows = [source.path for source in (*base.data.train, *base.data.eval) if source.path is not None]
    recipe = base.model_dump(mode="json", exclude={"name", "tracking"})  # what changes no figure
    return {**search_, "confirm": asked, "recipe": recipe, "data": holdout.hashes([*rows, *own])}


def _refuse_changed(folder: Path, plan: dict[str, Any]) -> None:
    """Raises where the sweep of this name began with something else.

    Raises:
        LlmbenchError: with what differs.
    """
    path = folder / "plan.json"
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LlmbenchError(f"{path} cannot be read ({error}). Remove the sweep: llmbench sweeps rm {folder.name}") from error
    if before.get("confirm") is None and plan["confirm"] is not None and plan["confirm"]["rows"] is None:
        before["confirm"] = plan["confirm"]  # questions that no trial was judged by may come at any time, rows may not
    found = [str(change) for change in differences(before, json.loads(json.dumps(plan)))]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise LlmbenchError(
            f"Sweep {folder.name} was started with something else ({'; '.join(found[:3])}{more}). Undo it, choose another name "
            f"with name=..., or remove the sweep: llmbench sweeps rm {folder.name}"
        )


def _nothing(trials: list[Trial], folder: Path, *, late: bool) -> str:
    """Why there is no winner."""
    failed = [one for one in trials if one.state == "failed"]
    if not failed:
        return "No trial finished in time. Raise timeout: the same command continues." if late else "No trial finished."
    last = failed[-1]
    return (
        f"No trial finished and {len(failed)} failed, the last one because: {last.reason}. See "
        f"{folder / 'trials' / last.file}.log"
    )


def _notes(spec: SweepRecipe, base: TrainRecipe, trials: list[Trial], *, unchanged: bool, late: bool) -> list[str]:
    """Sentences about the figures that a reader has to know."""
    notes = []
    if unchanged:
        notes.append("The winner is the recipe as it stands: there is nothing to confirm.")
    elif spec.confirm is None:
        notes.append(
            "The best figure is too good: it was chosen for being the best. Add `confirm` to check it on what no trial saw."
        )
    elif base.evaluation is None or spec.objective.removeprefix("eval_") not in base.evaluation.metrics:
        alpha = 1 - spec.confirm.confidence
        enough = next(n for n in range(2, 64) if 2 / 2**n < alpha)  # the least p where the signs of n differences are flipped
        if spec.confirm.seeds < enough:
            notes.append(
                f"{spec.objective} is one figure a training: {spec.confirm.seeds} seeds cannot show a difference, {enough} can."
                " Raise confirm.seeds: the same command continues."
            )
    if late:
        notes.append(f"The time ({spec.timeout:g} s) was over before all trials were done. Raise timeout to continue.")
    elif len(trials) < spec.trials:
        notes.append(f"{len(trials)} of {spec.trials} trials: all other combinations of the space have been tried.")
    failed = [str(one.number) for one in trials if one.state == "failed"]
    if failed:
        notes.append(f"Failed: trial {', '.join(failed)}. The table of the report says why.")
    return notes


def _heading(spec: SweepRecipe, winner: Trial, path: Path) -> str:
    settings = ", ".join(f"{key}={json.dumps(value)}" for key, value in winner.params.items())
    return (
        f"# The training recipe with the settings of trial {winner.number} of sweep {spec.name}: {settings}\n"
        f"{_also(spec)}# Run: llmbench train {path}\n\n"
    )


def _also(spec: SweepRecipe) -> str:
    """What the recipe has besides, which may have been for the search alone."""
    settings = ", ".join(_settings(spec.overrides))
    return f"# With what all trials shared, of which some may be for the search alone: {settings}\n" if settings else ""


def _created(folder: Path, now: float) -> float:
    """When the sweep began, the first time."""
    try:
        return float(json.loads((folder / "summary.json").read_text(encoding="utf-8"))["created"])
    except (OSError, ValueError, KeyError):
        return now
