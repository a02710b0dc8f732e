"""`llmbench runs track`: sends runs that have ended to trackers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench.cli import completion
from llmbench.cli.arguments import Json
from llmbench.cli.terminal import print_json
from llmbench.errors import LlmbenchError

if TYPE_CHECKING:
    from llmbench.recipe import Tracker

__all__ = ["register"]

_TRACKERS: tuple[Tracker, ...] = ("tensorboard", "wandb", "mlflow", "trackio")


def register(group: typer.Typer) -> None:
    """Adds this verb to `llmbench runs`."""
    group.command(epilog="Example: `llmbench runs track sft-lora --to mlflow`")(track)


def track(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs' names.", autocompletion=completion.runs)],
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="TRACKER",
            help=f"A tracker to send to, may be repeated: {', '.join(_TRACKERS)}. Without it, those of the run's recipe.",
            show_default=False,
            autocompletion=lambda incomplete: [name for name in _TRACKERS if name.startswith(incomplete)],
        ),
    ] = None,
    project: Annotated[
        str | None, typer.Option(help="The project there (MLflow: experiment). Without it, the recipe's.", show_default=False)
    ] = None,
    log_model: Annotated[
        bool, typer.Option("--log-model", help="Send the adapter or model as well, to wandb and mlflow.")
    ] = False,
    python: Annotated[
        Path | None, typer.Option(help="A Python that has the trackers, where this one has not.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Send runs that have ended to TensorBoard, Weights & Biases, MLflow or Trackio.

    What a tracker was told already is not sent twice, so this also completes what failed while the run trained.

    Exit code 0: everything was sent; 1: something was not, and what; 2: an error.
    """
    from pydantic import ValidationError

    from llmbench import recipe, runs, tracking

    unknown = [name for name in to or () if name not in _TRACKERS]
    if unknown:
        raise LlmbenchError(f"--to {unknown[0]} is not a tracker. Choose one of: {', '.join(_TRACKERS)}")
    given = {key: value for key, value in (("project", project), ("python", python)) if value is not None}
    chosen = [runs.open_run(name) for name in names]
    try:
        specs = [recipe.TrackingSpec.model_validate((run.recipe.get("tracking") or {}) | given) for run in chosen]
    except ValidationError as error:
        raise LlmbenchError(
            f"--project {project!r}: use letters, digits, spaces, dots, dashes and underscores, at most 128 of them"
        ) from error
    for run, spec in zip(chosen, specs, strict=True):
        if not (to or spec.to):
            raise LlmbenchError(f"The recipe of run {run.name} names no tracker. Name one: --to mlflow")
    told = []
    for run, spec in zip(chosen, specs, strict=True):
        trackers: list[Tracker] = [name for name in _TRACKERS if name in (to or spec.to)]
        shown, left = tracking.send(run, trackers, spec.model_copy(update={"log_model": log_model or spec.log_model}))
        told.append({"name": run.name, "shown": shown, "left": left})
    if as_json:
        print_json(told)
    if any(one["left"] for one in told):
        raise typer.Exit(1)
