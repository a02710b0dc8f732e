"""Text, Markdown and source code: decoded and cleaned where the indexing runs, for there is nothing in it that could be run."""

from __future__ import annotations

import re
from pathlib import PurePath

from llmbench.retrieval.documents import Document, Heading, Unreadable, Value, shadowed
from llmbench.retrieval.reading.clean import Cleaner
from llmbench.retrieval.reading.text import decode, markdown_headings
from llmbench.retrieval.reading.writer import LARGEST_TEXT

__all__ = ["document"]

_LINE = re.compile("[^\n\r\f]*(?:\r\n|[\n\r\f]|$)")


def document(data: bytes, identity: str, source: str, kind: str, language: str, suffix: str) -> Document:
    """The document; offsets lead back to the file's lines, whatever cleaning took from them.

    Raises:
        Unreadable: binary, blank or too long.
    """
    raw = decode(data)
    if len(raw) > LARGEST_TEXT:
        raise Unreadable(f"its text is longer than {LARGEST_TEXT:,} characters; split it into several files")
    clean = Cleaner()
    text, lines = _cleaned(raw, clean)
    if not text.strip():
        raise Unreadable("no text in it")
    headings: tuple[Heading, ...] = ()
    metadata: dict[str, Value] = {"language": language} if language else {}
    title = ""
    if kind == "markdown":
        headings, found = markdown_headings(text)
        metadata |= found
        title = str(found.get("title", "")) or next((h.text for h in headings if h.level == 1), "")
    elif kind == "text" and (headings := marked_headings(text, suffix)):
        title = headings[0].text
    stem = PurePath(source).name if kind == "code" else PurePath(source).stem
    warnings = (*clean.warnings, *shadowed(metadata.keys() - {"title"}))  # its title is the document's own
    return Document(identity, source, title or stem, text, kind, metadata, headings=headings, lines=lines, warnings=warnings)


def _cleaned(raw: str, clean: Cleaner) -> tuple[str, tuple[int, ...]]:
    """The text with `\\n` at line ends, and where the file's lines begin in it; empty where these are the text's own."""
    raw = raw.replace("\r\n", "\n").replace("\r", "\n")
    whole = clean(raw)
    if whole.count("\n") == raw.count("\n"):
        return whole, ()  # cleaning neither adds nor takes line ends, but for the rare signs below
    lines, parts, length = [], [], 0
    for line in raw.split("\n"):
        lines.append(length)
        parts.append(Cleaner()(line))
        length += len(parts[-1]) + 1
    return "\n".join(parts), tuple(lines)


_ASCIIDOC = (".adoc", ".asciidoc", ".asc")
_WIKI = (".mediawiki", ".wiki")
# Each takes the rest of its line whatever that holds: a pattern that looks for the signs at the end takes a time that grows
# with the square of a run of spaces, and nothing bounds the time of what is read here.
_LINES = {
    **dict.fromkeys((*_ASCIIDOC, ".typ"), re.compile(r"^(={1,6}) +(\S.*)$", re.MULTILINE)),
    ".org": re.compile(r"^(\*{1,8}) +(\S.*)$", re.MULTILINE),
    **dict.fromkeys(_WIKI, re.compile(r"^(={1,6}) *([^=\n].*)$", re.MULTILINE)),
}
_UNDERLINED = re.compile(r"^(\S[^\n]*)\n([=\-~^\"'#*+.:_`])\2{2,} *$", re.MULTILINE)
_LATEX = re.compile(
    r"^(?P<code>[^%\n]*?)\\(?P<name>title|part|chapter|section|subsection|subsubsection|paragraph)\*?(?:\[[^\]\n]*\])?"
    r"\{(?P<words>(?:[^{}]|\{(?:[^{}]|\{[^{}]{0,200}\}){0,500}\}){0,500})\}",
    re.MULTILINE,
)
_LEVELS = {"title": 1, "part": 1, "chapter": 1, "section": 2, "subsection": 3, "subsubsection": 4, "paragraph": 5}
_TEXTILE = re.compile(r"^h([1-6])(?:\([^)\n]*\))?\. +(\S.*)$", re.MULTILINE)


def marked_headings(text: str, suffix: str) -> tuple[Heading, ...]:
    """The headings of a text, by the end of its file's name: reStructuredText (underlined; levels in the order of first use),
    Org, AsciiDoc, Typst and MediaWiki (signs before them), LaTeX (commands) and Textile."""
    if suffix in (".rst", ".rest"):
        return _underlined(text)
    if suffix in (".tex", ".ltx", ".latex"):
        return tuple(
            Heading(m.end("code"), m.end(), _LEVELS[m["name"]], words)
            for m in _LATEX.finditer(text)
            if (words := _without_commands(m["words"]))
        )
    if suffix == ".textile":
        return tuple(Heading(m.start(), m.end(), int(m[1]), m[2].rstrip(" ")) for m in _TEXTILE.finditer(text))
    found = _LINES[suffix].finditer(text) if suffix in _LINES else ()
    return tuple(
        Heading(m.start(), m.end(), len(m[1]), words) for m in found if (words := _unclosed(m[2].rstrip(" "), m[1], suffix))
    )


def _unclosed(words: str, mark: str, suffix: str) -> str:
    """The words of a heading without the signs that close it: AsciiDoc may have them, MediaWiki must."""
    if suffix in _WIKI:
        return words.removesuffix(mark).strip(" ") if words.endswith(mark) else ""
    shorter = words.rstrip("=")
    return shorter.rstrip(" ") if suffix in _ASCIIDOC and shorter.endswith(" ") else words


def _underlined(text: str) -> tuple[Heading, ...]:
    found: list[Heading] = []
    order: list[str] = []
    for match in _UNDERLINED.finditer(text):
        if len(match[0].rpartition("\n")[2].rstrip()) + 2 >= len(match[1]):
            if match[2] not in order:
                order.append(match[2])
            found.append(Heading(match.start(), match.end(), order.index(match[2]) + 1, match[1].strip()))
    return tuple(found)


def _without_commands(words: str) -> str:
    """The words of a heading in LaTeX: labels and footnotes gone, of other commands what they hold."""
    words = re.sub(r"\\(?:label|footnote|thanks|index)\s*\{[^{}]*\}", "", words)
    words = re.sub(r"\\[a-zA-Z]+\*?(?:\[[^\]]*\])?\s*|\\\\", " ", words)
    return " ".join(re.sub(r"\\([&%$#_{}])|[{}]", r"\1", words).replace("~", " ").split())
