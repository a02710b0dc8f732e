"""Calendars, invitations (iCalendar, RFC 5545) and cards of people (vCard, RFC 6350) as lines to read."""

from __future__ import annotations

import quopri
import re
from collections.abc import Iterator

from llmbench.retrieval.reading.text import decode
from llmbench.retrieval.reading.writer import Writer

__all__ = ["read", "shown"]

_NAMES = {
    "LOCATION": "Location", "DTSTART": "Start", "DTEND": "End", "DUE": "Due", "DURATION": "Duration",
    "RRULE": "Repeated", "ORGANIZER": "Organizer", "ATTENDEE": "Attendee", "DESCRIPTION": "Description", "STATUS": "Status",
    "COMMENT": "Comment", "CATEGORIES": "Categories", "URL": "URL",
}  # fmt: skip
_OF_CARDS = {
    "ORG": "Organization", "TITLE": "Title", "ROLE": "Role", "TEL": "Phone", "EMAIL": "E-mail", "ADR": "Address", "URL": "URL",
    "NICKNAME": "Nickname", "BDAY": "Birthday", "NOTE": "Note", "CATEGORIES": "Categories", "IMPP": "Messages",
}  # fmt: skip
_EVENTS = ("VEVENT", "VTODO", "VJOURNAL")
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)(Z?))?$")
_LINE = re.compile(r"(?:[\w-]+\.)?([A-Za-z-]+)((?:;[^:;\"]*(?:\"[^\"]*\"[^:;\"]*)*)*):(.*)", re.DOTALL)
_QUOTED = re.compile(r"(?i)(^[^:\n]*ENCODING=QUOTED-PRINTABLE[^:\n]*:(?:[^\n]*=\n)*[^\n]*)", re.MULTILINE)


def read(data: bytes, out: Writer) -> None:
    """Reads a calendar or a file of cards, each event and each person under a heading; what is neither is text."""
    text = decode(data)
    found = False
    for kind, title, lines in _entries(text):
        found = True
        if title:
            out.heading(title, 2)
        for n, line in enumerate(lines):
            out.block(line, gap=2 if n == 0 else 1)
        out.title = out.title or (title if kind == "VCARD" else "")
    if not found:
        out.block(text, keep=True)
    named = re.search(r"^X-WR-CALNAME[^:\n]*:(.+)", text, re.MULTILINE | re.IGNORECASE)
    out.title = named[1].strip() if named else out.title


def shown(text: str) -> str:
    """The events and tasks, an empty line between them; the text as it is where it holds none."""
    events = ([f"Summary: {title}"] * bool(title) + lines for kind, title, lines in _entries(text) if kind in _EVENTS)
    return "\n\n".join("\n".join(lines) for lines in events if lines) or text


def _entries(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Each event, task, note of a day and card: which of these, its title, and what else is told of it, a line each."""
    text = _QUOTED.sub(lambda found: found[1].replace("=\n", ""), text.replace("\r\n", "\n"))  # vCard 2.1
    inside: list[str] = []
    title, lines = "", list[str]()
    for line in re.sub(r"\n[ \t]", "", text).splitlines():  # lines are folded at 75 bytes, within words too
        found = _LINE.match(line)
        if found is None:
            continue
        name, parameters, value = found[1].upper(), found[2], found[3]
        match name:
            case "BEGIN":
                inside.append(value.strip().upper())
                if inside[-1] in (*_EVENTS, "VCARD"):
                    title, lines = "", []
            case "END" if inside:
                if inside[-1] in (*_EVENTS, "VCARD") and (title or lines):
                    yield inside[-1], title, lines
                inside.pop()
            case "SUMMARY" if inside and inside[-1] in _EVENTS:
                title = _value(name, parameters, value)
            case "FN" if inside and inside[-1] == "VCARD":
                title = _value(name, parameters, value)
            case _ if inside and name in (_OF_CARDS if inside[-1] == "VCARD" else _NAMES if inside[-1] in _EVENTS else {}):
                if words := _value(name, parameters, value):
                    lines.append(f"{(_OF_CARDS if inside[-1] == 'VCARD' else _NAMES)[name]}: {words}")


def _value(name: str, parameters: str, value: str) -> str:
    if name in ("ORGANIZER", "ATTENDEE"):
        called = re.search(r";CN=\"?([^;\"]+)", parameters, re.IGNORECASE)
        address = re.sub("^mailto:", "", value, flags=re.IGNORECASE)
        return f"{called[1]} <{address}>" if called else address
    if "QUOTED-PRINTABLE" in parameters.upper():
        value = decode(quopri.decodestring(value.encode()))
    if name in ("ADR", "ORG"):
        value = ", ".join(part.strip() for part in re.split(r"(?<!\\);", value) if part.strip())
    if name in ("TEL", "EMAIL", "IMPP"):
        value = re.sub("^(?:tel|mailto|xmpp|sip):", "", value, flags=re.IGNORECASE)
    if name in ("DTSTART", "DTEND", "DUE", "BDAY") and (time := _TIME.match(value)):
        zone = re.search(r";TZID=\"?([^;\"]+)", parameters, re.IGNORECASE)
        clock = f" {time[4]}:{time[5]}" if time[4] else ""
        return f"{time[1]}-{time[2]}-{time[3]}{clock}" + (" UTC" if time[7] else f" {zone[1]}" if zone and clock else "")
    return re.sub(r"\\([nN,;\\])", lambda sign: "\n" if sign[1] in "nN" else sign[1], value)
