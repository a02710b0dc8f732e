"""What `llmbench index build` does: documents to an index, with a bar, and what became of them in words."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Literal

import typer

from llmbench.cli.terminal import print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from llmbench.recipe import RagRecipe
    from llmbench.retrieval import IndexReport

__all__ = ["build"]

_SHOWN = 20
"""Skipped files that are named; the rest is counted."""


def build(
    recipe: RagRecipe,
    pipeline: str,
    *,
    rebuild: bool = False,
    stay: bool = False,
    engine: Literal["local", "ray"] = "local",
    wait: float = 0,
    as_json: bool = False,
) -> None:
    """Indexes and tells what it did; exits with 1 where there is nothing to search.

    `pipeline` is the recipe's file as the user named it.
    """
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
        print_json(_facts(done, recipe))
        if not done.chunks:
            raise typer.Exit(1)
        return
    for what, found in (("skipped {}", done.skipped), ("kept the indexed {}", done.kept)):
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
    told += f", {len(done.kept):,} unreadable now and kept" if done.kept else ""
    passages = counted(done.chunks, "passage")
    print(f"{recipe.name}: {told}. {passages}, {done.embedded:,} embedded now, in {done.seconds:.1f} s.")
    print(done.vectors["words"])
    if done.language:
        print(printable(done.language), file=sys.stderr)
    if not done.chunks:
        print("The index is empty. Check what was skipped, and `documents` in the pipeline.", file=sys.stderr)
        raise typer.Exit(1)
    if stay:
        print(f"Generation {done.generation} is ready. Switch to it: llmbench index use {pipeline} {done.generation}")
    else:
        print(f'Search it: llmbench search {pipeline} "..."')


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
            task = progress.add_task("scanning the files", total=None)

            def move(done: int, total: int, source: str) -> None:
                progress.update(task, completed=done, total=total, description=escape(printable(source)))

            yield move

    return bar()
