"""Whether an index is whole: every row, vector and word is looked at, and what was derived is derived again and compared."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench.errors import IndexError_
from llmbench.retrieval.reading import Cleaner
from llmbench.retrieval.store import layout, rows
from llmbench.retrieval.store.database import Index
from llmbench.retrieval.store.vectors import BrokenIndex, Nearest, Plan
from llmbench.retrieval.store.words import BrokenPostings, Segment, postings, postings_build, terms
from llmbench.shown import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Fault", "Verification", "holds", "verify", "words_left"]

_SHOWN = 5


@dataclass(frozen=True)
class Fault:
    """Something that is not as it should be. `mend` is `repair` (derived again from the rest) or `rebuild`."""

    what: str
    mend: str


@dataclass(frozen=True)
class Verification:
    """What was looked at, and what was wrong with it."""

    documents: int
    chunks: int
    vectors: int
    erased: int
    """Rows of deleted passages; each was seen to hold nothing but zeros."""
    waiting: int
    """Rows of deleted passages that a killed writer had no time to erase; the next one does it first."""
    words: int
    generations: tuple[int, ...]
    """Every generation on disk: one beside the current holds documents of its own, also ones that were deleted here."""
    faults: tuple[Fault, ...]

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        faults = [{"what": fault.what, "mend": fault.mend} for fault in self.faults]
        return {**self.__dict__, "generations": list(self.generations), "faults": faults, "whole": not self.faults}


def verify(folder: Path) -> Verification:
    """Looks at the current generation of an index.

    Raises:
        IndexError_: there is none, or its database cannot even be opened.
    """
    while True:
        path = layout.standing(folder)
        if path is None:
            raise IndexError_(f"{folder} holds no index. Run: llmbench index build PIPELINE")
        found = _looked(path, folder)
        if found is not None:
            return found


def _looked(path: Path, folder: Path) -> Verification | None:
    """What is wrong with a generation; None where a writer has gone over to the next one and removed it meanwhile."""
    try:
        index = Index(path)
    except IndexError_:
        if layout.current(folder) != path:
            return None
        raise
    try:
        with index.snapshot():
            faults = [fault for check in _CHECKS for fault in _told(check, index)]
            words = index._row("SELECT count(*) FROM temp.words")[0] if _has(index, "words") else 0
            erased, waiting = (index._row("SELECT count(*) FROM dead WHERE erased = ?", done)[0] for done in (1, 0))
            living = index._row("SELECT count(DISTINCT row) FROM chunks")[0]
            counts = (index.document_count(), index.count(), erased + waiting + living, erased, waiting, words)
        if not index.is_on_disk():
            return None
    finally:
        index.close()
    return Verification(*counts, tuple(int(p.name) for p in layout.generations(folder)), tuple(faults))


def _told(check: Callable[[Index], Iterator[Fault]], index: Index) -> Iterator[Fault]:
    """What a check finds; where the damage is such that it cannot go on, that."""
    try:
        yield from check(index)
    except (IndexError_, sqlite3.Error) as error:
        yield Fault(str(error), "rebuild")


def holds(folder: Path, text: str) -> list[Path]:
    """The files of an index in which a text stands: none, when all that held it was deleted.

    Looked for are its characters, as given and cleaned as a document is: in the bytes of every file (UTF-8, plain and as JSON
    writes it), also in what is free or not folded in yet; and in the rows of every generation, since a long row lies in pieces.
    """
    texts = {text, Cleaner()(text)}
    forms = {form for one in texts for form in (one, json.dumps(one)[1:-1], json.dumps(one, ensure_ascii=False)[1:-1])}
    wanted = [form.encode() for form in forms]
    rest = max(map(len, wanted)) - 1
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with suppress(FileNotFoundError), path.open("rb") as file:  # a writer may have removed it since
            before = b""
            while part := file.read(2**22):
                if any(one in before + part for one in wanted):
                    found.append(path)
                    break
                before = (before + part)[-rest:] if rest else b""
    for generation in layout.generations(folder):
        path = generation / "index.sqlite"
        if path not in found and path.exists():
            with _opened(generation) as index:
                if any(index._row(_ANYWHERE, form)[0] for form in sorted(forms)):
                    found.append(path)
    return sorted(found)


_TEXTS = {
    "documents": ("source", "file", "title", "kind", "text", "metadata", "marks"),
    "chunks": ("title", "text", "head"),
    "files": ("source", "settings", "skipped"),
    "facts": ("key", "text"),
    "meta": ("value",),
}
_ANYWHERE = "SELECT " + " OR ".join(
    f"EXISTS (SELECT 1 FROM {table} WHERE {' OR '.join(f'instr({column}, ?1)' for column in columns)})"
    for table, columns in _TEXTS.items()
)


def words_left(folder: Path, text: str) -> dict[str, list[str]]:
    """The words of a text that the term index of a generation holds, and that no passage of it has; by the generation's name.

    The term index keeps stems (`flickering` as `flicker`), so that the text's own characters do not stand in it. Its pages are
    read as they lie, and so words that SQL sees no more, since a deletion waits to be packed, are found too.
    """
    left = {}
    for generation in layout.generations(folder):
        if (generation / "index.sqlite").exists():
            with _opened(generation) as index, index.snapshot():
                asked = _stems(index, [("", "", Cleaner()(text))])
                here = asked & _written(index)
                here -= _stems(index, index._db.execute("SELECT title, head, text FROM chunks")) if here else set()
                if here:
                    left[generation.name] = sorted(here)
    return left


@contextmanager
def _opened(generation: Path) -> Iterator[Index]:
    index = Index(generation)
    try:
        yield index
    finally:
        index.close()


def _stems(index: Index, texts: Iterable[tuple[str, str, str]]) -> set[str]:
    """The words of some texts as the term index keeps them."""
    db = index._db
    for statement in terms.schema("temp.stems").split(";")[:-1]:
        db.execute(statement)
    try:
        db.executemany("INSERT INTO temp.stems(title, text) VALUES (?, ?)", (terms.columns(*one) for one in texts))
        db.execute("CREATE VIRTUAL TABLE temp.stem_words USING fts5vocab(temp, stems, row)")
        # A word of over 32 KB is cut, maybe inside of a character.
        found = db.execute("SELECT CAST(term AS BLOB) FROM temp.stem_words")
        return {bytes(term).decode("utf-8", "replace") for (term,) in found}
    finally:
        db.execute("DROP TABLE IF EXISTS temp.stem_words")
        db.execute("DROP TABLE temp.stems")


def _written(index: Index) -> set[str]:
    """Every word in the pages of the term index and in files of postings, also files that count no more. A page's id is its
    segment's from bit 37 on; bits 31 to 36 are 0 in leaves."""
    pages = index._db.execute("SELECT block FROM terms_data WHERE id >> 37 > 0 AND (id >> 31) & 63 = 0")
    there = {word for (page,) in pages for word in terms.leaf(page)}
    return there.union(*(postings.written(path) for path in index.path.glob("postings*")))


def _database(index: Index) -> Iterator[Fault]:
    for (line,) in index._rows("PRAGMA integrity_check(5)"):
        if line != "ok":
            yield Fault(f"index.sqlite: {line}", "rebuild")
    for row in index._rows("PRAGMA foreign_key_check"):
        yield Fault(f"index.sqlite: orphaned row in {row[0]}", "rebuild")


def _rows(index: Index) -> Iterator[Fault]:
    """Each row against its seal; each passage against its document's text and its fields against its metadata."""
    wrong: list[str] = []
    for *_, source in index._rows("SELECT source FROM documents ORDER BY number"):
        row = index._row(rows.SELECT_DOCUMENT + "source = ?", source)
        try:
            document = rows.to_document(row, index.path)
            for found in index._rows(rows.SELECT_CHUNK + "documents.source = ?", source):
                chunk = rows.to_chunk(found, index.path)[1]
                if document.text[chunk.start : chunk.end] != chunk.text:
                    raise IndexError_("does not match its document's text")
        except (IndexError_, ValueError):
            wrong.append(str(source))
            continue
        number = index._row("SELECT number FROM documents WHERE source = ?", source)[0]
        facts = index._rows("SELECT document, key, number, text FROM facts WHERE document = ?", number)
        if sorted(map(repr, facts)) != sorted(map(repr, rows.facts(number, document.metadata))):
            yield Fault(f"the filter fields of {source} do not match its metadata", "repair")
    if wrong:
        what = counted(len(wrong), "document")
        yield Fault(f"{what} not as written: {', '.join(wrong[:_SHOWN])}", "rebuild")


def _vectors(index: Index) -> Iterator[Fault]:
    """Each record against its checksum and its passage's number; deleted ones hold nothing."""
    expected = index.expected()
    try:
        vectors = index.vectors
        damaged = vectors.damaged(expected)
    except IndexError_ as error:
        yield Fault(str(error), "repair")
        return
    if damaged:
        yield Fault(f"vectors.bin: {counted(len(damaged), 'damaged record')}, the first at row {damaged[0]}", "repair")
    dead = index.dead()
    dead, beyond = dead[dead < len(expected)], int((dead >= len(expected)).sum())
    living = int((expected >= 0).sum())
    if living + len(dead) != vectors.rows or index.count() != living or beyond or (expected[dead] >= 0).any():
        yield Fault("vectors.bin: rows and passages do not match", "rebuild")
    if vectors.short:
        return
    erased = index._numbers("SELECT row FROM dead WHERE erased AND row < ?", vectors.rows)
    held = erased[vectors.records["id"][erased] != -1]
    if len(held):
        yield Fault(f"vectors.bin: the deleted row {held[0]} still holds its vector", "repair")


def _terms(index: Index) -> Iterator[Fault]:
    """The words, against those of all passages indexed anew."""
    db = index._db
    db.execute("DROP TABLE IF EXISTS temp.again")
    db.execute("DROP TABLE IF EXISTS temp.words")
    for statement in terms.schema("temp.again").split(";")[:-1]:
        db.execute(statement)
    texts = db.execute("SELECT vector_id, title, head, text FROM chunks")
    db.executemany(
        "INSERT INTO temp.again(rowid, title, text) VALUES (?, ?, ?)", ((i, *terms.columns(*one)) for i, *one in texts)
    )
    db.execute("CREATE VIRTUAL TABLE temp.new_words USING fts5vocab(temp, again, instance)")
    db.execute("CREATE VIRTUAL TABLE temp.old_words USING fts5vocab(main, terms, instance)")
    try:
        db.execute("CREATE TEMP TABLE words AS SELECT DISTINCT term FROM temp.new_words")
        same = _digest(db.execute("SELECT CAST(term AS BLOB), doc, col, offset FROM temp.new_words"))
        if same != _digest(db.execute("SELECT CAST(term AS BLOB), doc, col, offset FROM temp.old_words")):
            yield Fault("the words do not match the passages", "repair")
    finally:
        for name in ("new_words", "old_words", "again"):
            db.execute(f"DROP TABLE temp.{name}")


def _digest(found: Any) -> str:
    digest = hashlib.blake2b()
    for row in found:
        digest.update(repr(row).encode())
    return digest.hexdigest()


def _has(index: Index, table: str) -> bool:
    return bool(index._row("SELECT count(*) FROM temp.sqlite_master WHERE name = ?", table)[0])


def _nearest(index: Index) -> Iterator[Fault]:
    """The approximate index against its checksum."""
    plan = index.get("nearest")
    if plan is not None:
        try:
            Nearest.load(index.path / "nearest.faiss", Plan(**plan))
        except BrokenIndex as error:
            yield Fault(str(error), "repair")


def _postings(index: Index) -> Iterator[Fault]:
    """The files of postings against their checksums, and what is in them against the passages."""
    found = _differs(index)
    if found:
        yield Fault(found, "repair")


def _differs(index: Index) -> str:
    """What of the postings is not as the passages' words are, in a line; empty where all agrees or there are none."""
    import numpy as np

    noted = index.get("postings")
    try:
        segments = [Segment(index.path, plan) for plan in postings.plans(noted)]
        for segment in segments:
            segment.check()
    except BrokenPostings as error:
        return "" if _noted_now(index) != noted else str(error)  # a writer has made others since this state
    if not segments:
        return ""
    rows = segments[-1].end
    alive = np.zeros(rows, dtype=bool)
    written: dict[bytes, int] = {}
    for first in range(0, rows, postings_build.BATCH):
        end = min(first + postings_build.BATCH, rows)
        part = postings_build.cut(_living(index.words_of(first, end), alive), first, end)
        _add(written, part, None)
        held = np.concatenate([_within(segment, first, end) for segment in segments])
        if not np.array_equal(np.where(alive[first:end], held, 0), part.lengths):
            return f"{index.path / 'postings'}: lengths do not match the passages."
    found: dict[bytes, int] = {}
    for segment in segments:
        _add(found, segment, alive)
    return "" if found == written else f"{index.path / 'postings'}: the words do not match the passages."


def _noted_now(index: Index) -> object:
    """What the store notes in its last state."""
    last = Index(index.path)
    try:
        return last.get("postings")
    finally:
        last.close()


def _living(passages: Iterable[tuple[int, str, str, str]], alive: NDArray[np.bool_]) -> Iterator[tuple[int, str, str, str]]:
    """Notes which rows there are, as they pass."""
    for passage in passages:
        alive[passage[0]] = True
        yield passage


def _within(segment: Segment, first: int, end: int) -> NDArray[np.int32]:
    """The lengths of a segment's rows that lie between two."""
    return segment.lengths[max(0, first - segment.first) : max(0, end - segment.first)]


def _add(sums: dict[bytes, int], part: postings.Part, alive: NDArray[np.bool_] | None) -> None:
    """Adds to each word's sum a number for each of its postings, which a changed one does not have."""
    import numpy as np

    for place, word in enumerate(part.words()):
        rows, counts = part.of(place)
        if alive is not None:
            living = alive[rows]
            rows, counts = rows[living], counts[living]
        if len(rows):
            mixed = (rows.astype(np.uint64) << np.uint64(32) | counts.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ mixed >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
            sums[word] = (sums.get(word, 0) + int(mixed.sum(dtype=np.uint64))) % 2**64


_CHECKS: tuple[Callable[[Index], Iterator[Fault]], ...] = (_postings, _database, _rows, _vectors, _terms, _nearest)
"""Files of postings first: they are opened while the state that is looked at is the last one."""
