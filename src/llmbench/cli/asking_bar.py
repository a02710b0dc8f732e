"""How far the asking of a comparison is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import TaskID

    from llmbench.compare import Tally

__all__ = ["AskingBar"]


class AskingBar:
    """A bar on a terminal, a line for every tenth in a log."""

    def __init__(self, stopped: str = "") -> None:
        """`stopped` is what Ctrl-C says in place of how many answers are saved."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._terminal = sys.stderr.isatty()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not self._terminal,
        )
        self._task = self._bar.add_task("Asking", note="", total=None)
        self._last: Tally | None = None
        self._tenths = -1
        self._measuring: TaskID | None = None
        self._judging: TaskID | None = None
        self._phase, self._stopped = "", stopped

    def __enter__(self) -> AskingBar:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._bar.stop()
        last = self._last
        if kind is not None and issubclass(kind, KeyboardInterrupt) and last is not None:
            saved = f"{last.done} of {last.wanted} answers are saved. Run the same command again to continue."
            print(self._stopped or saved, file=sys.stderr)

    def show(self, tally: Tally) -> None:
        """Called after each answer."""
        self._last = tally
        if self._phase:
            self._phase = ""
            self._bar.update(self._task, description="Asking")
        self._count("Asking", self._task, tally)

    def starting(self, words: str, seconds: float) -> None:
        """Called while an engine starts, with what it does; a log gets a line for each phase."""
        if self._terminal:
            self._bar.update(self._task, description=f"{words} ({seconds:.0f} s)")
        elif words != self._phase:
            print(f"{seconds:5.1f} s  {words}", file=sys.stderr)
        self._phase = words

    def say(self, line: str) -> None:
        """A line that is worth knowing, above the bar."""
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def judging(self, tally: Tally) -> None:
        """Called after each judgement."""
        if self._judging is None:
            self._judging = self._bar.add_task("Judging", note="", total=tally.wanted)
            self._tenths = -1
        self._count("Judging", self._judging, tally)

    def measuring(self, done: int, total: int) -> None:
        """Called while the answers are scored and compared; a log gets a line where there is much to do."""
        if self._measuring is None:
            self._measuring = self._bar.add_task("Measuring", note="", total=total)
            if not self._terminal and total > 1_000:
                print(f"Measuring {total:,} steps", file=sys.stderr)
        self._bar.update(self._measuring, completed=done)

    def _count(self, doing: str, task: TaskID, tally: Tally) -> None:
        note = f"{tally.kept} reused" if tally.kept else ""
        note += f"{', ' if note else ''}{tally.failed} failed" if tally.failed else ""
        self._bar.update(task, completed=tally.done, total=tally.wanted, note=note)
        tenths = 10 * tally.done // max(1, tally.wanted)
        if not self._terminal and tenths > self._tenths:
            self._tenths = tenths
            print(f"{doing}: {tally.done} of {tally.wanted}{f' ({note})' if note else ''}", file=sys.stderr)
