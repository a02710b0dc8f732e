"""A document while it is being read: text added block by block, cleaned, with the places of headings, pages and lines."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from llmbench.retrieval.documents import Scalar, Unreadable
from llmbench.retrieval.reading.clean import Cleaner

__all__ = ["LARGEST_TEXT", "Writer"]

LARGEST_TEXT = 16 * 2**20
"""Characters up to which a document is taken: five times War and Peace. Beyond it, it is a dump, or an attack."""


class Writer:
    """Collects one document. `kind` is what it turned out to be, `title` may be empty."""

    def __init__(self, kind: str, *, largest: int = LARGEST_TEXT) -> None:
        self.kind, self.title = kind, ""
        self.length = 0
        self.metadata: dict[str, Scalar] = {}
        self.warnings: list[str] = []
        self.unread: list[int] = []
        self.headings: list[tuple[int, int, int, str]] = []
        self.boxes: list[tuple[int, int, int, float, float, float, float]] = []
        self.pages: list[int] = []
        self.lines: list[int] = []
        self.clean = Cleaner()
        self._hidden: dict[str, list[str]] = {}
        self.parts: Iterable[tuple[str, bytes | Unreadable]] = ()
        """Name and bytes, or why there are none, of the files within it, each of which becomes a document of its own."""
        self.holder = False
        """Whether it has no text of its own, only such files."""
        self.inner = ""
        """The kind of these files, where their names do not say it."""
        self._parts: list[str] = []
        self._largest = largest
        self._fresh = False  # a page has begun, and nothing is on it

    def put(self, text: str) -> None:
        """Adds text as it is.

        Raises:
            Unreadable: the document has grown too long.
        """
        self.length += len(text)
        self._fresh = False
        if self.length > self._largest:
            raise Unreadable(f"its text is longer than {self._largest:,} characters; split it into several files")
        self._parts.append(text)

    def block(self, text: str, *, gap: int = 2, keep: bool = False) -> tuple[int, int]:
        """Adds a paragraph behind `gap` line ends, white space folded unless `keep`; gives its start and end.

        Line ends in it stay. Nothing is added where nothing is left.
        """
        text = self.clean(text)
        text = text.strip("\n").rstrip() if keep else _folded(text)
        if not text.strip():
            return self.length, self.length
        if self.length and gap and not self._fresh:
            self.put("\n" * gap)
        start = self.length
        self.put(text)
        return start, self.length

    def heading(self, text: str, level: int) -> None:
        """Adds a heading on lines of its own."""
        start, end = self.block(" ".join(text.split()))
        if end > start:
            self.headings.append((start, end, level, self.clean(" ".join(text.split()))))

    def take_back(self, length: int) -> None:
        """Takes back what was added since the text had that length, headings too."""
        text = "".join(self._parts)[:length]
        self._parts, self.length = [text], length
        self.headings = [heading for heading in self.headings if heading[1] <= length]

    def page(self) -> None:
        """Begins a page."""
        if self.length and not self._fresh:
            self.put("\n\n")
        self._fresh = True
        self.pages.append(self.length)

    def table(self, rows: Iterable[Sequence[str]]) -> None:
        """Adds the rows of a small table, a line each, cells divided by bars."""
        gap = 2
        for row in rows:
            cells = [_folded(cell).replace("\n", " ") for cell in row]
            while cells and not cells[-1]:
                cells.pop()
            if any(cells):
                start, end = self.block(" | ".join(cells), gap=gap)
                gap = 1 if end > start else gap

    def line(self, number: int) -> None:
        """What is added next begins on this line of the file."""
        while len(self.lines) < number:
            self.lines.append(self.length)

    def about(self, **fields: object) -> None:
        """Sets metadata; what is empty is left out."""
        for name, value in fields.items():
            if isinstance(value, str):
                value = " ".join(self.clean(value).split())[:1000]
            if value not in (None, ""):
                self.metadata[name] = value  # type: ignore[assignment]

    def hide(self, text: str, why: str = "hidden by its author") -> None:
        """Leaves out text that no reader of the file sees, and names it."""
        if text.strip():
            self._hidden.setdefault(why, []).append(" ".join(text.split()))

    def note(self, text: str, why: str) -> None:
        """Names text that may not be meant to be seen, and is kept."""
        words = " ".join(text.split())
        self.warnings.append(f'text that is hard to see was kept ({why}): "{words if len(words) < 60 else words[:57] + "..."}"')

    def text(self) -> str:
        """What was added so far."""
        return "".join(self._parts)

    def finished(self) -> dict[str, Any]:
        """All of it, in JSON's types.

        Raises:
            Unreadable: there is no text.
        """
        text = self.text()
        if not text.strip():
            raise Unreadable("no text in it")
        title = " ".join(self.clean(self.title).split())[:300]
        fields = {name: getattr(self, name) for name in ("kind", "metadata", "headings", "boxes", "pages", "lines", "unread")}
        return {"text": text, "title": title, **fields, "warnings": [*self.clean.warnings, *self._told(), *self.warnings]}

    def _told(self) -> list[str]:
        """What was left out because no reader sees it, in a line for each reason."""
        notes = []
        for why, parts in self._hidden.items():
            start = parts[0] if len(parts[0]) < 60 else parts[0][:57] + "..."
            more = f" and {len(parts) - 1} more" if parts[1:] else ""
            notes.append(f'hidden text was left out ({why}): "{start}"{more}')
        return notes


def _folded(text: str) -> str:
    """Runs of spaces made one, lines stripped, and never more than one empty line."""
    text = re.sub(r"[ \t\r\f\v]+", " ", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r" ?\n ?", "\n", text)).strip()
