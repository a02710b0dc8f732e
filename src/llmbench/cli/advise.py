"""`llmbench advise`: which models fit a machine, trained how, served at which precision."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmbench.cli import completion
from llmbench.cli.arguments import Json
from llmbench.cli.terminal import fits, listing, paragraph, print_json
from llmbench.errors import LlmbenchError
from llmbench.shown import counted

if TYPE_CHECKING:
    from llmbench.estimate.advice import Option, Task
    from llmbench.estimate.catalogue import Candidate
    from llmbench.estimate.experience import Factor
    from llmbench.estimate.measure import Hardware
    from llmbench.estimate.serving import Load

__all__ = ["register"]

GIB = 2**30
_NARROW = (0, 3, 4, 5, 6, 7, 9)
"""Columns of the table that stay in a narrow terminal: the model, and memory and time of training and serving."""
_MISSING = 24
"""Characters of what is missing that a wide terminal shows at least."""


def register(cli: typer.Typer) -> None:
    """Adds `advise`."""
    cli.command(
        epilog="Examples: `llmbench advise` · `llmbench advise --hardware 'RTX 4090' --task my.yaml --users 8` · "
        "`llmbench advise --hardware H100 --max-latency 20 --licence apache-2.0`"
    )(advise)


def _hardware(incomplete: str) -> list[str]:
    """`this` and the GPUs of the table, for the shell's completion."""
    from llmbench.estimate import gpus

    names = ["this", *(gpu.name for gpu in gpus.every())]
    return [name for name in names if name.lower().startswith(incomplete.lower())]


def _families(incomplete: str) -> list[str]:
    from llmbench.estimate import catalogue

    return [name for name in catalogue.families() if name.startswith(incomplete)]


def _licences(incomplete: str) -> list[str]:
    from llmbench.estimate import catalogue

    return [name for name in catalogue.licences() if name.startswith(incomplete)]


def _methods(incomplete: str) -> list[str]:
    from llmbench.estimate import advice

    return [name for name in advice.METHODS if name.startswith(incomplete)]


def advise(
    hardware: Annotated[
        str,
        typer.Option(metavar="GPU", help="`this` machine, measured; or a GPU by name.", autocompletion=_hardware),
    ] = "this",
    task: Annotated[
        Path | None,
        typer.Option(metavar="RECIPE", help="A training recipe, for its data and settings.", autocompletion=completion.recipes),
    ] = None,
    users: Annotated[int, typer.Option(min=1, help="Users who are answered at once.")] = 1,
    context: Annotated[int, typer.Option(min=2, help="Tokens of a user's prompt and answer.")] = 2048,
    answer: Annotated[int, typer.Option(min=1, help="Tokens of an answer, of the context.")] = 256,
    max_latency: Annotated[
        float, typer.Option(metavar="MS", min=0, help="Milliseconds between two tokens of an answer, at most.")
    ] = 200,
    max_first: Annotated[
        float | None, typer.Option(metavar="MS", min=0, help="Milliseconds to the first token, at most.")
    ] = None,
    max_hours: Annotated[float, typer.Option(metavar="HOURS", min=0, help="Hours of training, at most.")] = 24,
    family: Annotated[
        list[str] | None, typer.Option(help="Only models of this family; may be repeated.", autocompletion=_families)
    ] = None,
    licence: Annotated[
        list[str] | None, typer.Option(help="Only models of this licence; may be repeated.", autocompletion=_licences)
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Only this way to train: lora, qlora or full; may be repeated.", autocompletion=_methods),
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure this machine again.")] = False,
    as_json: Json = False,
) -> None:
    """Show which open models fit a machine: how to train them, at which precision to serve them, what to try first.

    Estimates memory, training time and speed from each model's configuration. Nothing is downloaded. Without --task, one
    million tokens of chats are assumed. Finished runs of this workspace correct the estimates for this machine.
    """
    from llmbench.estimate import advice
    from llmbench.estimate import gpus as table_of_gpus
    from llmbench.estimate import measure as measuring
    from llmbench.estimate.serving import Load

    models = _chosen(family, licence)
    methods = _known("--method", method, list(advice.METHODS))
    if answer >= context:
        raise LlmbenchError(f"--answer {answer}: leaves no room for a prompt in --context {context}. Set it lower")
    here = hardware.lower() == "this"
    if measure and not here:
        raise LlmbenchError(
            f"--measure measures this machine, and its figures are not those of {hardware}. Leave one of them out"
        )
    there = measuring.this(again=measure) if here else measuring.by_table(table_of_gpus.named(hardware))
    planned = advice.usual() if task is None else _planned(task)
    load = Load(users, context, answer)
    limits = advice.Ceiling(max_latency / 1e3, None if max_first is None else max_first / 1e3, max_hours)
    options, time, memory = advice.advise(models, there, load, planned, methods=methods, limits=limits)
    best = advice.by_model(options, there)
    if as_json:
        print_json(_document(options, best, there, load, planned, task, time, memory))
        return
    _head(there, load, planned, task, time, memory)
    _first(best[0], planned, task)
    _table(best)
    print()
    _foot(there)


def _chosen(family: list[str] | None, licence: list[str] | None) -> list[Candidate]:
    from llmbench.estimate import catalogue

    families = _known("--family", family, catalogue.families())
    licences = _known("--licence", licence, catalogue.licences())
    found = [model for model in catalogue.every() if model.family in families and model.licence in licences]
    if not found:
        raise LlmbenchError("No model has this family and this licence. Leave one of --family and --licence out")
    return found


def _known(option: str, given: list[str] | None, known: list[str]) -> list[str]:
    """What was asked for, or all.

    Raises:
        LlmbenchError: a word that is none of those known.
    """
    for word in given or ():
        if word not in known:
            raise LlmbenchError(f"{option} {word}: unknown. Choose from {', '.join(known)}")
    return given or known


def _planned(path: Path) -> Task:
    """The training of a recipe, with the lengths of its rows."""
    from llmbench import recipe
    from llmbench.cli.check import row_lengths
    from llmbench.estimate import advice

    document = recipe.load(path, recipe.TrainRecipe)
    advice.refuse_unknown(document)
    return advice.Task(document, *row_lengths(document))


def _head(there: Hardware, load: Load, planned: Task, path: Path | None, time: Factor | None, memory: Factor | None) -> None:
    """What was advised for, and how far to trust it."""
    rates = [f"{there.bandwidth / 1e9:,.0f} GB/s", f"{_tera(there.bf16)} TFLOP/s in bfloat16"]
    if there.fp8 is not None:
        rates.append(f"{_tera(there.fp8)} in fp8")
    how = "measured here" if there.measured else "stated by the maker"
    print(f"Hardware  {there.name}, {there.memory / GIB:.1f} GiB; {', '.join(rates)} ({how})")
    rows = f"{len(planned.lengths):,} rows" if path is not None else "assumed"
    print(f"Training  {planned.tokens:,.0f} tokens ({rows}), method {planned.recipe.method}")
    print(
        f"Serving   {counted(load.users, 'user')} at once, {load.prompt:,} tokens of prompt and {load.answer:,} of answer each"
    )
    if there.measured:
        print("Note      serving speeds on a CPU are rough: take them for an order of magnitude")
    for what, factor in (("time", time), ("memory", memory)):
        if factor is not None:
            spread = f"{factor.least:.2f} to {factor.most:.2f}"
            print(f"Corrected {what} x {factor.median:.2f}, the median of {factor.runs} finished runs here ({spread})")
    if there.here and time is None:
        print("Corrected by no run yet: from three finished runs on, their time and memory correct the training's")
    print()


def _first(option: Option, planned: Task, path: Path | None) -> None:
    """What to try first, with the reason and the commands; or that nothing fits."""
    if not option.fits:
        near = f"{option.model.name} ({option.method}, {option.answers.precision}): {', '.join(option.missing)}"
        paragraph(f"No model fits. The nearest is {near}. Ask for fewer users, a shorter context or higher limits.")
        print()
        return
    from llmbench.estimate import advice

    how = {"lora": "LoRA", "qlora": "QLoRA", "full": "all parameters"}[option.method]
    train, serve = f"{option.peak / GIB:.1f} GiB", f"{option.answers.peak / GIB:.1f} GiB"
    paragraph(
        f"Try first: {option.model.name} with {how}, served in {option.answers.precision}. Of the models that fit, it comes "
        f"first by size and age: it trains in {train} and {_duration(option.need.seconds)}, and answers in {serve}, one token "
        f"every {option.answers.token * 1e3:,.1f} ms."
    )
    recipe = path or Path("my.yaml")
    if path is None:
        print("\n    llmbench new sft-lora my.yaml      # then name your data in it")
    else:
        print()
    print(f"    llmbench train {recipe} {shlex.join(advice.overrides(option, planned))}")
    match option.answers.precision:
        case "fp8":
            print("    llmbench serve ... 'engine.extra_args=[--quantization, fp8]'")
        case "int8" | "w4a16":
            print(f"    # serve a checkpoint of it that is published in {option.answers.precision}")
    print()


def _table(best: list[Option]) -> None:
    """Prints a line for each model. A narrow terminal gets fewer columns, and a sentence for each model that does not fit."""
    rows = _rows(best)
    if not sys.stdout.isatty() or fits([[*row[:-1], row[-1][:_MISSING]] for row in rows]):
        listing(rows, shrink=(0, 11), right=(1, 4, 5, 7, 8, 9, 10))
        return
    shown = [rows[0], *(row for row in rows[1:] if not row[-1])]
    if shown[1:]:
        listing([[row[i] for i in _NARROW] for row in shown], shrink=(0,), right=(2, 3, 5, 6))
    for row in rows[1:]:
        if row[-1]:
            paragraph(f"{row[0]} does not fit: {row[-1]}")
    print()
    paragraph("A wider terminal, or a pipe, shows parameters, licence, first token and tokens/s too.")


def _rows(best: list[Option]) -> list[list[str]]:
    """The table: what fits, heaviest first, then what does not, with what is missing."""
    rows = [["model", "B", "licence", "train", "GiB", "time", "serve", "GiB", "first ms", "ms/token", "tokens/s", "missing"]]
    for option in best:
        served = option.answers
        rows.append(
            [
                option.model.name,
                f"{option.model.parameters / 1e9:,.1f}",
                option.model.licence,
                option.method,
                f"{option.peak / GIB:,.1f}",
                _duration(option.need.seconds),
                served.precision,
                f"{served.peak / GIB:,.1f}",
                f"{served.first * 1e3:,.0f}",
                f"{served.token * 1e3:,.1f}",
                f"{served.tokens_per_second:,.0f}",
                ", ".join(option.missing),
            ]
        )
    return rows


def _foot(there: Hardware) -> None:
    from llmbench.estimate import catalogue

    kept = f"{len(catalogue.every())} models are known"
    tested = (
        " Speeds of answers on a CPU are not proven."
        if there.device == "cpu"
        else " Speeds on GPUs were within a factor of 1.6 of seven published measurements."
    )
    paragraph(f"{kept}; how each figure is made, and how wrong it may be: docs/guide/advise.md.{tested}")


def _tera(rate: float) -> str:
    """FLOP/s in 10^12: whole ones, or two digits of a CPU's."""
    return f"{rate / 1e12:,.0f}" if rate >= 1e13 else f"{rate / 1e12:.2g}"


def _duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.4 h`, `12 d`."""
    for size, unit in ((86400 * 2, "d"), (5400, "h"), (90, "min")):
        if seconds >= size:
            value = seconds / {"d": 86400, "h": 3600, "min": 60}[unit]
            return f"{value:,.1f} {unit}" if unit == "h" else f"{value:,.0f} {unit}"
    return f"{seconds:,.0f} s"


def _document(
    options: list[Option],
    best: list[Option],
    there: Hardware,
    load: Load,
    planned: Task,
    path: Path | None,
    time: Factor | None,
    memory: Factor | None,
) -> dict[str, Any]:
    """Everything as JSON: bytes, seconds, FLOP/s."""
    from dataclasses import asdict

    from llmbench.estimate import advice

    first = best[0] if best[0].fits else None
    return {
        "schema": "llmbench.advise/1",
        "hardware": {key: value for key, value in asdict(there).items() if key != "machine"},
        "task": {"recipe": str(path) if path else None, "method": planned.recipe.method, "tokens": round(planned.tokens)},
        "load": asdict(load),
        "corrections": {"time": asdict(time) if time else None, "memory": asdict(memory) if memory else None},
        "first": None if first is None else _entry(first) | {"overrides": advice.overrides(first, planned)},
        "best": [_entry(option) for option in best],
        "options": [_entry(option) for option in options],
    }


def _entry(option: Option) -> dict[str, Any]:
    model, need, served = option.model, option.need, option.answers
    return {
        "model": model.name, "family": model.family, "licence": model.licence, "released": model.released,
        "parameters": model.parameters, "context": model.context, "method": option.method, "settings": option.settings,
        "train_memory": option.peak, "train_seconds": need.seconds, "train_tokens_per_second": need.tokens_per_second,
        "precision": served.precision, "serve_memory": served.peak, "weights": served.weights, "cache": served.cache,
        "first_token_seconds": served.first, "token_seconds": served.token, "tokens_per_second": served.tokens_per_second,
        "fits": option.fits, "missing": list(option.missing),
    }  # fmt: skip
