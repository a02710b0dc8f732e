"""`llmbench completion`, and what the shell offers for a document: bundled names, and YAML files of the working folder."""

from __future__ import annotations

from pathlib import Path

import typer

from llmbench import assets

__all__ = ["pipelines", "recipes", "register"]


def register(cli: typer.Typer) -> None:
    """Adds `completion`."""
    cli.command(epilog="Example: `llmbench completion`")(completion)


def completion() -> None:
    """Show how to install shell completion for verbs, options and bundled names."""
    print(
        "Install completion for this shell:  llmbench --install-completion\n"
        "Install it for another one:         llmbench --install-completion zsh  (bash, zsh, fish, powershell or pwsh)\n"
        "Print the script instead:           llmbench --show-completion\n"
        "Then open a new terminal."
    )


def recipes(incomplete: str) -> list[str]:
    """Documents for train, serve and compare."""
    return _offer("recipes/", incomplete)


def pipelines(incomplete: str) -> list[str]:
    """Documents for index, search and ask."""
    return _offer("rag/", incomplete)


def _offer(folder: str, incomplete: str) -> list[str]:
    bundled = {name for name in assets.documents() if name.startswith(folder)}
    mine = {path.as_posix() for path in Path(incomplete).parent.glob("*.y*ml")}
    return sorted(name for name in bundled | mine if name.startswith(incomplete))
