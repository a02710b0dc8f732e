"""`llmbench import`: a configuration of another trainer becomes a recipe, and what became of each setting is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from llmbench.cli.arguments import Json
from llmbench.cli.terminal import print_json
from llmbench.errors import LlmbenchError, RecipeError

if TYPE_CHECKING:
    from llmbench.importing import Imported

__all__ = ["register"]


class Peer(StrEnum):
    """Whose configuration it is."""

    llamafactory = "llamafactory"
    axolotl = "axolotl"
    trl = "trl"
    unsloth = "unsloth"
    torchtune = "torchtune"
    promptfoo = "promptfoo"
    evals = "evals"


class Kind(StrEnum):
    """What is made of it."""

    recipe = "recipe"
    questions = "questions"


_FATES = {
    "kept": "kept",
    "default": "default written out",
    "dropped": "dropped",
    "refused": "refused",
}


def register(cli: typer.Typer) -> None:
    """Adds `import`."""
    cli.command(
        "import",
        epilog="Examples: `llmbench import qlora.yml -o my.yaml` · `llmbench import train.sh --from trl` · "
        "`llmbench import promptfooconfig.yaml --to questions -o questions.jsonl`",
    )(import_)


def import_(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A configuration of LLaMA-Factory, axolotl, TRL, Unsloth or torchtune: YAML, JSON, a shell script, a Python "
            "script or a notebook. With --to questions: promptfoo's tests (YAML, JSON, CSV) or OpenAI Evals' samples (JSONL).",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write it here; printed by default.", show_default=False),
    ] = None,
    to: Annotated[
        Kind | None,
        typer.Option("--to", help="A training recipe (the default), or questions for a comparison.", show_default=False),
    ] = None,
    peer: Annotated[
        Peer | None,
        typer.Option("--from", help="Whose configuration it is; recognised by its content by default.", show_default=False),
    ] = None,
    dataset_info: Annotated[
        Path | None,
        typer.Option(
            "--dataset-info", metavar="PATH", help="LLaMA-Factory's dataset_info.json, or its folder.", show_default=False
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Overwrite an existing file.")] = False,
    as_json: Json = False,
) -> None:
    """Turn another trainer's configuration into a recipe, and report what becomes of each setting.

    Defaults of the other trainer that differ from llmbench's are written out. Nothing in the file is executed. Exit code 2:
    a setting that cannot be left out has no counterpart, so no recipe is written.

    With --to questions, tests of another harness become a question file and the metrics that fit; what is not mapped is listed.
    """
    from llmbench import importing, workspace

    harness = peer.value if peer is not None and peer.value in importing.HARNESSES else None
    if to is Kind.questions and peer is not None and harness is None:
        raise LlmbenchError(f"{peer.value} has no questions. Name one of {', '.join(importing.HARNESSES)} with --from.")
    if to is Kind.recipe and harness is not None:
        raise LlmbenchError(f"{importing.HARNESSES[harness]} has tests, not trainings. Use --to questions.")

    if output is not None and output.is_dir():
        raise LlmbenchError(f"{output} is a folder. Name a file: -o {output / (file.stem + '.yaml')}")
    if output is not None and (output.exists() or output.is_symlink()) and not overwrite:
        raise LlmbenchError(f"{output} already exists. Name another file, or overwrite it with --overwrite.")
    if to is Kind.questions or harness is not None:
        _questions(file, harness, output, as_json)
        return
    with _folder_of(output):
        result = importing.convert(file, peer.value if peer else None, into=output, dataset_info_file=dataset_info)
        if result.recipe is not None and output is not None:
            workspace.write_text(output, result.recipe)
    if as_json:
        print_json(result.as_json() | {"output": str(output) if output is not None and result.recipe is not None else None})
    else:
        _show(result, sys.stderr if output is None and result.recipe is not None else sys.stdout)
        if result.recipe is not None and output is None:
            print(result.recipe, end="")
        _next(result, output)
    if result.recipe is None:
        if as_json:
            raise typer.Exit(2)
        raise RecipeError("\n".join(result.unfit))


def _questions(file: Path, harness: str | None, output: Path | None, as_json: bool) -> None:
    """Makes questions of another harness's tests."""
    from llmbench import importing, workspace
    from llmbench.shown import printable

    with _folder_of(output):
        result = importing.questions(file, harness)
        if output is not None:
            workspace.write_text(output, result.jsonl)
    if as_json:
        print_json(result.as_json() | {"output": None if output is None else str(output)})
        return
    stream = sys.stderr if output is None else sys.stdout
    for one in result.not_mapped:
        print(f"Not mapped: {printable(one.where)}: {printable(one.what)} {printable(one.why)}", file=stream)
    if output is None:
        print(result.jsonl, end="")
    count = f"{len(result.rows):,} questions" if len(result.rows) != 1 else "1 question"
    print(f"{'Wrote' if output is not None else 'Made'} {count}{f' to {output}' if output is not None else ''}.", file=stream)
    print("In the recipe of a comparison:\n", file=stream)
    print(result.recipe("QUESTIONS.jsonl" if output is None else str(output.name)), end="", file=stream)


@contextmanager
def _folder_of(output: Path | None) -> Iterator[None]:
    """Makes the folder of the recipe, from which its paths start; takes back what stays empty."""
    missing = [] if output is None else [folder for folder in output.absolute().parents if not folder.exists()]
    try:
        for folder in reversed(missing):
            folder.mkdir()
    except OSError as error:
        raise LlmbenchError(f"{output} cannot be written ({error.strerror}). Name another file.") from error
    try:
        yield
    finally:
        for folder in missing:
            if not any(folder.iterdir()):
                folder.rmdir()


def _show(result: Imported, stream: TextIO) -> None:
    """The table of settings, fate by fate, and how many had each."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from llmbench.importing import PEERS
    from llmbench.shown import printable

    console = Console(file=stream, highlight=False, width=None if stream.isatty() else 200)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 0))
    for name in (PEERS[result.peer], "llmbench", "", "why"):
        table.add_column(name, overflow="fold")
    styles = {"kept": "", "default": "cyan", "dropped": "dim", "refused": "yellow"}
    for fate, style in styles.items():
        for one in result.translations:
            if one.fate == fate:
                theirs = f"{one.theirs}{_value(one.value)}"
                ours = "" if one.ours is None else f"{one.ours}{_value(one.becomes, unset='null')}"
                cells = [theirs, ours, _FATES[fate] if not one.fatal else "refused, cannot be left out", one.why]
                table.add_row(*(Text(printable(cell), style) for cell in cells))
    console.print(table)
    counts = result.counts
    told = f"{counts['kept']} kept, {counts['default']} defaults written out"
    console.print(f"{told}, {counts['dropped']} dropped, {counts['refused']} refused")


def _value(value: Any, unset: str = "") -> str:
    """`=8`, cut where it is long."""
    if value is None:
        return f"={unset}" if unset else ""
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        value = ", ".join(str(next(iter(one.values()), "")) for one in value)
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value).replace("\n", " ")
    return f"={text if len(text) <= 48 else f'{text[:45]}...'}"


def _next(result: Imported, output: Path | None) -> None:
    """What to do now."""
    if result.recipe is None:
        return
    for line in result.missing:
        print(f"Missing: {line}", file=sys.stderr if output is None else sys.stdout)
    if output is not None:
        then = "Put the missing files in place, then run" if result.missing else "Now run"
        print(f"Wrote {output}. {then}: llmbench check {output}")
