"""`llmbench index`: documents to an index; and what keeps one: verify, repair, pack, delete, switch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llmbench.cli.arguments import Json, Overrides, Pipeline
from llmbench.cli.terminal import print_json
from llmbench.errors import LlmbenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from llmbench.recipe import RagRecipe
    from llmbench.retrieval import IndexReport

__all__ = ["register"]

_SHOWN = 20
"""Skipped files that are named; the rest is counted."""


_Rebuild = Annotated[
    bool, typer.Option("--rebuild", help="Re-chunk and re-embed everything; searches use the old index meanwhile.")
]
_Stay = Annotated[bool, typer.Option("--stay", help="With --rebuild: keep the old index active until --use.")]
_Use = Annotated[int | None, typer.Option("--use", help="Search this generation from now on.", metavar="N")]
_Prune = Annotated[bool, typer.Option("--prune", help="Remove every generation but the one that is searched.")]
_Report = Annotated[
    bool,
    typer.Option(
        "--report", help="Report how much text was embedded, what is unknown to the embedder, and what is duplicated."
    ),
]
_FailUnder = Annotated[
    float | None,
    typer.Option(
        "--fail-under",
        min=0,
        max=100,
        metavar="PERCENT",
        help="With --report: exit with 1 when less than PERCENT of the text or of the files was embedded.",
    ),
]
_Verify = Annotated[bool, typer.Option("--verify", help="Check every row, vector and word; exit with 1 on a fault.")]
_Absent = Annotated[
    list[str] | None,
    typer.Option(
        "--absent",
        help="With --verify: also check that this text, or words no document has, are in no file of the index.",
        metavar="TEXT",
    ),
]
_Repair = Annotated[bool, typer.Option("--repair", help="Repair what can be rebuilt from the stored documents.")]
_Compact = Annotated[bool, typer.Option("--compact", help="Rewrite the index without deleted data.")]
_Delete = Annotated[
    list[str] | None,
    typer.Option("--delete", help="Delete documents by source; * and ? stand for any characters.", metavar="SOURCE"),
]
_Where = Annotated[
    str | None,
    typer.Option("--delete-where", help="Delete documents by a filter, such as '{\"year\": 2020}'.", metavar="JSON"),
]
_Engine = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="ray: read and embed on the machines of a Ray cluster (RAY_ADDRESS)."),
]
_Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait while another process writes the index.")]


def register(cli: typer.Typer) -> None:
    """Adds this job's verb."""
    cli.command("index", epilog="Example: `llmbench index rag/handbook.yaml`")(index)


def index(
    pipeline: Pipeline,
    overrides: Overrides = None,
    rebuild: _Rebuild = False,
    stay: _Stay = False,
    use: _Use = None,
    prune: _Prune = False,
    report: _Report = False,
    fail_under: _FailUnder = None,
    verify: _Verify = False,
    absent: _Absent = None,
    repair: _Repair = False,
    compact: _Compact = False,
    delete: _Delete = None,
    where: _Where = None,
    engine: _Engine = "local",
    wait: _Wait = 0,
    as_json: Json = False,
) -> None:
    """Bring a pipeline's index up to date with its documents; only what changed is read and embedded.

    Exit code 0: done; 1: nothing to search, a fault found by --verify, or a share below --fail-under; 2: an error.
    """
    from llmbench import recipe as recipes
    from llmbench.recipe import RagRecipe

    recipe = recipes.load(pipeline, RagRecipe, overrides or [])
    asked = {
        "--use": use is not None,
        "--prune": prune,
        "--verify": verify,
        "--repair": repair,
        "--compact": compact,
        "--delete": bool(delete or where is not None),
    }
    chosen = _alone([name for name, wanted in asked.items() if wanted], building=rebuild or report)
    if (stay and not rebuild) or (absent and not verify) or (fail_under is not None and not report):
        raise LlmbenchError("--stay goes with --rebuild, --absent with --verify, --fail-under with --report.")
    from llmbench.cli import index_care as care

    match chosen:
        case "--use":
            assert use is not None
            care.use(recipe, use, wait, as_json=as_json)
        case "--prune":
            care.prune(recipe, wait, as_json=as_json)
        case "--verify":
            care.verify(recipe, absent or [], as_json=as_json)
        case "--repair":
            care.repair(recipe, wait, as_json=as_json)
        case "--compact":
            care.compact(recipe, wait, as_json=as_json)
        case "--delete":
            care.delete(recipe, delete or [], where, wait, as_json=as_json)
        case _:
            done = _build(recipe, pipeline, rebuild=rebuild, stay=stay, engine=engine, wait=wait, as_json=as_json, quiet=report)
            if report:
                care.report(recipe, done.skipped, fail_under, as_json=as_json)


def _alone(chosen: list[str], *, building: bool) -> str:
    """The one thing to do beside indexing; empty when there is none."""
    if len(chosen) > 1 or (chosen and building):
        raise LlmbenchError(f"{chosen[0]} cannot be combined with another action. Run one after the other.")
    return chosen[0] if chosen else ""


def _build(
    recipe: RagRecipe,
    pipeline: str,
    *,
    rebuild: bool,
    stay: bool,
    engine: Literal["local", "ray"],
    wait: float,
    as_json: bool,
    quiet: bool,
) -> IndexReport:
    """Indexes and tells what it did; `quiet` leaves the telling in JSON to the report that follows."""
    from llmbench import retrieval
    from llmbench.shown import counted, printable

    with _bar() as progress:
        done = retrieval.build(
            recipe,
            rebuild=rebuild,
            switch=not stay,
            wait=wait,
            engine=engine,
            progress=progress,
            stdin=sys.stdin.buffer if sys.stdin is not None else None,
        )
    if as_json:
        if not quiet:
            print_json(_facts(done, recipe))
            if not done.chunks:
                raise typer.Exit(1)
        return done
    for what, found in (("skipped {}", done.skipped), ("kept {} as it was", done.kept)):
        for source, reason in found[:_SHOWN]:
            print(printable(f"{what.format(source)}: {reason}"), file=sys.stderr)
        if len(found) > _SHOWN:
            print(f"... and {len(found) - _SHOWN} more; --json lists them all", file=sys.stderr)
    for note in done.notes:
        print(printable(note), file=sys.stderr)
    counts = {"added": done.added, "changed": done.changed, "removed": done.removed, "unchanged": done.unchanged}
    counts["carried over"] = done.carried
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count) or "no documents"
    told += f", {len(done.skipped):,} skipped" if done.skipped else ""
    told += f", {len(done.kept):,} kept that cannot be read now" if done.kept else ""
    passages = counted(done.chunks, "passage")
    print(f"{recipe.name}: {told}. {passages}, {done.embedded:,} embedded now, in {done.seconds:.1f} s.")
    print(done.vectors["words"])
    if done.language:
        print(printable(done.language), file=sys.stderr)
    if not done.chunks and not quiet:  # a report that follows says so itself
        print("There is nothing in it to search: see what was skipped, and what the pipeline names.", file=sys.stderr)
        raise typer.Exit(1)
    if stay:
        print(f"Generation {done.generation} is ready. Switch over to it: llmbench index {pipeline} --use {done.generation}")
    else:
        print(f'Search it: llmbench search {pipeline} "..."')
    return done


def _facts(done: IndexReport, recipe: RagRecipe) -> dict[str, Any]:
    from dataclasses import asdict

    skipped, kept = ([{"source": source, "reason": reason} for source, reason in some] for some in (done.skipped, done.kept))
    return {"pipeline": recipe.name, **asdict(done), "skipped": skipped, "kept": kept}


def _bar() -> AbstractContextManager[Callable[[int, int, str], None]]:
    """A progress bar on stderr, as the function that moves it."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from llmbench.shown import printable

    columns = (
        TextColumn("Indexing"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )

    @contextmanager
    def bar() -> Iterator[Callable[[int, int, str], None]]:
        console = Console(stderr=True)
        # Where there is no terminal, a bar would leave an empty line in the log.
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("looking at the files", total=None)

            def move(done: int, total: int, source: str) -> None:
                progress.update(task, completed=done, total=total, description=escape(printable(source)))

            yield move

    return bar()
