"""Trains every condition with every seed, and leaves the figures; what is finished is not trained again."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from llmbench import runs, workspace, written
from llmbench.ablation.conditions import Condition
from llmbench.ablation.figures import Ablation, measured
from llmbench.ablation.page import page
from llmbench.errors import LlmbenchError, RunError
from llmbench.recipe import TrainRecipe, load
from llmbench.runs import Run
from llmbench.runs.best import goal

__all__ = ["Plan", "ablate", "plan"]


@dataclass(frozen=True)
class Plan:
    """One run of an ablation."""

    condition: str
    seed: int
    recipe: TrainRecipe
    state: str
    """`new`, or the state of the run that has this name: finished, stopped or failed."""


def plan(found: Sequence[Condition], name: str, seeds: int) -> list[Plan]:
    """The runs of an ablation, seed by seed, with what is there of them. Writes nothing.

    Args:
        found: the conditions, the full recipe first.
        name: the ablation's, and its folder's.
        seeds: how many; the first is the recipe's own, the others count up from it.

    Raises:
        RecipeError: a condition is no valid recipe, or leaves nothing different.
        RunError: a run of such a name is training, or has another recipe.
    """
    written.check_claim(_folder(name), "ablation")
    first = int(found[0].values["training"]["seed"])
    planned = []
    with TemporaryDirectory() as folder:  # where a condition that is no valid recipe is read, to say what is wrong with it
        for seed in range(first, first + seeds):
            for one in found:
                file = Path(folder) / f"{one.slug}.yaml"
                file.write_text(yaml.safe_dump(one.values, sort_keys=False, allow_unicode=True), encoding="utf-8")
                run = f"{name[: 64 - len(one.slug) - len(str(seed)) - 3]}-{one.slug}-s{seed}"
                recipe = load(file, TrainRecipe, [f"name={run}", f"training.seed={seed}"])
                planned.append(Plan(one.name, seed, recipe, _state(recipe)))
    _refuse_same(planned)
    return planned


def _folder(name: str) -> Path:
    return workspace.home() / "ablations" / workspace.check_name(name, "ablation")


def _state(recipe: TrainRecipe) -> str:
    run = Run(workspace.runs() / recipe.name)
    if not run.exists:
        return "new"
    if run.state == "running":
        raise RunError(f"Run {run.name} is training. Wait for it, or stop it: llmbench runs stop {run.name}")
    differing = [str(change) for change in runs.changes(run, recipe)]
    if differing:
        raise RunError(
            f"Run {run.name} has another recipe ({differing[0]}). Remove it (llmbench runs rm {run.name}), or give the "
            "ablation another name with --name."
        )
    return run.state


def _refuse_same(planned: Sequence[Plan]) -> None:
    """Raises where leaving a key out left its default, which the full recipe has too."""
    texts: dict[str, str] = {}
    for one in planned:
        if one.seed == planned[0].seed:
            values = one.recipe.model_dump(mode="json") | {"name": ""}
            same = texts.setdefault(json.dumps(values, sort_keys=True), one.condition)
            if same != one.condition:
                raise RunError(f"{one.condition} changes nothing: the recipe is that of {same}. Leave it out.")


def ablate(planned: Sequence[Plan], name: str, *, told: Callable[[Plan, int, int], None] = lambda *_: None) -> Ablation:
    """Trains what is not finished, and writes summary.json and report.html into the ablation's folder.

    A run that fails is left out and named; the others go on. Ctrl-C stops the current run with a checkpoint; the same call
    goes on from there.

    Args:
        planned: what `plan` gave.
        name: the ablation's.
        told: called before each run with its number and how many there are.

    Raises:
        LlmbenchError: a finished run was trained on something that changed since, or the full recipe failed with every seed.
        KeyboardInterrupt: stopped by Ctrl-C.
    """
    folder, failed = _folder(name), {}
    written.claim(folder, "ablation")
    with workspace.lock(folder, "ablation"):
        for number, one in enumerate(planned, 1):
            told(one, number, len(planned))
            try:
                _train(one)
            except LlmbenchError as error:
                if one.state == "finished":
                    raise
                failed[one.recipe.name] = str(error)
        found = _figures(planned, name, failed)
        workspace.write_json(folder / "summary.json", found.as_json())
        workspace.write_text(folder / "report.html", page(found))
    return found


def _train(one: Plan) -> None:
    from llmbench import training

    if one.state == "finished":
        _refuse_changed(one)
        return
    run = runs.create(one.recipe) if one.state == "new" else runs.resume(one.recipe)
    training.train(one.recipe, run, resume=one.state != "new")
    gc.collect()


def _refuse_changed(one: Plan) -> None:
    """Raises where data or base are no longer what a finished run was trained on: the other runs would differ by that too."""
    from llmbench.training import replaying

    found = replaying.check(runs.open_run(one.recipe.name), f"{one.recipe.name[:60]}-x")
    changed = [*found.obstacles, *map(str, found.content)]
    if changed:
        raise RunError(
            f"Run {one.recipe.name} is finished, but was trained on something else: {changed[0]}. Remove it (llmbench runs rm "
            f"{one.recipe.name}), or give the ablation another name with --name."
        )


def _figures(planned: Sequence[Plan], name: str, failed: dict[str, str]) -> Ablation:
    names: dict[str, dict[int, str]] = {}
    values: dict[str, dict[str, dict[int, float]]] = {}
    for one in planned:
        if one.recipe.name in failed:
            continue
        names.setdefault(one.condition, {})[one.seed] = one.recipe.name
        for metric, value in _measures(runs.open_run(one.recipe.name)).items():
            values.setdefault(metric, {}).setdefault(one.condition, {})[one.seed] = value
    full = planned[0]
    if full.condition not in names:
        raise RunError(f"Every run of the full recipe failed: {next(iter(failed.values()))}")
    drawn = not full.recipe.data.eval and full.recipe.data.eval_fraction > 0
    seeds = tuple(dict.fromkeys(one.seed for one in planned))
    headline = _headline(full.recipe, values)
    ordered = {headline: values[headline]} | values
    return measured(name, headline, seeds, names, ordered, failed, drawn=drawn)


def _measures(run: Run) -> dict[str, float]:
    """The figures of a run's last evaluation (of the kept step where the best is kept), and its last training loss."""
    status = run.status
    found: dict[str, Any] = {name.removeprefix("eval_"): value for name, value in (status.get("evaluation") or {}).items()}
    found = {("held-out loss" if name == "loss" else name): value for name, value in found.items()}
    found["training loss"] = status.get("loss")
    return {name: float(value) for name, value in found.items() if isinstance(value, (int, float))}


def _headline(recipe: TrainRecipe, values: dict[str, Any]) -> str:
    """What the recipe judges itself by, or else its first metric of answers, the held-out loss, or the training loss."""
    judged = goal(recipe.training)
    wanted = [judged.metric.removeprefix("eval_")] if judged is not None else []
    wanted += list(recipe.evaluation.metrics) if recipe.evaluation is not None else []
    named = ["held-out loss" if name == "loss" else name for name in wanted]
    return next(name for name in (*named, "held-out loss", "training loss") if name in values)
