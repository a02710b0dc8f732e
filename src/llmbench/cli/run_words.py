"""What the verbs about runs share: a run's name as an argument, curves of one line, and times."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import typer

from llmbench import shown
from llmbench.cli import completion

__all__ = ["Name", "Names", "clock", "short", "sparkline"]

_BARS = "▁▂▃▄▅▆▇█"
Name = Annotated[str, typer.Argument(metavar="RUN", help="A run's name.", autocompletion=completion.runs)]
Names = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="The names of one run or several.", autocompletion=completion.runs)
]


def sparkline(values: Sequence[float], width: int = 40, *, span: tuple[float, float] | None = None) -> str:
    """A curve in at most `width` characters, each the mean of its share of the values.

    `span` is the lowest and the highest value of the scale, so that curves next to each other have one; their own if not given.
    """
    count = min(width, len(values))
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = span or (min(means), max(means))
    return "".join(_BARS[round(min(max((v - low) / (high - low or 1), 0), 1) * (len(_BARS) - 1))] for v in means)


def clock(seconds: float | None) -> str:
    """`1:02:03` or `2:03`; nothing for None."""
    return "" if seconds is None else shown.clock(seconds)


def short(text: str, width: int = 60) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
