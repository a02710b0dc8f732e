"""Trains what a run's lock and recipe describe once more, in a run of its own, and compares it with the recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmbench import runs, workspace
from llmbench.errors import RunError
from llmbench.runs import Run
from llmbench.runs.diff import curve_pairs, curves
from llmbench.runs.ingredients import Ingredient, compare
from llmbench.training.job import Job
from llmbench.training.loop.record import Progress
from llmbench.training.replaying.check import Check, changed_rows, threads
from llmbench.training.replaying.verdict import Verdict, judge, tolerance
from llmbench.training.replaying.weights import comparable, weights
from llmbench.training.stages import prepare, train

__all__ = ["Replay", "replay"]


@dataclass(frozen=True)
class Replay:
    """A finished replay."""

    run: Run
    """The new run."""
    steps: int
    """Steps that were trained."""
    whole: bool
    """Whether that is all of the recording."""
    verdict: Verdict


def replay(
    checked: Check,
    *,
    steps: int | None = None,
    anyway: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
    told: Callable[[Job], None] = lambda _: None,
) -> Replay:
    """Trains the stretches of a checked run in a run of its own; the recording is only read.

    Args:
        checked: what `check` found.
        steps: stop after this many; None replays as many as the recording has.
        anyway: train although data or base are not those of the recording.
        overwrite: replace a run that has the new name.
        progress: as of `train`.
        told: given the job once it is loaded and compared, before its first step.

    Raises:
        RunError: there is an obstacle, the content changed and `anyway` is not set, `steps` is more than the recording has, or
            the new name is taken.
        LlmbenchError: the training fails.
        KeyboardInterrupt: stopped by Ctrl-C.
    """
    recorded, name = checked.run, checked.stretches[0].recipe.name if checked.stretches else ""
    if checked.obstacles:
        raise RunError(f"Run {recorded.name} cannot be replayed: {'; '.join(checked.obstacles)}")
    _refuse_changed(recorded, checked.content, anyway)
    _refuse_taken(name, overwrite)
    if steps is not None and steps > checked.steps:
        raise RunError(f"--steps {steps}: run {recorded.name} logged {checked.steps} steps. Replay at most that many.")
    until = steps if steps is not None else None if recorded.state == "finished" else checked.steps
    with threads(checked.recorded):
        job = prepare(checked.stretches[0].recipe)
        rows = changed_rows(checked.recorded, job.rows)
        _refuse_changed(recorded, [one for one in rows if one.state == "differs"], anyway)
        told(job)
        made = _train(checked, job, until, overwrite, progress)
    found = compare(checked.recorded, made.lock)
    trained = made.status["step"]
    verdict = _judge(recorded, made, trained, whole=until is None, ingredients=found)
    _note(made, recorded, steps=trained, **verdict.as_json())
    return Replay(made, trained, until is None, verdict)


def _train(checked: Check, job: Job, until: int | None, overwrite: bool, progress: Progress | None) -> Run:
    """The new run, trained stretch by stretch as the recording was, up to a step."""
    logged = sorted(curves(checked.run).get("loss", {}))
    what: Any = job
    made: Run | None = None
    for stretch in checked.stretches:
        end = min((step for step in (stretch.until, until) if step is not None), default=None)
        if made is None:
            made = runs.create(stretch.recipe, overwrite=overwrite)
            _note(made, checked.run)
        else:
            made, what = runs.resume(stretch.recipe), stretch.recipe
        try:
            train(what, made, resume=what is not job, progress=progress, stop_after=end, log_at=logged)
        except KeyboardInterrupt:
            if end is None or made.status.get("step") != end:
                raise
            made.mark("stopped", f"replayed up to step {end}")
        if until is not None and until == end:
            break
    assert made is not None
    return made


def _judge(recorded: Run, made: Run, step: int, *, whole: bool, ingredients: list[Ingredient]) -> Verdict:
    found = comparable(recorded, made, step, whole=whole)
    pair = weights(*found) if found is not None else None
    dtypes = (run.lock.get("hardware", {}).get("dtype") for run in (recorded, made))
    return judge(list(curve_pairs(recorded, made, upto=step)), pair, tolerance(*dtypes), ingredients)


def _refuse_changed(recorded: Run, changed: list[Ingredient], anyway: bool) -> None:
    if changed and not anyway:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise RunError(
            f"Run {recorded.name} was trained on something else: {changed[0]}{more}. Restore it, or train on what is here "
            "with --anyway."
        )


def _refuse_taken(name: str, overwrite: bool) -> None:
    run = Run(workspace.runs() / name)
    if run.exists and not overwrite:
        raise RunError(
            f"Run {name} already exists ({run.state}). Replace it with --overwrite, or choose another name with --name."
        )


def _note(made: Run, recorded: Run, **found: Any) -> None:
    """Says in the new run's folder what it repeats, and how that came out."""
    workspace.write_json(made.folder / "replay.json", {"of": recorded.name, **found})
