"""Messages as they are sent (EML) and kept (mbox): who, when and what about are metadata, attachments documents."""

from __future__ import annotations

import email
import email.policy
import email.utils
import mimetypes
import re
from collections.abc import Iterator, Sequence
from email.message import EmailMessage

from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading.formats import calendar, html, tnef
from llmbench.retrieval.reading.text import decode
from llmbench.retrieval.reading.writer import Writer

__all__ = ["body", "head", "read_eml", "read_mbox", "read_page"]

_BEGIN = re.compile(rb"^From [^\r\n]*\d[^\r\n]*\r?\n(?=[!-9;-~]+:|[> ]?From )", re.MULTILINE)
_FOLLOWS = (b"\n\n", b"\n\r\n", b"\r\n\r\n")
COPY = 0.5
"""The share of an HTML part's words from which the plain text beside it is a copy of it."""


def read_mbox(data: bytes, out: Writer) -> None:
    """Reads a mailbox: each message is a document of its own, named by its number."""
    out.holder, out.inner, out.parts = True, "email", _letters(data)


def _letters(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The messages of a mailbox. Each begins with a line `From ...` after an empty one."""
    marks = [m for m in _BEGIN.finditer(data) if not m.start() or data[max(0, m.start() - 4) : m.start()].endswith(_FOLLOWS)]
    if not marks or data[: marks[0].start()].strip():
        raise Unreadable("not a mailbox: its first line does not start with From")
    for number, mark in enumerate(marks, 1):
        end = marks[number].start() if number < len(marks) else len(data)
        yield str(number), re.sub(rb"(?m)^>(>*From )", rb"\1", data[mark.end() : end])


def read_eml(data: bytes, out: Writer) -> None:
    """Reads a message: its plain text, or its HTML where that says more; messages within it are read too."""
    if data[:4].count(0) or data.startswith((b"\xff\xfe", b"\xfe\xff")):
        data = decode(data).encode()
    message = email.message_from_bytes(data.removeprefix(b"\xef\xbb\xbf").lstrip(), policy=email.policy.default)
    if not message.keys():
        raise Unreadable("not an e-mail: it has no header")
    _message(message, out, 0)


def read_page(data: bytes, out: Writer) -> None:
    """Adds the text of a web page that was saved as one file (MHTML), without its head."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    for part in message.walk():
        if part.get_content_type() == "text/html":
            html.flow(_body(part), out)


def _message(message: EmailMessage, out: Writer, depth: int) -> list[tuple[str, bytes]]:
    """Adds a message and those within it; returns what is attached to them."""
    fields = {name: _header(message, name) for name in ("subject", "from", "to", "cc", "date")}
    fields["date"] = _iso(fields["date"])
    attached: list[str] = []
    files: list[tuple[str, bytes]] = []
    texts, pages = list[str](), list[str]()
    inner = [part for part in message.walk() if part.get_content_type() == "message/rfc822"]
    within = {id(node) for one in inner for node in one.walk()}
    for part in message.walk() if message.get_content_type() != "message/rfc822" else ():
        kind = part.get_content_type()
        name = _name(part)
        if kind == "message/delivery-status" and id(part) not in within:
            texts.append("\n".join(f"{key}: {value}" for inner in part.iter_parts() for key, value in inner.items()))
        if id(part) in within or kind in ("message/rfc822", "message/delivery-status") or part.is_multipart():
            continue
        if kind == "application/ms-tnef" or name.lower() == "winmail.dat":
            more, words = tnef.opened(_bytes(part))
            files += more
            attached += [title for title, _ in more]
            texts += [words] if words.strip() else []
        elif name or part.get_content_disposition() == "attachment" or part.get_content_maintype() != "text":
            attached.append(name or kind)
            files.append((name or f"unnamed{mimetypes.guess_extension(kind) or ''}", _bytes(part)))
        elif kind == "text/html":
            pages.append(_body(part))
        elif kind == "text/calendar":
            texts.append(calendar.shown(_body(part)))
        elif kind in ("text/css", "text/javascript"):  # of a page that was saved whole
            continue
        else:
            texts.append(_body(part))
    if depth == 0:
        out.title = fields["subject"]
        out.about(**fields, attachments=", ".join(attached))
    head(fields, out, depth)
    body("\n\n".join(texts), pages, out)
    if attached:
        out.block("Attachments: " + ", ".join(attached))
    for part in inner:
        content = part.get_payload()
        if depth < 5 and isinstance(content, list) and content and isinstance(content[0], EmailMessage):
            files += _message(content[0], out, depth + 1)
    if depth == 0:
        out.parts = files
    return files


def body(text: str, pages: Sequence[str], out: Writer) -> None:
    """Adds the plain text of a message, and its HTML where that says more than the plain text repeats.

    Beside a page that is a mail, the plain text may be a stub ("your program cannot show HTML") or say something else.
    """
    said, shown = _distinct(text), set[str]()
    for page in pages:
        probe = Writer("html")
        html.flow(page, probe)
        shown |= _distinct(probe.text())
    out.block(text)
    if len(said & shown) < COPY * len(shown):
        for page in pages:
            html.flow(page, out)


def _distinct(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def head(fields: dict[str, str], out: Writer, depth: int) -> None:
    """What a reader sees on top: subject as a heading, who wrote to whom and when."""
    if fields["subject"]:
        out.heading(fields["subject"], depth + 1)
    out.block("\n".join(f"{name.capitalize()}: {fields[name]}" for name in ("from", "to", "cc", "date") if fields[name]))


def _header(message: EmailMessage, name: str) -> str:
    try:
        raw = next((value for key, value in message.raw_items() if key.lower() == name), "")
        if any("\udc80" <= character <= "\udcff" for character in str(raw)):  # bytes without an encoding
            data = str(raw).replace("\n", " ").encode("utf-8", "surrogateescape")
            charset = message.get_content_charset()
            rest = b"" if charset else b"\n" + _bytes(message)[:2000]  # a few letters alone are guessed wrong
            return " ".join(decode(data + rest, hint=charset or "").partition("\n")[0].split())
        return " ".join(str(message.get(name, "")).split())
    except Exception:  # the header parser of the standard library raises many things on broken headers
        return ""


def _name(part: EmailMessage) -> str:
    try:
        return " ".join(str(part.get_filename() or "").split())
    except Exception:  # likewise
        return "unnamed"


def _bytes(part: EmailMessage) -> bytes:
    raw = part.get_payload(decode=True)
    return raw if isinstance(raw, bytes) else str(raw or "").encode("utf-8", "replace")


def _body(part: EmailMessage) -> str:
    """The text of a part, in the encoding it claims, else in what it looks like."""
    data = _bytes(part)
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
