"""Tables and sentences as a terminal shows them: no figure is cut or broken, and lines end between words."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap

__all__ = ["fits", "paragraph", "table"]

Rows = list[list[str]]
"""The first row is the heading."""
_GAP = 2
"""Blanks between columns."""


def table(rows: Rows) -> None:
    """Prints a table: figures stay whole, and the first column takes what is left and wraps."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, _GAP, 0, 0))
    for i, name in enumerate(rows[0]):
        first = i == 0
        drawn.add_column(name, justify="left" if first else "right", overflow="fold", no_wrap=not first)
    for row in rows[1:]:
        drawn.add_row(*row)
    Console(highlight=False, markup=False, width=_width()).print(drawn)


def fits(rows: Rows, least: int = 12) -> bool:
    """Whether all columns after the first fit beside `least` columns of the first."""
    columns = list(zip(*rows, strict=True))
    first = max(map(len, columns[0]))
    return (
        min(first, max(least, max((len(word) for text in columns[0] for word in text.split()), default=0)))
        + sum(_GAP + 1 + max(map(len, column)) for column in columns[1:])
        <= _width()
    )


def paragraph(text: str) -> None:
    """Prints a sentence, broken between words and never inside `p < 0.001`; in a pipe it stays on its line."""
    if not sys.stdout.isatty():
        print(text)
        return
    kept = re.sub(r"\b([pn]) ([<=]) (?=\d)", "\\1\xa0\\2\xa0", text)
    lines = textwrap.wrap(kept, _width(), break_long_words=False, break_on_hyphens=False)
    print("\n".join(lines).replace("\xa0", " "))


def _width() -> int:
    """A pipe has no width of its own: there every row stays on one line."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
