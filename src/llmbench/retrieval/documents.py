"""Documents: which files a pipeline names, and each file as text with titles, pages and headings by character offset.

A file that cannot be read raises `Unreadable`; whoever walks the files reports it, counts it, and goes on.
"""

from __future__ import annotations

import hashlib
import os
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

__all__ = ["Document", "File", "Heading", "Skipped", "Unreadable", "decode", "read", "walk"]

KINDS = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".txt": "text",
    ".text": "text",
    ".rst": "text",
    ".pdf": "pdf",
}
"""How a file is read, by the end of its name."""

LARGEST_TEXT = 64 * 2**20
"""Bytes up to which a text or HTML file is read; beyond it is more likely a dump than a document."""

Skipped = tuple[str, str]
"""`(source, reason)` of what was left out."""


class Unreadable(Exception):
    """Why one file gives no document, in words for the report."""


@dataclass(frozen=True)
class Heading:
    """A heading's place in the text, its level from 1, and its words."""

    start: int
    end: int
    level: int
    text: str


@dataclass(frozen=True)
class Document:
    """One file as text.

    `id` is the SHA-256 of the file's bytes. `source` is its path from the pipeline's root. Offsets count characters of
    `text`: for Markdown and plain text that is the file itself, decoded; for HTML its visible text; for PDF the text of
    its pages, where `pages[i]` is the offset at which page `i + 1` begins.
    """

    id: str
    source: str
    title: str
    text: str
    kind: str
    metadata: dict[str, str] = field(default_factory=dict)
    pages: tuple[int, ...] = ()
    headings: tuple[Heading, ...] = ()

    def page(self, offset: int) -> int | None:
        """The page of an offset, from 1; None for what has no pages."""
        return bisect_right(self.pages, offset) or None

    def line(self, offset: int) -> int | None:
        """The line of an offset, from 1, where the text is the file itself; else None."""
        return bisect_right(self._lines, offset) if self.kind in ("markdown", "text") else None

    @cached_property
    def _lines(self) -> list[int]:
        """Where each line begins."""
        return [0, *(match.end() for match in re.finditer("\n", self.text))]


@dataclass(frozen=True)
class File:
    """A file to index: where it lies, and how it is called in the index."""

    path: Path
    source: str


def walk(roots: Sequence[Path]) -> tuple[list[File], list[Skipped]]:
    """Every readable file under the roots, sorted by source, and what was left out with the reason.

    One folder's sources are relative to it; those of several roots to the folder that holds them all. Hidden files are
    passed over in silence; a link that leads out of its root, a file of another kind and a device are reported.
    """
    roots = [root.resolve() for root in roots]
    base = roots[0] if len(roots) == 1 and roots[0].is_dir() else Path(os.path.commonpath([root.parent for root in roots]))
    files: dict[Path, File] = {}
    skipped: list[Skipped] = []
    for root in roots:
        for path in [root] if root.is_file() else _under(root):
            source = _name(path, base)
            target = path.resolve()
            if path.is_symlink() and not target.is_relative_to(root):
                skipped.append((source, "a link that leads out of the folder"))
            elif path.is_dir() or target in files:
                continue
            elif not path.is_file():
                skipped.append((source, "a broken link" if path.is_symlink() else "not a plain file"))
            elif path.suffix.lower() not in KINDS:
                skipped.append((source, "not Markdown, HTML, text or PDF"))
            else:
                files[target] = File(path, source)
    return sorted(files.values(), key=lambda file: file.source), sorted(skipped)


def _under(root: Path) -> list[Path]:
    """What a folder holds, hidden files and folders left out; links to folders are listed, not followed."""
    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        found += [Path(folder) / name for name in sorted(names) + links if not name.startswith(".")]
    return found


def _name(path: Path, base: Path) -> str:
    """The path from the base, with `/`; bytes that are not UTF-8 shown as question marks."""
    return path.relative_to(base).as_posix().encode("utf-8", "replace").decode()


def read(file: File) -> Document:
    """Reads one file.

    Raises:
        Unreadable: it is empty, broken, encrypted, binary or too large; the message is the reason.
    """
    from llmbench.retrieval import html, pdf

    kind = KINDS[file.path.suffix.lower()]
    try:
        size = file.path.stat().st_size
        if size == 0:
            raise Unreadable("empty")
        if kind != "pdf" and size > LARGEST_TEXT:
            raise Unreadable(f"larger than {LARGEST_TEXT // 2**20} MiB; cut it into files")
        data = file.path.read_bytes()
    except OSError as error:
        raise Unreadable(f"cannot be read ({error.strerror})") from error
    identity, stem = hashlib.sha256(data).hexdigest(), file.path.stem
    match kind:
        case "pdf":
            document = pdf.document(file.path, identity, file.source)
        case "html":
            text, headings, title = html.visible(data)
            document = Document(identity, file.source, title or stem, text, kind, headings=headings)
        case "markdown":
            text = decode(data)
            headings, metadata = markdown_headings(text)
            title = metadata.get("title") or next((h.text for h in headings if h.level == 1), "")
            document = Document(identity, file.source, title or stem, text, kind, metadata, headings=headings)
        case _:
            document = Document(identity, file.source, stem, decode(data), kind)
    if not document.text.strip():
        raise Unreadable("no text in it" + (" (scanned pages need OCR first)" if kind == "pdf" else ""))
    return document


def decode(data: bytes) -> str:
    """UTF-8, UTF-16 by its byte order mark, else Windows-1252; line ends stay as they are.

    Raises:
        Unreadable: binary, or none of these.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\0" in data:
        raise Unreadable("binary, not text")
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise Unreadable("neither UTF-8, UTF-16 nor Windows-1252")


_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_NO_PARAGRAPH = re.compile(r"\s*(?:$|[-*+>|]|\d+[.)]|#{1,6}\s| {4})")


def markdown_headings(text: str) -> tuple[tuple[Heading, ...], dict[str, str]]:
    """The headings outside code blocks, `#` and underlined; and the front matter's plain `key: value` lines.

    The front matter itself counts as a heading of level 0 without words, so that it becomes no passage.
    """
    headings: list[Heading] = []
    metadata: dict[str, str] = {}
    start = 0
    front = re.match(r"---[ \t]*\r?\n(.*?\n)?(?:---|\.\.\.)[ \t]*(?:\r?\n|$)", text, re.DOTALL)
    if front and re.match(r"\s*[\w-]+:", front[1] or ""):
        start = front.end()
        metadata = {
            k.lower(): v.strip("'\"") for k, v in re.findall(r"^([\w-]+):[ \t]+(\S.*?)[ \t\r]*$", front[1], re.MULTILINE)
        }
        headings.append(Heading(0, start, 0, ""))
    fence, before, here = "", "", (start, start, "")
    for match in _LINE.finditer(text, start):
        line = match[0].rstrip("\r\n")
        end = match.start() + len(line)
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            line = ""
        elif mark:
            fence, line = mark[1], ""
        elif atx := _ATX.match(line):
            headings.append(Heading(match.start(), end, len(atx[1]), (atx[2] or "").strip()))
        elif (under := _UNDERLINE.match(line)) and not before.strip() and not _NO_PARAGRAPH.match(here[2]):
            headings.append(Heading(here[0], end, 1 if under[1][0] == "=" else 2, here[2].strip()))
            line = ""
        before, here = here[2], (match.start(), end, line)
    return tuple(headings), metadata
