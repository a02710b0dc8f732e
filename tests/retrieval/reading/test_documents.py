"""Reading: every kind of file, and every kind that cannot be read."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from llmbench.recipe import SourceSpec
from llmbench.retrieval.documents import Document, Unreadable
from llmbench.retrieval.reading import File, children, read, walk
from llmbench.retrieval.reading.clean import Cleaner


def document(path: Path) -> Document:
    return read(File(path, path.name, SourceSpec(path=path)))


def saved(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "data",
    [
        "Käse ß 5 €\r\nnext\n".encode(),
        "\ufeffKäse ß 5 €\r\nnext\n".encode(),
        "Käse ß 5 €\r\nnext\n".encode("cp1252"),
        "Käse ß 5 €\r\nnext\n".encode("utf-16"),
        b"\xfe\xff" + "Käse ß 5 €\r\nnext\n".encode("utf-16-be"),
    ],
    ids=["utf-8", "utf-8 with mark", "cp1252", "utf-16 little", "utf-16 big"],
)
def test_text_is_decoded_whatever_its_encoding(tmp_path: Path, data: bytes) -> None:
    found = document(saved(tmp_path, "a.txt", data))
    assert found.text == "Käse ß 5 €\nnext\n"
    assert found.line(found.text.index("next")) == 2
    assert found.page(0) is None


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.md", b"", "empty"),
        ("blank.md", b" \n\t\n", "no text"),
        ("binary.txt", b"\x7fELF\0\0", "a program"),
        ("binary.html", b"<p>\0</p>", "binary"),
        ("broken.pdf", b"%PDF-1.7 nothing behind it", "broken PDF"),
        ("no.pdf", b"this is no PDF at all", "broken PDF"),
        ("script.html", b"<script>let a = 1</script>", "no text"),
    ],
)
def test_a_file_that_gives_no_text_says_why(tmp_path: Path, name: str, data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        document(saved(tmp_path, name, data))


def test_markdown_headings_are_found_outside_code_and_front_matter_gives_the_title(tmp_path: Path) -> None:
    text = (
        '---\ntitle: "The guide"\ntags: [a]\n---\n# First #\n\nText.\n\n```python\n# a comment\n```\n\n'
        "Second\n======\n\n- item\n---\n\n### Third ###\n#hashtag\n"
    )
    found = document(saved(tmp_path, "a.md", text.encode()))
    assert found.title == "The guide"
    assert found.metadata["title"] == "The guide"
    assert [(h.level, h.text) for h in found.headings] == [(0, ""), (1, "First"), (1, "Second"), (3, "Third")]
    assert found.text == text
    assert text[found.headings[2].start : found.headings[2].end] == "Second\n======"


def test_a_markdown_rule_at_the_top_is_no_front_matter(tmp_path: Path) -> None:
    found = document(saved(tmp_path, "a.md", b"---\n\nSome text.\n\n---\n\nMore.\n"))
    assert all(h.level for h in found.headings)
    assert found.title == "a"


def test_html_gives_its_visible_text_in_blocks(tmp_path: Path) -> None:
    html = """<?xml version="1.0"?><!doctype html><html><head><title> A
      page </title><style>p {color: red}</style></head><body><nav>Home</nav><h1>Head <em>line</em></h1>
      <p>One <b>bold</b>word,
      folded.</p><!-- comment --><script>alert(1)</script><div hidden>no</div><div style="display: none">no</div>
      <ul><li>first</li><li>second</li></ul><table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>
      <pre>  keep
    this</pre><h2></h2>x<br>y &amp; z</body></html>"""
    found = document(saved(tmp_path, "a.html", html.encode()))
    assert found.title == "A page"
    assert found.text.split("\n\n") == [
        "Head line",
        "One boldword, folded.",
        "first\nsecond",
        "a | b\nc",
        "  keep\n    this",
        "x\ny & z",
    ]
    assert [(h.level, h.text) for h in found.headings] == [(1, "Head line")]
    assert all(found.text[h.start : h.end] == h.text for h in found.headings)
    assert found.line(0) is None


def test_html_nested_without_end_is_read(tmp_path: Path) -> None:
    found = document(saved(tmp_path, "deep.html", b"<div>" * 3000 + b"inside" + b"</div>" * 3000))
    assert found.text == "inside"


def test_pdf_pages_are_told_by_offset_and_its_title_is_a_heading(write_pdf: Callable[..., Path]) -> None:
    found = document(write_pdf("a.pdf", "My title\nFirst page.", "Second page.", "", "Fourth page.", title="My title"))
    assert found.title == "My title"
    assert [h.text for h in found.headings] == ["My title"]
    for text, page in (("First", 1), ("Second", 2), ("Fourth", 4)):
        assert found.page(found.text.index(text)) == page


def test_an_encrypted_pdf_is_told_apart_from_a_broken_one(write_pdf: Callable[..., Path]) -> None:
    with pytest.raises(Unreadable, match="encrypted: it needs a password"):
        document(write_pdf("locked.pdf", "Secret", password="word"))


def test_a_pdf_of_pictures_asks_for_ocr(write_pdf: Callable[..., Path]) -> None:
    with pytest.raises(Unreadable, match="OCR"):
        document(write_pdf("scan.pdf", ""))


def raw_pdf(folder: Path, name: str, stream: bytes) -> Path:
    """A PDF of one page with a given compressed content stream."""
    packed = zlib.compress(stream)
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>",
        b"<</Length %d/Filter/FlateDecode>>stream\n%s\nendstream" % (len(packed), packed),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj%s endobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"xref\n0 6\n0000000000 65535 f \n%strailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (table, len(body))
    return saved(folder, name, body + end)


def test_a_pdf_that_takes_for_ever_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "SECONDS", 1)
    monkeypatch.setattr(children, "PATIENCE", 100)
    path = raw_pdf(tmp_path, "slow.pdf", b"BT /F 9 Tf " + b"1 0 0 1 5 5 Tm (a) Tj " * 3_000_000 + b"ET")
    with pytest.raises(Unreadable, match="not read within 1 seconds of processor time"):
        document(path)


def test_a_pdf_that_unpacks_to_gigabytes_harms_nobody(tmp_path: Path) -> None:
    path = raw_pdf(tmp_path, "bomb.pdf", bytes(40 * 2**20))
    assert path.stat().st_size < 2**20
    with pytest.raises(Unreadable):
        document(path)


@pytest.mark.parametrize(
    ("found", "meant"),
    [("o\ufb03ce \ufb01le", "office file"), ("a\u00a0b\u00adc\x00d", "a bc d"), ("10² m", "10² m"), ("half \ud83d", "half")],
)
def test_pdf_text_is_repaired(found: str, meant: str) -> None:
    assert Cleaner()(found).strip() == meant


def test_a_folder_is_walked_in_order_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    for name in ("b.md", "a.md", "sub/c.txt", "picture.png", ".hidden.md", ".git/x.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("text")
    outside = saved(tmp_path, "outside.md", b"secret")
    (folder / "link.md").symlink_to(outside)
    (folder / "linked").symlink_to(tmp_path)
    (folder / "same.md").symlink_to(folder / "a.md")
    (folder / "gone.md").symlink_to(folder / "nowhere.md")
    os.mkfifo(folder / "pipe.md")
    found = walk([SourceSpec(path=folder)])
    assert [file.source for file in found.files] == ["a.md", "b.md", "sub/c.txt"]
    assert dict(found.skipped) == {
        "link.md": "a link to outside the folder",
        "linked": "a link to outside the folder",
        "gone.md": "a broken or circular link",
        "pipe.md": "not a plain file",
        "picture.png": ".png files are not read",
    }


def test_several_roots_are_named_from_the_folder_that_holds_them_all(tmp_path: Path) -> None:
    saved(tmp_path / "docs", "README.md", b"inner")
    outer = saved(tmp_path, "README.md", b"outer")
    files = walk([SourceSpec(path=p) for p in (tmp_path / "docs", outer, outer)]).files
    assert [file.source for file in files] == ["README.md", "docs/README.md"]
    assert walk([SourceSpec(path=outer)]).files[0].source == "README.md"
