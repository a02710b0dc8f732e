"""Plain text and Markdown: bytes to characters, and where a page's headings are."""

from __future__ import annotations

import codecs
import math
import re

from llmbench.retrieval.documents import Heading, Scalar, Unreadable, Value

__all__ = ["decode", "markdown_headings", "typed"]

_MARKS = [
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
]
_SAMPLE = 32 * 2**10
"""Bytes by which an encoding is guessed: the guess reads its sample once for each of 90 encodings."""


def decode(data: bytes, *, hint: str = "") -> str:
    """The characters of a text file: by its byte order mark, as UTF-8, by the pattern of its zero bytes (UTF-16, UTF-32), as
    it claims of itself (`hint`), or by what its letters look like. Line ends stay as they are.

    Raises:
        Unreadable: binary.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    if b"\0" in data[:_SAMPLE]:
        return _wide(data)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = _claimed(data, hint) or _guessed(data)
    controls = sum(text[:_SAMPLE].count(chr(code)) for code in [*range(9), *range(14, 27), 28, 29, 30, 31, 0xFFFD])
    if controls > max(2, len(text[:_SAMPLE]) // 20):
        raise Unreadable("binary, not text")
    return text


def _wide(data: bytes) -> str:
    """UTF-16 or UTF-32 without a mark: text has its zero bytes in the same place of nearly each character."""
    sample = data[: _SAMPLE // 4 * 4]
    zeros = [sample[at::4].count(0) / max(1, len(sample[at::4])) for at in range(4)]
    match [share > 0.7 for share in zeros]:
        case [False, True, True, True] | [False, False, True, True]:
            encoding = "utf-32-le"
        case [True, True, True, False] | [True, True, False, False]:
            encoding = "utf-32-be"
        case [False, True, False, True]:
            encoding = "utf-16-le"
        case [True, False, True, False]:
            encoding = "utf-16-be"
        case _:
            encoding = _one_script(sample)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise Unreadable("binary, not text") from None


def _one_script(sample: bytes) -> str:
    """UTF-16 of a script whose characters share one byte, such as Cyrillic, with the zero bytes of spaces.

    Raises:
        Unreadable: it is neither order of bytes.
    """
    for encoding, at in (("utf-16-le", 1), ("utf-16-be", 0)):
        shared, other = sample[at::2], sample[1 - at :: 2]
        usual = max(range(1, 32), key=shared.count)
        if shared.count(usual) + shared.count(0) > 0.9 * len(shared) and len(set(other)) > len(set(shared)):
            return encoding
    raise Unreadable("binary, not text")


def _claimed(data: bytes, hint: str) -> str:
    """As the file says of itself; empty where that is no encoding, or not its."""
    try:
        name = codecs.lookup(hint or "?").name
        return data.decode("cp1252" if name == "iso8859-1" else name) if name not in ("utf-8", "idna", "punycode") else ""
    except (LookupError, ValueError):
        return ""


def _guessed(data: bytes) -> str:
    """Japanese where it gives kana; Windows-1252 where single bytes beyond ASCII stand among letters, as in western
    languages, and make letters of them; else what charset-normalizer holds likeliest.
    """
    japanese = _japanese(data)
    if japanese:
        return data.decode(japanese, "replace")
    high = [len(run) for run in re.findall(rb"[\x80-\xff]+", data[:_SAMPLE])]
    letters = len(re.findall(rb"[A-Za-z]", data[:_SAMPLE]))
    if sum(high) <= letters and sum(high) < 1.5 * len(high):
        western = data.decode("cp1252", "replace")  # five bytes mean nothing in it
        if not re.search("[a-z][\xa1-\xac\xae-\xb6\xb8-\xbf\u0192-\u02dc][a-z]", western[:_SAMPLE]):
            return western
    from charset_normalizer import from_bytes

    likely = getattr(from_bytes(data[:_SAMPLE]).best(), "encoding", None) or "cp1252"
    return data.decode(likely, "replace")


def _japanese(data: bytes) -> str:
    """Shift-JIS or EUC-JP where it gives kana and characters and nothing odd: short texts are guessed wrong otherwise."""
    for encoding in ("cp932", "euc_jp"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        beyond = [character for character in text if character > "\x7f"]
        kana = sum("\u3040" <= character <= "\u30ff" for character in beyond)
        if kana >= 0.2 * len(beyond) and all(
            "\u2000" <= character < "\uff00" or character > "\uffa0" or "\uff00" <= character < "\uff61" for character in beyond
        ):
            return encoding
    return ""


_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t](.*))?$")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_NO_PARAGRAPH = re.compile(r"\s*(?:$|[-*+>|]|\d+[.)]|#{1,6}\s| {4})")


def markdown_headings(text: str) -> tuple[tuple[Heading, ...], dict[str, Value]]:
    """The headings outside code blocks, `#` and underlined; and the front matter's plain values and lists.

    The front matter itself counts as a heading of level 0 without words, so that it becomes no passage.
    """
    headings: list[Heading] = []
    metadata: dict[str, Value] = {}
    start = 0
    front = re.match(r"---[ \t]*\r?\n(.*?\n)?(?:---|\.\.\.)[ \t]*(?:\r?\n|$)", text, re.DOTALL)
    if front and re.match(r"\s*[\w-]+:", front[1] or ""):
        start = front.end()
        metadata = _front_matter(front[1])
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
            headings.append(Heading(match.start(), end, len(atx[1]), _unclosed(atx[2] or "")))
        elif (under := _UNDERLINE.match(line)) and not before.strip() and not _NO_PARAGRAPH.match(here[2]):
            headings.append(Heading(here[0], end, 1 if under[1][0] == "=" else 2, here[2].strip()))
            line = ""
        before, here = here[2], (match.start(), end, line)
    return tuple(headings), metadata


def _unclosed(words: str) -> str:
    """The words of a heading without the signs that may close it."""
    words = words.strip()
    shorter = words.rstrip("#")
    return shorter.rstrip() if not shorter or shorter[-1] in " \t" else words


def _front_matter(lines: str) -> dict[str, Value]:
    """`key: value`, `key: [a, b]`, and a key with lines of `- value` below it; a title is text whatever it looks like."""
    found: dict[str, Value] = {}
    items: list[Scalar] | None = None
    for line in lines.splitlines():
        key, _, rest = line.partition(":")
        words = rest.strip()
        if re.fullmatch(r"[\w-]+", key) and rest[:1] in ("", " ", "\t"):
            key, items = key.lower(), None
            if key == "title" and words:
                found[key] = words.strip("'\"")
            elif words.startswith("[") and words.endswith("]"):
                parts = re.findall(r"\"[^\"]*\"|'[^']*'|[^\s,][^,]*", words[1:-1])
                found[key] = [_plain(part.strip()) for part in parts]
            elif words:
                found[key] = _plain(words)
            else:
                items = found[key] = []
        elif items is not None and line.strip().startswith("- "):
            items.append(_plain(line.strip()[2:].strip()))
    return {key: value for key, value in found.items() if value != []}


def _plain(words: str) -> Scalar:
    return words.strip("'\"") if words[:1] in ("'", '"') else typed(words)


def typed(words: str) -> Scalar:
    """A number, true or false where JSON would read one; else the text, such as 007."""
    if words in ("true", "false"):
        return words == "true"
    if len(words) > 40 or not re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", words, re.ASCII):
        return words
    if words.lstrip("-").isdigit():
        return number if abs(number := int(words)) < 2**63 else words
    return figure if math.isfinite(figure := float(words)) else words
