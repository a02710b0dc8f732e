"""Invitations and calendars (iCalendar, RFC 5545) as lines to read: what, when, where and who."""

from __future__ import annotations

import re

__all__ = ["shown"]

_NAMES = {
    "SUMMARY": "Summary", "LOCATION": "Location", "DTSTART": "Start", "DTEND": "End", "DUE": "Due", "DURATION": "Duration",
    "RRULE": "Repeated", "ORGANIZER": "Organizer", "ATTENDEE": "Attendee", "DESCRIPTION": "Description", "STATUS": "Status",
    "COMMENT": "Comment", "CATEGORIES": "Categories", "URL": "URL",
}  # fmt: skip
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)(\d\d)(Z?))?$")
_LINE = re.compile(r"([A-Za-z-]+)((?:;[^:;\"]*(?:\"[^\"]*\"[^:;\"]*)*)*):(.*)", re.DOTALL)


def shown(text: str) -> str:
    """The events and tasks, an empty line between them; the text as it is where it holds none."""
    events: list[list[str]] = []
    inside: list[str] = []
    for line in re.sub(r"\r?\n[ \t]", "", text).splitlines():  # lines are folded at 75 bytes, within words too
        found = _LINE.match(line)
        if found is None:
            continue
        name, parameters, value = found[1].upper(), found[2], found[3]
        match name:
            case "BEGIN":
                inside.append(value.strip().upper())
                if inside[-1] in ("VEVENT", "VTODO", "VJOURNAL"):
                    events.append([])
            case "END" if inside:
                inside.pop()
            case _ if events and inside and inside[-1] in ("VEVENT", "VTODO", "VJOURNAL") and name in _NAMES:
                events[-1].append(f"{_NAMES[name]}: {_value(name, parameters, value)}")
    return "\n\n".join("\n".join(event) for event in events if event) or text


def _value(name: str, parameters: str, value: str) -> str:
    if name in ("ORGANIZER", "ATTENDEE"):
        called = re.search(r";CN=\"?([^;\"]+)", parameters, re.IGNORECASE)
        address = re.sub("^mailto:", "", value, flags=re.IGNORECASE)
        return f"{called[1]} <{address}>" if called else address
    if name in ("DTSTART", "DTEND", "DUE") and (time := _TIME.match(value)):
        zone = re.search(r";TZID=\"?([^;\"]+)", parameters, re.IGNORECASE)
        clock = f" {time[4]}:{time[5]}" if time[4] else ""
        return f"{time[1]}-{time[2]}-{time[3]}{clock}" + (" UTC" if time[7] else f" {zone[1]}" if zone and clock else "")
    return re.sub(r"\\([nN,;\\])", lambda sign: "\n" if sign[1] in "nN" else sign[1], value)
