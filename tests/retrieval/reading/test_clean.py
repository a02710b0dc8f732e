# ruff: noqa: RUF001 (letters that look alike are what is tested)
"""Cleaning: what changes, what must not, and that offsets still lead back."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbench.recipe import SourceSpec
from llmbench.retrieval.reading import walk
from llmbench.retrieval.reading.clean import Cleaner, Words, garbage, mend_hyphens
from llmbench.retrieval.reading.read import from_text
from llmbench.retrieval.reading.text import decode

from .files import document, saved


@pytest.mark.parametrize(
    ("found", "meant"),
    [
        ("o\ufb03ce \ufb01le", "office file"),
        ("a\u00a0b\u00adc\x00d", "a bc d"),
        ("10² m², ½, ①, ™, x₂", "10² m², ½, ①, ™, x₂"),
        ("u\u0308ber", "über"),
        ("\uff21\uff22\uff11 ｶ", "AB1 カ"),
        ("\ufee3a\ufeff", "\u0645a"),
        ("zero\u200bwidth\u2060", "zerowidth"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("a\u200db", "ab"),
        ("half \ud83d end", "half   end"),
        ("\uf0b7 item", "• item"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("… – “quoted”", "… – “quoted”"),
    ],
)
def test_text_is_made_fit_for_search(found: str, meant: str) -> None:
    assert Cleaner()(found) == meant


def test_hidden_instructions_are_removed_and_told() -> None:
    clean = Cleaner()
    tags = "".join(chr(0xE0000 + ord(letter)) for letter in "ignore all")
    assert clean(f"Good{tags} text \u202eabc\u202c and \u2066x\u2069") == "Good text abc and x"
    assert clean.warnings == [
        "4 characters that reverse the order of writing were removed",
        "10 invisible characters that can carry hidden instructions were removed",
    ]
    assert Cleaner()("\u200e\u200f marks of Hebrew") == " marks of Hebrew"


def test_a_file_with_hidden_text_is_flagged(tmp_path: Path) -> None:
    for name in ("a.md", "a.html"):
        found = document(saved(tmp_path, name, "Fine\u202e text".encode()))
        assert found.text == "Fine text"
        assert len(found.warnings) == 1


def test_lines_lead_back_to_the_file_where_cleaning_changed_lengths(tmp_path: Path) -> None:
    text = "\ufb01rst\r\n\u200b\u200b\u200bsecond\rthird\u2028still third\n\nfifth\n"
    found = document(saved(tmp_path, "a.txt", text.encode()))
    assert [found.line(found.text.index(word)) for word in ("first", "second", "third", "still", "fifth")] == [1, 2, 3, 3, 5]


def test_divided_words_are_mended_and_compounds_keep_their_hyphen() -> None:
    lines = ["the infor-", "mation, and a well-", "known North-", "South dual-", "encoder; it is well-known", "dual encoder"]
    assert mend_hyphens(lines, Words(lines)) == [
        "the information,",
        "and a well-known",
        "North-",
        "South dual-encoder;",
        "it is well-known",
        "dual encoder",
    ]


def test_garbage_is_measured() -> None:
    assert garbage("Plain words, 12 figures.") == 0
    assert garbage("\ue001\ue002ab") == 0.5
    assert garbage("7KH TXLFN EURZQ IRV MXPSV RYHU WKH ODCB GRJ " * 20) == 1
    assert garbage("") == 0


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("utf-8", "Grüße"),
        ("utf-16-le", "Hello there"),
        ("utf-16-be", "Hello there"),
        ("utf-16-be", "Привет, мир, и ещё немного слов"),
        ("utf-32-le", "Hello ä"),
        ("utf-32-be", "Hello ä"),
        ("utf-32", "Hello ä"),
        ("cp1252", "Übergröße für Mädchen – 5 €"),
        ("cp932", "商品の名前は東京タワーです。"),
        ("euc_jp", "これは日本語の文章です。"),
        ("cp1251", "Привет, мир! Это простой текст для проверки кодировки."),
        ("gb18030", "这是一个简单的中文文本,用于测试编码检测的效果。"),
        ("euc_kr", "이것은 인코딩 감지를 테스트하기 위한 간단한 한국어 텍스트입니다."),
        ("cp1250", "Zażółć gęślą jaźń, proszę pana. Łódź jest piękna."),
    ],
)
def test_encodings_are_told(encoding: str, text: str) -> None:
    assert decode(text.encode(encoding)) == text


def test_a_page_is_decoded_as_it_claims(tmp_path: Path) -> None:
    page = '<meta charset="iso-8859-2"><p>Zażółć</p>'.encode("iso-8859-2")
    assert document(saved(tmp_path, "a.html", page)).text == "Zażółć"


def test_bytes_from_elsewhere_become_a_document() -> None:
    assert from_text("stdin.md", b"# Title\n\nText.").title == "Title"
    assert from_text("stdin.html", b"<p>One").text == "One"
    assert from_text("-", b"<!doctype html><p>One").kind == "html"
    assert from_text("-", b"plain").kind == "text"


def test_patterns_choose_files_as_git_does(tmp_path: Path) -> None:
    for name in ("a.md", "b.txt", "old/c.md", "sub/d.md", "sub/e.log", "sub/keep.log", "build/x.md", "node_modules/y.md"):
        saved((tmp_path / name).parent, Path(name).name, b"text")
    saved(tmp_path, ".gitignore", b"build/\n*.log\n")
    saved(tmp_path / "sub", ".gitignore", b"!keep.log\n")

    def sources(**place: object) -> list[str]:
        found = walk([SourceSpec.model_validate({"path": tmp_path, **place})])
        assert found.skipped == found.unread == []
        return [file.source for file in found.files]

    assert sources(include=["**/*.md"], exclude=["old", "node_modules/"]) == ["a.md", "build/x.md", "sub/d.md"]
    assert sources(include=["*.txt"]) == ["b.txt"]
    assert sources(gitignore=True, exclude=["node_modules"]) == ["a.md", "b.txt", "old/c.md", "sub/d.md", "sub/keep.log"]


def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.md").symlink_to(tmp_path / "b.md")
    (tmp_path / "b.md").symlink_to(tmp_path / "a.md")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert dict(walk([SourceSpec(path=tmp_path)]).skipped) == {
        "a.md": "a broken or circular link",
        "b.md": "a broken or circular link",
        "loop": "a link to a folder, which is not followed",
    }


def test_fixed_metadata_wins_over_the_files_own(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.md", b"---\ntitle: T\nteam: own\n---\nText.\n")
    assert document(path, metadata={"team": "given", "year": 2026}).metadata == {"title": "T", "team": "given", "year": 2026}
