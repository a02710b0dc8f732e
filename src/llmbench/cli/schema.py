"""`llmbench schema`: the documents as JSON Schema, for editors."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]

_MARK = r'"\$id": "urn:llmbench:schema'


class DocumentKind(StrEnum):
    """A kind of document, as `llmbench schema` names it."""

    train = "train"
    rag = "rag"
    serve = "serve"
    compare = "compare"
    sweep = "sweep"


def register(cli: typer.Typer) -> None:
    """Adds `schema`."""
    cli.command(epilog="Examples: `llmbench schema -o llmbench.schema.json` · `llmbench schema train`")(schema)


def schema(
    kind: Annotated[
        DocumentKind | None,
        typer.Argument(metavar="[KIND]", help="train, rag, serve, compare or sweep; by default one schema for all of them."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write it here; printed by default.", show_default=False),
    ] = None,
) -> None:
    """Print the JSON Schema (2020-12) of llmbench's documents, with which an editor completes and checks them.

    A first line `# yaml-language-server: $schema=llmbench.schema.json` in a document tells an editor to use it.
    """
    from llmbench import workspace, written
    from llmbench.recipe import schema as schemas

    text = json.dumps(schemas.schema(kind.value if kind else None), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        print(text, end="")
        return
    written.check_file(output, _MARK)
    workspace.write_text(output, text)
    print(f"Wrote {output}. First line of a document that uses it: # yaml-language-server: $schema={output}")
