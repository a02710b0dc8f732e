"""The paragraphs and tables of an RTF file, put together from its characters and breaks."""

from __future__ import annotations

import re

from llmbench.retrieval.reading.writer import Writer

__all__ = ["Layout"]

_BULLET = re.compile(r"[^\w()\[\]]+|[oO§]")


class Layout:
    """Gathers the characters of a paragraph or cell, and writes it when it ends."""

    def __init__(self, out: Writer) -> None:
        self.out = out
        self.parts: list[str] = []
        self.marks: list[str] = []
        self.row: list[str] = []
        self.rows: list[list[str]] = []
        self.notes: list[str] = []
        self.merges: list[str] = []  # of the row's cells: "clvmrg" where it goes on from above, "clmrg" from the left
        self.merge = ""
        self.item = False

    def add(self, text: str) -> None:
        """Adds characters."""
        self.parts.append(text)

    def hide(self, text: str) -> None:
        """Leaves out what Word does not show."""
        self.out.hide(_whole(text))

    def mark(self, text: str) -> None:
        """Adds to the number or the bullet of the paragraph."""
        self.marks.append(text)

    def note(self, text: str, kind: str) -> None:
        """Keeps a footnote or a comment for the end."""
        if text.strip():
            self.notes.append(("Comment: " if kind == "comment" else "") + _whole(text).strip())

    def cells(self, word: str) -> None:
        """Notes what the definition of a row says of its cells."""
        match word:
            case "trowd":
                self.merges, self.merge = [], ""
            case "cellx":
                self.merges.append(self.merge)
                self.merge = ""
            case _:
                self.merge = word

    def broken(self, word: str, *, level: int, table: int) -> None:
        """Ends a paragraph, a cell or a row. Within a row a paragraph is part of its cell, and so is a table in the cell."""
        match word:
            case "cell":
                self.row.append(self.taken())
            case "row":
                self.rowed()
            case "nestcell" | "nestrow":
                self.parts.append(" ")
            case _ if table:
                self.parts = [self.taken(), " "]
            case _:
                self.paragraph(level)

    def rowed(self) -> None:
        """Ends a row; a cell that is merged with the one above or before it says the same."""
        row, self.row = self.row, []
        above = self.rows[-1] if self.rows else []
        for at, merge in enumerate(self.merges[: len(row)]):
            if row[at].strip():
                continue
            if merge == "clvmrg" and at < len(above):
                row[at] = above[at]
            elif merge == "clmrg" and at:
                row[at] = row[at - 1]
        if row:
            self.rows.append(row)

    def taken(self) -> str:
        """The words gathered so far, behind their number or bullet."""
        text = _whole("".join(self.parts))
        mark = " ".join(_whole("".join(self.marks)).split())
        self.parts, self.marks, self.item = [], [], bool(mark)
        if mark and text.strip():
            text = f"{'-' if _BULLET.fullmatch(mark) else mark} {text.strip()}"
        return text

    def paragraph(self, level: int) -> None:
        """Writes a paragraph, after the table before it."""
        self.table()
        text = self.taken()
        if level and text.strip():
            self.out.heading(text, level)
        else:
            self.out.block(text, gap=1 if self.item else 2)

    def table(self) -> None:
        """Writes the rows that stand before what follows."""
        if self.row:
            self.rowed()
        if self.rows:
            self.out.table(self.rows)
            self.rows = []

    def finish(self) -> None:
        """Writes what is left, and the notes."""
        self.paragraph(0)
        for note in self.notes:
            self.out.block(note)


def _whole(text: str) -> str:
    """Characters beyond U+FFFF come as two halves."""
    if not any("\ud800" <= sign <= "\udfff" for sign in text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
