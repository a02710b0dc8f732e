"""`llmbench compare` and `llmbench comparisons`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench.verbs import completion

if TYPE_CHECKING:
    from llmbench.compare import Comparison, Tally
    from llmbench.compare.table import Rows

__all__ = ["register", "show"]


def register(cli: typer.Typer) -> None:
    """Adds this job's verbs."""
    cli.command()(compare)
    cli.command()(comparisons)


def compare(
    recipe: Annotated[
        str, typer.Argument(help="A comparison recipe, such as recipes/compare.yaml.", autocompletion=completion.recipes)
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, wins over the recipe.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON document.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ask everything again, also what was answered before.")] = False,
) -> None:
    """Ask several variants the same questions and say, with statistics, which is better.

    Stopped with Ctrl-C, it goes on where it was when the command is given again.

    Example: `llmbench compare recipes/compare.yaml questions.limit=40`
    """
    from llmbench import compare as comparing
    from llmbench import recipe as recipes
    from llmbench.recipe import CompareRecipe

    document = recipes.load(recipe, CompareRecipe, overrides or [])
    with _Bar() as bar:
        result = comparing.run(document, progress=bar.show, fresh=fresh)
    if as_json:
        print(json.dumps(result.to_json(), indent=2, ensure_ascii=False))
    else:
        show(result)


def comparisons(as_json: Annotated[bool, typer.Option("--json", help="Print them as one JSON document.")] = False) -> None:
    """List the comparisons, the newest first.

    Example: `llmbench comparisons`
    """
    from llmbench import compare as comparing

    found = comparing.every()
    if as_json:
        print(json.dumps([one.to_json() for one in found], indent=2, ensure_ascii=False))
        return
    if not found:
        print("No comparisons yet. Make one: llmbench compare recipes/compare.yaml")
    for one in found:
        print(f"{one.name}: {one.verdict}\n  {one.report}")


def show(comparison: Comparison) -> None:
    """Prints the verdict, the tables and where the files are."""
    from llmbench.compare import table
    from llmbench.compare.verdict import LABELS

    if comparison.grid is not None:
        _table(table.grid_rows(comparison, comparison.headline))
    _table(table.metric_rows(comparison, list(comparison.estimates)))
    if len(comparison.variants) > 1:
        rows = table.pair_rows(comparison, comparison.headline)
        _table([[LABELS[comparison.headline], *rows[0][1:]], *rows[1:]])
    print(f"{comparison.verdict}\n")
    if comparison.missing:
        print(f"{comparison.missing} answers failed and are left out. Run the same command to ask them again.\n")
    print(f"Report   {comparison.report}\nFigures  {comparison.summary}\nAnswers  {comparison.answers}")


def _table(rows: Rows) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(rows[0]):
        drawn.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows[1:]:
        drawn.add_row(*row)
    # A pipe has no width of its own: there every row stays on one line.
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200).print(drawn)


class _Bar:
    """A bar on a terminal, a line for every tenth in a log."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._terminal = sys.stderr.isatty()
        self._bar = Progress(
            TextColumn("Asking"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not self._terminal,
        )
        self._task = self._bar.add_task("", note="", total=None)
        self._last: Tally | None = None
        self._tenths = -1

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.stop()
        last = self._last
        if kind is not None and issubclass(kind, KeyboardInterrupt) and last is not None:
            print(f"{last.done} of {last.wanted} answers are kept. The same command goes on from there.", file=sys.stderr)

    def show(self, tally: Tally) -> None:
        """Called after each answer."""
        self._last = tally
        note = f"{tally.kept} kept from before" if tally.kept else ""
        note += f"{', ' if note else ''}{tally.failed} failed" if tally.failed else ""
        self._bar.update(self._task, completed=tally.done, total=tally.wanted, note=note)
        tenths = 10 * tally.done // max(1, tally.wanted)
        if not self._terminal and tenths > self._tenths:
            self._tenths = tenths
            print(f"Asking: {tally.done} of {tally.wanted}{f' ({note})' if note else ''}", file=sys.stderr)
