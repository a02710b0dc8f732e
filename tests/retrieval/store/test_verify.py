"""Verifying: each kind of damage is named; what was deleted stands in no file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench.errors import IndexError_
from llmbench.recipe import RagRecipe
from llmbench.retrieval import Document, Retriever
from llmbench.retrieval.index.repair import repair
from llmbench.retrieval.index.writer import Writer
from llmbench.retrieval.store import Filter, Index
from llmbench.retrieval.store.layout import current
from llmbench.retrieval.store.verify import _stems, _written, holds, verify, words_left

Make = Callable[..., Document]
Rows = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(autouse=True)
def filled(upsert: Any, doc: Make) -> None:
    """An index of six documents, of which one was replaced and one deleted."""
    upsert(*(doc(f"{i}", f"alpha beta number {i}", year=2000 + i) for i in range(6)))
    upsert(doc("5", "gamma delta", year=1999))


def faults(folder: Path) -> list[tuple[str, str]]:
    return [(fault.what, fault.mend) for fault in verify(folder).faults]


def test_a_whole_index_is_counted(folder: Path) -> None:
    found = verify(folder)
    assert (found.documents, found.chunks, found.vectors, found.erased, found.waiting, found.faults) == (6, 6, 7, 1, 0, ())
    assert found.to_json()["whole"] is True and found.words > 8


DAMAGE = {
    "UPDATE chunks SET text = 'alpha beta numbed 0' WHERE row = 0": ("1 document not as written: 0", "rebuild"),
    "UPDATE documents SET text = 'alpha beta numbed 0' WHERE source = '0'": ("1 document not as written", "rebuild"),
    "UPDATE documents SET metadata = '{}' WHERE source = '1'": ("1 document not as written: 1", "rebuild"),
    "UPDATE chunks SET document = 2 WHERE row = 0": ("document not as written", "rebuild"),
    "DELETE FROM documents WHERE source = '0'": ("orphaned row in", "rebuild"),
    "UPDATE chunks SET row = 99 WHERE row = 0": ("rows and passages do not match", "rebuild"),
    "DELETE FROM dead": ("rows and passages do not match", "rebuild"),
    "INSERT INTO terms(terms, rowid, title, text) VALUES ('delete', 1, 'Title', 'alpha beta number 0')": (
        "the words do not match the passages", "repair",
    ),
    "INSERT INTO terms(rowid, title, text) VALUES (1000, 'Title', 'alpha')": ("the words do not match", "repair"),
    "INSERT INTO terms(rowid, title, text) VALUES (1, '', 'omega')": ("the words do not match", "repair"),
    "UPDATE facts SET number = 1 WHERE document = 1": ("the filter fields of 0 do not match its metadata", "repair"),
    "DELETE FROM facts WHERE document = 2": ("the filter fields of 1 do not match its metadata", "repair"),
    "INSERT INTO facts VALUES (3, 'team', NULL, 'blue')": ("the filter fields of 2 do not match its metadata", "repair"),
    "UPDATE meta SET value = '{' WHERE key = 'rows'": ("what it notes as rows", "rebuild"),
    "DROP INDEX chunks_digest; DROP TABLE facts": ("no such table: facts", "rebuild"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_each_kind_of_damage_is_named(damage: str, folder: Path, query: Rows, recipe: RagRecipe, words: Any) -> None:
    for statement in damage.split("; "):
        query(statement)
    what, mend = DAMAGE[damage]
    found = faults(folder)
    assert any(what in told and how == mend for told, how in found), found
    if mend == "repair":
        assert repair(recipe, embedder=words).faults == ()
        assert faults(folder) == []
    else:
        with pytest.raises(IndexError_, match="--rebuild"):
            repair(recipe, embedder=words)


def test_a_deleted_vector_that_is_still_there_is_told_and_erased(folder: Path, recipe: RagRecipe, words: Any) -> None:
    path = folder / "1" / "vectors.bin"
    data, size = bytearray(path.read_bytes()), path.stat().st_size // 7
    data[5 * size : 6 * size] = data[4 * size : 5 * size]
    path.write_bytes(data)
    assert faults(folder) == [("vectors.bin: the deleted row 5 still holds its vector", "repair")]
    assert repair(recipe, embedder=words).faults == ()
    assert path.read_bytes()[5 * size + 16 : 6 * size] == bytes(size - 16)


def test_every_page_of_the_database_that_is_lost_is_told(folder: Path) -> None:
    path = folder / "1" / "index.sqlite"
    whole = path.read_bytes()
    pages = len(whole) // 4096
    assert pages > 20
    for page in range(pages):
        path.write_bytes(whole[: page * 4096] + b"\x5a" * 4096 + whole[(page + 1) * 4096 :])
        try:
            found = faults(folder)
        except IndexError_ as error:
            found = [(str(error), "rebuild")]
        assert found, page
    path.write_bytes(whole)
    assert faults(folder) == []


def test_a_changed_passage_is_never_handed_out(query: Rows, recipe: RagRecipe, words: Any) -> None:
    query("UPDATE chunks SET text = 'alpha beta numbed 0' WHERE row = 0")
    told = r"is damaged \(a passage of 0\)\. .+--rebuild"
    with Retriever.open(recipe, embedder=words) as retriever, pytest.raises(IndexError_, match=told):
        retriever.search("alpha", 10)


def test_deleted_words_are_in_no_files_bytes(folder: Path, recipe: RagRecipe, words: Any, doc: Make, upsert: Any) -> None:
    upsert(*(doc(f"s{i}", f"Kestrel {i} über alles. " * 200, title="Überschrift", team="peregrine") for i in range(30)))
    secrets = ("Kestrel", "kestrel", "über alles", "Überschrift", "peregrine")
    assert all(holds(folder, secret) for secret in secrets)
    with Writer.open(recipe, embedder=words) as writer:
        assert writer.delete(where=Filter.of({"team": "peregrine"})) == 30
        writer.finish(purge=True)
        assert writer.settled
        assert not any(holds(folder, secret) for secret in secrets)
    assert not any(holds(folder, secret) for secret in secrets)
    now = current(folder)
    assert now is not None and holds(folder, "gamma delta") == [now / "index.sqlite"]


def test_holds_finds_a_text_across_the_parts_it_is_read_in(folder: Path) -> None:
    (folder / "large").write_bytes(b"." * (2**22 - 3) + b"needle" + b"." * 10)
    assert holds(folder, "needle") == [folder / "large"]


def test_what_a_search_holds_up_is_told_and_goes_with_the_next_change(
    folder: Path, recipe: RagRecipe, words: Any, upsert: Any, doc: Make
) -> None:
    path = current(folder)
    assert path is not None
    with Retriever.open(recipe, embedder=words) as retriever, Writer.open(recipe, embedder=words) as writer:
        with retriever._now() as view:
            before = view.dense(words.embed(["alpha beta number 0"])[0], 1, None)
            writer.delete(sources=["0"])
            assert not writer.index.settle(purge=True, wait=0.1)
            assert view.dense(words.embed(["alpha beta number 0"])[0], 1, None) == before  # of the state it began in
            assert verify(folder).waiting == 1
        assert writer.index.settle(purge=True)
    assert verify(folder).waiting == 0 and faults(folder) == []
    assert not holds(folder, "alpha beta number 0")


def test_a_text_that_lies_in_two_pages_is_found(upsert: Any, folder: Path) -> None:
    path = folder / "1" / "index.sqlite"

    def put(behind: int) -> int:
        warning = "x" * 9000 + " Jane Roe" + "x" * behind
        upsert(Document("1", "long", "Title", "alpha", "text", warnings=(warning,)))
        return path.read_bytes().find(b"Jane Roe")

    place = put(0) % 4096 - 4  # a page of a long row's rest begins with the number of the next
    for further in range(1, 8):  # so much more behind it moves it so far to the front, over the border of two pages
        if put(place + further) < 0:
            break
    assert b"Jane Roe" not in path.read_bytes() and holds(folder, "Jane Roe") == [path]


def test_a_text_is_found_as_json_writes_it_and_as_it_was_cleaned(upsert: Any, doc: Make, folder: Path) -> None:
    upsert(doc("said", "alpha", said='She said "never", \u00e9\nand went'), doc("roe", "Jane Roe"))
    assert holds(folder, 'said "never", \u00e9\nand') and not holds(folder, 'said "ever"')
    assert holds(folder, "Jane\u00a0Roe")  # as pasted from a page


def test_a_generation_that_is_not_searched_is_looked_at_too(
    recipe: RagRecipe, words: Any, upsert: Any, doc: Make, folder: Path
) -> None:
    upsert(doc("secret", "Jane Roe flickered"))
    with Writer.open(recipe, embedder=words, rebuild=True, switch=False) as writer:
        writer.upsert([doc("plain", "alpha")])
    assert [path.parent.name for path in holds(folder, "Jane Roe")] == ["1"]


def test_the_pages_of_the_term_index_are_read_as_they_lie(upsert: Any, doc: Make, folder: Path) -> None:
    many = (" ".join(f"w{n * 7919 % 99991}x{'é' * (n % 3)}" for n in range(i, i + 60)) for i in range(0, 6000, 60))
    upsert(*(doc(f"d{i}", text) for i, text in enumerate(many)))
    generation = current(folder)
    assert generation is not None
    index = Index(generation)
    try:
        index._db.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab(main, terms, row)")
        seen = {term for (term,) in index._rows("SELECT term FROM temp.vocabulary")}
        assert len(seen) > 6000 and _written(index) == seen
        assert _stems(index, [("Flickering", "", "lamps")]) == {"flicker", "lamp"}
    finally:
        index.close()


def test_stems_that_only_a_deleted_text_had_are_told_until_they_are_gone(
    recipe: RagRecipe, words: Any, upsert: Any, doc: Make, query: Rows, folder: Path
) -> None:
    upsert(doc("secret", "Zanzibar lamps were flickering with alpha"))
    assert words_left(folder, "flickering lamps") == {}  # there is a document that has them
    with Writer.open(recipe, embedder=words) as writer:
        with writer.index.transaction():
            writer.index.delete(sources=["secret"])
        assert words_left(folder, "Flickering lamps, alpha") == {"1": ["flicker", "lamp"]}  # alpha others have
        writer.note()
    assert words_left(folder, "Zanzibar flickering lamps") == {} and not holds(folder, "Zanzibar")
    query("INSERT INTO terms(rowid, title, text) VALUES (1000, '', 'flickering')")  # a posting of a passage that is none
    assert words_left(folder, "it flickered") == {"1": ["flicker"]}
    assert any("the words do not match" in told for told, _ in faults(folder))
