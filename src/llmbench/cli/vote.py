"""`llmbench vote` and `llmbench votes`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench.cli import completion, listing, terminal
from llmbench.cli.arguments import Json
from llmbench.errors import LlmbenchError
from llmbench.shown import counted, printable

if TYPE_CHECKING:
    from llmbench.votes import VoteResult

__all__ = ["register", "show"]

Compared = Annotated[str, typer.Argument(metavar="NAME", help="A comparison's name.", autocompletion=completion.comparisons)]
Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="A comparison that was voted on, or imported votes.", autocompletion=completion.votes),
]


def register(cli: typer.Typer) -> None:
    """Adds this job's verbs."""
    cli.command(epilog="Examples: `llmbench vote handbook` · `llmbench vote handbook --rater ada --limit 20`")(vote)
    epilog = "Examples: `llmbench votes` · `llmbench votes handbook` · `llmbench votes handbook --style length`"
    group = listing.group(votes, metavar="[NAME | COMMAND NAME]", epilog=epilog)
    group.command("show", epilog="Example: `llmbench votes handbook`")(show_one)
    cli.add_typer(group, name="votes")


def vote(
    name: Compared,
    rater: Annotated[
        str | None,
        typer.Option("--rater", metavar="NAME", help="Who votes. Default: anonymous, the same for you on this machine."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Stop after N votes.", show_default=False)
    ] = None,
    latency: Annotated[
        str,
        typer.Option(
            metavar="hidden|paced|shown",
            help="hidden: both answers at once. paced: both after the slower one's time. shown: with the time each took.",
        ),
    ] = "hidden",
    overlap: Annotated[
        float, typer.Option(min=0, max=1, help="Share of votes on what others have voted on, by which agreement is known.")
    ] = 0.2,
    checks: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of attention checks: the same answer twice, or one with its words shuffled."),
    ] = 0.05,
    plain: Annotated[bool, typer.Option("--plain", help="Type words in place of keys: for screen readers and pipes.")] = False,
    as_json: Json = False,
) -> None:
    """Vote on the answers of a comparison: two at a time, without names, on sides by chance.

    Each vote is saved at once. Stop with q, and the same command continues.

    Exit code 0: stopped or all voted on; 2: an error; 130: Ctrl-C (what was voted is saved).
    """
    from llmbench import votes as voting
    from llmbench.cli import voting as asking
    from llmbench.cli import voting_screen
    from llmbench.votes.values import LATENCIES

    known = next((one for one in LATENCIES if one == latency), None)
    if known is None:
        raise LlmbenchError(f"--latency {latency[:40]!r}: choose one of {', '.join(LATENCIES)}.")
    booth = voting.Booth(name, rater, voting.Plan(overlap, checks, known))
    say = (lambda text: print(text, file=sys.stderr, flush=True)) if as_json else (lambda text: print(text, flush=True))
    try:
        if voting_screen.possible() and not plain and not as_json:
            cast = voting_screen.screen(booth, limit)
        else:
            cast = asking.lines(booth, limit, source=sys.stdin, out=say)
    except KeyboardInterrupt:
        print(f"\n{_so_far(booth)}", file=sys.stderr)
        raise
    progress = booth.progress()
    if as_json:
        terminal.print_json({"name": name, "voter": booth.voter, "cast": cast, **vars(progress), "file": str(booth.file)})
        return
    print(f"\n{_so_far(booth)}\nResult: llmbench votes {name}")


def _so_far(booth: object) -> str:
    from llmbench.votes import Booth

    assert isinstance(booth, Booth)
    progress = booth.progress()
    left = f"{progress.left:,} left; the same command continues." if progress.left else "nothing is left."
    return f"{counted(progress.cast, 'vote')} by {printable(booth.voter)} saved, {left}"


def votes(context: typer.Context, as_json: Json = False) -> None:
    """Show what people's votes say: a rating with intervals, the voters' agreement, how many more votes it takes."""
    from llmbench import votes as voting

    if context.invoked_subcommand is not None:
        return
    found = [voting.result(name) for name in voting.names()]
    if as_json:
        terminal.print_json([one.to_json() for one in found])
        return
    if not found:
        print("No votes yet. Vote on a comparison: llmbench vote NAME")
    for one in found:
        print(f"{one.name}: {printable(one.verdict())}\n  {one.file}")


def show_one(
    name: Name,
    style: Annotated[
        list[str] | None,
        typer.Option("--style", metavar="STYLE", help="Hold equal: length, lists, headers, bold; again for several, or all."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", metavar="VOTER", help="Leave out this voter; again for several.")
    ] = None,
    cluster: Annotated[
        str,
        typer.Option(metavar="voter|question|both|none", help="Which votes count together in the intervals."),
    ] = "both",
    bootstrap: Annotated[
        int, typer.Option(min=0, max=10_000, metavar="N", help="Intervals by N draws of the voters; 0: in closed form.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Show what the votes on one comparison say."""
    from llmbench import votes as voting
    from llmbench.votes.tally import STYLES

    ways = {"both": ("voter", "question"), "voter": ("voter",), "question": ("question",), "none": ()}
    if cluster not in ways:
        raise LlmbenchError(f"--cluster {cluster[:40]!r}: choose one of {', '.join(ways)}.")
    asked = list(STYLES) if style == ["all"] else style or []
    for one in asked:
        if one not in STYLES:
            raise LlmbenchError(f"--style {one[:40]!r}: choose of {', '.join(STYLES)}, or all.")
    found = voting.result(name, by=ways[cluster], styles=asked, without=without or (), bootstrap=bootstrap)
    if as_json:
        terminal.print_json(found.to_json())
    else:
        show(found)


def show(found: VoteResult) -> None:
    """Prints the ratings, the pairs, the voters, the verdict and where the votes are."""
    from llmbench.votes import tables

    for rows in (tables.strengths(found), tables.leads(found), tables.voters(found)):
        if rows[1:]:
            terminal.table([[printable(cell) for cell in row] for row in rows])
    for line in tables.lines(found):
        terminal.paragraph(printable(line))
    terminal.paragraph(printable(found.verdict()))
    for note in found.notes:
        terminal.paragraph(printable(note))
    print(f"\nVotes  {Path(found.file)}")
