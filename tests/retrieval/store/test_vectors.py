"""Damage to vectors.bin: whatever was changed in it is told, never searched, and mended from the text."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbench.errors import IndexError_
from llmbench.recipe import RagRecipe
from llmbench.retrieval import Document, Retriever
from llmbench.retrieval.index.repair import repair
from llmbench.retrieval.index.writer import Writer
from llmbench.retrieval.store.layout import current
from llmbench.retrieval.store.vectors.records import record
from llmbench.retrieval.store.verify import verify

Make = Callable[..., Document]
SIZE = record(32).itemsize
QUESTION = "alpha beta"


@pytest.fixture
def file(upsert: Any, doc: Make, folder: Path) -> Path:
    """The vectors of twelve documents, of which one was replaced."""
    upsert(*(doc(f"{i}", f"alpha number {i}") for i in range(12)))
    upsert(doc("3", "beta instead"))
    path = current(folder)
    assert path is not None
    return path / "vectors.bin"


def found(recipe: RagRecipe, words: Any) -> list[tuple[str, float]]:
    with Retriever.open(recipe, embedder=words) as retriever:
        return [(hit.chunk.source, hit.score) for hit in retriever.search(QUESTION, 100)]


def is_told_and_mended(recipe: RagRecipe, words: Any, folder: Path, expected: list[tuple[str, float]]) -> None:
    faults = verify(folder).faults
    assert faults and all("vectors.bin" in fault.what and fault.mend == "repair" for fault in faults)
    assert repair(recipe, embedder=words).faults == ()
    assert sorted(found(recipe, words)) == sorted(expected)


def changes() -> Iterator[tuple[str, int]]:
    yield from (("id", byte) for byte in (0, 3, 7))
    yield from (("crc", byte) for byte in (8, 11))
    yield from (("vector", byte) for byte in (16, 80, SIZE - 1))


@pytest.mark.parametrize(("part", "byte"), list(changes()))
@pytest.mark.parametrize("row", [0, 11])
def test_a_flipped_bit_is_told_never_searched_and_mended(
    file: Path, recipe: RagRecipe, words: Any, folder: Path, part: str, byte: int, row: int
) -> None:
    before = found(recipe, words)
    data = bytearray(file.read_bytes())
    data[row * SIZE + byte] ^= 0x80
    file.write_bytes(data)
    with pytest.raises(IndexError_, match=rf"vectors\.bin is damaged at row {row}\. Run: llmbench index repair "):
        found(recipe, words)
    is_told_and_mended(recipe, words, folder, before)


def test_a_bit_in_the_unused_bytes_and_one_in_a_deleted_row_are_told(
    file: Path, recipe: RagRecipe, words: Any, folder: Path
) -> None:
    before = found(recipe, words)
    data = bytearray(file.read_bytes())
    for place in (12, 3 * SIZE + 40):
        data[place] ^= 1
    file.write_bytes(data)
    assert found(recipe, words) == before
    is_told_and_mended(recipe, words, folder, before)


@pytest.mark.parametrize("size", [0, 1, SIZE, 13 * SIZE - 1])
def test_a_file_that_was_cut_off_is_told_never_searched_and_mended(
    file: Path, recipe: RagRecipe, words: Any, folder: Path, size: int
) -> None:
    before = found(recipe, words)
    with Retriever.open(recipe, embedder=words) as retriever:
        assert retriever.search(QUESTION)
        with file.open("r+b") as open_file:
            open_file.truncate(size)
        with pytest.raises(IndexError_, match="too short"):  # mapped already: a read would kill the process
            retriever.search(QUESTION)
    with pytest.raises(IndexError_, match="too short"):
        found(recipe, words)
    is_told_and_mended(recipe, words, folder, before)


def test_a_file_that_is_gone_is_told_and_mended(file: Path, recipe: RagRecipe, words: Any, folder: Path) -> None:
    before = found(recipe, words)
    file.unlink()
    with pytest.raises(IndexError_, match=r"vectors\.bin cannot be opened .+llmbench index repair "):
        found(recipe, words)
    is_told_and_mended(recipe, words, folder, before)


def test_what_was_appended_and_never_committed_is_cut_off(
    file: Path, recipe: RagRecipe, words: Any, folder: Path, upsert: Any, doc: Make
) -> None:
    before = found(recipe, words)
    with file.open("ab") as open_file:
        open_file.write(b"x" * 5000)
    assert found(recipe, words) == before and verify(folder).faults == ()
    upsert(doc("new", "gamma"))
    assert file.stat().st_size == 14 * SIZE and verify(folder).faults == ()


def test_two_records_that_changed_places_are_told_never_searched_and_mended(
    file: Path, recipe: RagRecipe, words: Any, folder: Path
) -> None:
    before = found(recipe, words)
    data = file.read_bytes()
    file.write_bytes(data[SIZE : 2 * SIZE] + data[:SIZE] + data[2 * SIZE :])
    with pytest.raises(IndexError_, match="damaged at row"):
        found(recipe, words)
    is_told_and_mended(recipe, words, folder, before)


def test_another_indexs_file_is_told_never_searched_never_packed_and_mended(
    file: Path, recipe: RagRecipe, words: Any, folder: Path, doc: Make
) -> None:
    before = found(recipe, words)
    other = recipe.model_copy(update={"name": "other"})
    with Writer.open(other, embedder=words) as writer:  # as many passages with the same numbers
        writer.upsert(doc(f"{i}", f"gamma number {i}") for i in range(13))
    shutil.copy(folder.parent / "other" / "1" / "vectors.bin", file)
    with pytest.raises(IndexError_, match="damaged at row 0"):
        found(recipe, words)
    with pytest.raises(IndexError_, match="damaged at row 0"), Writer.open(recipe, embedder=words) as writer:
        writer.compact()
    is_told_and_mended(recipe, words, folder, before)
