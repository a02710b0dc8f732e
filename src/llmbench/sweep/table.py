"""The trials as rows of a table, for the terminal and the report."""

from __future__ import annotations

import json

from llmbench.shown import clock
from llmbench.sweep.result import Sweep
from llmbench.sweep.trial import Trial

__all__ = ["rows", "shown", "value"]


def rows(sweep: Sweep) -> list[list[str]]:
    """The heading, then the trials, best first: trial, settings, objective, time, state."""
    heads = ["trial", *(short(key, sweep.keys) for key in sweep.keys), sweep.objective, "time", "tokens", "state"]
    return [heads, *([str(one.number), *(value(one, key) for key in sweep.keys), *_figures(one)] for one in sweep.ranked)]


def value(one: Trial, key: str) -> str:
    """A setting of a trial; a dash where it has none."""
    return shown(one.params[key]) if key in one.params else "-"


def shown(setting: object) -> str:
    """A setting as it is written in a recipe."""
    return setting if isinstance(setting, str) else json.dumps(setting)


def short(key: str, keys: tuple[str, ...]) -> str:
    """The last part of a dotted key, where no other key ends so."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def _figures(one: Trial) -> list[str]:
    return ["-" if one.figure is None else f"{one.figure:.4g}", clock(one.seconds), f"{one.tokens:,}", one.state]
