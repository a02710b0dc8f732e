"""`llmbench vote` and `llmbench votes`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmbench.cli import completion, listing, terminal
from llmbench.cli.arguments import Json
from llmbench.errors import LlmbenchError
from llmbench.shown import counted, printable

if TYPE_CHECKING:
    from llmbench.votes import VoteResult
    from llmbench.votes.export import ExportedVotes

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
    group.command(epilog="Example: `llmbench votes export handbook --format dpo --to pairs.jsonl --hold-out 0.3`")(export)
    group.command("import", epilog="Example: `llmbench votes import human.parquet --name mt-bench`")(import_)
    group.command(epilog="Example: `llmbench votes rm handbook --yes`")(rm)
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
    """Vote on the answers of a comparison: two at a time, without names, on random sides.

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


def export(
    name: Name,
    to: Annotated[Path, typer.Option("--to", "-o", metavar="FILE", help="Where to write the rows (JSONL).")],
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="dpo|kto|sft",
            help="dpo: pairs, for dpo, orpo and reward. kto: answers marked good or bad. sft: the better answers.",
        ),
    ] = "dpo",
    hold_out: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="Share of questions to keep out of training, written next to FILE, to compare on."),
    ] = 0.0,
    least: Annotated[int, typer.Option(min=1, metavar="N", help="Only pairs that N voters decided.")] = 1,
    without: Annotated[
        list[str] | None, typer.Option("--without", metavar="VOTER", help="Leave out this voter; again for several.")
    ] = None,
    named: Annotated[
        bool, typer.Option("--named", help="Write voters' names; else only which rows are of the same one.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Overwrite existing files.")] = False,
    as_json: Json = False,
) -> None:
    """Write votes as rows to train on, each with where it comes from.

    Votes on questions of a test split are refused unless some are held out: what is trained on cannot be measured on.
    """
    from llmbench.runs.made import record
    from llmbench.votes import export as exporting

    known = next((one for one in exporting.FORMATS if one == format_), None)
    if known is None:
        raise LlmbenchError(f"--format {format_[:40]!r}: choose one of {', '.join(exporting.FORMATS)}.")
    beside = to.with_name(f"{to.stem}.questions.jsonl")
    for file in (to, beside) if hold_out else (to,):
        if file.is_dir() or (file.exists() and not overwrite):
            raise LlmbenchError(f"{file} already exists. Name another file, or overwrite it with --overwrite.")
    made = exporting.export(name, known, hold_out=hold_out, without=without or (), least=least, named=named)
    _write(to, made.rows)
    record(to, "votes export", comparison=name, format=known, rows=len(made.rows), hold_out=hold_out)
    if made.held:
        _write(beside, made.questions)
    facts = {
        "file": str(to),
        "rows": len(made.rows),
        "questions": made.trained,
        "held_out": made.held,
        "left_out": dict(made.left),
    }
    if as_json:
        terminal.print_json(facts | {"questions_file": str(beside) if made.held else None})
        return
    _tell(made, known, to, beside)


def _write(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    from llmbench import workspace

    workspace.write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _tell(made: ExportedVotes, format_: str, to: Path, beside: Path) -> None:
    print(f"{to}: {counted(len(made.rows), 'row')} from {counted(made.trained, 'question')}.")
    for reason, count in made.left.items():
        print(f"  {counted(count, 'pair')} left out: {reason}")
    recipe = {"dpo": "dpo.yaml", "kto": "kto.yaml", "sft": "sft-lora.yaml"}[format_]
    train = shlex.quote(f"data.train=[{{path: {json.dumps(str(to))}}}]")
    print(f"Train on it: llmbench train recipes/{recipe} name=voted {train}")
    if made.held:
        print(
            f"{beside}: {counted(made.held, 'question')} of which nothing is trained on. "
            f"Compare on these: questions.path={beside}"
        )
    else:
        print("Compare on other questions, or set some apart: --hold-out 0.3")


def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Votes: .jsonl, .json, .csv or .parquet.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The name of these votes in this workspace.")],
    left: Annotated[
        str | None,
        typer.Option(
            "--left", metavar="a|b", help="The model that stood on the left, where no column says.", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="At most N votes.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Read votes that others have published: MT-Bench's human judgements, Chatbot Arena's, or any of the same columns.

    A row has model_a, model_b and winner (model_a, model_b, tie, both_bad); conversations, judge and turn where they are known.
    """
    from llmbench.votes import imports

    if left not in (None, "a", "b"):
        raise LlmbenchError(f"--left {left!r}: choose a or b.")
    found = imports.import_votes(source, name, left="a" if left == "a" else "b" if left else None, limit=limit)
    if as_json:
        terminal.print_json(vars(found))
        return
    print(
        f"{name}: {counted(found.votes, 'vote')} on {counted(found.models, 'model')} by {counted(found.voters, 'voter')}, "
        f"{counted(found.questions, 'question')}."
    )
    for reason, count in found.left.items():
        print(f"  {counted(count, 'row')} left out: {printable(reason)}")
    print(f"Result: llmbench votes {name}")


def rm(name: Name, yes: listing.Yes = False, as_json: Json = False) -> None:
    """Remove the votes on one comparison. The comparison itself stays.

    Exit code 0: removed; 1: you answered no; 2: an error, and nothing was removed.
    """
    from llmbench import workspace
    from llmbench.votes import store

    with store.VoteStore(store.path(name), new=False) as opened:
        count = len(opened.ballots())
    question, done = f"Remove {counted(count, 'vote')} on {name}? They cannot be had back.", f"Removed the votes on {name}."
    listing.drop(name, workspace.votes(), store.remove, yes, as_json, question=question, done=done)


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
