"""Messages and mailboxes: what is said, in whichever part, and what is attached."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import pytest

from .files import document, docx, ole, paragraph, readings, saved, zipped

HEAD = "From: Desk <desk@example.org>\r\nSubject: Chain\r\nMIME-Version: 1.0\r\n"


def mixed(*parts: str, kind: str = "mixed", mark: str = "b") -> str:
    """A message of several parts."""
    inner = "".join(f"--{mark}\r\n{part}\r\n" for part in parts)
    return f'Content-Type: multipart/{kind}; boundary="{mark}"\r\n\r\n{inner}--{mark}--\r\n'


def attached(name: str, data: bytes, kind: str = "application/octet-stream") -> str:
    packed = base64.encodebytes(data).decode()
    head = f'Content-Type: {kind}\r\nContent-Disposition: attachment; filename="{name}"\r\n'
    return f"{head}Content-Transfer-Encoding: base64\r\n\r\n{packed}"


def test_attachments_are_documents_of_their_own(tmp_path: Path) -> None:
    inner = HEAD.replace("Chain", "Inner") + mixed(
        "\r\nForwarded words.", attached("deep.txt", b"Words of the inner file."), mark="c"
    )
    parts = [
        "Content-Type: text/plain\r\n\r\nSee what is attached.",
        attached("order.txt", b"Sixty metres of chain."),
        attached("order.txt", b"Another of the same name."),
        attached("=?utf-8?B?w4RuZGVydW5nLmRvY3g=?=", docx(paragraph("Berth nine."))),
        attached("logo.png", b"\x89PNG\r\n\x1a\n" + bytes(40), "image/png"),
        attached("broken.docx", b"PK\x03\x04 cut off"),
        attached("more.zip", zipped({"in/a.md": "# Zipped\n\nWords.", "b.typ": "Text by its bytes.", ".x/c.md": "Hidden."})),
        f"Content-Type: message/rfc822\r\n\r\n{inner}",
    ]
    found, failure = readings(saved(tmp_path, "order.eml", (HEAD + mixed(*parts)).encode()))
    texts = {source.removeprefix("order.eml"): each.text for source, each in found.items()}
    assert texts.pop("").splitlines()[2:] == [
        "From: Desk <desk@example.org>", "", "See what is attached.", "",
        "Attachments: order.txt, order.txt, Änderung.docx, logo.png, broken.docx, more.zip", "",
        "Inner", "", "From: Desk <desk@example.org>", "", "Forwarded words.", "", "Attachments: deep.txt",
    ]  # fmt: skip
    assert texts == {
        "#order.txt": "Sixty metres of chain.",
        "#order.txt (2)": "Another of the same name.",
        "#Änderung.docx": "Berth nine.",
        "#more.zip#in/a.md": "# Zipped\n\nWords.",
        "#more.zip#b.typ": "Text by its bytes.",
        "#deep.txt": "Words of the inner file.",
    }
    assert found["order.eml#more.zip#in/a.md"].headings[0].text == "Zipped"
    assert failure.startswith("1 file in it left out: broken.docx: broken or cut off")


@pytest.mark.parametrize(
    ("plain", "page", "expected"),
    [
        ("Your program cannot show HTML.", "<p>The meeting moves to <b>hall seven</b>.</p>", "both"),
        (
            "The meeting moves to hall seven. See https://example.org/",
            "<p>The meeting moves to <b>hall seven</b>.</p>",
            "plain",
        ),
    ],
)
def test_html_is_read_where_the_plain_text_does_not_repeat_it(tmp_path: Path, plain: str, page: str, expected: str) -> None:
    parts = mixed(f"Content-Type: text/plain\r\n\r\n{plain}", f"Content-Type: text/html\r\n\r\n{page}", kind="alternative")
    text = document(saved(tmp_path, "a.eml", (HEAD + parts).encode())).text
    assert text.count("hall seven") == 1
    assert (plain in text) and ("\n\nThe meeting moves to hall seven." in text) == (
        expected == "both" or plain.startswith("The")
    )


@pytest.mark.parametrize("name", ["yard.mbox", "Inbox"])
def test_each_message_of_a_mailbox_is_a_document(tmp_path: Path, name: str) -> None:
    letters = [
        HEAD.replace("\r\n", "\n") + "\nThe chain arrived.\n>From then on it rained.\n\nFrom here on, words.\n",
        HEAD.replace("\r\n", "\n") + mixed("\r\nSee it.", attached("a.txt", b"Attached words.")),
    ]
    data = "".join(f"From desk@example.org Mon Mar  2 10:00:00 2026\n{letter}\n" for letter in letters)
    found, failure = readings(saved(tmp_path, name, data.encode()))
    assert [*found] == [f"{name}#1", f"{name}#2", f"{name}#2#a.txt"] and not failure
    assert found[f"{name}#1"].text.endswith("The chain arrived.\nFrom then on it rained.\n\nFrom here on, words.")
    assert (found[f"{name}#1"].title, found[f"{name}#2#a.txt"].text) == ("Chain", "Attached words.")


def tnef(*files: tuple[str, bytes]) -> bytes:
    """A winmail.dat."""

    def attribute(number: int, data: bytes) -> bytes:
        return b"\x02" + struct.pack("<II", number, len(data)) + data + b"\0\0"

    inner = b"".join(
        attribute(0x69002, bytes(14)) + attribute(0x18010, name.encode() + b"\0") + attribute(0x6800F, data)
        for name, data in files
    )
    return struct.pack("<IH", 0x223E9F78, 1) + attribute(0x2800C, b"Words of the message.\0") + inner


def test_what_outlook_packs_into_winmail_dat_is_unpacked(tmp_path: Path) -> None:
    packed = attached("winmail.dat", tnef(("plan.txt", b"The plan.")), "application/ms-tnef")
    found, _ = readings(saved(tmp_path, "a.eml", (HEAD + mixed(packed)).encode()))
    assert found["a.eml"].text.endswith("Words of the message.\n\nAttachments: plan.txt")
    assert found["a.eml#plan.txt"].text == "The plan."


def properties(**numbers: int) -> bytes:
    entries = b"".join(struct.pack("<IIQ", int(tag[1:], 16), 6, value) for tag, value in numbers.items())
    return bytes(32) + entries


RTF = b"{\\rtf1\\ansi Packed words\\par}"


@pytest.mark.parametrize(
    ("streams", "expected"),
    [
        ({"1000001E": b"Sixty metres.\0\0"}, "Sixty metres."),  # 8 bits, ended by zero bytes
        ({"1000001E": "Цепь для причала".encode("cp1251") + b"\0", "page": 1251}, "Цепь для причала"),
        ({"1000001E": "鎖と網".encode("cp932"), "page": 932}, "鎖と網"),
        ({"1000001E": "Käse".encode(), "page": 65001}, "Käse"),
        ({"10130102": b"<p>Of the page</p>"}, "Of the page"),
        ({"10090102": struct.pack("<II4sI", len(RTF) + 12, len(RTF), b"MELA", 0) + RTF}, "Packed words"),
        ({"1000001E": bytes(range(1, 32)) * 9, "1013001F": "<p>Only this</p>".encode("utf-16-le")}, "Only this"),
    ],
    ids=["zeros", "cp1251", "cp932", "utf-8", "html", "rtf", "binary string"],
)
def test_outlooks_messages_are_read_whatever_their_strings_are(
    tmp_path: Path, streams: dict[str, bytes | int], expected: str
) -> None:
    page = streams.get("page", 0)
    data = {f"__substg1.0_{tag}": value for tag, value in streams.items() if isinstance(value, bytes)}
    assert isinstance(page, int)
    file = ole({"__substg1.0_0037001E": b"Chain\0", "__properties_version1.0": properties(_3FFD0003=page), **data})
    assert document(saved(tmp_path, "a.msg", file)).text == f"Chain\n\n{expected}"


def test_attachments_of_an_outlook_message_and_messages_within_it_are_read(tmp_path: Path) -> None:
    first, second = "__attach_version1.0_#00000000", "__attach_version1.0_#00000001"
    inner = f"{second}/__substg1.0_3701000D"
    file = ole(
        {
            "__properties_version1.0": properties(),
            "__substg1.0_0037001F": "Chain".encode("utf-16-le"),
            "__substg1.0_1000001F": "See it.".encode("utf-16-le"),
            f"{first}/__substg1.0_3707001F": "order.txt".encode("utf-16-le"),
            f"{first}/__substg1.0_37010102": b"Sixty metres.",
            f"{second}/__substg1.0_3001001F": "Old mail".encode("utf-16-le"),
            f"{inner}/__properties_version1.0": properties(),
            f"{inner}/__substg1.0_1000001F": "Inner words.".encode("utf-16-le"),
        }
    )
    found, failure = readings(saved(tmp_path, "a.msg", file))
    assert found["a.msg"].text == "Chain\n\nSee it.\n\nAttachments: order.txt, Old mail\n\nInner words."
    assert (found["a.msg#order.txt"].text, failure) == ("Sixty metres.", "")


def test_an_invitation_is_read_as_lines(tmp_path: Path) -> None:
    event = (
        "BEGIN:VCALENDAR\r\nPRODID:x\r\nBEGIN:VEVENT\r\nSUMMARY:Crane insp\r\n ection\\, hall nine\r\n"
        "DTSTART;TZID=Europe/Oslo:20260302T100000\r\nORGANIZER;CN=Desk:mailto:desk@example.org\r\n"
        'ATTENDEE;MEMBER="mailto:a@example.org","mailto:b@example.org":mailto:c@example.org\r\n'
        f"ATTENDEE;{'aaaaaaaaaa;' * 40}\r\nBEGIN:VALARM\r\n"
        "DESCRIPTION:reminder\r\nEND:VALARM\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
    )
    parts = ("Content-Type: text/plain\r\n\r\nPlease come.", f"Content-Type: text/calendar; method=REQUEST\r\n\r\n{event}")
    found = document(saved(tmp_path, "a.eml", (HEAD + mixed(*parts, kind="alternative")).encode()))
    assert found.text.endswith(
        "Please come.\n\nSummary: Crane inspection, hall nine\n"
        "Start: 2026-03-02 10:00 Europe/Oslo\nOrganizer: Desk <desk@example.org>\nAttendee: c@example.org"
    )


def test_a_report_of_delivery_a_saved_page_and_raw_headers_keep_their_words(tmp_path: Path) -> None:
    status = "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\nStatus: 5.1.1\r\n"
    report = HEAD + mixed("Content-Type: text/plain\r\n\r\nNot delivered.", status, kind="report")
    assert document(saved(tmp_path, "a.eml", report.encode())).text.endswith("Reporting-MTA: dns; x\nStatus: 5.1.1")
    page = HEAD + mixed(
        "Content-Type: text/html\r\n\r\n<p>Words", "Content-Type: text/css\r\n\r\np {color: red}", kind="related"
    )
    assert "color" not in document(saved(tmp_path, "b.mht", page.encode())).text
    raw = "Subject: Gr\u00fc\u00dfe\r\n\r\nStra\u00dfe neun in K\u00f6ln und M\u00fcnchen".encode("latin-1")
    assert document(saved(tmp_path, "c.eml", raw)).title == "Gr\u00fc\u00dfe"
