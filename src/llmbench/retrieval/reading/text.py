"""Plain text and Markdown: bytes to characters, and where a page's headings are."""

from __future__ import annotations

import re

from llmbench.retrieval.documents import Heading, Unreadable

__all__ = ["decode", "markdown_headings"]


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
