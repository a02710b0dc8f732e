"""One open generation of an index: its database and its vectors, written together.

A transaction first appends its vectors behind the last row that counts, waits until they are on disk, then commits the
database, which says how many rows count. A kill between leaves rows that nobody counts and the next writer cuts off.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench.errors import IndexError_
from llmbench.retrieval.chunking import Chunk
from llmbench.retrieval.documents import Document
from llmbench.retrieval.store import layout, rows, schema, terms
from llmbench.retrieval.store.contract import Contract
from llmbench.retrieval.store.filters import Filter
from llmbench.retrieval.store.rows import FileState
from llmbench.retrieval.store.vectors import Vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmbench.recipe import RagRecipe

__all__ = ["Index"]

PURGE_UP_TO = 100_000
"""Passages up to which a change also rewrites the postings, so that replaced words leave the file at once (2 s)."""


class Index:
    """One open generation. A connection belongs to one thread at a time; callers hold a lock.

    Raises (every method):
        IndexError_: a file is missing or broken, or the disk is full.
    """

    def __init__(self, generation: Path, *, writable: bool = False) -> None:
        """Opens a generation.

        Args:
            generation: its folder.
            writable: finishes what an interrupted writer began; the caller holds the index's lock.
        """
        self.path, self.writable = generation, writable
        self._vectors: Vectors | None = None
        self._deleted = False
        with self._explained():
            self._db = schema.connect(generation / "index.sqlite")
        if writable:
            self._erase()

    @classmethod
    def create(cls, generation: Path, contract: Contract, dim: int) -> Index:
        """A new, empty generation; vectors of it have `dim` values."""
        generation.mkdir(parents=True, exist_ok=True)
        path = generation / "index.sqlite"
        try:
            db = schema.connect(path, create=True)
            values = {"contract": asdict(contract), "dim": dim, "rows": 0, "complete": False}
            facts = ", ".join(f"('{key}', '{json.dumps(value).replace(chr(39), chr(39) * 2)}')" for key, value in values.items())
            db.executescript(f"BEGIN; {schema.SCHEMA} INSERT INTO meta VALUES {facts}; COMMIT;")  # noqa: S608 - its own JSON
            db.close()
        except sqlite3.Error as error:
            raise IndexError_(f"{path} cannot be made ({error}). Free some space or choose another folder.") from error
        return cls(generation, writable=True)

    def close(self) -> None:
        """Closes the files; the database's log is folded in by the last to leave."""
        if self._vectors is not None:
            self._vectors.close()
        self._db.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if "full" in str(error) or "disk I/O" in str(error):
                advice = "Free some space and index again; what was done before is kept."
                raise IndexError_(f"{self.path} cannot be written ({error}). {advice}") from error
            again = "Build it again: llmbench index PIPELINE --rebuild"
            raise IndexError_(f"{self.path / 'index.sqlite'} cannot be used ({error}). {again}") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything in the block is written, or nothing is."""
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            vectors = self.vectors
            before = vectors.rows
            try:
                yield
                if vectors.rows != before:
                    vectors.flush()
                    self.set(rows=vectors.rows)
                self._db.execute("COMMIT")
            except BaseException:
                vectors.rows = before
                if self._db.in_transaction:
                    self._db.rollback()
                raise
        if self._deleted:
            self._erase()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything that the block reads is of one moment, whatever a writer commits meanwhile."""
        with self._explained():
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.rollback()

    def _erase(self) -> None:
        """Overwrites the vectors of deleted passages."""
        doomed = [row for (row,) in self._rows("SELECT row FROM dead WHERE NOT erased")]
        if doomed:
            self.vectors.erase(doomed)
            with self._explained():
                self._db.executemany("UPDATE dead SET erased = 1 WHERE row = ?", [(row,) for row in doomed])
        self._deleted = False

    def settle(self, *, purge: bool) -> None:
        """Folds the log into the database; `purge` first rewrites the postings, so that deleted words leave the file."""
        with self._explained():
            if purge:
                self._db.execute("INSERT INTO terms(terms) VALUES ('optimize')")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # -- facts about the index

    def set(self, **values: Any) -> None:
        """Notes facts about the index."""
        with self._explained():
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(k, json.dumps(v)) for k, v in values.items()])

    def get(self, key: str) -> Any:
        """A fact about the index, or None."""
        row = self._row("SELECT value FROM meta WHERE key = ?", key)
        return None if row is None else json.loads(row[0])

    @property
    def contract(self) -> Contract:
        """What the vectors depend on."""
        return Contract(**self.get("contract"))

    def check(self, recipe: RagRecipe, embedder: Mapping[str, Any]) -> None:
        """Closes the index and raises IndexError_ when a recipe with such an embedder does not fit it."""
        difference = self.contract.difference(Contract.of(recipe, embedder))
        if difference:
            self.close()
            built = f"{recipe.source}: index {recipe.name} was built with {difference}"
            raise IndexError_(f"{built}. Run: llmbench index {recipe.source} --rebuild")

    @property
    def version(self) -> int:
        """Changes whenever another connection has written."""
        return int(self._row("PRAGMA data_version")[0])

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return int(self.get("dim"))

    @property
    def vectors(self) -> Vectors:
        """The vectors, as many rows as the database counts."""
        if self._vectors is None:
            self._vectors = Vectors(self.path / "vectors.bin", self.dim, int(self.get("rows")), writable=self.writable)
        elif not self.writable:
            self._vectors.rows = int(self.get("rows"))
        return self._vectors

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._explained():
            return self._db.execute(query, values).fetchall()

    def _row(self, query: str, *values: Any) -> Any:
        with self._explained():
            return self._db.execute(query, values).fetchone()

    def _execute(self, query: str, *values: Any) -> int:
        with self._explained():
            return self._db.execute(query, values).rowcount

    # -- writing; inside a transaction

    def files(self) -> dict[str, FileState]:
        """What is known of every file, by source."""
        return {row[0]: FileState(*row) for row in self._rows("SELECT source, sha256, size, mtime, settings, skipped FROM files")}

    def begin_file(self, source: str) -> None:
        """Makes a place for a file's documents. Until `end_file` it counts as not read."""
        self._execute(
            "INSERT INTO files VALUES (?, '', 0, 0, '', '') ON CONFLICT (source) DO UPDATE SET sha256 = '', mtime = 0", source
        )

    def end_file(self, state: FileState, current: int) -> int:
        """Notes that all of a file is in; its documents that this pass did not see are deleted. Returns how many those were."""
        gone = self._rows("SELECT number FROM documents WHERE file = ? AND pass != ?", state.source, current)
        self._drop_documents([number for (number,) in gone])
        self._execute(
            "INSERT INTO files VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (source) DO UPDATE SET sha256 = excluded.sha256, "
            "size = excluded.size, mtime = excluded.mtime, settings = excluded.settings, skipped = excluded.skipped",
            *state.values(),
        )
        return len(gone)

    def touch_file(self, state: FileState) -> None:
        """Notes the new size and time of a file whose content is the same."""
        self._execute("UPDATE files SET size = ?, mtime = ? WHERE source = ?", state.size, state.mtime, state.source)

    def fingerprint(self, source: str) -> str | None:
        """The hash of what a document was read from, or None when there is no such document."""
        row = self._row("SELECT sha256 FROM documents WHERE source = ?", source)
        return None if row is None else str(row[0])

    def see(self, source: str, sha256: str, current: int) -> bool:
        """Whether a document is there unchanged, and if so, that this pass has seen it."""
        return self._execute("UPDATE documents SET pass = ? WHERE source = ? AND sha256 = ?", current, source, sha256) > 0

    def known(self, digests: Sequence[bytes]) -> dict[bytes, int]:
        """The rows of passages that read the same to the embedder, by digest."""
        found: dict[bytes, int] = {}
        for first in range(0, len(digests), 500):
            part = digests[first : first + 500]
            marks = ", ".join("?" * len(part))
            found |= dict(self._rows(f"SELECT digest, row FROM chunks WHERE digest IN ({marks})", *part))  # noqa: S608 - marks
        return found

    def put(
        self,
        document: Document,
        chunks: Sequence[Chunk],
        digests: Sequence[bytes],
        vectors: NDArray[np.float32],
        *,
        file: str | None = None,
        current: int = 0,
    ) -> None:
        """Replaces one document with its passages; a passage that is there already keeps its number and its vector.

        Args:
            document: as read.
            chunks: its passages, in order.
            digests: of what the embedder read of each.
            vectors: shape (len(chunks), dim).
            file: the file it was read from, begun before; None for a document that a program gave.
            current: the pass that sees it.
        """
        number = self._put_document(document, file, current)
        there = {row[0]: row for row in self._rows("SELECT id, vector_id, row, digest FROM chunks WHERE document = ?", number)}
        same = {c.id for c, digest in zip(chunks, digests, strict=True) if c.id in there and there[c.id][3] == digest}
        self._drop_chunks([row[1] for identity, row in there.items() if identity not in same])
        fresh = [i for i, chunk in enumerate(chunks) if chunk.id not in same]
        first = int((self._row("SELECT seq FROM sqlite_sequence WHERE name = 'chunks'") or (0,))[0]) + 1
        ids = range(first, first + len(fresh))
        places = self._append(ids, vectors, fresh)
        new = [
            rows.of_chunk(chunks[i], identity, place, number, i, digests[i])
            for i, identity, place in zip(fresh, ids, places, strict=True)
        ]
        with self._explained():
            self._db.executemany(rows.INSERT_CHUNK, new)
            self._db.executemany(
                "INSERT INTO terms(rowid, body) VALUES (?, ?)",
                [(identity, terms.body(chunks[i].title, chunks[i].text)) for i, identity in zip(fresh, ids, strict=True)],
            )
            moved = [
                rows.of_chunk(chunk, there[chunk.id][1], there[chunk.id][2], number, i, digests[i])
                for i, chunk in enumerate(chunks)
                if chunk.id in same
            ]
            self._db.executemany(rows.INSERT_CHUNK, moved)

    def _append(self, ids: range, vectors: NDArray[np.float32], fresh: Sequence[int]) -> range:
        import numpy as np

        if not fresh:
            return range(0)
        return self.vectors.append(np.asarray(ids, dtype=np.int64), vectors[list(fresh)])

    def _put_document(self, document: Document, file: str | None, current: int) -> int:
        """Writes a document's own row and its fields; returns its number."""
        values = rows.of_document(document, file, current)
        number = int(self._row(rows.UPSERT_DOCUMENT, *values)[0])
        self._execute("DELETE FROM facts WHERE document = ?", number)
        with self._explained():
            self._db.executemany("INSERT INTO facts VALUES (?, ?, ?, ?)", rows.facts(number, document.metadata))
        return number

    def delete(self, *, sources: Iterable[str] = (), where: Filter | None = None) -> int:
        """Deletes documents by source or by filter, with passages, vectors, words and fields; returns how many there were."""
        numbers = [number for source in sources for (number,) in self._rows("SELECT number FROM documents WHERE source = ?", source)]
        if where is not None:
            query = f"SELECT number FROM documents WHERE {where.sql}"  # noqa: S608 - made by Filter, values bound
            numbers += [number for (number,) in self._rows(query, *where.values)]
        self._drop_documents(numbers)
        return len(set(numbers))

    def delete_file(self, source: str) -> int:
        """Deletes a file with all its documents; returns how many there were."""
        numbers = [number for (number,) in self._rows("SELECT number FROM documents WHERE file = ?", source)]
        self._drop_documents(numbers)
        self._execute("DELETE FROM files WHERE source = ?", source)
        return len(numbers)

    def _drop_documents(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._drop_chunks([i for (i,) in self._rows("SELECT vector_id FROM chunks WHERE document = ?", number)])
            self._execute("DELETE FROM documents WHERE number = ?", number)

    def _drop_chunks(self, ids: Sequence[int]) -> None:
        """Deletes passages, their words, and notes their rows for erasing."""
        for identity in ids:
            row, title, text = self._row("SELECT row, title, text FROM chunks WHERE vector_id = ?", identity)
            self._execute("INSERT INTO terms(terms, rowid, body) VALUES ('delete', ?, ?)", identity, terms.body(title, text))
            self._execute("INSERT INTO dead VALUES (?, 0)", row)
            self._execute("DELETE FROM chunks WHERE vector_id = ?", identity)
            self._deleted = True

    # -- reading

    def count(self) -> int:
        """How many passages there are."""
        return int(self._row("SELECT count(*) FROM chunks")[0])

    def document_count(self) -> int:
        """How many documents there are."""
        return int(self._row("SELECT count(*) FROM documents")[0])

    def dead(self) -> NDArray[np.int64]:
        """The rows of vectors that belong to no passage any more, ascending."""
        import numpy as np

        return np.array([row for (row,) in self._rows("SELECT row FROM dead ORDER BY row")], dtype=np.int64)

    def matching(self, where: Filter) -> NDArray[np.int64]:
        """The rows of the passages whose document fits a filter, ascending."""
        import numpy as np

        query = f"SELECT row FROM chunks JOIN documents ON document = number WHERE {where.sql} ORDER BY row"  # noqa: S608
        return np.array([row for (row,) in self._rows(query, *where.values)], dtype=np.int64)

    def search_terms(self, text: str, k: int, where: Filter | None = None) -> list[tuple[int, float]]:
        """Rows and BM25 scores of the passages that share words with a question, best first."""
        expression = terms.query(text)
        if not expression:
            return []
        inside, values = "", ()
        if where is not None:
            inside = f"AND rowid IN (SELECT vector_id FROM chunks JOIN documents ON document = number WHERE {where.sql})"
            values = where.values
        query = (
            "SELECT chunks.row, -found.rank FROM (SELECT rowid AS id, rank FROM terms "  # noqa: S608 - made by Filter
            f"WHERE terms MATCH ? {inside} ORDER BY rank LIMIT ?) AS found JOIN chunks ON vector_id = found.id "
            "ORDER BY found.rank, vector_id"
        )
        return [(int(row), float(score)) for row, score in self._rows(query, expression, *values, k)]

    def chunks(self, places: Iterable[int]) -> dict[int, Chunk]:
        """The passages of some rows, by row; those that have been deleted since are left out.

        Raises:
            IndexError_: a passage is not as it was written; it is not handed out.
        """
        return {row: chunk for row, chunk in (self._chunk("row = ?", int(place)) for place in places) if chunk is not None}

    def _chunk(self, where: str, *values: Any) -> tuple[int, Chunk | None]:
        found = self._row(rows.SELECT_CHUNK + where, *values)
        return (-1, None) if found is None else rows.to_chunk(found, self.path)

    def around(self, chunk_id: str, before: int, after: int) -> list[Chunk]:
        """A passage with those before and after it in its document, in order; empty when it has been deleted."""
        place = self._row("SELECT document, position FROM chunks WHERE id = ?", chunk_id)
        if place is None:
            return []
        found = self._rows(
            rows.SELECT_CHUNK + "chunks.document = ? AND position BETWEEN ? AND ? ORDER BY position",
            place[0],
            place[1] - before,
            place[1] + after,
        )
        return [rows.to_chunk(row, self.path)[1] for row in found]

    def document(self, source: str) -> Document | None:
        """A document as it was read, or None.

        Raises:
            IndexError_: it is not as it was written.
        """
        row = self._row(rows.SELECT_DOCUMENT + "source = ?", source)
        return None if row is None else rows.to_document(row, self.path)

    def documents(self) -> Iterator[tuple[Document, list[Chunk]]]:
        """Every document with its passages, by source, one at a time."""
        for (source,) in self._rows("SELECT source FROM documents ORDER BY source"):
            document = self.document(str(source))
            if document is not None:
                found = self._rows(rows.SELECT_CHUNK + "documents.source = ? ORDER BY position", source)
                yield document, [rows.to_chunk(row, self.path)[1] for row in found]

    def sources(self) -> list[tuple[str, str, int]]:
        """`(source, title, passages)` of every document, by source."""
        query = (
            "SELECT d.source, d.title, count(c.id) FROM documents d LEFT JOIN chunks c ON c.document = d.number "
            "GROUP BY d.number ORDER BY d.source"
        )
        return [(str(a), str(b), int(n)) for a, b, n in self._rows(query)]

    # -- packing

    def copy(self, generation: Path) -> None:
        """Writes the database, without its free pages, into another generation's folder, marked as unfinished."""
        layout.remove(generation)
        generation.mkdir(parents=True)
        with self._explained():
            self._db.execute("VACUUM INTO ?", (str(generation / "index.sqlite"),))
            copied = schema.connect(generation / "index.sqlite")
            copied.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [("packing", "true"), ("rows", "0")])
            copied.close()

    def pack(self, old: Vectors) -> None:
        """Takes over the living rows of another generation's vectors, of which this database is a copy."""
        moved = old.move_living(self.vectors)
        with self.transaction():
            with self._explained():
                # Rows only move down, and in order, so that no two ever claim the same place.
                self._db.executemany("UPDATE chunks SET row = ? WHERE row = ?", ((new, old) for old, new in moved.items() if new != old))
            self._execute("DELETE FROM dead")
            self._execute("DELETE FROM meta WHERE key = 'packing'")
            self.set(rows=self.vectors.rows)
        self.settle(purge=True)
