"""Which files are read, by their names, their bytes and the pipeline's word; the headings of marked-up text."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from llmbench.recipe import SourceSpec
from llmbench.retrieval.reading import read_all, walk

from .files import document, readings, saved, zipped

WORDS = b"The lighthouse keeper wrote this line."


def taken(folder: Path, **place: object) -> tuple[dict[str, str], dict[str, str]]:
    """The text of each file of a folder, and what was left out."""
    found = walk([SourceSpec.model_validate({"path": folder, **place})])
    texts = {each.source: each.text for reading in read_all(found.files, workers=1) for each in reading.documents}
    return texts, dict(found.skipped)


def test_text_is_read_by_whatever_name(tmp_path: Path) -> None:
    words = (
        "guide.asciidoc run.bat app.properties server.log.1 server.log.2026-11-01 tsconfig.jsonc site.opml places.geojson "
        "schema.xsd proj.csproj slides.typ page.mediawiki kernel.asm adder.v style.less calendar.ics card.vcf notes LIESMICH "
        "settings.ini.bak unknown.xyz"
    )
    names = words.split()
    for name in names:
        saved(tmp_path / "docs", name, WORDS)
    texts, skipped = taken(tmp_path / "docs")
    assert sorted(texts) == sorted(names) and not skipped
    assert {text.strip() for text in texts.values()} == {WORDS.decode()}


def test_what_is_no_text_is_left_out_whatever_its_bytes_look_like(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    for name, data in {
        "a.xyz": b"\0\1\2 binary", "b.png": WORDS, "c.pem": WORDS, "id_rsa": b"-----BEGIN OPENSSH PRIVATE KEY-----\nx",
        "d": b"\x7fELF" + bytes(20), "empty.xyz": b"",
    }.items():  # fmt: skip
        saved(folder, name, data)
    texts, skipped = taken(folder)
    assert not texts and skipped == {
        "a.xyz": ".xyz files are not read", "b.png": ".png files are not read", "c.pem": ".pem files are not read",
        "id_rsa": "a binary file without an ending", "d": "a binary file without an ending",
        "empty.xyz": ".xyz files are not read",
    }  # fmt: skip


@pytest.mark.parametrize("data", ["Käse".encode(), "Käse und Öl".encode("cp1252"), "x".encode("utf-16"), "ä".encode() * 999])
def test_text_of_any_encoding_is_told_by_its_first_bytes(tmp_path: Path, data: bytes) -> None:
    saved(tmp_path / "docs", "a.unknown", data)
    assert len(taken(tmp_path / "docs")[0]) == 1


def test_a_place_says_how_its_files_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    saved(folder, "page.dump", b"<p>Of a <b>page</b></p>")
    saved(folder, "rows.data", b'{"id": 1, "text": "One"}\n{"id": 2, "text": "Two"}\n')
    saved(folder, "plain.html", b"<p>As it is</p>")
    texts, _ = taken(folder, formats={"dump": "html", ".HTML": "txt"}, exclude=["*.data"])
    assert texts == {"page.dump": "Of a page", "plain.html": "<p>As it is</p>"}
    texts, _ = taken(folder, format="txt", include=["*.dump"])
    assert texts == {"page.dump": "<p>Of a <b>page</b></p>"}
    texts, _ = taken(folder, formats={".data": "jsonl"}, columns={}, include=["*.data"])
    assert texts == {"rows.data#1": "One", "rows.data#2": "Two"}
    with pytest.raises(ValidationError, match="formats"):
        SourceSpec.model_validate({"path": folder, "formats": {".x": "nonsense"}})


def test_what_include_names_by_its_ending_is_taken(tmp_path: Path) -> None:
    saved(tmp_path / "docs", "a.svg", b"<svg><text>Nine</text></svg>")
    assert not taken(tmp_path / "docs", include=["*"])[0]
    assert taken(tmp_path / "docs", include=["**/*.svg"])[0] == {"a.svg": "<svg><text>Nine</text></svg>"}


def test_files_in_a_zip_archive_are_documents(tmp_path: Path) -> None:
    inner = zipped({"deep.txt": "Deep words."})
    parts: dict[str, str | bytes] = {
        "a/b.md": "# Title\n\nWords.",
        "c.html": "<p>Page</p>",
        "pic.png": b"\x89PNG",
        "inner.zip": inner,
        "__MACOSX/x.md": "x",
    }
    found, failure = readings(saved(tmp_path, "docs.zip", zipped(parts)))
    assert {source: each.text for source, each in found.items()} == {
        "docs.zip#a/b.md": "# Title\n\nWords.", "docs.zip#c.html": "Page", "docs.zip#inner.zip#deep.txt": "Deep words.",
    }  # fmt: skip
    assert (found["docs.zip#a/b.md"].title, found["docs.zip#c.html"].title, failure) == ("Title", "c", "")


def test_archives_within_archives_end_somewhere_and_a_bomb_costs_itself(tmp_path: Path) -> None:
    data = zipped({"a.txt": "x"})
    for number in range(5):
        data = zipped({f"{number}.zip": data, f"{number}.txt": f"words {number}"})
    bomb = zipped({"bomb.txt": bytes(60 * 2**20), "good.txt": "Good.", "more.zip": data})
    found, failure = readings(saved(tmp_path, "docs.zip", bomb))
    assert found["docs.zip#good.txt"].text == "Good."
    assert "bomb.txt: possibly a zip bomb" in failure and "files are nested too deeply" in failure


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.tex", "\\title{On \\emph{rope} \\& chain}\n%\\section{No}\n\\section*{One}\\label{x}\n\\subsection[short]{Two~b}\n",
         [(1, "On rope & chain"), (2, "One"), (3, "Two b")]),
        ("a.asciidoc", "= Title =\n\n* item\n\n== Part=\n", [(1, "Title"), (2, "Part=")]),
        ("a.org", "* One  \n** Two\n", [(1, "One"), (2, "Two")]),
        ("a.typ", "= One\n== Two\n", [(1, "One"), (2, "Two")]),
        ("a.mediawiki", "== One ==\n===Two===\n== none\n", [(2, "One"), (3, "Two")]),
        ("a.textile", "h1. One\n\nh2(x). Two\n", [(1, "One"), (2, "Two")]),
        ("a.rst", "One\n===\n\n* item\n", [(1, "One")]),
        ("a.txt", "= One\n", []),
    ],
)  # fmt: skip
def test_headings_of_marked_up_text_are_found(tmp_path: Path, name: str, text: str, expected: list[tuple[int, str]]) -> None:
    found = document(saved(tmp_path, name, text.encode()))
    assert [(h.level, h.text) for h in found.headings] == expected


@pytest.mark.parametrize(
    ("name", "mark", "end"),
    [
        ("a.md", "#", ""),
        ("a.adoc", "=", ""),
        ("a.org", "*", ""),
        ("a.typ", "=", ""),
        ("a.wiki", "=", "="),
        ("a.textile", "h1.", ""),
    ],
)
def test_a_run_of_a_million_spaces_in_a_heading_ends(tmp_path: Path, name: str, mark: str, end: str) -> None:
    """These are read where the indexing runs, and nothing bounds their time."""
    found = document(saved(tmp_path, name, f"{mark} one{' ' * 2**20}two {end}\n\nText".encode()))
    assert [heading.text.split() for heading in found.headings] == [["one", "two"]]


def test_parts_that_are_called_the_same_are_numbered(tmp_path: Path) -> None:
    parts = ["a.txt", "a.txt (2)", "a.txt", "a.txt", "a.txt (2)", "b.txt"]
    attached = "".join(
        f'--B\nContent-Disposition: attachment; filename="{name}"\n\nPart {at}.\n' for at, name in enumerate(parts)
    )
    message = f"Subject: x\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n{attached}--B--\n"
    found, _ = readings(saved(tmp_path, "m.eml", message.encode()))
    names = ["a.txt", "a.txt (2)", "a.txt (3)", "a.txt (4)", "a.txt (2) (2)", "b.txt"]
    assert {name.partition("#")[2]: each.text for name, each in found.items() if "#" in name} == {
        name: f"Part {at}." for at, name in enumerate(names)
    }
