"""What Outlook packs: the `winmail.dat` of a message (MS-OXTNEF) and its compressed RTF (MS-OXRTFCP)."""

from __future__ import annotations

import struct

from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading.text import decode

__all__ = ["opened", "unpacked_rtf"]

_SIGNATURE = 0x223E9F78
_LONG_NAME = (0x3707001F, 0x3707001E)
_RTF = (
    b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern \\fscript \\fdecor MS Sans "
    b"SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0\\green0\\blue0\r\n\\par \\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx"
)
"""What the dictionary of compressed RTF begins with (MS-OXRTFCP 2.1.2.1)."""


def opened(data: bytes) -> tuple[list[tuple[str, bytes]], str]:
    """The attachments in a `winmail.dat`, by name, and its plain text; empty where it is none, or broken."""
    if len(data) < 6 or struct.unpack_from("<I", data)[0] != _SIGNATURE:
        return [], ""
    files: list[tuple[str, bytes]] = []
    title, words, at = "", "", 6
    while at + 9 <= len(data):
        number, size = struct.unpack_from("<II", data, at + 1)
        content = data[at + 9 : at + 9 + size]
        at += 9 + size + 2
        match number & 0xFFFF:
            case 0x800C:
                words = _decoded(content)
            case 0x9002:
                title = ""
            case 0x8010:
                title = _decoded(content)
                if files and not files[-1][0]:
                    files[-1] = title, files[-1][1]
            case 0x800F:
                files.append((title, content))
            case 0x9005 if files and (name := _long_name(content)):
                files[-1] = name, files[-1][1]
    return [(name or "unnamed", content) for name, content in files], words


def _decoded(content: bytes) -> str:
    try:
        return decode(content.rstrip(b"\0"))
    except Unreadable:
        return ""


def _long_name(content: bytes) -> str:
    """The long name of a file, whose title is cut to eight letters in old messages: the property's tag, 1, length, text."""
    for tag in _LONG_NAME:
        at = content.find(struct.pack("<II", tag, 1))
        if at >= 0 and at + 12 <= len(content):
            (size,) = struct.unpack_from("<I", content, at + 8)
            raw = content[at + 12 : at + 12 + min(size, 1024)]
            return (raw.decode("utf-16-le", "replace") if tag & 0xFFFF == 0x1F else _decoded(raw)).rstrip("\0")
    return ""


def unpacked_rtf(data: bytes, largest: int = 64 * 2**20) -> bytes:
    """Compressed RTF as RTF; empty where it is none.

    Runs of two bytes say where in a window of 4096 bytes 2 to 17 bytes are copied from, so that it grows eightfold at most.
    """
    if len(data) < 16:
        return b""
    size, kind = min(int.from_bytes(data[4:8], "little"), largest), data[8:12]
    if kind == b"MELA":
        return data[16 : 16 + size]
    if kind != b"LZFu":
        return b""
    window, write = bytearray(_RTF.ljust(4096, b"\0")), len(_RTF)
    out, at = bytearray(), 16
    while at < len(data) and len(out) < size:
        control = data[at]
        at += 1
        for bit in range(8):
            if at >= len(data):
                break
            if not control >> bit & 1:
                window[write] = data[at]
                out.append(data[at])
                write, at = (write + 1) % 4096, at + 1
                continue
            place = int.from_bytes(data[at : at + 2], "big")
            read, at = place >> 4, at + 2
            if read == write:
                return bytes(out[:size])
            for _ in range((place & 15) + 2):
                window[write] = window[read]
                out.append(window[read])
                read, write = (read + 1) % 4096, (write + 1) % 4096
    return bytes(out[:size])
