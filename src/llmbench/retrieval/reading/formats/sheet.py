"""What a sheet says beside its values: how numbers are shown, what is merged or hidden, comments and drawings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["Sheet", "cell_at", "format_of"]

Cell = tuple[int, int]
"""Row and column, from 0."""
_DIGITS = re.compile(r"[#0?][#0?,.]*")
_LITERAL = re.compile(r'"([^"]*)"|\\(.)|_.|\*.|\[\$([^\]-]*)(?:-[^\]]*)?\]|\[[^\]]*\]')
_BUILT_IN = {
    5: "$#,##0", 6: "$#,##0", 7: "$#,##0.00", 8: "$#,##0.00", 9: "0%", 10: "0.00%", 42: "$#,##0", 44: "$#,##0.00",
}  # fmt: skip
"""Formats of numbers that files do not spell out (ECMA-376 part 1, 18.8.30), where they add a sign."""


@dataclass
class Sheet:
    """One sheet."""

    formats: dict[int, dict[int, str]] = field(default_factory=dict)
    """The format of cells that show more than the bare number, by row and column; or what is shown, behind `=`."""
    merged: Sequence[tuple[Cell, Cell]] = ()
    comments: list[tuple[str, str]] = field(default_factory=list)
    """Cell and words."""
    drawings: list[str] = field(default_factory=list)
    """Names of parts."""
    hidden: list[str] = field(default_factory=list)
    """What of it is not shown; an empty word is all of it."""
    unvalued: int = 0
    """Formulas without a stored value."""
    moved: bytes = b""
    """The sheet with its cells moved together, where they stand too far apart."""
    part: str = ""
    drawn: bool = False
    """A chart that fills a sheet of its own."""

    def columns_of(self, row: int) -> Iterable[int]:
        """The columns of a row whose cells show more than the number."""
        return self.formats.get(row, {})

    def shown(self, row: int, column: int, value: float) -> str:
        """A number as the sheet shows it: `5.75%`, `$56,701.03`; empty where that is the number alone."""
        code = self.formats[row][column]
        return code[1:] if code.startswith("=") else formatted(value, code)


def format_of(number: int, codes: dict[int, str]) -> str:
    """The format of that number, where it shows a per cent sign, a currency or a unit; else empty."""
    code = codes.get(number, _BUILT_IN.get(number, ""))
    return code if code and formatted(1, code) else ""


def formatted(value: float, code: str) -> str:
    """A number in a spreadsheet's format, where that adds a sign or a unit; empty where it does not, or is for dates."""
    sections = code.split(";")
    section = sections[1] if value < 0 and len(sections) > 1 and _DIGITS.search(sections[1]) else sections[0]
    plain = _LITERAL.sub(lambda found: "\0" * len(found[0]), section)
    digits = _DIGITS.search(plain)
    if digits is None or re.search(r"[dmyhsDMYHSEe@/]", plain):
        return ""
    before, after = _said(section[: digits.start()]), _said(section[digits.end() :])
    if not (before + after).strip("() -+"):
        return ""
    decimals = len(re.sub(r"[^#0?]", "", digits[0].partition(".")[2]))
    thousands = "," if re.search(r"[#0?],[#0?]", digits[0]) else ""
    scaled = abs(value) * (100 if "%" in before + after else 1)
    figure = f"{scaled:{thousands}.{decimals}f}"
    fixed = len(re.sub(r"[^0?]", "", digits[0].partition(".")[2]))
    for _ in range(decimals - fixed):  # `#` shows a figure only where there is one
        figure = figure.removesuffix("0")
    figure = figure.rstrip(".")
    sign = "-" if value < 0 and "-" not in before and "(" not in before else ""
    return f"{sign}{before.lstrip()}{figure}{after.rstrip()}"


def _said(part: str) -> str:
    """The literal characters of a part of a format."""
    return _LITERAL.sub(lambda found: found[1] or found[2] or found[3] or "", part)


def cell_at(name: str) -> Cell | None:
    """Row and column of `B7`."""
    found = re.fullmatch(r"\$?([A-Z]{1,3})\$?(\d{1,7})", name)
    if not found:
        return None
    column = 0
    for letter in found[1]:
        column = column * 26 + ord(letter) - 64
    return int(found[2]) - 1, column - 1
