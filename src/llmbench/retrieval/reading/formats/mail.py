"""Messages: EML as it is sent, and MSG as Outlook saves it; who, when and what about go into the metadata."""

from __future__ import annotations

import datetime
import email
import email.policy
import email.utils
import io
from email.message import EmailMessage

from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading.formats import html
from llmbench.retrieval.reading.text import decode
from llmbench.retrieval.reading.writer import Writer

__all__ = ["read_eml", "read_msg"]


def read_eml(data: bytes, out: Writer) -> None:
    """Reads a message: its plain text, else its HTML; attachments are named, messages within it are read too."""
    if data[:4].count(0) or data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = decode(data).encode()
    message = email.message_from_bytes(data.removeprefix(b"\xef\xbb\xbf").lstrip(), policy=email.policy.default)
    if not message.keys():
        raise Unreadable("no e-mail: it has no header")
    _message(message, out, 0)


def _message(message: EmailMessage, out: Writer, depth: int) -> None:
    fields = {name: _header(message, name) for name in ("subject", "from", "to", "cc", "date")}
    fields["date"] = _iso(fields["date"])
    attached, inner, texts, pages = [], [], [], []
    for part in message.walk() if message.get_content_type() != "message/rfc822" else ():
        kind = part.get_content_type()
        name = _name(part)
        if kind == "message/rfc822" or part.is_multipart():
            continue
        if name or part.get_content_disposition() == "attachment":
            attached.append(name or kind)
        elif kind == "text/html":
            pages.append(part)
        elif part.get_content_maintype() == "text":
            texts.append(part)
        else:
            attached.append(kind)
    inner = [part for part in message.walk() if part.get_content_type() == "message/rfc822"]
    own = _outside(texts, inner), _outside(pages, inner)
    if depth == 0:
        out.title = fields["subject"]
        out.about(**fields, attachments=", ".join(attached))
    _head(fields, out, depth)
    words = "\n\n".join(_body(part) for part in own[0])
    if words.strip():
        out.block(words, gap=2)
    else:
        for part in own[1]:
            html.flow(_body(part), out)
    if attached:
        out.block("Attachments: " + ", ".join(attached))
    for part in inner:
        content = part.get_payload()
        if depth < 5 and isinstance(content, list) and content and isinstance(content[0], EmailMessage):
            _message(content[0], out, depth + 1)


def _outside(parts: list[EmailMessage], inner: list[EmailMessage]) -> list[EmailMessage]:
    """The parts that belong to no message within the message."""
    within = {id(node) for one in inner for node in one.walk()}
    return [part for part in parts if id(part) not in within]


def _head(fields: dict[str, str], out: Writer, depth: int) -> None:
    """What a reader sees on top: subject as a heading, who wrote to whom and when."""
    if fields["subject"]:
        out.heading(fields["subject"], depth + 1)
    out.block("\n".join(f"{name.capitalize()}: {fields[name]}" for name in ("from", "to", "cc", "date") if fields[name]))


def _header(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message.get(name, "")).split())
    except Exception:  # the header parser of the standard library raises many things on broken headers
        return ""


def _name(part: EmailMessage) -> str:
    try:
        return " ".join(str(part.get_filename() or "").split())
    except Exception:  # likewise
        return "unnamed"


def _body(part: EmailMessage) -> str:
    """The text of a part, in the encoding it claims, else in what it looks like."""
    raw = part.get_payload(decode=True)
    data = raw if isinstance(raw, bytes) else str(raw or "").encode("utf-8", "replace")
    try:
        hint = str(part.get_content_charset() or "")
    except Exception:  # likewise
        hint = ""
    if hint.lower() in ("iso-2022-jp", "hz-gb-2312", "utf-7", "iso-8859-8-i"):
        return data.decode({"iso-8859-8-i": "iso-8859-8", "hz-gb-2312": "hz"}.get(hint.lower(), hint), "replace")
    return decode(data, hint=hint) if data else ""


def _iso(date: str) -> str:
    """`2026-11-26T17:30:00+00:00`; as it stands where it is no date."""
    try:
        return email.utils.parsedate_to_datetime(date).isoformat()
    except (ValueError, TypeError, OverflowError, IndexError):
        return date


def read_msg(data: bytes, out: Writer) -> None:
    """Reads Outlook's file: properties of the message are streams named by their tag and type (MS-OXMSG 2.4)."""
    import olefile

    with olefile.OleFileIO(io.BytesIO(data)) as ole:
        streams = {"/".join(path) for path in ole.listdir()}

        def text(tag: str, prefix: str = "") -> str:
            for kind in ("001F", "001E"):
                name = f"{prefix}__substg1.0_{tag}{kind}"
                if name in streams:
                    raw = ole.openstream(name).read()
                    return (raw.decode("utf-16-le", "replace") if kind == "001F" else decode(raw)).rstrip("\0")
            return ""

        sender, address = text("0C1A"), text("5D01") or text("0C1F")
        names = sorted({path.split("/")[0] for path in streams if path.startswith("__attach_version1.0_")})
        attached = [
            text("3707", f"{name}/") or text("3704", f"{name}/") or text("3001", f"{name}/") or "unnamed" for name in names
        ]
        fields = {
            "subject": text("0037"),
            "from": f"{sender} <{address}>" if "@" in address and address != sender else sender or address,
            "to": text("0E04"),
            "cc": text("0E03"),
            "date": _sent(ole.openstream("__properties_version1.0").read()) if "__properties_version1.0" in streams else "",
        }
        body, page = text("1000"), text("1013")
        if not page and "__substg1.0_10130102" in streams:
            page = decode(ole.openstream("__substg1.0_10130102").read())
    out.title = fields["subject"]
    out.about(**fields, attachments=", ".join(attached))
    _head(fields, out, 0)
    if body.strip():
        out.block(body.replace("\r", ""))
    elif page:
        html.flow(page, out)
    if attached:
        out.block("Attachments: " + ", ".join(attached))


def _sent(properties: bytes) -> str:
    """When it was sent or delivered: 16-byte entries after a head of 32, type 0x40 is 100 ns since 1601."""
    times = {}
    for at in range(32, len(properties) - 15, 16):
        tag = int.from_bytes(properties[at : at + 4], "little")
        if tag in (0x00390040, 0x0E060040):
            times[tag] = int.from_bytes(properties[at + 8 : at + 16], "little")
    value = times.get(0x00390040) or times.get(0x0E060040)
    if not value:
        return ""
    try:
        began = datetime.datetime(1601, 1, 1, tzinfo=datetime.UTC)
        return (began + datetime.timedelta(microseconds=value // 10)).isoformat(timespec="seconds")
    except OverflowError:
        return ""
