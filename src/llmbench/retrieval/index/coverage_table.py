"""A coverage report on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from llmbench.retrieval.index.coverage import Coverage
from llmbench.shown import counted, printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["show"]


def show(report: Coverage, console: Console) -> None:
    """Prints the sums, the distribution of lengths, and whatever is wrong by its place."""
    table = Table.grid(padding=(0, 2))
    for name, value in _rows(report):
        table.add_row(name, escape(value))
    console.print(table)
    if report.chunks:
        console.print(_lengths(report))
    if report.worst:
        worst = Table("least embedded", "share", "characters missing", title_justify="left")
        for low in report.worst:
            worst.add_row(escape(printable(low.source)), f"{low.share:.1%}", f"{low.missing:,}")
        console.print(worst)
    if report.unknowing:
        known = Table("least known to the embedder", "share known", "characters unknown", title_justify="left")
        for low in report.unknowing:
            known.add_row(escape(printable(low.source)), f"{low.share:.1%}", f"{low.missing:,}")
        console.print(known)
    if report.repeated:
        repeated = Table("repeats", "an earlier passage", "similarity")
        for pair in report.repeated:
            repeated.add_row(escape(printable(pair.place)), escape(printable(pair.earlier)), f"{pair.similarity:.2f}")
        console.print(repeated)
    for title, lines, total in (
        ("documents without a passage", report.orphan_sources, report.orphans),
        ("passages without their document", report.stray_ids, report.strays),
        ("warnings", [f"{source}: {words}" for source, words in report.warned], report.warnings),
    ):
        if total:
            console.print(f"[bold]{title}[/bold] ({total:,})")
            for line in lines:
                console.print(f"  {escape(printable(line))}")
            if total > len(lines):
                console.print(f"  and {total - len(lines):,} more")


def _rows(report: Coverage) -> list[tuple[str, str]]:
    methods = ", ".join(f"{number:,} by {name}" for name, number in report.methods.items())
    rows = [
        ("documents", f"{report.documents:,}, {report.same_documents:,} of them identical to an earlier one"),
        ("passages", f"{report.chunks:,}" + (f" ({methods})" if methods else "")),
        ("embedded", f"{report.share:.2%} of {counted(report.characters, 'character')}" if report.characters else "nothing"),
        (
            "not in its vocabulary",
            f"{counted(report.unknown, 'character')}, found by their words only" if report.unknown else "none",
        ),
        ("repeated passages", f"{report.same_chunks:,} with the same words, {report.near_chunks:,} nearly the same"),
    ]
    if report.limit is not None:
        rows.append(("over the window", f"{report.over:,} (longer than {report.limit} tokens)"))
    for name, extreme in (("shortest", report.shortest), ("longest", report.longest)):
        if extreme is not None:
            rows.append((name, f"{counted(extreme.tokens, 'token')}: {printable(extreme.place)}: {extreme.text}"))
    return rows


def _lengths(report: Coverage) -> Table:
    """How many passages have how many tokens, with bars."""
    table = Table("tokens", "passages", "", caption=f"median {report.median}", caption_justify="left")
    most = max(number for _, _, number in report.lengths)
    for low, high, number in report.lengths:
        table.add_row(f"{low}-{high}" if low < high else str(low), f"{number:,}", "█" * round(30 * number / most))
    return table
