"""`llmbench diagnose`: what is wrong with runs, with the evidence and the next thing to try."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmbench.cli.arguments import Json
from llmbench.cli.run_words import Names
from llmbench.cli.terminal import print_json
from llmbench.shown import printable

if TYPE_CHECKING:
    from llmbench.diagnosis import Diagnosis, Finding

__all__ = ["brief", "register"]

_STRICT = 3
"""Exit code of `--strict` where something is wrong."""
_INDENT = " " * 10
_ROWS = 8


def register(cli: typer.Typer) -> None:
    """Adds this verb."""
    epilog = "Examples: `llmbench diagnose sft-lora` · `llmbench diagnose mine mine-2 --strict`"
    cli.command("diagnose", epilog=epilog)(diagnose)


def diagnose(
    names: Names,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if there is an error or a warning, for CI.")] = False,
    as_json: Json = False,
) -> None:
    """Say what is wrong with a run, with the evidence and the next thing to try.

    Reads what a training recorded: losses, gradients by layer, LoRA's matrices, held-out losses row by row, the data report.
    A run that trains is judged by what it has recorded so far. Of several runs it also says whether their held-out losses
    differ by more than noise.

    Exit code 0: looked at; 2: an error; 3: with --strict, an error or a warning was found.
    """
    from llmbench import diagnosis, runs

    opened = [runs.open_run(name) for name in dict.fromkeys(names)]
    looked = [diagnosis.diagnose(run) for run in opened]
    between = diagnosis.paired(opened)
    if as_json:
        one = looked[0].to_json() if len(looked) == 1 else None
        print_json(one or {"runs": [each.to_json() for each in looked], "between": [_plain(each) for each in between]})
    else:
        print("\n\n".join("\n".join(_lines(each)) for each in looked))
        if between:
            print("\n" + "\n".join(line for each in between for line in _finding(each)))
    if strict and (any(each.alarms for each in looked) or any(each.severity != "note" for each in between)):
        raise typer.Exit(_STRICT)


def brief(looked: Diagnosis) -> list[str]:
    """A line for each error and warning, as `llmbench runs NAME` shows them."""
    alarms = [f"  {one.severity:<7} {one.name} (llmbench diagnose {looked.run})" for one in looked.alarms]
    return [printable(line) for line in alarms]


def _plain(found: Finding) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(found), "change": list(found.change)}


def _lines(looked: Diagnosis) -> Iterator[str]:
    yield f"{looked.run}: {looked.state}, step {looked.step:,}: {looked.verdict}"
    for one in looked.findings:
        yield from _finding(one)
    if looked.unseen:
        yield "  Not looked at"
        for line in looked.unseen:
            yield from _folded("", f"- {line}", "    ")


def _finding(one: Finding) -> Iterator[str]:
    """A finding in lines that fit the terminal."""
    yield f"  {one.severity:<7} {one.name}"
    yield from _folded("seen", one.evidence)
    if one.rows:
        shown = ", ".join(one.rows[:_ROWS]) + (f" and {len(one.rows) - _ROWS} more" if len(one.rows) > _ROWS else "")
        yield from _folded("rows", shown)
    if one.steps and len(one.steps) > 1:
        yield from _folded("steps", ", ".join(f"{step:,}" for step in one.steps))
    yield from _folded("try", one.next)
    if one.change:
        yield from _folded("", " ".join(one.change))


def _folded(word: str, text: str, indent: str = "") -> Iterator[str]:
    """`    word  text`, folded at words on a terminal."""
    start = indent or f"    {word:<6}"
    text = printable(text)
    if not sys.stdout.isatty():
        yield start + text
        return
    width = max(shutil.get_terminal_size().columns, 40)
    yield from textwrap.wrap(
        text, width, initial_indent=start, subsequent_indent=indent + "  " if indent else _INDENT,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
