"""`llmbench runs lineage`: from data and base to the run, and on to what was made with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from llmbench.cli.arguments import Json
from llmbench.cli.run_words import Name, short
from llmbench.cli.terminal import print_json

if TYPE_CHECKING:
    from llmbench.runs.lineage import Node

__all__ = ["register"]

_HASH = 12
_HASHES = ("sha256", "weights")
_TIMES = ("created", "served")


def register(group: typer.Typer) -> None:
    """Adds `lineage` to the verbs under `runs`."""
    group.command(epilog="Example: `llmbench runs lineage sft-lora`")(lineage)


def lineage(name: Name, as_json: Json = False) -> None:
    """Show what a run was made from and what was made with it.

    From: data files with their hashes and whether they changed since, the verb that made them, the base, and the runs that
    trained it. With: the adapter and its certificate, merged models, runs that started from it, replays, comparisons that asked
    it, and variants of serving recipes in the working directory. It tells what llmbench's own files record, and no more.
    """
    from llmbench import runs
    from llmbench.runs.lineage import lineage as traced

    origins, uses = traced(runs.open_run(name))
    if as_json:
        print_json({"name": name, "made_from": origins.as_json(), "made_with_it": uses.as_json()["children"]})
        return
    print(_line(origins))
    print("made from")
    print("\n".join(_tree(origins.children)))
    print("made with it")
    print("\n".join(_tree(uses.children)) if uses.children else "  nothing that llmbench's files record")


def _tree(nodes: tuple[Node, ...], indent: str = "") -> Iterator[str]:
    for i, node in enumerate(nodes):
        last = i == len(nodes) - 1
        yield f"{indent}{'└──' if last else '├──'} {_line(node)}"
        yield from _tree(node.children, f"{indent}{'    ' if last else '│   '}")


def _line(node: Node) -> str:
    """`data /home/me/rows.jsonl (train, 240 rows, sha256 ab12cd34ef56, unchanged)`."""
    facts = ", ".join(_fact(key, value) for key, value in node.facts.items())
    return f"{node.kind} {node.name}" + (f" ({facts})" if facts else "")


def _fact(key: str, value: Any) -> str:
    if key in _HASHES:
        return f"{key} {value[:_HASH]}"
    if key in _TIMES:
        return f"{key} {time.strftime('%Y-%m-%d %H:%M', time.localtime(value))}"
    if key in ("rows", "tokens"):
        return f"{value:,} {key}"
    if value is True:
        return key
    return str(value) if key in ("part", "now", "state", "method") else f"{key.replace('_', ' ')} {short(str(value))}"
