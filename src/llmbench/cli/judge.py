"""`llmbench judge`: judges of comparisons, held against people's labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench.cli import completion, listing
from llmbench.cli.arguments import Json
from llmbench.errors import LlmbenchError

if TYPE_CHECKING:
    from llmbench.compare import Comparison
    from llmbench.compare.judging.labels import Label

__all__ = ["register"]

Name = Annotated[str, typer.Argument(metavar="NAME", help="A comparison's name.", autocompletion=completion.comparisons)]


def register(cli: typer.Typer) -> None:
    """Adds this job's verbs."""
    group = typer.Typer(
        no_args_is_help=True,
        help="Hold the judge of a comparison against people's labels.",
        epilog="Example: `llmbench judge calibrate handbook --labels labels.jsonl`",
    )
    group.callback()(lambda: None)
    epilog = "Examples: `llmbench judge calibrate handbook --labels labels.jsonl` · `llmbench judge calibrate handbook --votes`"
    group.command(epilog=epilog)(calibrate)
    cli.add_typer(group, name="judge")


def calibrate(
    name: Name,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", metavar="FILE", help="People's labels as JSONL: question, a, b, winner; or question, variant, label."
        ),
    ] = None,
    votes: Annotated[bool, typer.Option("--votes", help="The votes that people cast on this comparison.")] = False,
    as_json: Json = False,
) -> None:
    """Measure how far a judge agrees with people, and combine both in one interval that holds however good the judge is.

    Needs 10 labels for every pair of variants (for rubric and checklist: for every variant), on questions drawn at random. Both
    the report and the figures are rewritten; the same labels count again when the comparison is run again.

    Exit code 0: calibrated; 2: an error, and nothing was changed.
    """
    from llmbench.cli.compare import show
    from llmbench.compare.calibrate import calibrate as calibrated
    from llmbench.compare.judging import labels as people

    if (labels is None) == (not votes):
        raise LlmbenchError("Give either --labels FILE or --votes.")
    found = calibrated(name, _cast if labels is None else lambda comparison: people.read(labels, comparison))
    listing.print_one(found, show, as_json)


def _cast(comparison: Comparison) -> list[Label]:
    """The votes on this comparison as labels, each known by the hashes of the answers that it is about."""
    from llmbench.compare.judging.labels import Label
    from llmbench.votes import ballots

    if (comparison.judges or {}).get("kind") != "pairwise":
        raise LlmbenchError(f"{comparison.name}: votes are of pairs, and its judge rates single answers. Give --labels FILE.")
    made = []
    for one in ballots(comparison.name):
        item = one.item
        if not one.counts or item.model_a not in comparison.variants or item.model_b not in comparison.variants:
            continue
        value = {"model_a": 1.0, "model_b": 0.0}.get(one.winner, 0.5)
        variants, answers = (item.model_a, item.model_b), (item.a, item.b)
        if comparison.variants.index(item.model_a) > comparison.variants.index(item.model_b):
            value, variants, answers = 1 - value, variants[::-1], answers[::-1]
        label = {1.0: "first", 0.0: "second"}.get(value, "tie")
        made.append(Label(item.question, variants, value, label, one.voter, answers))
    if not made:
        raise LlmbenchError(f"{comparison.name}: no vote on its variants counts. Vote: llmbench vote {comparison.name}")
    return made
