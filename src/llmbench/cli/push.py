"""`llmbench push`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench.cli import completion
from llmbench.cli.arguments import Json
from llmbench.cli.terminal import print_json
from llmbench.errors import MissingPackage

if TYPE_CHECKING:
    from llmbench.exporting.push import Parcel

__all__ = ["register"]

_HEAD = 40
"""Lines of the card that a dry run shows."""
_HELP = """Send an export to a model hub: weights, model card, proof, lineage and licence, in one commit.

A folder whose proof failed or is missing, or whose files changed since, is not sent. The hub's own client sends it; it finds
its token as usual (`hf auth login`, or HF_TOKEN), and llmbench neither takes nor shows one. A repository that is not there
yet is made, private unless you say --public. HF_ENDPOINT names another hub.
"""


def register(cli: typer.Typer) -> None:
    """Adds this job's verb."""
    cli.command("push", help=_HELP, epilog="Example: `llmbench push sft-lora --to hub://acme/support-bot --dry-run`")(push)


def push(
    export: Annotated[
        str,
        typer.Argument(
            metavar="EXPORT", help="An exported folder, its name, or a run with one export.", autocompletion=completion.exports
        ),
    ],
    to: Annotated[str, typer.Option("--to", metavar="hub://ORG/NAME", help="Where to.")],
    public: Annotated[bool, typer.Option("--public", help="Make a new repository for everybody to see.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="BRANCH", help="Another branch than the main one.", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent; needs no network.")] = False,
    as_json: Json = False,
) -> None:
    """Look through the folder, then send it or say what would be sent."""
    from llmbench.exporting import push as pushing

    name = pushing.repository(to)
    found = pushing.parcel(export)
    address = None
    if not dry_run:
        if find_spec("huggingface_hub") is None:
            raise MissingPackage("push", "huggingface_hub", "train")
        from rich.console import Console

        with Console(stderr=True).status(f"Sending {found.size / 1e6:,.1f} MB"):
            address = pushing.send(found, name, public=public, revision=revision)
    if as_json:
        print_json(
            {"folder": str(found.folder), "to": name, "public": public, "sent": not dry_run, "address": address}
            | {"bytes": found.size, "files": found.files}
        )
    else:
        print("\n".join(_lines(found, name, address, public=public)))


def _lines(found: Parcel, name: str, address: str | None, *, public: bool) -> list[str]:
    """Each file with its size, and of a dry run the card's head."""
    seen = "for everybody" if public else "private"
    head = f"Sent to {address}" if address else f"Would be sent to {name} ({seen} if it is made); nothing was sent"
    width = max(len(f"{size:,}") for size in found.files.values())
    lines = [head, *(f"  {size:>{width},}  {file}" for file, size in found.files.items())]
    lines.append(f"  {found.size:,} bytes in {len(found.files)} files; {found.proof.format} ({found.proof.precision}), proven")
    if address is None:
        card = (found.folder / "README.md").read_text(encoding="utf-8", errors="replace")
        head = card.removeprefix("---\n").partition("\n---\n")[0] if card.startswith("---\n") else card
        lines += ["The card begins:", *(f"  {line}" for line in head.splitlines()[:_HEAD])]
    return lines
