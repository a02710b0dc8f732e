"""`llmbench sweep` and `llmbench sweeps`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llmbench.cli import completion, listing, terminal
from llmbench.cli.arguments import Json, Overrides
from llmbench.errors import LlmbenchError

if TYPE_CHECKING:
    from llmbench.sweep import Asked, Sweep, Trial

__all__ = ["register"]

Engine = Literal["local", "ray"]

Name = Annotated[str, typer.Argument(metavar="NAME", help="A sweep's name.", autocompletion=completion.sweeps)]


def register(cli: typer.Typer) -> None:
    """Adds this job's verbs."""
    cli.command(epilog="Example: `llmbench sweep recipes/sweep.yaml trials=20`")(sweep)
    epilog = "Examples: `llmbench sweeps` · `llmbench sweeps mine` · `llmbench sweeps open mine`"
    group = listing.group(sweeps, metavar="[NAME | COMMAND NAME]", epilog=epilog)
    group.command("show", epilog="Example: `llmbench sweeps mine`")(show_one)
    group.command("open", epilog="Example: `llmbench sweeps open mine`")(open_report)
    group.command(epilog="Example: `llmbench sweeps rm mine --yes`")(rm)
    cli.add_typer(group, name="sweeps")


def sweep(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE", help="A sweep, such as recipes/sweep.yaml.", autocompletion=completion.recipes),
    ],
    overrides: Overrides = None,
    engine: Annotated[
        Engine,
        typer.Option(help="Where trials run. ray: on the nodes of a Ray cluster that see this folder, or on one started here."),
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="With --engine ray: the cluster. Default: RAY_ADDRESS, else one that is started here.",
            show_default=False,
        ),
    ] = None,
    trial_cpus: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="With --engine ray: CPUs of each trial. Default: 1.", show_default=False),
    ] = None,
    trial_gpus: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="N",
            help="With --engine ray: GPUs of each trial; 0.5 puts two on one. Default: 1 where the cluster has any.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search the settings of a training recipe, and check the winner on rows that no trial saw.

    Each trial is a run of its own (`llmbench runs NAME-0000`). After Ctrl-C, a kill, or with more `trials`, the same command
    continues.

    Exit code 0: done; 2: an error, or no trial succeeded; 130: stopped with Ctrl-C, the trainings saved checkpoints.
    """
    from llmbench import recipe as recipes
    from llmbench import sweep as sweeping
    from llmbench.recipe import SweepRecipe

    ray = _cluster(engine, ray_address, trial_cpus, trial_gpus)
    document = recipes.load(recipe, SweepRecipe, overrides or ())
    with _Bar(document.objective) as bar:
        found = sweeping.run(document, bar, ray)
    listing.print_one(found, _show, as_json)


def _cluster(engine: Engine, address: str | None, cpus: int | None, gpus: float | None) -> Asked | None:
    """What is asked of a cluster; None without one."""
    from llmbench.sweep import Asked

    if engine == "ray":
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise LlmbenchError(f"--trial-gpus: {gpus:g} is neither a whole number nor below 1")
        return Asked(address, 1 if cpus is None else cpus, gpus)
    if address is not None or cpus is not None or gpus is not None:
        raise LlmbenchError("--ray-address, --trial-cpus and --trial-gpus go with --engine ray")
    return None


def sweeps(context: typer.Context, as_json: Json = False) -> None:
    """List the sweeps, newest first; or show, open or remove one."""
    from llmbench import sweep as sweeping

    if context.invoked_subcommand is not None:
        return
    none = "No sweeps yet. Make one: llmbench sweep recipes/sweep.yaml"
    listing.print_all(sweeping.every(), lambda one: one.verdict(), as_json, none=none)


def show_one(name: Name, as_json: Json = False) -> None:
    """Show a sweep: its trials, the winner and its files."""
    from llmbench import sweep as sweeping

    listing.print_one(sweeping.load(name), _show, as_json)


def open_report(name: Name) -> None:
    """Print the path of a sweep's report, and open it in the browser of a desktop."""
    from llmbench import sweep as sweeping

    listing.launch(sweeping.load(name).report)


def rm(name: Name, yes: listing.Yes = False, as_json: Json = False) -> None:
    """Remove a sweep's folder, finished or not. The runs of its trials stay: remove them with `llmbench runs rm`.

    Refuses to remove a folder that holds other files.

    Exit code 0: removed; 1: you answered no; 2: an error, and nothing was removed.
    """
    from llmbench import sweep as sweeping
    from llmbench import workspace

    question = f"Remove sweep {name}, and keep the runs of its trials?"
    done = f"Removed sweep {name}. The runs of its trials are kept."
    listing.drop(name, workspace.sweeps(), sweeping.remove, yes, as_json, question=question, done=done)


def _show(found: Sweep) -> None:
    """Prints the table, best first, the verdict, and where the files are."""
    from llmbench.shown import printable
    from llmbench.sweep import table

    rows = [[printable(cell) for cell in row] for row in table.rows(found)]
    terminal.listing(rows, shrink=range(1, len(found.keys) + 1), right=range(len(rows[0]) - 1))
    for one in found.trials:
        if one.state == "failed":
            print(f"Trial {one.number} failed: {printable(one.reason)}", file=sys.stderr)
    print()
    terminal.paragraph(printable(found.verdict()))
    for note in found.notes:
        terminal.paragraph(note)
    print(f"\nReport  {found.report}\nRecipe  {found.folder / 'best.yaml'}")
    print(f"Next: llmbench train {found.folder / 'best.yaml'}")


class _Bar:
    """A bar on a terminal, a line for each trial in a log."""

    def __init__(self, objective: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._objective = objective
        self._terminal = sys.stderr.isatty()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            disable=not self._terminal,
        )
        self._task: Any = None
        self._done = self._total = 0

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            print(
                f"{self._done} of {self._total} trainings are done, and checkpoints are saved. "
                "Run the same command again to continue.",
                file=sys.stderr,
            )

    def placed(self, words: str) -> None:
        """A cluster was found."""
        print(words, file=sys.stderr, flush=True)

    def phase(self, words: str, total: int, done: int) -> None:
        """The search, or the confirmation, begins."""
        self._done, self._total = done, total
        self._task = self._bar.add_task(words, total=total, completed=done, note="")
        if not self._terminal:
            print(f"{words}: {done} of {total} done", file=sys.stderr, flush=True)

    def running(self, trials: list[Trial]) -> None:
        """What trains."""
        words = [f"{one.run} {one.evaluations[-1][1]:.4g}" if one.evaluations else one.run for one in trials]
        self._bar.update(self._task, note=", ".join(words))

    def ended(self, trial: Trial, best: Trial | None) -> None:
        """A training has ended."""
        self._done += 1
        self._bar.update(self._task, completed=self._done)
        figure = f" {self._objective} {trial.value:.4g}" if trial.value is not None else f" ({trial.reason})"
        line = f"[{self._done}/{self._total}] {trial.run} {trial.state}{figure}, {trial.seconds:.0f} s"
        if best is not None:
            line += f"; best: trial {best.number} with {best.value:.4g}"
        if self._terminal:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)
