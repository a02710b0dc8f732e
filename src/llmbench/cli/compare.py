"""`llmbench compare` and `llmbench comparisons`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench.cli import completion, listing
from llmbench.cli.arguments import Json, Overrides
from llmbench.cli.asking_bar import AskingBar
from llmbench.errors import LlmbenchError

if TYPE_CHECKING:
    from llmbench.compare import Comparison

__all__ = ["register", "show"]

Name = Annotated[str, typer.Argument(metavar="NAME", help="A comparison's name.", autocompletion=completion.comparisons)]


def register(cli: typer.Typer) -> None:
    """Adds this job's verbs."""
    cli.command(
        epilog="Examples: `llmbench compare recipes/compare.yaml questions.limit=40` · "
        "`llmbench compare recipes/compare.yaml --replay`"
    )(compare)
    epilog = "Examples: `llmbench comparisons` · `llmbench comparisons handbook` · `llmbench comparisons open handbook`"
    group = listing.group(comparisons, metavar="[NAME | COMMAND NAME]", epilog=epilog)
    group.command("show", epilog="Example: `llmbench comparisons handbook`")(show_one)
    group.command("open", epilog="Example: `llmbench comparisons open handbook`")(open_report)
    group.command(epilog="Example: `llmbench comparisons rm handbook --yes`")(rm)
    cli.add_typer(group, name="comparisons")


def compare(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A comparison recipe, such as recipes/compare.yaml.", autocompletion=completion.recipes
        ),
    ],
    overrides: Overrides = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Short for endpoint.base_url=URL: an OpenAI-compatible endpoint.")
    ] = None,
    as_json: Json = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over: ask every question again.")] = False,
    replay: Annotated[
        bool, typer.Option("--replay", help="Ask again and say whether the same answers come. Nothing is written.")
    ] = False,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Ask nothing: show the power of these questions, and their tokens."),
    ] = False,
) -> None:
    """Ask several variants the same questions and say, with statistics, which is better.

    After Ctrl-C, the same command continues where it stopped.

    Exit code 0: compared, or with --replay the same answers came; 1: with --replay other answers came; 2: an error, or a
    variant answered no question (the others are still compared); 130: Ctrl-C.
    """
    from llmbench import compare as comparing
    from llmbench import recipe as recipes
    from llmbench.cli import planned, replayed
    from llmbench.recipe import CompareRecipe

    values = [*(overrides or ()), *([f"endpoint.base_url={url}"] if url is not None else ())]
    document = recipes.load(recipe, CompareRecipe, values)
    if replay:
        if fresh:
            raise LlmbenchError("--replay asks for the answers that are there, and --fresh removes them. Choose one")
        replayed.replay(document, as_json)
        return
    if plan:
        planned.plan(document, as_json)
        return
    with AskingBar() as bar:
        result = comparing.run(
            document, progress=bar.show, measuring=bar.measuring, fresh=fresh, starting=bar.starting, say=bar.say,
            judged=bar.judging,
        )  # fmt: skip
    listing.print_one(result, show, as_json)
    _tell_trackers(result)
    if result.failed:  # The others are compared, but that is not all that was asked for.
        raise typer.Exit(2)


def _tell_trackers(comparison: Comparison) -> None:
    """Tells the trackers of the runs that were compared how each did. What fails is said, and the comparison stands."""
    from llmbench import runs, tracking

    known = {run.name: run for run in runs.every()}
    for variant in comparison.variants:
        adapter = comparison.listing.get(variant, {}).get("adapter")
        run = known.get(str(adapter.get("name") if isinstance(adapter, dict) else adapter))
        if run is None or variant in comparison.failed:
            continue
        place = f"compare/{comparison.name}/{variant}"
        values: dict[str, float] = {}
        for metric, estimates in comparison.estimates.items():
            if (found := estimates.get(variant)) is not None:
                values |= {
                    f"{place}/{metric}": found.mean,
                    f"{place}/{metric}_low": found.low,
                    f"{place}/{metric}_high": found.high,
                }
        try:
            tracking.tell(run, values, {f"compare.{comparison.name}.verdict": comparison.verdict}, [comparison.report])
        except LlmbenchError as error:
            print(error, file=sys.stderr)


def comparisons(context: typer.Context, as_json: Json = False) -> None:
    """List the comparisons, newest first; or show, open or remove one."""
    from llmbench import compare as comparing

    if context.invoked_subcommand is not None:
        return
    none = "No comparisons yet. Make one: llmbench compare recipes/compare.yaml"
    listing.print_all(comparing.every(), lambda one: one.verdict, as_json, none=none)


def show_one(name: Name, as_json: Json = False) -> None:
    """Show a comparison: its tables, verdict and files."""
    from llmbench import compare as comparing

    listing.print_one(comparing.load(name), show, as_json)


def open_report(name: Name) -> None:
    """Print the path of a comparison's report, and open it in the browser of a desktop."""
    from llmbench import compare as comparing

    listing.launch(comparing.load(name).report)


def rm(name: Name, yes: listing.Yes = False, as_json: Json = False) -> None:
    """Remove a comparison, finished or not, with its answers.

    Refuses to remove a folder that holds other files.

    Exit code 0: removed; 1: you answered no; 2: an error, and nothing was removed.
    """
    from llmbench import compare as comparing
    from llmbench import workspace

    question, done = f"Remove comparison {name} and its answers?", f"Removed comparison {name}."
    listing.drop(name, workspace.comparisons(), comparing.remove, yes, as_json, question=question, done=done)


def show(comparison: Comparison) -> None:
    """Prints the tables, the verdict and where the files are."""
    from llmbench.cli import terminal
    from llmbench.compare import table
    from llmbench.compare.judging import page
    from llmbench.compare.verdict import promised
    from llmbench.shown import printable

    if comparison.grid is not None:
        terminal.table(table.grid_rows(comparison, comparison.headline))
    names = list(comparison.estimates)
    wide = table.metric_rows(comparison, names)
    terminal.table(wide if terminal.fits(wide) else table.long_rows(comparison, names))
    pairs = table.pair_rows(comparison, comparison.headline)
    if pairs[1:]:
        terminal.table([[comparison.measure(comparison.headline).label, *pairs[0][1:]], *pairs[1:]])
    judges = (page.calibration_rows(comparison), page.habit_rows(comparison), page.controlled_rows(comparison))
    for rows in (
        table.effect_rows(comparison, comparison.headline), table.noise_rows(comparison, comparison.headline), *judges
    ):  # fmt: skip
        if rows:
            terminal.table(rows)
    terminal.paragraph(comparison.verdict)
    told = comparison.experiment
    for note in [*comparison.notes, *([told.passages] if told.passages and told.levels else []), *told.notes]:
        terminal.paragraph(note)
    for said in promised(comparison):
        terminal.paragraph(printable(said))
    for note in table.judge_notes(comparison):
        terminal.paragraph(printable(note))
    left = len(comparison.variants) - len(table.shown_variants(comparison))
    if left:
        print(f"{left:,} more variants and all pairs: see the report or summary.json.")
    print()
    if comparison.missing:
        print(f"{comparison.missing:,} answers failed and are left out. Run the same command again to retry them.\n")
    print(f"Report   {comparison.report}\nFigures  {comparison.summary}\nAnswers  {comparison.answers}")
    sys.stdout.flush()
    for variant, error in comparison.failed.items():
        print(f"{printable(variant)} answered no question: {printable(error)}", file=sys.stderr)
