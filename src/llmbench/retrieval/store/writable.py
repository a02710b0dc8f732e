"""The generation that a writer has open: its database and its vectors, written together.

A transaction first appends its vectors behind the last row that counts, waits until they are on disk, then commits the
database, which says how many rows count. A kill between leaves rows that nobody counts and the next writer cuts off.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench.errors import IndexError_
from llmbench.retrieval.chunking import Chunk
from llmbench.retrieval.documents import Document
from llmbench.retrieval.store import layout, rows, schema
from llmbench.retrieval.store.contract import Contract
from llmbench.retrieval.store.database import Index
from llmbench.retrieval.store.filters import Filter
from llmbench.retrieval.store.rows import FileState
from llmbench.retrieval.store.vectors import Vectors
from llmbench.retrieval.store.words import terms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["WritableIndex"]


class WritableIndex(Index):
    """One open generation, to be written by whoever holds the index's lock. What changes it stands in a `transaction`."""

    writable = True

    def __init__(self, generation: Path) -> None:
        """Opens a generation and finishes what an interrupted writer began."""
        super().__init__(generation)
        try:
            self._deleted = True
            _ = self.vectors  # made with the tables: a search may open an index of which nothing is written yet
            self._erase()
        except IndexError_:
            self.close()
            raise

    @classmethod
    def create(cls, generation: Path, contract: Contract, dim: int) -> WritableIndex:
        """A new, empty generation; vectors of it have `dim` values."""
        path = generation / "index.sqlite"
        try:
            generation.mkdir(parents=True, exist_ok=True)
            db = schema.connect(path, create=True)
            salt = secrets.randbits(32)
            values = {"contract": contract.to_json(), "dim": dim, "rows": 0, "salt": salt, "complete": False}
            facts = ", ".join(
                f"('{key}', '{json.dumps(value).replace(chr(39), chr(39) * 2)}')" for key, value in values.items()
            )
            db.executescript(f"BEGIN; {schema.SCHEMA} INSERT INTO meta VALUES {facts}; COMMIT;")
            db.close()
        except (sqlite3.Error, OSError) as error:
            raise IndexError_(f"{path} cannot be created ({error}). Free some space or choose another folder.") from error
        return cls(generation)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything in the block is written, or nothing is."""
        vectors = self.vectors
        before = vectors.rows
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
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

    def _erase(self, wait: float = 0) -> bool:
        """Overwrites the vectors of deleted passages, unless a search still reads a state in which they were there.

        Such a search would miss the old text and not yet know the new one. The log can be folded in whole only when every
        search reads the last state, and so it tells. What cannot be erased now waits for the next transaction.

        Args:
            wait: seconds to wait for such searches.
        """
        doomed = [row for (row,) in self._rows("SELECT row FROM dead WHERE NOT erased")] if self._deleted else []
        if doomed:
            if not self._fold("FULL", wait):
                return False
            self.vectors.erase(doomed)
            self._execute("UPDATE dead SET erased = 1 WHERE NOT erased")
        self._deleted = False
        return True

    def _fold(self, how: str, wait: float) -> bool:
        """Folds the log into the database; False when somebody still reads an older state after so many seconds."""
        with self._explained():
            self._db.execute(f"PRAGMA busy_timeout = {int(wait * 1000)}")
            try:
                return not self._db.execute(f"PRAGMA wal_checkpoint({how})").fetchone()[0]
            finally:
                self._db.execute(f"PRAGMA busy_timeout = {schema.PATIENCE * 1000}")

    def settle(self, *, purge: bool, wait: float = 10) -> bool:
        """Folds the log into the database; `purge` first rewrites the postings, so that deleted words leave the file.

        Returns False when a reader of an older state did not end in `wait` seconds: then some of what was deleted is still in
        the files, and the next `settle` removes it.
        """
        if purge:
            self._execute("INSERT INTO terms(terms) VALUES ('optimize')")
        erased = self._erase(wait)
        return self._fold("TRUNCATE", wait if erased else 0) and erased

    def set(self, **values: Any) -> None:
        """Notes facts about the index."""
        with self._explained():
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(k, json.dumps(v)) for k, v in values.items()])

    # -- documents

    def begin_file(self, source: str, settings: str) -> None:
        """Makes a place for a file's documents. Until `end_file` it counts as not read, and by no settings where they change:
        a pass that is interrupted leaves documents that were read by the old ones beside others."""
        self._execute(
            "INSERT INTO files VALUES (?, '', 0, 0, ?, '') ON CONFLICT (source) DO UPDATE SET sha256 = '', mtime = 0, "
            "settings = CASE WHEN settings = excluded.settings THEN settings ELSE '' END",
            source,
            settings,
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

    def see(self, source: str, sha256: str, current: int) -> bool:
        """Whether a document is there unchanged, and if so, that this pass has seen it."""
        return self._execute("UPDATE documents SET pass = ? WHERE source = ? AND sha256 = ?", current, source, sha256) > 0

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
        found = self._rows("SELECT id, vector_id, row, digest, title FROM chunks WHERE document = ?", number)
        there = {row[0]: row for row in found}
        # A long title is cut before it is embedded: another one may have the same digest, but has other words.
        same = {c.id for c, d in zip(chunks, digests, strict=True) if c.id in there and there[c.id][3:] == (d, c.title)}
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
                "INSERT INTO terms(rowid, title, text) VALUES (?, ?, ?)",
                [
                    (identity, *terms.columns(chunks[i].title, chunks[i].head, chunks[i].text))
                    for i, identity in zip(fresh, ids, strict=True)
                ],
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
        """Deletes documents by source or by filter, with passages, vectors, words and fields; returns how many there were.

        The files they came from count as not read, so that a pass over them brings back what is still there.
        """
        numbers = [
            number for source in sources for (number,) in self._rows("SELECT number FROM documents WHERE source = ?", source)
        ]
        if where is not None:
            query = f"SELECT number FROM documents WHERE {where.sql}"
            numbers += [number for (number,) in self._rows(query, *where.values)]
        files = {file for n in numbers for (file,) in self._rows("SELECT file FROM documents WHERE number = ?", n)}
        self._drop_documents(numbers)
        for file in files - {None}:
            self._execute("UPDATE files SET sha256 = '', mtime = 0, settings = '' WHERE source = ?", file)
            # Its name goes too when nothing of it is left.
            self._execute(
                "DELETE FROM files WHERE source = ? AND NOT EXISTS (SELECT 1 FROM documents WHERE file = files.source)", file
            )
        return len(set(numbers))

    def delete_file(self, source: str) -> int:
        """Deletes a file with all its documents; returns how many there were."""
        numbers = [number for (number,) in self._rows("SELECT number FROM documents WHERE file = ?", source)]
        self._drop_documents(numbers)
        self._execute("DELETE FROM files WHERE source = ?", source)
        return len(numbers)

    def _drop_documents(self, numbers: Sequence[int]) -> None:
        if numbers:
            self.set(purge=True)  # until their words are in no file any more
        for number in numbers:
            self._drop_chunks([i for (i,) in self._rows("SELECT vector_id FROM chunks WHERE document = ?", number)])
            self._execute("DELETE FROM documents WHERE number = ?", number)

    def _drop_chunks(self, ids: Sequence[int]) -> None:
        """Deletes passages, their words, and notes their rows for erasing."""
        for identity in ids:
            row, *texts = self._row("SELECT row, title, head, text FROM chunks WHERE vector_id = ?", identity)
            words = terms.columns(*texts)
            self._execute("INSERT INTO terms(terms, rowid, title, text) VALUES ('delete', ?, ?, ?)", identity, *words)
            self._execute("INSERT INTO dead VALUES (?, 0)", row)
            self._execute("DELETE FROM chunks WHERE vector_id = ?", identity)
            self._deleted = True

    # -- mending

    def index_terms(self) -> None:
        """Indexes the words of all passages anew. Inside a transaction."""
        with self._explained():
            self.set(postings=None)
            self._db.execute("INSERT INTO terms(terms) VALUES ('delete-all')")
            found = self._db.execute("SELECT vector_id, title, head, text FROM chunks")
            self._db.executemany(
                "INSERT INTO terms(rowid, title, text) VALUES (?, ?, ?)", ((i, *terms.columns(*texts)) for i, *texts in found)
            )

    def index_facts(self) -> None:
        """Reads the fields of all documents from their metadata anew. Inside a transaction."""
        self._execute("DELETE FROM facts")
        with self._explained():
            for number, metadata in self._rows("SELECT number, metadata FROM documents"):
                self._db.executemany("INSERT INTO facts VALUES (?, ?, ?, ?)", rows.facts(number, json.loads(metadata)))

    def replace_vectors(self, places: Sequence[int], vectors: NDArray[np.float32]) -> None:
        """Gives passages whose records are damaged new ones. Inside a transaction.

        Args:
            places: the damaged rows.
            vectors: what they should hold, shape (len(places), dim).
        """
        import numpy as np

        ids = [self._row("SELECT vector_id FROM chunks WHERE row = ?", place)[0] for place in places]
        for place, new in zip(places, self.vectors.append(np.array(ids, dtype=np.int64), vectors), strict=True):
            self._execute("UPDATE chunks SET row = ? WHERE row = ?", new, place)
            self._execute("INSERT INTO dead VALUES (?, 0)", place)
        self._deleted = True

    def living(self, places: Iterable[int]) -> list[int]:
        """Which of some rows belong to a passage."""
        return [place for place in places if self._row("SELECT 1 FROM chunks WHERE row = ?", place)]

    def erase_again(self) -> None:
        """Has the next `settle` overwrite the vectors of everything that was ever deleted."""
        self._execute("UPDATE dead SET erased = 0")
        self._deleted = True

    # -- packing

    def copy(self, generation: Path) -> None:
        """Writes the database, without its free pages, into another generation's folder, marked as unfinished."""
        layout.remove(generation)
        generation.mkdir(parents=True)
        # Under its own name only when it says that it has no vectors yet: a killed copy must not pass for a rebuild.
        copy = generation / "copy.sqlite"
        with self._explained():
            self._db.execute("VACUUM INTO ?", (str(copy),))
            copied = schema.connect(copy)
            copied.executemany(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                (("packing", "true"), ("rows", "0"), ("nearest", "null"), ("postings", "null")),
            )
            copied.close()
        copy.rename(generation / "index.sqlite")

    def pack(self, old: Vectors, expected: NDArray[np.int64]) -> None:
        """Takes over the living rows of another generation's vectors, of which this database is a copy.

        Args:
            old: those vectors.
            expected: the passage's number of each of their rows.
        """
        moved = old.move_living(self.vectors, self.dead(), expected)
        with self.transaction():
            with self._explained():
                # Rows only move down, and in order, so that no two ever claim the same place.
                self._db.executemany(
                    "UPDATE chunks SET row = ? WHERE row = ?", ((new, old) for old, new in moved.items() if new != old)
                )
            self._execute("DELETE FROM dead")
            self.set(rows=self.vectors.rows)
        self.settle(purge=True)

    def packed(self) -> None:
        """Ends the packing: until then a rebuild takes this generation for one that a kill left behind."""
        self._execute("DELETE FROM meta WHERE key = 'packing'")
