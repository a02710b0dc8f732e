"""Arguments that several verbs share, so that they are spelled and explained alike."""

from __future__ import annotations

from typing import Annotated

import typer

from llmbench.cli import completion

__all__ = ["EARLIER", "Json", "Overrides", "Pipeline"]

Pipeline = Annotated[
    str,
    typer.Argument(help="A RAG pipeline, such as rag/handbook.yaml.", metavar="PIPELINE", autocompletion=completion.pipelines),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Fields to override, as dotted.key=value.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]

EARLIER = {"force": "overwrite", "out": "output"}
"""Options that had another name once, and the name they have now. Every verb still takes both."""
