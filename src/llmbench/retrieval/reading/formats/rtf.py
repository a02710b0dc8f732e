"""RTF: paragraphs, headings by their outline levels, lists with their numbers, tables by rows, notes; each font's code page."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, replace

from llmbench.retrieval.reading.formats import html
from llmbench.retrieval.reading.formats.rtf_layout import Layout
from llmbench.retrieval.reading.writer import Writer

__all__ = ["add", "read"]

_TOKEN = re.compile(
    rb"\\([A-Za-z]{1,32})(-?\d{1,10})? ?"
    rb"|\\'([0-9a-fA-F]{2})|\\(\r\n|[^A-Za-z])|([{}])|[\r\n]+|([^\\{}\r\n]+)",
    re.DOTALL,
)
_CHARSETS = {
    0: "cp1252", 77: "mac_roman", 128: "cp932", 129: "cp949", 134: "gb18030", 136: "big5", 161: "cp1253", 162: "cp1254",
    163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874", 238: "cp1250",
}  # fmt: skip
_PAGES = {"ansi": "cp1252", "mac": "mac_roman", "pc": "cp437", "pca": "cp850"}
_SIGNS = {
    "tab": "\t", "emdash": "\u2014", "endash": "\u2013", "lquote": "\u2018", "rquote": "\u2019", "ldblquote": "\u201c",
    "rdblquote": "\u201d", "bullet": "\u2022", "emspace": " ", "enspace": " ", "qmspace": " ", "line": "\n", "lbr": "\n",
}  # fmt: skip
_BREAKS = ("par", "cell", "row", "nestcell", "nestrow", "sect", "page")
_SILENT = {
    *("colortbl", "pict", "object", "fldinst", "datafield", "themedata", "xmlnstbl", "upr", "nonesttables", "nonshppict"),
    *("listtable", "listoverridetable", "rsidtbl", "generator", "latentstyles", "datastore", "filetbl", "revtbl", "pn"),
    *("headerl", "headerr", "footerl", "footerr", "bkmkstart", "bkmkend", "mmathPr", "sp", "ftnsep", "ftnsepc", "ftncn"),
    *("aftnsep", "aftnsepc", "aftncn", "background", "xe", "tc", "rxe", "txe", "listlevel", "listoverride", "pgptbl"),
}
_TARGETS = {
    "fonttbl": "font", "stylesheet": "style", "info": "info", "listtext": "mark", "pntext": "mark", "footnote": "note",
    "annotation": "comment",
}  # fmt: skip
"""Groups whose text is for other than the body."""


@dataclass(frozen=True)
class _State:
    """What holds within a group."""

    silent: bool = False
    hidden: bool = False
    skip: int = 1  # characters for old programs that follow each \u
    encoding: str = "cp1252"
    target: str = ""  # what the text is for, one of _TARGETS, or "title" and "author" within \info
    level: int = 0  # of the heading that the paragraph is
    table: int = 0  # how many tables the paragraph is in
    tag: bool = False  # within a tag of the HTML that was packed into the RTF
    packing: bool = False  # RTF that stands for such a tag


def read(data: bytes, out: Writer) -> None:
    """Reads a document."""
    reader = _Reader(out)
    reader.run(data)
    out.title = " ".join(reader.texts.get("title", "").split())
    out.about(author=reader.texts.get("author", ""))
    if not out.title:
        out.title = next((text for _, _, level, text in out.headings if level == 1), "")


def add(data: bytes, out: Writer) -> None:
    """Adds the text of a piece of RTF to another document."""
    _Reader(out).run(data)


class _Reader:
    def __init__(self, out: Writer) -> None:
        self.layout = Layout(out)
        self.out = out
        self.texts: dict[str, str] = {}
        self.fonts: dict[int, str] = {}
        self.font = 0
        self.page = "cp1252"
        self.bytes = bytearray()
        self.state = _State()
        self.skipping = 0
        self.opened = False  # a group has just begun
        self.styles: dict[int, int] = {}
        self.style = 0  # in the style sheet, the one that is being told of
        self.markup: list[str] | None = None  # the HTML that was packed into the RTF

    def run(self, data: bytes) -> None:
        """Reads all of it into the document."""
        stack: list[_State] = []
        at = 0
        while found := _TOKEN.match(data, at):
            at = found.end()
            word, number, code, sign, brace, plain = found.groups()
            if brace == b"{":
                self.decoded()
                stack.append(self.state)
                self.opened = True
                continue
            if brace == b"}":
                self.decoded()
                self.closed(stack.pop() if stack else _State())
            elif word:
                if word == b"bin":
                    at += max(0, int(number or 0))
                self.word(word.decode("ascii"), int(number) if number else None)
            elif code:
                self.raw(bytes([int(code, 16)]))
            elif sign:
                self.sign(sign)
                if sign == b"*":
                    continue
            elif plain:
                self.raw(plain)
            self.opened = False
        self.decoded()
        self.layout.finish()
        if self.markup is not None:
            html.flow("".join(self.markup), self.out)

    def closed(self, outer: _State) -> None:
        """Ends a group."""
        inner, self.state = self.state, outer
        if inner.target != outer.target and inner.target in ("note", "comment"):
            self.layout.note(self.texts.pop(inner.target, ""), inner.target)
        if inner.target == "style":
            name = self.texts.pop("style", "")
            if found := re.search(r"heading (\d)", name.lower()):
                self.styles.setdefault(self.style, int(found[1]))

    def raw(self, data: bytes) -> None:
        if self.skipping:
            taken = min(self.skipping, len(data))
            self.skipping -= taken
            data = data[taken:]
        if not self.state.silent:
            self.bytes += data

    def decoded(self) -> None:
        """Turns the bytes gathered so far into text, as the font's code page has it."""
        if self.bytes:
            data, self.bytes = self.bytes, bytearray()
            self.text(data.decode(self.state.encoding, "replace"))

    def text(self, text: str) -> None:
        self.decoded()
        state = self.state
        if state.silent or state.packing:
            return
        if self.markup is not None and not state.target:
            self.markup.append(text if state.tag else text.replace("&", "&amp;").replace("<", "&lt;"))
        elif state.hidden and not state.target:
            self.layout.hide(text)
        elif state.target == "mark":
            self.layout.mark(text)
        elif state.target:
            self.texts[state.target] = self.texts.get(state.target, "") + text
        else:
            self.layout.add(text)

    def sign(self, sign: bytes) -> None:
        match sign:
            case b"*" if self.opened:
                self.decoded()
                self.state = replace(self.state, silent=True)
            case b"~":
                self.text(" ")
            case b"_":
                self.text("-")
            case b"\\" | b"{" | b"}":
                self.raw(sign)
            case b"\n" | b"\r" | b"\r\n":
                self.word("par", None)

    def word(self, word: str, number: int | None) -> None:
        state = self.state
        if word == "u" and number is not None:
            self.text(chr(number % 65536))
            self.skipping = state.skip
            return
        self.skipping = 0
        match word:
            case "uc":
                self.state = replace(state, skip=max(0, min(number or 0, 8)))
            case "ansicpg" if number:
                self.page = f"cp{number}" if _known(f"cp{number}") else "cp1252"
                self.state = replace(state, encoding=self.page)
            case "mac" | "pc" | "pca":
                self.page = _PAGES[word]
                self.state = replace(state, encoding=self.page)
            case "f" if number is not None:
                self.decoded()
                if state.target == "font":
                    self.font = number
                else:
                    self.state = replace(state, encoding=self.fonts.get(number, self.page))
            case "fcharset" if state.target == "font":
                self.fonts[self.font] = self.page if not number else _CHARSETS.get(number, self.page)
            case "fromhtml" if number:
                self.markup = []
            case "htmltag" if self.markup is not None:
                self.state = replace(state, silent=False, tag=True)
            case "htmlrtf" if self.markup is not None:
                self.decoded()
                self.state = replace(state, packing=number != 0)
            case _ if self.group(word):
                pass
            case _ if word in _BREAKS:
                self.broken(word)
            case _ if word in _SIGNS:
                self.text(_SIGNS[word])
            case _:
                self.property(word, number)

    def group(self, word: str) -> bool:
        """Whether a word says what the group is for; then it is noted."""
        state = self.state
        if word in _TARGETS:
            self.decoded()
            target = _TARGETS[word]
            self.state = replace(state, silent=target in ("font", "info"), hidden=False, target=target)
        elif word in ("title", "author") and state.target == "info":
            self.decoded()
            self.state = replace(state, silent=False, target=word)
        elif word in ("shptxt", "result", "ud"):
            self.decoded()
            self.state = replace(state, silent=False)
        elif word in _SILENT:
            self.decoded()
            self.state = replace(state, silent=True)
        else:
            return False
        return True

    def property(self, word: str, number: int | None) -> None:
        """Notes what a word says of the paragraph, the row, or the characters that follow."""
        state = self.state
        match word:
            case "pard" | "sectd":
                self.state = replace(state, level=0, table=0)
            case "intbl":
                self.state = replace(state, table=max(1, state.table))
            case "itap" if number is not None:
                self.state = replace(state, table=number)
            case "outlinelevel" if number is not None:
                level = number + 1 if 0 <= number < 9 else 0
                if state.target == "style":
                    self.styles[self.style] = level
                self.state = replace(state, level=level)
            case "s" if number is not None:
                if state.target == "style":
                    self.style = number
                else:
                    self.state = replace(state, level=state.level or self.styles.get(number, 0))
            case "sbasedon" if state.target == "style" and number in self.styles:
                self.styles.setdefault(self.style, self.styles[number])
            case "v" | "deleted" | "plain":
                self.decoded()
                self.state = replace(state, hidden=number != 0 and word != "plain")
            case "trowd" | "cellx" | "clvmgf" | "clvmrg" | "clmgf" | "clmrg" if not state.silent:
                self.layout.cells(word)

    def broken(self, word: str) -> None:
        """Ends a paragraph, cell or row."""
        self.decoded()
        state = self.state
        if state.silent or state.packing:
            return
        if self.markup is not None:
            self.markup.append("\n")
        elif state.target:
            self.texts[state.target] = self.texts.get(state.target, "") + "\n"
        else:
            self.layout.broken(word, level=state.level, table=state.table)


def _known(encoding: str) -> bool:
    try:
        codecs.lookup(encoding)
    except LookupError:
        return False
    return True
