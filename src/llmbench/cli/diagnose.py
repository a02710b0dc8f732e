"""`llmbench diagnose`: what is wrong with runs, with the evidence and the next thing to try."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmbench.cli.arguments import Json
from llmbench.cli.run_words import Names, sparkline
from llmbench.cli.terminal import print_json
from llmbench.errors import LlmbenchError
from llmbench.shown import printable

if TYPE_CHECKING:
    from llmbench.diagnosis import Diagnosis, Finding
    from llmbench.diagnosis.lr_range import RateRange
    from llmbench.runs import Run

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
    lr_range: Annotated[
        bool,
        typer.Option(
            "--lr-range", help="Train the run's recipe for some steps at a rising learning rate, plot the loss, suggest a rate."
        ),
    ] = False,
    steps: Annotated[int, typer.Option(min=40, metavar="N", help="Steps of --lr-range.")] = 100,
    low: Annotated[float, typer.Option("--from", metavar="RATE", help="The first rate of --lr-range.")] = 1e-6,
    high: Annotated[float, typer.Option("--to", metavar="RATE", help="The last rate of --lr-range.")] = 1.0,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 3 if there is an error or a warning, for CI.")] = False,
    as_json: Json = False,
) -> None:
    """Say what is wrong with a run, with the evidence and the next thing to try.

    Reads what a training recorded: losses, gradients by layer, LoRA's matrices, held-out losses row by row, the data report.
    A run that trains is judged by what it has recorded so far. Of several runs it also says whether their held-out losses
    differ by more than noise.

    --lr-range trains, in a folder of its own: the run stays as it is, and gets the curve (lr-range.svg) and its figures.

    Exit code 0: looked at; 2: an error; 3: with --strict, an error or a warning was found.
    """
    from llmbench import diagnosis, runs

    _check_range(lr_range, names, steps, low, high)
    if lr_range and strict:
        raise LlmbenchError("--strict judges a run as it was, and --lr-range tries rates: choose one.")
    opened = [runs.open_run(name) for name in dict.fromkeys(names)]
    if lr_range:
        _range(opened[0], steps, low, high, as_json)
        return
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


def _check_range(wanted: bool, names: list[str], steps: int, low: float, high: float) -> None:
    """Raises LlmbenchError for options that do not go together."""
    if not wanted:
        if (steps, low, high) != (100, 1e-6, 1.0):
            raise LlmbenchError("--steps, --from and --to are options of --lr-range: add it, or leave them out.")
        return
    if len(set(names)) > 1:
        raise LlmbenchError(f"--lr-range trains one recipe at a time. Choose one of: {', '.join(dict.fromkeys(names))}")
    if not 0 < low * 10 <= high < 1e3:
        raise LlmbenchError(f"--from {low:g} --to {high:g}: the rates must be above 0 and at least a factor of 10 apart.")


def _range(run: Run, steps: int, low: float, high: float, as_json: bool) -> None:
    """Trains at a rising rate, keeps what was seen in the run's folder, and shows it."""
    from llmbench import workspace
    from llmbench.diagnosis import lr_range
    from llmbench.training.ranging import range_test

    found = lr_range.read_range(range_test(run, low=low, high=high, steps=steps))
    workspace.write_json(run.folder / "lr-range.json", found.to_json())
    workspace.write_text(run.folder / "lr-range.svg", lr_range.picture(run.name, found))
    if as_json:
        print_json({"run": run.name, **found.to_json(), "picture": str(run.folder / "lr-range.svg")})
        return
    print("\n".join(_range_lines(run, found)))


def _range_lines(run: Run, found: RateRange) -> Iterator[str]:
    """The curve in one line of blocks, what it says, and what to do."""
    if found.smooth:
        top = found.smooth[0]
        yield f"  loss    {sparkline([min(x, 1.5 * top) for x in found.smooth], 48)}"
        yield f"  rate    {found.rates[0]:<24.0e}{found.rates[-1]:>24.0e}"
    for word, rate in (
        ("falls from", found.falls), ("steepest at", found.steepest), ("lowest at", found.lowest), ("turns up at", found.turns),
    ):  # fmt: skip
        if found.suggested:
            yield f"  {word:<12}{rate:.1e}" if rate else f"  {word:<12}no rate of this range"
    yield f"  picture   {run.folder / 'lr-range.svg'}"
    yield ""
    if found.suggested is None:
        yield f"No rate is suggested: {found.problem}."
        return
    now = float(run.recipe["training"]["learning_rate"])
    yield f"Try training.learning_rate={found.suggested:g} (the run had {now:g})."


def brief(run: Run) -> list[str]:
    """A line for each error and warning, as `llmbench runs NAME` shows them."""
    from llmbench import diagnosis

    return [f"  {one.severity:<7} {one.name} (more: llmbench diagnose {run.name})" for one in diagnosis.diagnose(run).alarms]


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
