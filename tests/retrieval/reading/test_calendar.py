"""Calendars and cards of people."""

from __future__ import annotations

from pathlib import Path

import pytest

from .files import document, saved

CALENDAR = """BEGIN:VCALENDAR
X-WR-CALNAME:Harbour office
BEGIN:VTIMEZONE
TZID:Europe/Oslo
END:VTIMEZONE
BEGIN:VEVENT
DTSTART;TZID=Europe/Oslo:20260609T090000
LOCATION:Hall seven\\, gate 3
SUMMARY:Dredging of
  the inner quay
BEGIN:VALARM
DESCRIPTION:Reminder
END:VALARM
END:VEVENT
BEGIN:VTODO
SUMMARY:Paint the buoys
DUE;VALUE=DATE:20260701
END:VTODO
END:VCALENDAR
"""
CARDS = """BEGIN:VCARD
VERSION:4.0
N:Keeper;Ada;;;
FN:Ada Keeper
item1.ORG:Harbour office;Northern lights
TEL;VALUE=uri;TYPE=work:tel:+47-555-0143
ADR;TYPE=home:;;9 Quay Road;Ostmark;;4417;Norway
END:VCARD
BEGIN:VCARD
VERSION:2.1
FN;CHARSET=UTF-8;ENCODING=QUOTED-PRINTABLE:J=C3=B8rgen =
Winch
NOTE;ENCODING=QUOTED-PRINTABLE:Speaks =C3=86r=C3=B8 =
and Danish
END:VCARD
"""


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_events_and_tasks_are_read_under_their_names(tmp_path: Path, line_end: str) -> None:
    found = document(saved(tmp_path, "a.ics", CALENDAR.replace("\n", line_end).encode()))
    assert found.text == (
        "Dredging of the inner quay\n\nStart: 2026-06-09 09:00 Europe/Oslo\nLocation: Hall seven, gate 3\n\n"
        "Paint the buoys\n\nDue: 2026-07-01"
    )
    assert [heading.text for heading in found.headings] == ["Dredging of the inner quay", "Paint the buoys"]
    assert found.title == "Harbour office"


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_cards_are_read_under_their_names(tmp_path: Path, line_end: str) -> None:
    found = document(saved(tmp_path, "a.vcf", CARDS.replace("\n", line_end).encode()))
    assert found.text == (
        "Ada Keeper\n\nOrganization: Harbour office, Northern lights\nPhone: +47-555-0143\n"
        "Address: 9 Quay Road, Ostmark, 4417, Norway\n\nJørgen Winch\n\nNote: Speaks Ærø and Danish"
    )
    assert [heading.text for heading in found.headings] == ["Ada Keeper", "Jørgen Winch"]


def test_what_holds_no_event_is_text(tmp_path: Path) -> None:
    assert (
        document(saved(tmp_path, "a.ics", b"The keeper wrote this.\n  So he did.")).text
        == "The keeper wrote this.\n  So he did."
    )
