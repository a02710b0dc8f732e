"""A document: text with its title, and the maps from an offset in it back to the file that it was read from."""

from __future__ import annotations

import errno
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from llmbench.errors import LlmbenchError
from llmbench.recipe import Scalar

__all__ = [
    "CHANGED",
    "LOCKED",
    "NOT_OPENED",
    "UNREAD_CIPHER",
    "Box",
    "Document",
    "Heading",
    "Momentary",
    "Scalar",
    "Skipped",
    "Unreadable",
    "Value",
    "check",
    "not_read",
    "shadowed",
    "unreadable_rows",
]  # fmt: skip

Skipped = tuple[str, str]
"""`(source, reason)` of what was left out."""
Value = Scalar | list[Scalar]
"""What a field of a document may hold; a list fits a condition that one of its values fits."""

LOCKED = "encrypted: it needs a password (set documents[].password_env to the variable that holds it)"
NOT_OPENED = "encrypted: the password given does not open it"
UNREAD_CIPHER = "encrypted with an unsupported method; save it without its password"
"""The reasons of files that are encrypted; all begin alike."""
CHANGED = "changed since it was indexed"
"""The reason of a file that is no longer the one that a document was read from."""


class Unreadable(Exception):
    """Why one file gives no document, in words for the report."""


class Momentary(Unreadable):
    """The file is there, and could not be read now: that says nothing of what is in it."""


def not_read(error: OSError) -> Unreadable:
    """What the system's refusal of a file means: it is gone, or it may be readable at another time.

    Parsers raise OSErrors of their own about what they read; these have no number.
    """
    reason = f"cannot be read ({error.strerror or error})"
    gone = error.errno in (None, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EFBIG)
    return Unreadable(reason) if gone else Momentary(reason)


@dataclass(frozen=True)
class Heading:
    """A heading's place in the text, its level from 1, and its words."""

    start: int
    end: int
    level: int
    text: str


@dataclass(frozen=True)
class Box:
    """Where a stretch of text stands on a page (from 1): points from the page's left and top edge."""

    start: int
    end: int
    page: int
    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Document:
    """One file, or one row of a file of rows, as text.

    `id` is the SHA-256 of the bytes that it was read from. `source` is the file's path from the pipeline's root; a row's is
    followed by `#` and the row's id, or by `:` and its line where it has none. Offsets count characters of `text`: for
    Markdown and plain text that is the file, decoded and cleaned; for HTML its visible text; for PDF the text of its pages.

    `pages[i]` is the offset at which page `i + 1` begins, `lines[i]` that of line `i + 1` of the file; both are empty where
    the file has no such thing, and `lines` where they are the text's own. `first_line` is the line of the file on which the
    text begins: 1 but for rows. `warnings` are what a reader of the report should know of its text.
    """

    id: str
    source: str
    title: str
    text: str
    kind: str
    metadata: Mapping[str, Value] = field(default_factory=dict)
    pages: tuple[int, ...] = ()
    headings: tuple[Heading, ...] = ()
    lines: tuple[int, ...] = ()
    boxes: tuple[Box, ...] = ()
    warnings: tuple[str, ...] = ()
    first_line: int = 1

    def page(self, offset: int) -> int | None:
        """The page of an offset, from 1; None for what has no pages."""
        return bisect_right(self.pages, offset) or None

    def line(self, offset: int) -> int | None:
        """The line of the file in which an offset lies, from 1; None where the text has no lines of the file's."""
        line = bisect_right(self._lines, offset)
        return line + self.first_line - 1 if line else None

    def boxes_of(self, start: int, end: int) -> list[Box]:
        """Where the characters from `start` to `end` stand on their pages."""
        return [box for box in self.boxes if box.start < end and start < box.end]

    @cached_property
    def _lines(self) -> tuple[int, ...]:
        if self.lines or self.kind not in ("markdown", "text", "code"):
            return self.lines
        return (0, *(match.end() for match in re.finditer("\n", self.text)))


def shadowed(fields: Iterable[str]) -> list[str]:
    """A note on each field whose name is one that every document has of its own."""
    own = sorted({"source", "title", "kind"}.intersection(fields))
    return [f"filter its field {name} as metadata.{name}, since every document already has a {name}" for name in own]


def unreadable_rows(first: Sequence[tuple[int, str]], count: int) -> str:
    """The report on rows that were left out: how many, and the first of them by line."""
    told = "; ".join(f"line {line}: {why}" for line, why in first[:5])
    return f"{count} row{'s' if count > 1 else ''} left out: {told}" + ("; ..." if count > 5 else "")


def check(document: Document) -> None:
    """Looks at a document of a program or a file.

    Raises:
        LlmbenchError: it holds what no database can keep.
    """
    if not isinstance(document, Document):
        raise LlmbenchError(f"{document!r:.80} is not a Document. Pass a list of retrieval.Document(...).")
    whose = f"document {document.source!a}"
    for name in ("id", "source", "title", "text", "kind"):
        value = getattr(document, name)
        if not isinstance(value, str):
            raise LlmbenchError(f"{whose}: its {name} is {value!r}, but must be text.")
        _encodes(value, whose)
    if not document.source:
        raise LlmbenchError(f"a document has no source ({document.text[:60]!a}). Give it a unique one.")
    if not isinstance(document.metadata, Mapping):
        raise LlmbenchError(f"{whose}: its metadata is {document.metadata!r}, but must be a mapping.")
    for key, field_value in document.metadata.items():
        for what in (key, *(field_value if isinstance(field_value, list) else [field_value])):
            if not isinstance(what, str | int | float):
                raise LlmbenchError(f"{whose}: {what!r} in its metadata is not text, a number, true, false or a list of these.")
            _encodes(what, whose)


def _encodes(value: Scalar, whose: str) -> None:
    try:
        str(value).encode()
    except UnicodeEncodeError as error:
        place = error.object[max(0, error.start - 20) : error.start + 20]
        raise LlmbenchError(f"{whose} contains an unpaired surrogate at {place!a}. Fix the text.") from error
