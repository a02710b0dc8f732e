"""Continuing a run: what its recipe may say otherwise than before, when that is refused, and what is forgotten."""

from __future__ import annotations

import yaml

from llmbench import workspace, written
from llmbench.changes import Change, differences
from llmbench.errors import RunError
from llmbench.recipe import TrainRecipe
from llmbench.runs.run import Run, open_run, resolved

__all__ = ["changes", "resume", "rewind"]


def resume(recipe: TrainRecipe) -> Run:
    """Opens the run of this recipe to continue it: a stopped one, or a finished one that shall take more epochs or steps.

    `changes` tells what the recipe may say otherwise than before.

    Raises:
        RunError: no such run, it is running, its recipe differs in something that matters to the result, or it is finished
            and the recipe asks for no more.
    """
    run = open_run(recipe.name)
    state = run.state
    if state == "running":
        raise RunError(f"Run {run.name} is training. Watch it with: llmbench runs {run.name}")
    found = changes(run, recipe)
    refused = [str(change) for change in found if not change.allowed]
    if refused:
        raise RunError(
            f"Run {run.name} was started with another recipe ({', '.join(refused)}). Undo it, or start again with --overwrite."
        )
    if state == "finished":
        _refuse_finished(run, found)
    for folder in (run.adapter, run.model):  # now, rather than when the training has ended
        written.refuse(folder)
    return run


def _refuse_finished(run: Run, found: list[Change]) -> None:
    """A finished run is continued where the recipe asks for more and its last checkpoint is kept.

    Raises:
        RunError: it is not.
    """
    step = run.status.get("step")
    name = f"Run {run.name} is finished" + (f" ({step} steps)" if step else "")
    result = f"adapter_name_or_path={run.name}" if run.adapter.exists() else f"model.model_name_or_path={run.model}"
    if not any(change.grows for change in found):
        raise RunError(
            f"{name}. To train it further, raise training.num_train_epochs or training.max_steps and use --resume, or start "
            f"a new run with {result}"
        )
    if not any(run.checkpoints.glob("checkpoint-*")):
        raise RunError(
            f"{name} and kept no checkpoint, so it cannot take more steps with the same optimizer. Start a new run from its "
            f"result: name=NEW {result}"
        )


def changes(run: Run, recipe: TrainRecipe) -> list[Change]:
    """What a recipe says otherwise than the run's own."""
    return differences(run.recipe, yaml.safe_load(resolved(recipe)))


def rewind(run: Run, step: int, recipe: TrainRecipe) -> None:
    """Forgets what came after a step, and takes the recipe that the training goes on with; the lock keeps what changed."""
    run.drop_metrics_after(step)
    changed = [str(change) for change in changes(run, recipe)]
    if changed:
        lock = run.lock
        run.write_lock(lock | {"changed": [*lock.get("changed", []), {"step": max(step, 0), "recipe": changed}]})
        workspace.write_text(run.folder / "recipe.yaml", resolved(recipe))
