"""`llmbench doctor`: what is there, what is missing, and the command that mends it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench.cli.arguments import Json
from llmbench.cli.terminal import print_json

if TYPE_CHECKING:
    from llmbench.doctor import Finding


def register(cli: typer.Typer) -> None:
    """Adds `doctor`."""
    cli.command(epilog="Examples: `llmbench doctor` · for a program: `llmbench doctor --json`")(doctor)


def doctor(
    as_json: Json = False,
    python: Annotated[
        Path | None, typer.Option(help="The Python that has vLLM, if not this one (engine.python in a serving recipe).")
    ] = None,
) -> None:
    """Check the machine: Python, PyTorch, bitsandbytes, vLLM, embedder, FAISS, app, hub, disk and memory.

    Takes about 20 seconds. Exit code 0: every job can run; 1: something is missing (the fix is printed).
    """
    from dataclasses import asdict

    findings = _examine(python)
    missing = [finding for finding in findings if finding.state == "missing"]
    if as_json:
        print_json({"ok": not missing, "findings": [asdict(finding) for finding in findings]})
    else:
        _show(findings)
    if missing:
        raise typer.Exit(1)


def _examine(python: Path | None) -> list[Finding]:
    """All findings in the order of the areas, with what is still running on the terminal meanwhile."""
    from rich.console import Console

    from llmbench.doctor import AREAS, CHECKS, examine

    found: dict[str, list[Finding]] = {}
    with Console(stderr=True).status("Looking") as status:
        for title, findings in examine(python):
            found[title] = findings
            status.update(f"Checking {', '.join(title for title in CHECKS if title not in found)}")
    return sorted((one for title in CHECKS for one in found[title]), key=lambda finding: AREAS.index(finding.area))


def _show(findings: list[Finding]) -> None:
    """The findings as a table for people."""
    from rich.console import Console, Group
    from rich.table import Table
    from rich.text import Text

    from llmbench.doctor import AREAS

    marks = {"ok": Text("✓", "green"), "note": Text("!", "yellow"), "missing": Text("✗", "bold red")}
    console = Console(highlight=False)
    for area in AREAS:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=2, justify="right")
        table.add_column(width=max(len(finding.name) for finding in findings), no_wrap=True)
        table.add_column(overflow="fold")
        for finding in (one for one in findings if one.area == area):
            mend = [Text.assemble(("→ ", "dim"), (finding.mend, "cyan"))] if finding.mend else []
            table.add_row(marks[finding.state], finding.name, Group(Text(finding.found), *mend))
        console.print(Text(f"\n{area.capitalize()}", "bold"), table)
    count = {state: sum(finding.state == state for finding in findings) for state in marks}
    notes = f"{count['note']} note{'s' * (count['note'] > 1)}, " if count["note"] else ""
    if count["missing"]:
        console.print(f"\n[bold red]{count['missing']} missing[/], {notes}{count['ok']} OK.")
    else:
        known = f", {notes.removesuffix(', ')} (nothing blocking)" if notes else ""
        console.print(f"\n[green]All checks passed[/]: {count['ok']} OK{known}.")
