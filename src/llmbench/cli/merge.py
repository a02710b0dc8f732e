"""`llmbench merge`."""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench.cli.arguments import Json
from llmbench.cli.terminal import print_json
from llmbench.errors import MissingPackage

if TYPE_CHECKING:
    from llmbench.training.merging.merge import Merged


class Onto(StrEnum):
    """Which weights of a quantised base an adapter is merged onto."""

    auto = "auto"
    dequantized = "dequantized"
    original = "original"


class Dtype(StrEnum):
    """Precision of the merged weights."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


_WORDS = {
    "base": "onto the base",
    "dequantized": "onto the dequantised base, as it was during training",
    "original": "onto the base's original weights",
}


def register(cli: typer.Typer) -> None:
    """Adds this job's verb."""
    cli.command("merge", epilog="Example: `llmbench merge sft-lora --dtype bfloat16`")(merge)


def merge(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A finished run with an adapter.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Where to write the model; RUN's `merged` by default."),
    ] = None,
    onto: Annotated[
        Onto,
        typer.Option(
            "--onto", help="For a quantised base: its dequantised weights, its original ones, or (auto) the closer of the two."
        ),
    ] = Onto.auto,
    dtype: Annotated[
        Dtype | None, typer.Option("--dtype", help="Precision of the merged weights; the base's by default.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing merged model.")] = False,
    as_json: Json = False,
) -> None:
    """Merge an adapter into its base, and verify that the merged model behaves like base + adapter."""
    from rich.console import Console

    from llmbench import runs

    found = runs.open_run(run)
    for package in ("torch", "transformers", "peft"):
        if find_spec(package) is None:
            raise MissingPackage("merge", package, "train")
    with Console(stderr=True).status("Merging and comparing"):
        from llmbench.training.merging import merge as merging

        result = merging.merge(found, output=output, dtype=dtype.value if dtype else None, onto=onto.value, overwrite=overwrite)
    if as_json:
        print_json(result.as_json())
    else:
        print("\n".join(_lines(result)))


def _lines(result: Merged) -> list[str]:
    """The folder, the proof, and what to do next."""
    lines = [
        f"Merged: {result.folder} ({result.dtype}, {_WORDS[result.onto]})",
        f"  base to base + adapter    {result.trained}  (what was trained)",
        f"  base + adapter to merged  {result.lost}  (allowed: {result.tolerance})",
    ]
    lines += [f"  {_WORDS[way]}: {far}" for way, far in result.candidates.items() if way != result.onto]
    lines.append(
        f"  greedy answers            {result.greedy_same} of {result.texts} as base + adapter; the training changed "
        f"{result.greedy_changed} ({result.rows} of the texts are from its training data)"
    )
    return [*lines, f"Next: serve it (in a serving recipe, model.model_name_or_path: {result.folder})"]
