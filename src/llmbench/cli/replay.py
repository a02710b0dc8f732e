"""`llmbench replay`: a recorded run, trained once more and compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmbench.cli.arguments import Json
from llmbench.cli.run_words import Name
from llmbench.cli.runs_diff import ingredient_lines
from llmbench.cli.terminal import paragraph, print_json
from llmbench.errors import RunError

if TYPE_CHECKING:
    from llmbench.runs import Run
    from llmbench.training.replaying import Check, Replay

__all__ = ["register"]

_SUFFIX = "-replay"
_LONGEST = 64
"""Characters of a run's name."""


def register(cli: typer.Typer) -> None:
    """Adds this verb."""
    cli.command("replay", epilog="Examples: `llmbench replay sft-lora --verify` · `llmbench replay sft-lora --steps 20`")(
        replay
    )


def replay(
    name: Name,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, metavar="N", help="Stop after N steps.", show_default=False)
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only verify that the ingredients are those recorded; train nothing.")
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Train although data, base or template are not those recorded.")
    ] = False,
    called: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="The new run's name; RUN-replay if not given.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run of the new name.")] = False,
    as_json: Json = False,
) -> None:
    """Train a recorded run once more, from its lock and resolved recipe, and compare it with the recording.

    First it compares the ingredients: data, base, template, seed, packages, hardware. Then it trains in a run of its own and
    compares the loss of every logged step and, at the end, the trained weights, tensor by tensor. The verdict is `same bits`,
    `same within tolerance` or `differs`, with what differs in the ingredients and the first step at which the losses part.

    Exit code 0: the same, in bits or within the tolerance; 1: it differs; 2: an error, or data or base changed and --anyway was
    not given; 130: stopped with Ctrl-C.
    """
    from llmbench import runs

    recorded = runs.open_run(name)
    if verify and (steps is not None or anyway or overwrite):
        raise RunError("--verify trains nothing: leave out --steps, --anyway and --overwrite.")
    checked = _checked(recorded, called or f"{name[: _LONGEST - len(_SUFFIX)]}{_SUFFIX}")
    if verify:
        _say_verified(checked, as_json)
        if not checked.same:
            raise typer.Exit(1)
        return
    if not as_json:
        print(f"Replaying {name}")
        print("\n".join([*ingredient_lines(checked.ingredients), *(f"  note          {note}" for note in checked.notes)]))
    from llmbench.training.replaying import replay as again

    done = again(checked, steps=steps, anyway=anyway, overwrite=overwrite)
    if as_json:
        print_json(_record(done, checked))
    else:
        _say(done, checked)
    if not done.verdict.same:
        raise typer.Exit(1)


def _checked(recorded: Run, called: str) -> Check:
    """The ingredients, with a word on a terminal while the libraries are loaded."""
    from rich.console import Console

    from llmbench import workspace

    workspace.check_name(called, "run")
    if called == recorded.name:
        raise RunError(f"--name {called}: a replay has a run of its own. Choose another name.")
    with Console(stderr=True).status("Comparing the ingredients"):
        from llmbench.training.replaying import check

        return check(recorded, called)


def _say_verified(checked: Check, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "run": checked.run.name,
                "same": checked.same,
                "obstacles": list(checked.obstacles),
                "ingredients": [one.as_json() for one in checked.ingredients],
                "notes": list(checked.notes),
            }
        )
        return
    print("\n".join([*ingredient_lines(checked.ingredients), *(f"  note          {note}" for note in checked.notes)]))
    for obstacle in checked.obstacles:
        paragraph(f"{checked.run.name} cannot be replayed: {obstacle}")
    if not checked.obstacles:
        differ = sum(one.state == "differs" for one in checked.ingredients)
        recorded = sum(one.state != "not recorded" for one in checked.ingredients)
        said = f"All {recorded} recorded ingredients" if not differ else f"{differ} of {recorded} recorded ingredients differ;"
        paragraph(f"{said} {'are the same here.' if not differ else 'the others are the same here.'}")


def _record(done: Replay, checked: Check) -> dict[str, Any]:
    return {
        "run": checked.run.name,
        "replay": done.run.name,
        "steps": done.steps,
        "whole": done.whole,
        **done.verdict.as_json(),
        "notes": list(checked.notes),
    }


def _say(done: Replay, checked: Check) -> None:
    verdict = done.verdict
    loss = next((pair for pair in verdict.curves if pair.metric == "loss"), None)
    if loss is not None:
        apart = "equal" if loss.first is None else f"part at step {loss.first}, at most {loss.relative:.1e} of the value"
        print(f"  losses        {loss.steps} logged steps: {apart}")
    others = ", ".join(pair.metric for pair in verdict.curves if pair.metric != "loss" and pair.first is not None)
    if others:
        print(f"  also differ   {others}")
    print(f"  weights       {_weights(done)}")
    print("\n".join(_causes(done)))
    allowed = verdict.tolerance
    words = {
        "same bits": "The same bits.",
        "same within tolerance": f"The same within the tolerance of {allowed.dtype}: losses within {allowed.loss:g} of their "
        f"value, weights within {allowed.weights:g} of their size.",
        "differs": f"It differs by more than rounding explains in {allowed.dtype} (losses within {allowed.loss:g} of their "
        f"value, weights within {allowed.weights:g} of their size).",
    }
    if verdict.other_training:
        words["differs"] = "It differs, as another training does: what it was trained on is not what was recorded."
    part = "" if done.whole else f" Compared up to step {done.steps}."
    paragraph(f"{words[verdict.word]}{part} The new run: {done.run.folder}")


def _weights(done: Replay) -> str:
    pair = done.verdict.weights
    if pair is None:
        return f"not compared: the recording kept none of step {done.steps} or before"
    if pair.same_bits:
        return f"{pair.what}: {pair.tensors} tensors equal bit for bit"
    unpaired = f"; only one of the two has {pair.unpaired[0]}" if pair.unpaired else ""
    return (
        f"{pair.what}: {pair.differing} of {pair.tensors} tensors differ, at most by {pair.largest:.1e} of their size "
        f"({pair.worst}){unpaired}"
    )


def _causes(done: Replay) -> Iterator[str]:
    """What differs in the ingredients, where the result does."""
    verdict = done.verdict
    if verdict.word == "same bits":
        return
    for one in verdict.changed:
        yield f"  cause?        {one}"
    if not verdict.changed:
        names = json.dumps(sorted({one.part for one in verdict.unknown})) if verdict.unknown else ""
        yield "  cause?        no recorded ingredient differs" + (f"; not recorded: {names}" if names else "")
