"""Writes docs/cli.md, the reference of the command line, from the help that the verbs carry.

python -m llmbench.cli.reference docs/cli.md     (or: make docs)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer
from typer.cli import get_docs_for_click

from llmbench import workspace
from llmbench.cli.main import cli

__all__ = ["main", "page"]

_HEAD = "<!-- Written by `make docs` from the help texts in src/llmbench/cli. Change those, not this page. -->\n\n"


def page() -> str:
    """The reference as Markdown, as typer writes it: a section for each verb with its arguments and options."""
    root: Any = typer.main.get_command(cli)
    _unshortened(root)
    text = get_docs_for_click(obj=root, ctx=typer.Context(root, info_name="llmbench"), name="llmbench", title="Command line")
    return f"{_HEAD}{text.strip()}\n"


def main() -> None:
    """Writes the page to the file that is named, or prints it."""
    match sys.argv[1:]:
        case []:
            print(page(), end="")
        case [path]:
            workspace.write_text(Path(path), page())
        case _:
            print("Name one file: python -m llmbench.cli.reference docs/cli.md", file=sys.stderr)
            sys.exit(2)


def _unshortened(group: Any) -> None:
    """Has the lists of commands show the whole first sentence of each, of which click shows 45 characters."""
    for verb in group.commands.values():
        verb.short_help = (verb.help or "").strip().split("\n\n")[0]
        if hasattr(verb, "commands"):
            _unshortened(verb)


if __name__ == "__main__":
    main()
