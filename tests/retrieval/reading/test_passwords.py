"""Encrypted documents: opened with a password of the environment, which is written nowhere."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from llmbench import retrieval
from llmbench.errors import DataError
from llmbench.recipe import RagRecipe
from llmbench.retrieval.documents import LOCKED, NOT_OPENED, UNREAD_CIPHER, Unreadable
from llmbench.retrieval.reading import pages

from .files import document, docx, ole, paragraph, readings, saved, zipped

PASSWORD = "Correct-Horse-7"


def test_a_pdf_is_opened_with_the_places_password(write_pdf: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pdf("locked.pdf", "The vault opens at nine.", password=PASSWORD)
    with pytest.raises(Unreadable, match="needs a password"):
        document(path)
    monkeypatch.setenv("VAULT", "wrong")
    with pytest.raises(Unreadable, match="the password given does not open it"):
        document(path, password_env="VAULT")
    monkeypatch.setenv("VAULT", PASSWORD)
    assert document(path, password_env="VAULT").text == "The vault opens at nine."


def test_a_password_that_is_mended_is_tried_again_and_kept_nowhere(
    write_pdf: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "home"))
    path = write_pdf("locked.pdf", "The vault opens at nine.", password=PASSWORD)
    recipe = RagRecipe.model_validate({"name": "vault", "documents": [{"path": path.parent, "password_env": "VAULT"}]})
    with pytest.raises(DataError, match=r"documents\[0\]\.password_env: the environment variable VAULT is not set\. Run: "):
        retrieval.build(recipe)
    monkeypatch.setenv("VAULT", "wrong")
    assert retrieval.build(recipe).skipped == (("locked.pdf", NOT_OPENED),)
    monkeypatch.setenv("VAULT", PASSWORD)
    assert retrieval.build(recipe).skipped == ()
    with retrieval.Retriever.open(recipe) as retriever:
        found = retriever.document("locked.pdf")
        assert retriever.search("When does the vault open?")[0].chunk.text == "The vault opens at nine."
    try:
        assert len(pages.draw(recipe, found, 1, [(0, len(found.text))]).areas[0]) == 1
        pages.forget()
        monkeypatch.delenv("VAULT")
        with pytest.raises(pages.NotShown, match=LOCKED[:20]):
            pages.draw(recipe, found, 1, [])
    finally:
        pages.forget()
    for file in (tmp_path / "home").rglob("*"):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes()


TYPES = '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>'


def test_an_office_file_is_opened_with_the_places_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from msoffcrypto.format.ooxml import OOXMLFile

    plain = io.BytesIO(docx(paragraph("The vault opens at ten.")))
    with zipfile.ZipFile(plain, "a") as archive:
        archive.writestr("[Content_Types].xml", TYPES)
        archive.writestr("word/media/noise.bin", random.Random(7).randbytes(6000))  # msoffcrypto writes small files wrongly
    packed = io.BytesIO()
    OOXMLFile(plain).encrypt(PASSWORD, packed)
    path = saved(tmp_path, "locked.docx", packed.getvalue())
    with pytest.raises(Unreadable, match="needs a password"):
        document(path)
    monkeypatch.setenv("VAULT", "wrong")
    with pytest.raises(Unreadable, match="the password given does not open it"):
        document(path, password_env="VAULT")
    monkeypatch.setenv("VAULT", PASSWORD)
    found = document(path, password_env="VAULT")
    assert (found.text, found.kind) == ("The vault opens at ten.", "docx")
    inner, failure = readings(saved(tmp_path, "all.zip", zipped({"locked.docx": packed.getvalue()})), password_env="VAULT")
    assert (inner["all.zip#locked.docx"].text, failure) == ("The vault opens at ten.", "")


def test_what_tells_of_an_encryption_may_declare_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT", PASSWORD)
    about = b"\4\0\4\0\x40\0\0\0" + b'<!DOCTYPE a [<!ENTITY b "c">]><a/>'
    path = saved(tmp_path, "a.docx", ole({"EncryptedPackage": b"x" * 64, "EncryptionInfo": about}))
    with pytest.raises(Unreadable, match="declares entities"):
        document(path, password_env="VAULT")


def test_what_no_password_opens_is_not_said_to_need_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT", PASSWORD)
    manifest = "<manifest><encryption-data/></manifest>"
    mimetype = "application/vnd.oasis.opendocument.text"
    path = saved(tmp_path, "a.odt", zipped({"mimetype": mimetype, "META-INF/manifest.xml": manifest, "content.xml": "x"}))
    with pytest.raises(Unreadable, match="needs a password"):
        document(path)
    with pytest.raises(Unreadable, match="save it without its password"):
        document(path, password_env="VAULT")
    plain = zipped({"note.txt": "Nine."})
    for start, flags, method in ((b"PK\3\4", 6, 8), (b"PK\1\2", 8, 10)):  # as 7-Zip writes a member that it encrypts
        at = plain.index(start)
        plain = plain[: at + flags] + b"\1\0" + plain[at + flags + 2 : at + method] + b"\x63\0" + plain[at + method + 2 :]
    found, failure = readings(saved(tmp_path, "a.zip", plain))
    assert found == {} and failure == f"1 file in it left out: note.txt: {UNREAD_CIPHER}"
