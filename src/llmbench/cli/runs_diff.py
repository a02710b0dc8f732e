"""`llmbench runs diff`: two runs side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmbench.cli import completion, terminal
from llmbench.cli.arguments import Json
from llmbench.cli.run_words import clock, short, sparkline
from llmbench.cli.terminal import print_json

if TYPE_CHECKING:
    from llmbench.runs import Run
    from llmbench.runs.diff import CurvePair, RunDiff
    from llmbench.runs.ingredients import Ingredient

__all__ = ["ingredient_lines", "register"]

_WIDTH = 36
"""Characters of a value in the table."""
_HASH = 12
_UNKNOWN = 5
"""Names that a line of what is not recorded lists."""
_CALLED = {"a": "A", "b": "B"}


def register(group: typer.Typer) -> None:
    """Adds `diff` to the verbs under `runs`."""
    group.command(epilog="Example: `llmbench runs diff sft-lora sft-lora-2`")(diff)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A run's name.", autocompletion=completion.runs)],
    b: Annotated[str, typer.Argument(metavar="B", help="Another run's name.", autocompletion=completion.runs)],
    as_json: Json = False,
) -> None:
    """Compare two runs: recipe, data, base, seed, packages, hardware, curves, figures and trained weights.

    Says whether both are the same training, what differs, and at which step their curves part. It reads the runs' files only.

    Exit code 0: compared, whatever was found; 2: an error.
    """
    from llmbench import runs
    from llmbench.runs import diff as comparing

    one, other = runs.open_run(a), runs.open_run(b)
    found = comparing.diff(one, other)
    if as_json:
        print_json(found.as_json())
        return
    _settings(found)
    _figures(found)
    for line in [*ingredient_lines(found.ingredients), *_curves(found, one, other)]:
        print(line)
    for sentence in _verdict(found):
        terminal.paragraph(sentence)


def _settings(found: RunDiff) -> None:
    rows = [["recipe", f"A  {found.a}", f"B  {found.b}"]]
    kinds = {"matters": "", "shown": " (logging only)", "place": " (same content)", "chosen": " (same choice)"}
    rows += [[f"{one.place}{kinds[one.kind]}", _value(one.a), _value(one.b)] for one in found.settings]
    if len(rows) == 1:
        rows.append(["(the same)", "", ""])
    terminal.listing(rows, shrink=(1, 2, 0))
    print()


def _figures(found: RunDiff) -> None:
    rows = [["figures", "A", "B"]]
    rows += [[name.replace("_", " "), _figure(name, a), _figure(name, b)] for name, (a, b) in found.figures.items()
             if (a, b) != (None, None)]  # fmt: skip
    rows.append(["weights (sha256)", *(_value(one) if one else "none" for one in found.results)])
    terminal.listing(rows, shrink=(0,), right=(1, 2))
    print()


def _figure(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "seconds":
        return clock(value)
    if name == "peak_memory":
        return f"{value / 2**30:.2f} GiB"
    if name == "tokens_per_second":
        return f"{value:,.0f}"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def ingredient_lines(ingredients: tuple[Ingredient, ...] | list[Ingredient]) -> Iterator[str]:
    """What differs, a line each, then what one of the two does not record, then how much is the same."""
    for one in ingredients:
        if one.state == "differs":
            yield f"  differs       {one}"
    unknown = [one for one in ingredients if one.state == "not recorded"]
    if unknown:
        names = ", ".join(f"{one.part}: {one.name}" for one in unknown[:_UNKNOWN])
        more = f" and {len(unknown) - _UNKNOWN} more" if len(unknown) > _UNKNOWN else ""
        yield f"  not recorded  {names}{more}"
    same = [one for one in ingredients if one.state == "same"]
    parts = ", ".join(dict.fromkeys(one.part for one in same if not any(
        other.part == one.part and other.state != "same" for other in ingredients)))  # fmt: skip
    if parts:
        yield f"  same          {parts}"


def _curves(found: RunDiff, a: Run, b: Run) -> Iterator[str]:
    from llmbench.runs.diff import curves

    sides = [curves(run) for run in (a, b)]
    for pair in found.curves:
        values = [[side[pair.metric][step] for step in sorted(side[pair.metric])] for side in sides]
        span = min(map(min, values)), max(map(max, values))
        label = "held out" if pair.metric == "eval_loss" else pair.metric.removeprefix("eval_").replace("_", " ")
        yield ""
        for name, curve in zip(_CALLED.values(), values, strict=True):
            yield f"  {label:<10} {name} {curve[0]:.4f} {sparkline(curve, span=span)} {curve[-1]:.4f}"
        yield f"  {'':<10}   {_apart(pair)}"


def _apart(pair: CurvePair) -> str:
    steps = f"{pair.steps} common step{'s' * (pair.steps != 1)}"
    if pair.first is None:
        return f"equal at {steps}"
    return (
        f"differ from step {pair.first} on; at most {pair.largest:.2g} ({pair.relative:.2g} of the value) at step {pair.at}, "
        f"of {steps}"
    )


def _verdict(found: RunDiff) -> Iterator[str]:
    yield ""
    if found.unlike:
        yield f"Different trainings: {_list(found.unlike)} differ{'s' * (len(found.unlike) == 1)}."
    elif found.unknown:
        names = _list(dict.fromkeys(one.part for one in found.unknown))
        yield f"The same training, as far as both runs record it (not recorded by one of them: {names})."
    else:
        yield "The same training: recipe, data, base, template and seed are equal."
    if found.same_weights:
        yield "The same result: the trained weights are equal bit for bit."
    elif found.parts_at is not None:
        yield f"The results differ: the curves part at step {found.parts_at}."
    elif found.same_weights is False:
        yield "The results differ: the logged curves are equal, the trained weights are not."


def _list(names: Any) -> str:
    """`recipe, data and seed`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else str(last)


def _value(value: Any) -> str:
    """A value in one cell: a hash by its beginning, nested values as JSON."""
    if isinstance(value, str):
        is_hash = len(value) == 64 and all(sign in "0123456789abcdef" for sign in value)
        return value[:_HASH] if is_hash else short(value, _WIDTH)
    return short("none" if value is None else json.dumps(value, ensure_ascii=False), _WIDTH)
