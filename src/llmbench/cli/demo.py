"""`llmbench demo`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from llmbench.demo import Display

_HELP = """Run the whole workbench on the bundled model: index, fine-tune, serve, compare.

Takes 3 to 6 minutes on two cores without a GPU, and up to 6 GB of memory. If it is
stopped or killed, the same command continues; a second run reuses the results.
"""


def register(cli: typer.Typer) -> None:
    """Adds this job's verbs."""
    cli.command(help=_HELP, epilog="Example: `llmbench demo`")(demo)


def demo(fresh: Annotated[bool, typer.Option("--fresh", help="Start over: repeat every step.")] = False) -> None:
    """Runs the demo, then prints the table, the verdict and what to do next."""
    from llmbench import demo as main_job
    from llmbench.cli.compare import show

    began = time.monotonic()
    display = _Terminal(main_job.STEPS) if sys.stderr.isatty() else _Lines(main_job.STEPS)
    with display:
        comparison = main_job.run(display, fresh=fresh)
    show(comparison)
    print(f"\nFinished in {_clock(time.monotonic() - began)}. Next:\n")
    for command, what in (
        ("llmbench app --serve recipes/serve.yaml", "ask the four variants side by side in the browser"),
        ("llmbench serve recipes/serve.yaml", "an OpenAI-compatible endpoint for other programs"),
        ('llmbench search rag/handbook.yaml "How heavy is the Bergaba camera?"', "search without a model"),
        ("llmbench new sft-lora my-recipe.yaml", "a recipe to edit"),
    ):
        print(f"  {command}\n      {what}")


def _clock(seconds: float) -> str:
    return f"{round(seconds) // 60} min {round(seconds) % 60} s"


class _Lines:
    """One line when a step begins, one when it ends: for logs."""

    def __init__(self, steps: tuple[str, ...]) -> None:
        self._steps = steps
        self._now = ""

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def begin(self, step: int) -> None:
        """A step starts, counted from 0."""
        self._now = f"[{step + 1}/{len(self._steps)}] {self._steps[step]}"
        self._tenths = 0
        print(f"{self._now} ...", file=sys.stderr, flush=True)

    def report(self, share: float | None, words: str) -> None:
        """A line for every quarter."""
        quarter = int(4 * (share or 0))
        if self._tenths < quarter < 4:
            self._tenths = quarter
            print(f"{self._now}: {25 * quarter} %  {words}", file=sys.stderr, flush=True)

    def end(self, words: str, seconds: float) -> None:
        """It is done."""
        print(f"{self._now}: {words}, {seconds:.0f} s", file=sys.stderr, flush=True)


class _Terminal:
    """All steps at once, each with its bar, what it is doing, and its time."""

    def __init__(self, steps: tuple[str, ...]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[words]}"),
            console=Console(stderr=True),
        )
        self._tasks = [self._progress.add_task(name, total=1.0, start=False, words="") for name in steps]
        self._now = self._tasks[0]

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def begin(self, step: int) -> None:
        """A step starts, counted from 0."""
        self._now = self._tasks[step]
        self._progress.start_task(self._now)

    def report(self, share: float | None, words: str) -> None:
        """How far it is; without a share the bar only pulses."""
        self._progress.update(self._now, total=None if share is None else 1.0, completed=share or 0.0, words=words)

    def end(self, words: str, seconds: float) -> None:
        """It is done."""
        self._progress.update(self._now, total=1.0, completed=1.0, words=words)
