"""Tables alone, as text that a passage can be cut from anywhere: each row says what its cells are (`Team: Reds; Wins: 3`)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence

from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading.text import decode
from llmbench.retrieval.reading.writer import Writer

__all__ = ["divided", "grid", "read_csv"]

_NAMED_DIVIDER = re.compile(r"\ufeff?sep=([^\r\n\"])\r?\n", re.IGNORECASE)
_NUMBER = re.compile(r"\s*[-+($€£¥]*[\d.,:/%\s-]*\d[\d.,:/%)\s-]*(?:[eE][-+]?\d+)?\s*")


def read_csv(data: bytes, out: Writer, suffix: str) -> None:
    """Reads CSV or TSV; the lines of the file are kept."""
    text = decode(data)
    csv.field_size_limit(2**24)
    found, named = divided(text, suffix)
    reader = csv.reader(io.StringIO(text, newline=""), found)
    rows: list[tuple[int, Sequence[str]]] = []
    before = 0
    try:
        for row in reader:
            if not (named and before == 0):
                rows.append((before + 1, row))
            before = reader.line_num
    except csv.Error as error:
        raise Unreadable(f"broken CSV at line {reader.line_num} ({error})") from None
    grid(rows, out, lines=True)


def divided(text: str, suffix: str) -> tuple[type[csv.Dialect], bool]:
    """The divider, and whether the first line names it (`sep=;`, which Excel writes and does not show).

    It is a tab in .tsv, else whichever of `, ; tab |` divides most of the first lines alike.
    """
    named = _NAMED_DIVIDER.match(text)
    lines = [line for line in text[:20_000].splitlines()[:20] if line.strip()]

    def alike(divider: str) -> tuple[float, int]:
        counts = [len(row) for row in csv.reader(lines, delimiter=divider)]
        most = max(set(counts), key=counts.count, default=1)
        return (counts.count(most) / max(1, len(counts)) if most > 1 else 0.0, most)

    best = named[1] if named else "\t" if suffix == ".tsv" else max(",;\t|", key=alike) if lines else ","

    class Found(csv.excel):
        delimiter = best

    return Found, named is not None


def grid(rows: Iterable[tuple[int, Sequence[str]]], out: Writer, *, lines: bool) -> None:
    """Adds tables that empty rows divide, each with its own header; a header alone is that of the rows after it."""
    waiting: Sequence[str] = ()
    for block in _blocks(rows):
        header = _header([row for _, row in block])
        if header is None or (waiting and header == 0 and len(block) > 1 and not _alone(block)):
            _table(block, out, header=-1, names=waiting, lines=lines)
            continue
        _table(block, out, header=header, names=block[header][1], lines=lines)
        waiting = block[header][1] if header == len(block) - 1 else ()


def _blocks(rows: Iterable[tuple[int, Sequence[str]]]) -> Iterator[list[tuple[int, Sequence[str]]]]:
    block: list[tuple[int, Sequence[str]]] = []
    for line, row in rows:
        if any(cell.strip() for cell in row):
            block.append((line, [" ".join(cell.split()) for cell in row]))
        elif block:
            yield block
            block = []
    if block:
        yield block


def _table(block: list[tuple[int, Sequence[str]]], out: Writer, *, header: int, names: Sequence[str], lines: bool) -> None:
    """Adds one table: rows above the header as they are, then every row with the header's words."""
    gap = 2
    for number, (line, row) in enumerate(block):
        cells = [(names[at] if at < len(names) else "", cell) for at, cell in enumerate(row) if cell]
        if number == header and len(block) > header + 1:
            continue
        if number <= header or not names or (len(cells) == 1 and len(names) > 2):
            text = " | ".join(cell for _, cell in cells)
        else:
            text = "; ".join(f"{name}: {cell}" if name and name != cell else cell for name, cell in cells)
        if lines:
            out.put("\n" * gap if out.length else "")
            out.line(line)
        out.block(text, gap=0 if lines else gap)
        gap = 1


def _header(rows: Sequence[Sequence[str]]) -> int | None:
    """Which row names the columns: the first that has most of them, if all of its cells are words and not figures."""
    width = max(sum(bool(cell) for cell in row) for row in rows)
    for number, row in enumerate(rows[:10]):
        cells = [cell for cell in row if cell]
        if len(cells) * 3 >= width * 2 and (width == 1 or len(cells) > 1):
            if _goes_on(rows, number):  # a merged cell, of a head of two rows or of data
                number += 1
                below = rows[number + 1] if number + 1 < len(rows) else ()
                if _goes_on(rows, number) or not any(_NUMBER.fullmatch(cell) for cell in below if cell):
                    return None
            return number if all(_names(cell) for cell in rows[number] if cell) else None
    return None


def _goes_on(rows: Sequence[Sequence[str]], number: int) -> bool:
    """Whether a cell of a row says the same as the one below it."""
    return number + 1 < len(rows) and any(a and a == b for a, b in zip(rows[number], rows[number + 1], strict=False))


def _names(cell: str) -> bool:
    """Whether a cell may name a column: words, or a year."""
    return len(cell) < 120 and (not _NUMBER.fullmatch(cell) or re.fullmatch(r"(?:19|20)\d\d", cell) is not None)


def _alone(block: list[tuple[int, Sequence[str]]]) -> bool:
    """Whether figures stand below the first row, which then is a header of its own."""
    return any(_NUMBER.fullmatch(cell) for _, row in block[1:] for cell in row if cell)
