"""Tables alone, as text that a passage can be cut from anywhere: each row says what its cells are (`Team: Reds; Wins: 3`)."""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Iterable, Iterator, Sequence

from llmbench.retrieval.documents import LOCKED, Unreadable
from llmbench.retrieval.reading.archive import Archive
from llmbench.retrieval.reading.formats.office import properties
from llmbench.retrieval.reading.text import decode
from llmbench.retrieval.reading.writer import Writer

__all__ = ["dialect", "read_csv", "read_workbook"]

CELLS = 5_000_000
"""Cells of one workbook."""
_NUMBER = re.compile(r"\s*[-+($€£¥]*[\d.,:/%\s-]*\d[\d.,:/%)\s-]*(?:[eE][-+]?\d+)?\s*")


def read_csv(data: bytes, out: Writer, suffix: str) -> None:
    """Reads CSV or TSV; the lines of the file are kept."""
    text = decode(data)
    csv.field_size_limit(2**24)
    reader = csv.reader(io.StringIO(text, newline=""), dialect(text, suffix))
    rows: list[tuple[int, Sequence[str]]] = []
    before = 0
    try:
        for row in reader:
            rows.append((before + 1, row))
            before = reader.line_num
    except csv.Error as error:
        raise Unreadable(f"broken CSV at line {reader.line_num} ({error})") from None
    _grid(rows, out, lines=True)


def dialect(text: str, suffix: str) -> type[csv.Dialect]:
    """The divider: a tab in .tsv, else whichever of `, ; tab |` divides most of the first lines alike."""
    lines = [line for line in text[:20_000].splitlines()[:20] if line.strip()]

    def alike(divider: str) -> tuple[float, int]:
        counts = [len(row) for row in csv.reader(lines, delimiter=divider)]
        most = max(set(counts), key=counts.count, default=1)
        return (counts.count(most) / max(1, len(counts)) if most > 1 else 0.0, most)

    best = "\t" if suffix == ".tsv" else max(",;\t|", key=alike) if lines else ","

    class Found(csv.excel):
        delimiter = best

    return Found


def read_workbook(data: bytes, out: Writer) -> None:
    """Reads XLSX, XLSB, XLS or ODS: sheets as headings."""
    import python_calamine

    if data[:2] == b"PK":
        archive = Archive(data)
        sizes = [member for member in archive.names.values() if member.file_size > 2**20]
        if any(member.file_size > 250 * max(member.compress_size, 1) or member.file_size > 256 * 2**20 for member in sizes):
            raise Unreadable("a zip bomb, or as good as one")
        if "EncryptedPackage" in archive.names:
            raise Unreadable(LOCKED)
        properties(archive, out, "meta.xml" if "meta.xml" in archive.names else "docProps/core.xml")
        for name in archive.names:  # entities are refused here, before the reader in Rust sees them
            if name.endswith(".xml") and b"<!ENTITY" in archive.read(name)[:4096]:
                raise Unreadable(f"{name} declares entities, which hide text or attacks")
    try:
        workbook = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        left = CELLS
        for name in workbook.sheet_names:
            sheet = workbook.get_sheet_by_name(name)
            left -= sheet.total_height * sheet.total_width
            if left < 0:
                raise Unreadable(f"more than {CELLS:,} cells; save the sheets as CSV files")
            rows = sheet.to_python(skip_empty_area=True)
            grid = [(0, [_shown(cell) for cell in row]) for row in rows]
            if any(any(row) for _, row in grid):
                out.heading(name, 1)
                _grid(grid, out, lines=False)
    except (python_calamine.CalamineError, ValueError, IndexError) as error:
        if "password" in str(error).lower() or "encrypt" in str(error).lower():
            raise Unreadable(LOCKED) from None
        raise Unreadable(f"broken workbook ({' '.join(str(error).split())[:120]})") from None


def _shown(value: object) -> str:
    """A cell as a spreadsheet shows it: whole numbers without a point, dates without midnight."""
    match value:
        case bool():
            return "yes" if value else "no"
        case float() if value.is_integer() and abs(value) < 1e15:
            return str(int(value))
        case float():
            return f"{value:.12g}"
        case datetime.datetime() if value.time() == datetime.time():
            return value.date().isoformat()
        case datetime.datetime():
            return value.isoformat(" ", "seconds")
        case _:
            return str(value)


def _grid(rows: Iterable[tuple[int, Sequence[str]]], out: Writer, *, lines: bool) -> None:
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
            return number if all(_names(cell) for cell in cells) else None
    return None


def _names(cell: str) -> bool:
    """Whether a cell may name a column: words, or a year."""
    return len(cell) < 120 and (not _NUMBER.fullmatch(cell) or re.fullmatch(r"(?:19|20)\d\d", cell) is not None)


def _alone(block: list[tuple[int, Sequence[str]]]) -> bool:
    """Whether figures stand below the first row, which then is a header of its own."""
    return any(_NUMBER.fullmatch(cell) for _, row in block[1:] for cell in row if cell)
