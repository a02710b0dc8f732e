"""What `llmbench index list` shows: a line for each index of the workspace."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from llmbench.assets import BUNDLED
from llmbench.cli import terminal
from llmbench.shown import printable

if TYPE_CHECKING:
    from llmbench.retrieval.index import inventory

__all__ = ["show"]

_NEXT = {"incomplete": "its build was interrupted", "outdated": "it was built by an earlier version of llmbench"}
"""States that the next run of `index` ends."""


def show(*, as_json: bool) -> None:
    """Prints the indexes; what is wrong with one, and what to do about it, goes to stderr."""
    from llmbench.retrieval.index import inventory

    found = inventory.every()
    if as_json:
        terminal.print_json([entry.to_json() for entry in found])
        return
    if not found:
        print("No indexes yet. Make one: llmbench index rag/handbook.yaml")
        return
    rows = [["index", "pipeline", "documents", "passages", "size", "built", "state"]]
    for entry in found:
        counts = ["" if count is None else f"{count:,}" for count in (entry.documents, entry.chunks)]
        names = [printable(entry.name), printable(_short(entry.pipeline))]
        rows.append([*names, *counts, f"{entry.bytes / 2**20:,.1f} MiB", _minute(entry.built), entry.state])
    terminal.listing(rows, shrink=(1, 0), right=(2, 3, 4))
    for entry in found:
        if said := _said(entry):
            print(printable(f"{entry.name}: {said}"), file=sys.stderr)


def _said(entry: inventory.Entry) -> str:
    """Why an index cannot be searched, or not all of it, and what to do about it; empty where nothing is to be done."""
    if entry.state not in _NEXT:
        return entry.reason
    return f"{_NEXT[entry.state]}. Run: llmbench index build {_short(entry.pipeline) or 'PIPELINE'}"


def _short(origin: str) -> str:
    """A pipeline as a command takes it: a bundled one by its name, one below the working directory from there."""
    path = Path(origin)
    return os.path.relpath(path) if path.is_absolute() and path.is_relative_to(Path.cwd()) else origin.removeprefix(BUNDLED)


def _minute(seconds: float | None) -> str:
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
