"""`llmbench ablate`: what each part of a recipe contributes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench.cli import completion
from llmbench.cli.arguments import Json, Overrides
from llmbench.cli.terminal import paragraph, print_json, table
from llmbench.errors import RecipeError

if TYPE_CHECKING:
    from llmbench.ablation import Ablation, Plan

__all__ = ["register"]

_SEEDS = 6
"""The fewest that can show one difference at 95 %."""
_SUFFIX = "-ablation"


def register(cli: typer.Typer) -> None:
    """Adds this verb."""
    cli.command("ablate", epilog="Example: `llmbench ablate my.yaml --without lora.use_rslora --change lora.r=4 --seeds 7`")(
        ablate
    )


def ablate(
    recipe: Annotated[
        Path,
        typer.Argument(metavar="RECIPE", help="A training recipe: the full one.", autocompletion=completion.recipes),
    ],
    overrides: Overrides = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Leave this dotted key out, so that its default holds; repeatable, one condition each.",
            show_default=False,
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Set this instead; several in quotes make one condition. Repeatable, one condition each.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, metavar="N", help="Train each condition with N seeds.")] = _SEEDS,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The ablation's name; the recipe's with -ablation if not given.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs it would train; train nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Train a recipe, and versions of it with one thing left out or changed, with several seeds, and compare them.

    Prints the mean of each condition with its 95 % interval, and its difference to the full recipe, paired by seed, with an
    interval and a p corrected for the number of conditions (Holm). Each training is a run of its own; run the same command
    again after an interruption, or with more seeds, and what is finished is not trained again. summary.json and report.html are
    written to outputs/ablations/NAME.

    Exit code 0: trained and compared; 2: an error; 130: stopped with Ctrl-C.
    """  # fmt: skip
    from llmbench import ablation

    if not without and not change:
        raise RecipeError("Say what to vary: --without KEY, --change KEY=VALUE, or both.")
    found = ablation.conditions(recipe, overrides or (), without or (), change or ())
    called = name or f"{found[0].values['name'][: 64 - len(_SUFFIX)]}{_SUFFIX}"
    planned = ablation.plan(found, called, seeds)
    _warn(seeds, len(found) - 1)
    if dry_run:
        _say_plan(planned, as_json)
        return
    done = ablation.ablate(planned, called, told=_tell)
    if as_json:
        print_json(done.as_json())
    else:
        _say(done)


def _warn(seeds: int, comparisons: int) -> None:
    """Says before hours of training that so few seeds cannot show anything."""
    from llmbench.ablation import seeds_needed

    if seeds < (needed := seeds_needed(comparisons)):
        print(
            f"Note: {seeds} seed{'s' * (seeds != 1)} cannot show a difference at 95 % with {comparisons} "
            f"comparison{'s' * (comparisons != 1)}; that takes {needed}. Means and intervals are still printed.",
            file=sys.stderr,
        )


def _tell(one: Plan, number: int, of: int) -> None:
    done = "finished before" if one.state == "finished" else "training" if one.state == "new" else "resuming"
    print(f"[{number}/{of}] {one.condition}, seed {one.seed}: {done}", file=sys.stderr, flush=True)


def _say_plan(planned: list[Plan], as_json: bool) -> None:
    if as_json:
        print_json([{"condition": p.condition, "seed": p.seed, "run": p.recipe.name, "state": p.state} for p in planned])
        return
    for one in planned:
        print(f"  {one.recipe.name:<40} {one.state:<9} {one.condition}, seed {one.seed}")
    left = sum(one.state != "finished" for one in planned)
    print(f"{left} of {len(planned)} runs to train.")


def _say(done: Ablation) -> None:
    from llmbench import workspace
    from llmbench.ablation import difference_rows, mean_rows

    table(mean_rows(done, done.headline))
    if done.differences[done.headline]:
        table(difference_rows(done, done.headline))
    others = [metric for metric in done.values if metric != done.headline]
    for note in done.notes:
        paragraph(note)
    more = f" ({', '.join(others)} too)" if others else ""
    print(f"Report{more}: {workspace.home() / 'ablations' / done.name / 'report.html'}")
