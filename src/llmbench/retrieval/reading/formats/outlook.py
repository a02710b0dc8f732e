"""Messages as Outlook saves them (MSG): properties are streams named by their tag and type (MS-OXMSG 2.4)."""

from __future__ import annotations

import codecs
import datetime
import io
from dataclasses import dataclass, field
from typing import Any

from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading.formats import rtf
from llmbench.retrieval.reading.formats.mail import body, head
from llmbench.retrieval.reading.formats.tnef import unpacked_rtf
from llmbench.retrieval.reading.text import decode
from llmbench.retrieval.reading.writer import Writer

__all__ = ["read"]

_PAGES = {
    20127: "ascii", 20866: "koi8-r", 21866: "koi8-u", 20932: "euc_jp", 50220: "iso2022_jp", 50221: "iso2022_jp",
    50222: "iso2022_jp", 51932: "euc_jp", 51936: "gb2312", 51949: "euc_kr", 52936: "hz", 54936: "gb18030", 65000: "utf-7",
    65001: "utf-8", **{28590 + number: f"iso8859-{number}" for number in (*range(1, 12), 13, 14, 15, 16)},
}  # fmt: skip
"""Windows' numbers of code pages that are not called cp and the number."""
_EMBEDDED = "__substg1.0_3701000D"


def read(data: bytes, out: Writer) -> None:
    """Reads a message; messages attached to it are read too, other attachments become documents."""
    import olefile

    with olefile.OleFileIO(io.BytesIO(data)) as ole:
        streams = {"/".join(path) for path in ole.listdir()}
        files: list[tuple[str, bytes]] = []
        _message(_Properties(ole, streams, "", out), out, files, 0)
        out.parts = files


@dataclass
class _Properties:
    """The properties of one message, whose streams begin with `prefix`."""

    ole: Any
    streams: set[str]
    prefix: str
    out: Writer
    page: str = field(init=False)
    """The encoding of its 8-bit strings, as it says; empty where it does not."""

    def __post_init__(self) -> None:
        table = self.fixed()
        numbers = (int.from_bytes(table.get(tag, b"")[:4], "little") for tag in (0x3FFD0003, 0x3FDE0003))
        self.page = next((page for number in numbers if (page := _page(number))), "")

    def raw(self, name: str) -> bytes | None:
        name = self.prefix + name
        return self.ole.openstream(name).read() if name in self.streams else None

    def fixed(self) -> dict[int, bytes]:
        """Numbers and times: 16-byte entries after a head of 32 bytes, 24 in a message within another."""
        data = self.raw("__properties_version1.0") or b""
        return {
            int.from_bytes(data[at : at + 4], "little"): data[at + 8 : at + 16]
            for at in range(24 if self.prefix else 32, len(data) - 15, 16)
        }

    def text(self, tag: str, folder: str = "") -> str:
        """A string: UTF-16, or 8 bits in the message's code page. One that cannot be read costs itself alone."""
        start = f"{folder}__substg1.0_{tag}"
        if (wide := self.raw(f"{start}001F")) is not None:
            return wide.decode("utf-16-le", "replace").rstrip("\0")
        for kind in ("001E", "0102") if tag == "1013" else ("001E",):
            if (narrow := self.raw(start + kind)) is not None:
                return self.decoded(narrow.rstrip(b"\0"))
        return ""

    def decoded(self, data: bytes) -> str:
        try:
            return data.decode(self.page) if self.page else decode(data)
        except UnicodeDecodeError:
            pass
        except Unreadable:
            self.out.warnings.append("a part of the message is binary and was left out")
            return ""
        try:
            return decode(data)
        except Unreadable:
            return data.decode(self.page, "replace")


def _page(number: int) -> str:
    name = _PAGES.get(number, f"cp{number}")
    try:
        return codecs.lookup(name).name if number else ""
    except LookupError:
        return ""


def _message(about: _Properties, out: Writer, files: list[tuple[str, bytes]], depth: int) -> None:
    """Adds a message, and gathers what is attached to it."""
    sender, address = about.text("0C1A"), about.text("5D01") or about.text("0C1F")
    start = len(about.prefix)
    folders = sorted(
        {path[start:].split("/")[0] for path in about.streams if path.startswith(f"{about.prefix}__attach_version1.0_")}
    )
    attached, inner = [], []
    for folder in folders:
        name = next(filter(None, (about.text(tag, f"{folder}/") for tag in ("3707", "3704", "3001"))), "unnamed")
        attached.append(name)
        content = about.raw(f"{folder}/__substg1.0_37010102")
        if content is not None:
            files.append((name, content))
        elif any(path.startswith(f"{about.prefix}{folder}/{_EMBEDDED}/") for path in about.streams):
            inner.append(f"{about.prefix}{folder}/{_EMBEDDED}/")
    fields = {
        "subject": about.text("0037"),
        "from": f"{sender} <{address}>" if "@" in address and address != sender else sender or address,
        "to": about.text("0E04"),
        "cc": about.text("0E03"),
        "date": _sent(about.fixed()),
    }
    if depth == 0:
        out.title = fields["subject"]
        out.about(**fields, attachments=", ".join(attached))
    head(fields, out, depth)
    _body(about, out)
    if attached:
        out.block("Attachments: " + ", ".join(attached))
    for prefix in inner if depth < 5 else ():
        _message(_Properties(about.ole, about.streams, prefix, out), out, files, depth + 1)


def _body(about: _Properties, out: Writer) -> None:
    """Adds its plain text or its HTML; RTF where it has neither."""
    words, page = about.text("1000").replace("\r", ""), about.text("1013")
    if words.strip() or page.strip():
        body(words, [page] if page.strip() else [], out)
    elif packed := unpacked_rtf(about.raw("__substg1.0_10090102") or b""):
        rtf.add(packed, out)


def _sent(table: dict[int, bytes]) -> str:
    """When it was sent or delivered, in 100 ns since 1601."""
    values = (int.from_bytes(table.get(tag, b""), "little") for tag in (0x00390040, 0x0E060040))
    value = next(filter(None, values), 0)
    if not value:
        return ""
    try:
        began = datetime.datetime(1601, 1, 1, tzinfo=datetime.UTC)
        return (began + datetime.timedelta(microseconds=value // 10)).isoformat(timespec="seconds")
    except OverflowError:
        return ""
