"""Tables and sentences as a terminal shows them: no figure is cut or broken, and lines end between words."""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from itertools import product
from typing import Any

__all__ = ["fits", "listing", "paragraph", "print_json", "table"]

Rows = list[list[str]]
"""The first row is the heading."""
_GAP = 2
"""Blanks between columns."""
_LEAST = (24, 16, 8)
"""Characters of a name that stay: first all names are cut to the first of these, then to the next."""

_HEIGHT = 25
"""Any: without one, Rich takes a terminal with TERM=dumb to be 80 columns wide, whatever it is told."""


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
    Console(highlight=False, markup=False, width=_width(), height=_HEIGHT).print(drawn)


def listing(rows: Rows, *, shrink: Sequence[int], right: Sequence[int] = ()) -> None:
    """Prints one line a row. Where the terminal is narrow, the `shrink` columns give way, in order, with a cut in the middle.

    A pipe has no width: nothing is cut there.
    """
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    widths = [max(cell_len(row[i]) for row in rows) for i in range(len(rows[0]))]
    if sys.stdout.isatty():
        over = sum(widths) + _GAP * (len(widths) - 1) - _width()
        for least, i in product(_LEAST, shrink):
            given = max(min(over, widths[i] - least), 0)
            widths[i], over = widths[i] - given, over - given
    drawn = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for i, name in enumerate(rows[0]):
        drawn.add_column(name, justify="right" if i in right else "left", no_wrap=True)
    for row in rows[1:]:
        drawn.add_row(*(Text(_cut(text, width)) for text, width in zip(row, widths, strict=True)))
    Console(highlight=False, width=max(_width(), sum(widths) + _GAP * len(widths)), height=_HEIGHT).print(drawn)


def _cut(text: str, width: int) -> str:
    """`qwen3-0.6b-supp…tempt-07`: both ends of a name tell it from others, and the middle is dropped."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


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


def print_json(value: Any) -> None:
    """Prints one JSON document, indented, with letters as they are."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _width() -> int:
    """A pipe has no width of its own: there every row stays on one line."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 200
