"""RTF: its text, with the code pages of its fonts; rows of tables stay together."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from llmbench.retrieval.reading.writer import Writer

__all__ = ["read"]

_TOKEN = re.compile(
    rb"\\([A-Za-z]{1,32})(-?\d{1,10})? ?"
    rb"|\\'([0-9a-fA-F]{2})|\\([^A-Za-z])|([{}])|[\r\n]+|([^\\{}\r\n]+)",
    re.DOTALL,
)
_CHARSETS = {
    0: "cp1252", 77: "mac_roman", 128: "cp932", 129: "cp949", 134: "gb18030", 136: "big5", 161: "cp1253", 162: "cp1254",
    163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874", 238: "cp1250",
}  # fmt: skip
_SIGNS = {
    "par": "\n\n", "line": "\n", "sect": "\n\n", "page": "\n\n", "tab": "\t", "cell": " | ", "nestcell": " | ",
    "row": "\n", "nestrow": "\n", "emdash": "—", "endash": "\u2013", "lquote": "\u2018", "rquote": "\u2019", "ldblquote": "“",
    "rdblquote": "”", "bullet": "•", "emspace": " ", "enspace": " ",
}  # fmt: skip
_SILENT = {
    *("fonttbl", "colortbl", "stylesheet", "pict", "object", "fldinst", "datafield", "listtext", "themedata", "xmlnstbl"),
    *("listtable", "listoverridetable", "rsidtbl", "generator", "latentstyles", "datastore", "filetbl", "revtbl", "pntext"),
    *("headerl", "headerr", "bkmkstart", "bkmkend", "mmathPr"),
}  # fmt: skip


@dataclass(frozen=True)
class _State:
    """What holds within a group."""

    silent: bool = False
    skip: int = 1  # characters for old programs that follow each \u
    encoding: str = "cp1252"
    target: str = ""  # "title" and "author" within \info, "font" within the font table


def read(data: bytes, out: Writer) -> None:
    """Reads a document."""
    texts = _Reader().run(data)
    out.title = " ".join(texts.pop("title", "").split())
    out.about(author=texts.pop("author", ""))
    gap = 2
    for block in re.split(r"\n\n+", texts.pop("", "")):
        rows = [re.sub(r"(?: ?\| ?)+$", "", line) for line in block.split("\n")]
        out.block("\n".join(rows), gap=gap)


class _Reader:
    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {"": []}
        self.fonts: dict[int, str] = {}
        self.font = 0
        self.page = "cp1252"
        self.bytes = b""
        self.state = _State()
        self.skipping = 0

    def run(self, data: bytes) -> dict[str, str]:
        """The text, and what \\info says under its name."""
        stack: list[_State] = []
        at = 0
        while found := _TOKEN.match(data, at):
            at = found.end()
            word, number, code, sign, brace, plain = found.groups()
            if brace == b"{":
                self.decoded()
                stack.append(self.state)
            elif brace == b"}":
                self.decoded()
                self.state = stack.pop() if stack else _State()
            elif word:
                if word == b"bin":
                    at += max(0, int(number or 0))
                self.word(word.decode("ascii"), int(number) if number else None)
            elif code:
                self.raw(bytes([int(code, 16)]))
            elif sign:
                self.sign(sign)
            elif plain:
                self.raw(plain)
            if at == found.start():
                break
        self.decoded()
        return {name: "".join(parts) for name, parts in self.texts.items()}

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
            self.texts.setdefault(self.state.target, []).append(self.bytes.decode(self.state.encoding, "replace"))
            self.bytes = b""

    def text(self, text: str) -> None:
        self.decoded()
        if not self.state.silent:
            self.texts.setdefault(self.state.target, []).append(text)

    def sign(self, sign: bytes) -> None:
        match sign:
            case b"*":
                self.decoded()
                self.state = replace(self.state, silent=True)
            case b"~":
                self.text(" ")
            case b"_":
                self.text("-")
            case b"\\" | b"{" | b"}":
                self.raw(sign)

    def word(self, word: str, number: int | None) -> None:
        state = self.state
        match word:
            case "u" if number is not None:
                code = number % 65536
                self.text(chr(code))
                self.skipping = state.skip
                return
            case "uc":
                self.state = replace(state, skip=max(0, min(number or 0, 8)))
            case "ansicpg" if number:
                self.page = f"cp{number}" if _known(f"cp{number}") else "cp1252"
                self.state = replace(state, encoding=self.page)
            case "f" if number is not None:
                self.decoded()
                if state.target == "font":
                    self.font = number
                else:
                    self.state = replace(state, encoding=self.fonts.get(number, self.page))
            case "fcharset" if state.target == "font":
                self.fonts[self.font] = self.page if not number else _CHARSETS.get(number, self.page)
            case "fonttbl":
                self.decoded()
                self.state = replace(state, silent=True, target="font")
            case "info":
                self.decoded()
                self.state = replace(state, silent=True, target="info")
            case "title" | "author" if state.target == "info":
                self.decoded()
                self.state = replace(state, silent=False, target=word)
            case "shptxt":
                self.state = replace(state, silent=False)
            case _ if word in _SILENT:
                self.decoded()
                self.state = replace(state, silent=True)
            case _ if word in _SIGNS:
                self.text(_SIGNS[word])
        self.skipping = 0


def _known(encoding: str) -> bool:
    import codecs

    try:
        codecs.lookup(encoding)
    except LookupError:
        return False
    return True
