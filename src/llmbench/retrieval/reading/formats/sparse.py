"""Sheets of XLSX whose cells stand far apart, moved together: the reader in Rust makes room for every cell between them."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterable, Sequence

from llmbench.retrieval.reading.archive import Archive
from llmbench.retrieval.reading.formats.numbering import ordinal
from llmbench.retrieval.reading.formats.sheet import Sheet, cell_at

__all__ = ["FAR", "extent", "moved", "rewritten"]

FAR = 5_000_000
"""Cells that a sheet may span before it is moved together."""
_FILLED = re.compile(rb'<(?:\w+:)?c\s[^>]*?\br="([A-Z]{1,3}\d{1,7})"[^>]*(?<!/)>')
_PLACE = re.compile(rb'(<(?:\w+:)?(c|row)\b[^>]*?\br=")([A-Z]{0,3}\d{1,7})(")')


def extent(data: bytes) -> int:
    """How many cells the smallest rectangle around the filled cells of a sheet has."""
    cells = _cells(data)
    if not cells:
        return 0
    rows, columns = [row for row, _ in cells], [column for _, column in cells]
    return (max(rows) - min(rows) + 1) * (max(columns) - min(columns) + 1)


def moved(data: bytes, sheet: Sheet) -> bytes:
    """The sheet without its empty columns, and with one empty row in place of many; its formats move along."""
    cells = _cells(data)
    rows = _numbered([row for row, _ in cells], gap=1)
    columns = _numbered([column for _, column in cells], gap=0)

    def place(match: re.Match[bytes]) -> bytes:
        if match[2] == b"row":
            return match[1] + str(rows.get(int(match[3]) - 1, 0) + 1).encode() + match[4] if match[3].isdigit() else match[0]
        found = cell_at(match[3].decode())
        if found is None or found[0] not in rows or found[1] not in columns:
            return match[1] + b"A1" + match[4]  # an empty cell
        return match[1] + f"{ordinal(columns[found[1]] + 1, 'A')}{rows[found[0]] + 1}".encode() + match[4]

    sheet.formats = {
        rows[row]: {columns[column]: code for column, code in codes.items() if column in columns}
        for row, codes in sheet.formats.items()
        if row in rows
    }
    data = re.sub(rb"<(?:\w+:)?(?:mergeCells|dimension)\b[^>]*/>|<(?:\w+:)?mergeCells\b.*?</(?:\w+:)?mergeCells>", b"", data)
    data = re.sub(rb"<(?:\w+:)?c\b[^>]*/>|<(?:\w+:)?row\b[^>]*/>", b"", data)
    return _PLACE.sub(place, data)


def rewritten(archive: Archive, changed: dict[str, bytes]) -> bytes:
    """The workbook with these parts changed."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w") as new:
        for name in archive.names:
            if not name.startswith("xl/media/"):
                new.writestr(name, changed[name] if name in changed else archive.read(name))
    return memory.getvalue()


def _cells(data: bytes) -> Sequence[tuple[int, int]]:
    return [cell for match in _FILLED.finditer(data) if (cell := cell_at(match[1].decode())) is not None]


def _numbered(places: Iterable[int], *, gap: int) -> dict[int, int]:
    """New numbers from 0; those that did not follow one another are set apart by `gap`."""
    found: dict[int, int] = {}
    number, before = -1, -1
    for place in sorted(set(places)):
        number += 1 if not found or place == before + 1 else 1 + gap
        found[place], before = number, place
    return found
