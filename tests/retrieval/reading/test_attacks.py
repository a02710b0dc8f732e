"""Files that are broken, mislabelled or hostile: each is told of in one line, and none stops the others."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from llmbench.recipe import SourceSpec
from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading import File, children, read, read_all, walk
from llmbench.retrieval.reading.children import Child

from .files import document, docx, epub, paragraph, pptx, saved, shape, xlsx, zipped

LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><l>&c;</l>'
)
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a SYSTEM "file:///etc/passwd">]><l>&a;</l>'
ZEROS = bytes(60 * 2**20)


def refused(path: Path) -> str:
    with pytest.raises(Unreadable) as caught:
        document(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.xml", LAUGHS.encode(), "declares entities"),
        ("a.xml", OUTSIDE.encode(), "declares entities"),
        ("a.xml", b"<a>" * 3000 + b"</a>" * 3000, "nested too deep"),
        ("a.xml", b"<a><b></a>", "XML is broken"),
        ("a.docx", zipped({"word/document.xml": LAUGHS}), "declares entities"),
        ("a.docx", zipped({"word/document.xml": OUTSIDE}), "declares entities"),
        ("a.docx", zipped({"word/document.xml": ZEROS}), "zip bomb"),
        ("a.xlsx", zipped({"xl/workbook.xml": "<a/>", "xl/worksheets/sheet1.xml": ZEROS}), "zip bomb"),
        ("a.xlsx", zipped({"xl/workbook.xml": LAUGHS}), "declares entities"),
        ("a.docx", docx(paragraph("words"))[:300], "broken or cut off"),
        ("a.docx", zipped({"word/other.xml": "<a/>"}), "it has no word/document.xml"),
        ("a.docx", b"just text", "broken DOCX"),
        ("a.docx", b"", "empty"),
        ("a.pdf", b"", "empty"),
        ("a.pptx", zipped({"ppt/presentation.xml": "<a"}), "broken"),
        ("a.epub", zipped({"META-INF/container.xml": "<a/>"}), "broken"),
        ("a.docx", zipped({"harmless.txt": "x"}), "a zip file"),
        ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "broken"),
        ("a.txt", b"\x89PNG\r\n\x1a\n" + bytes(100), "a picture"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.ipynb", b"[]", "not a notebook"),
        ("a.eml", b"no header here", "not an e-mail"),
        ("a.rtf", b"{\\rtf1 }", "no text"),
        ("a.ppt", b"\xd0\xcf\x11\xe0", "broken"),
    ],
)
def test_a_poisonous_file_is_told_of_in_one_line(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    assert reason in refused(saved(tmp_path, name, data))


def test_a_member_that_is_longer_than_it_says_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"word/document.xml": "x" * 100_000}))
    at = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 10)  # the size that the directory tells
    assert "word/document.xml" in refused(saved(tmp_path, "a.docx", bytes(data)))


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(20_001):
            archive.writestr(str(number), b"")
    assert "more than 20,000 members" in refused(saved(tmp_path, "a.docx", packed.getvalue()))


def test_a_broken_slide_costs_that_slide(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.pptx", pptx(shape("one"), "<broken", shape("three")))
    found = document(path)
    assert found.text.split() == ["one", "three"]
    assert found.metadata["unread_pages"] == "2"
    (reading,) = read_all([File(path, "a.pptx", SourceSpec(path=path))], workers=1)
    assert reading.failure == "pages that could not be read: 2"


@pytest.mark.parametrize(("name", "kind"), [("a.pdf", "docx"), ("a.xlsx", "docx"), ("a.txt", "docx"), ("a.md", "docx")])
def test_the_bytes_are_believed_more_than_the_name(tmp_path: Path, name: str, kind: str) -> None:
    found = document(saved(tmp_path, name, docx(paragraph("in truth a DOCX"))))
    assert (found.text, found.kind) == ("in truth a DOCX", kind)
    assert "but is docx" in found.warnings[0]


def test_a_pdf_named_docx_is_read_with_its_pages(write_pdf: Callable[..., Path]) -> None:
    found = document(write_pdf("a.docx", "First.", "Second."))
    assert (found.kind, found.page(found.text.index("Second"))) == ("pdf", 2)


def test_one_bad_file_stops_no_other_and_order_is_kept(tmp_path: Path) -> None:
    for number in range(30):
        good = docx(paragraph(f"words {number}")) if number % 2 else f"words {number}".encode()
        saved(
            tmp_path,
            f"{number:02}.{'docx' if number % 2 else 'txt'}",
            zipped({"word/x": ZEROS[:1]}) if number % 5 == 0 else good,
        )
    files = walk([SourceSpec(path=tmp_path)]).files
    readings = list(read_all(files))
    assert [reading.file for reading in readings] == files
    assert [bool(reading.documents) for reading in readings] == [number % 5 != 0 for number in range(30)]
    assert all(reading.last and bool(reading.failure) != bool(reading.documents) for reading in readings)


def test_text_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "LARGEST_TEXT", 1000)
    child = Child()
    path = saved(tmp_path, "a.html", b"<p>" + b"word " * 1000)
    with pytest.raises(Unreadable, match="longer than 1,000 characters"):
        list(child.ask({"path": str(path), "kind": "html", "suffix": ".html"}))
    child.close()


def test_a_reader_that_dies_is_replaced(tmp_path: Path) -> None:
    child, path = Child(), saved(tmp_path, "a.html", b"<p>words")
    request = {"path": str(path), "kind": "html", "suffix": ".html"}
    assert [frame["document"]["text"] for frame in child.ask(request)] == ["words"]
    assert child.process is not None
    first = child.process.pid
    os.kill(first, 11)
    with pytest.raises(Unreadable, match="died of it"):
        list(child.ask(request))
    assert [frame["document"]["text"] for frame in child.ask(request)] == ["words"]
    assert child.process is not None and child.process.pid != first
    child.close()


def test_a_reader_makes_room_after_so_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FILES", 2)
    child, path = Child(), saved(tmp_path, "a.html", b"<p>words")
    request = {"path": str(path), "kind": "html", "suffix": ".html"}
    pids = []
    for _ in range(4):
        for _frame in child.ask(request):
            assert child.process is not None
            pids.append(child.process.pid)
    assert pids[0] == pids[1] != pids[2] == pids[3]
    child.close()


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "MEMORY", 150 * 2**20)
    child = Child()
    path = saved(tmp_path, "a.json", b"[" + b"[],[]," * 1_500_000 + b"0]")
    with pytest.raises(Unreadable, match="needs more than 150 MiB"):
        list(child.ask({"path": str(path), "kind": "json", "suffix": ".json"}))
    child.close()


def test_closing_early_ends_every_process(tmp_path: Path) -> None:
    for number in range(40):
        saved(tmp_path, f"{number:02}.html", b"<p>words")
    files = walk([SourceSpec(path=tmp_path)]).files
    before = children_of(os.getpid())
    readings = read_all(files)
    next(readings)
    assert children_of(os.getpid()) - before
    readings.close()  # type: ignore[attr-defined]
    assert children_of(os.getpid()) <= before


def test_readers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.html", b"<p>words")
    code = (
        "import sys, time\nfrom llmbench.retrieval.reading.children import Child\nchild = Child()\n"
        f"list(child.ask({{'path': {str(path)!r}, 'kind': 'html', 'suffix': '.html'}}))\n"
        "print(child.process.pid, flush=True)\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.kill()
    deadline = time.monotonic() + 20
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)


def alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def children_of(pid: int) -> set[int]:
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for path in listed for child in path.read_text().split() if alive(int(child))}


def test_a_copy_protected_book_is_told_apart(tmp_path: Path) -> None:
    data = io.BytesIO(epub("<p>x</p>"))
    with zipfile.ZipFile(data, "a") as archive:
        archive.writestr("META-INF/encryption.xml", "<encryption><EncryptedKey/></encryption>")
    assert "copy-protected" in refused(saved(tmp_path, "a.epub", data.getvalue()))


def test_an_empty_workbook_has_no_text(tmp_path: Path) -> None:
    assert "no text" in refused(saved(tmp_path, "a.xlsx", xlsx([])))


def test_a_file_that_vanished_is_told_of(tmp_path: Path) -> None:
    gone = tmp_path / "gone.html"
    with pytest.raises(Unreadable, match="cannot be read"):
        read(File(gone, "gone.html", SourceSpec(path=tmp_path)))
