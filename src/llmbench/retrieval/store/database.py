"""One open generation of an index: what it holds, read as of one moment."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench.errors import IndexError_
from llmbench.retrieval.chunking import Chunk
from llmbench.retrieval.documents import Document, Scalar
from llmbench.retrieval.store import rows, schema
from llmbench.retrieval.store.contract import OUTDATED, Contract
from llmbench.retrieval.store.filters import Filter
from llmbench.retrieval.store.rows import FileState, Standing
from llmbench.retrieval.store.vectors import Vectors
from llmbench.retrieval.store.words import terms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmbench.recipe import RagRecipe
    from llmbench.retrieval.embedding import Embedder

__all__ = ["Index"]


class Index:
    """One open generation. A connection belongs to one thread at a time; callers hold a lock.

    Raises (every method):
        IndexError_: a file is missing or broken, or the disk is full.
    """

    writable = False
    _file: tuple[int, int] | None = None

    def __init__(self, generation: Path) -> None:
        """Opens a generation for reading."""
        self.path = generation
        self._vectors: Vectors | None = None
        with self._explained():
            self._db = schema.connect(generation / "index.sqlite", reading=not self.writable)
        with suppress(OSError):
            self._file = _identity(generation)

    def close(self) -> None:
        """Closes the files; the database's log is folded in by the last to leave."""
        if self._vectors is not None:
            self._vectors.close()
        self._db.close()

    def is_on_disk(self) -> bool:
        """Whether the generation's folder still holds this database: it may have been removed, and another made of its name."""
        try:
            return self._file == _identity(self.path)
        except OSError:
            return False

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise IndexError_(f"{self.path / 'index.sqlite'} {_trouble(error)}") from error
        except UnicodeEncodeError as error:
            raise IndexError_(f"{error.object[:80]!a} contains an unpaired surrogate. Fix it.") from error

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Everything that the block reads is of one moment, whatever a writer commits meanwhile."""
        with self._explained():
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.rollback()

    # -- facts about the index

    def get(self, key: str) -> Any:
        """A fact about the index, or None."""
        row = self._row("SELECT value FROM meta WHERE key = ?", key)
        try:
            return None if row is None else json.loads(row[0])
        except (TypeError, ValueError) as error:
            raise rows.damaged(self.path, f"what it notes as {key}") from error

    @property
    def contract(self) -> Contract:
        """What the vectors depend on."""
        try:
            return Contract.from_json(self.get("contract"))
        except (TypeError, KeyError) as error:
            raise rows.damaged(self.path, "its contract with the embedder") from error

    def check(self, recipe: RagRecipe, embedder: Embedder, *, canaries: bool = False) -> None:
        """Closes the index and raises IndexError_ when a recipe with such an embedder does not fit it.

        Args:
            recipe: the pipeline.
            embedder: its embedder.
            canaries: whether to embed a few texts, and see that they get the vectors that they had; this loads the model.
        """
        mine = self.contract
        difference = mine.difference(Contract.of(recipe, embedder.promise))
        if canaries and not difference:
            drift = embedder.check_canaries(mine.embedder)
            difference = f"another embedder ({drift})" if drift else ""
        if difference:
            self.close()
            built = f"{recipe.source}: index {recipe.name} was built with {difference}"
            how = "" if difference == OUTDATED else " --rebuild"
            raise IndexError_(f"{built}. Run: llmbench index build {recipe.source}{how}")

    def outdated(self, recipe: RagRecipe, embedder: Embedder) -> bool:
        """Whether an earlier version of llmbench made it, and nothing else differs."""
        return self.contract.difference(Contract.of(recipe, embedder.promise)) == OUTDATED

    @property
    def version(self) -> int:
        """Changes whenever another connection has written."""
        return int(self._row("PRAGMA data_version")[0])

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return self._whole("dim")

    @property
    def vectors(self) -> Vectors:
        """The vectors, as many rows as the database counts."""
        if self._vectors is None:
            path, dim, rows, salt = self.path / "vectors.bin", self.dim, self._whole("rows"), self._whole("salt")
            self._vectors = Vectors(path, dim, rows, salt=salt, writable=self.writable)
        elif not self.writable:
            self._vectors.rows = self._whole("rows")
        return self._vectors

    def _whole(self, key: str) -> int:
        value = self.get(key)
        if not isinstance(value, int):
            raise rows.damaged(self.path, f"what it notes as {key}")
        return value

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._explained():
            return self._db.execute(query, values).fetchall()

    def _row(self, query: str, *values: Any) -> Any:
        with self._explained():
            return self._db.execute(query, values).fetchone()

    def _execute(self, query: str, *values: Any) -> int:
        with self._explained():
            return self._db.execute(query, values).rowcount

    # -- what is in it

    def files(self) -> dict[str, FileState]:
        """What is known of every file, by source."""
        return {
            row[0]: FileState(*row) for row in self._rows("SELECT source, sha256, size, mtime, settings, skipped FROM files")
        }

    def held(self) -> set[str]:
        """The files that there are documents of."""
        return {str(file) for (file,) in self._rows("SELECT DISTINCT file FROM documents WHERE file IS NOT NULL")}

    def origins(self) -> list[tuple[str, str | None]]:
        """Every document's source with the file that it was read from; None for one that a program gave."""
        return [
            (str(a), None if b is None else str(b)) for a, b in self._rows("SELECT source, file FROM documents ORDER BY source")
        ]

    def term_settings(self) -> list[tuple[Any, ...]]:
        """What decides a passage's BM25 score beside its words: how these are told apart, and how columns weigh."""
        table = self._rows("SELECT sql FROM sqlite_master WHERE name = 'terms'")
        return table + self._rows("SELECT k, v FROM terms_config WHERE k = 'rank'")

    def standing(self, source: str) -> Standing | None:
        """What is known of the document of a source; None when there is none."""
        row = self._row("SELECT sha256, file, pass FROM documents WHERE source = ?", source)
        return None if row is None else Standing(*row)

    def first_line(self, source: str) -> int:
        """The line of its file on which a document begins."""
        document = self.document(source)
        return 1 if document is None else document.first_line

    def metadata(self, source: str) -> dict[str, Scalar]:
        """A document's fields; none where there is no such document."""
        row = self._row("SELECT metadata FROM documents WHERE source = ?", source)
        try:
            return {} if row is None else json.loads(row[0])
        except (TypeError, ValueError) as error:
            raise rows.damaged(self.path, f"document {source}") from error

    def known(self, digests: Sequence[bytes]) -> dict[bytes, int]:
        """The rows of passages that read the same to the embedder, by digest."""
        found: dict[bytes, int] = {}
        for first in range(0, len(digests), 500):
            part = digests[first : first + 500]
            marks = ", ".join("?" * len(part))
            found |= dict(self._rows(f"SELECT digest, row FROM chunks WHERE digest IN ({marks})", *part))
        return found

    def count(self) -> int:
        """How many passages there are."""
        return int(self._row("SELECT count(*) FROM chunks")[0])

    def document_count(self) -> int:
        """How many documents there are."""
        return int(self._row("SELECT count(*) FROM documents")[0])

    def dead(self) -> NDArray[np.int64]:
        """The rows of vectors that belong to no passage any more, ascending."""
        return self._numbers("SELECT row FROM dead ORDER BY row")

    def dead_count(self) -> int:
        """How many rows of vectors belong to no passage any more."""
        return int(self._row("SELECT count(*) FROM dead")[0])

    def digests(self, chunk_ids: Sequence[str]) -> tuple[list[bytes], list[int]]:
        """The digests of what the embedder read of some passages, and their rows."""
        found = [self._row("SELECT digest, row FROM chunks WHERE id = ?", identity) for identity in chunk_ids]
        return [digest for digest, _ in found], [row for _, row in found]

    def file_of(self, source: str) -> str | None:
        """The file that a document was read from; None for one that a program gave."""
        row = self._row("SELECT file FROM documents WHERE source = ?", source)
        return None if row is None or row[0] is None else str(row[0])

    def kinds(self, field: str) -> set[str]:
        """What the values of a field are, over all documents: `text`, `numbers`, both or nothing."""
        found = self._row(
            "SELECT EXISTS (SELECT 1 FROM facts WHERE key = ?1 AND text IS NOT NULL), "
            "EXISTS (SELECT 1 FROM facts WHERE key = ?1 AND number IS NOT NULL)",
            field,
        )
        return {name for name, there in zip(("text", "numbers"), found, strict=True) if there}

    def fields(self, most: int) -> list[str]:
        """The names of fields, as many as that, in their order."""
        return [str(key) for (key,) in self._rows("SELECT DISTINCT key FROM facts ORDER BY key LIMIT ?", most)]

    def identities(self, places: Iterable[int]) -> list[int]:
        """The numbers of the passages of some rows, -1 where there is none: what their records must name."""
        wanted = [int(place) for place in places]
        found: dict[int, int] = {}
        for first in range(0, len(wanted), 500):
            part = wanted[first : first + 500]
            marks = ", ".join("?" * len(part))
            found |= dict(self._rows(f"SELECT row, vector_id FROM chunks WHERE row IN ({marks})", *part))
        return [int(found.get(place, -1)) for place in wanted]

    def expected(self) -> NDArray[np.int64]:
        """The number of the passage that each record must name, -1 where there is none; shape (rows,)."""
        import numpy as np

        expected = np.full(self._whole("rows"), -1, dtype=np.int64)
        places = self._numbers("SELECT row FROM chunks ORDER BY row")
        inside = places < len(expected)
        expected[places[inside]] = self._numbers("SELECT vector_id FROM chunks ORDER BY row")[inside]
        return expected

    def _numbers(self, query: str, *values: Any) -> NDArray[np.int64]:
        """One column of whole numbers, without a Python object for each: 8 MB for a million."""
        import numpy as np

        with self._explained():
            return np.fromiter((row[0] for row in self._db.execute(query, values)), dtype=np.int64)

    def matching(self, where: Filter) -> NDArray[np.int64]:
        """The rows of the passages whose document fits a filter, ascending."""
        query = f"SELECT row FROM chunks JOIN documents ON document = number WHERE {where.sql} ORDER BY row"
        return self._numbers(query, *where.values)

    def search_terms(self, text: str, k: int, where: Filter | None = None) -> list[tuple[int, float]]:
        """Rows and BM25 scores of the passages that share words with a question, best first."""
        expression = terms.query(text)
        if not expression:
            return []
        inside, values = "", tuple[str | float, ...]()
        if where is not None:
            # The plus keeps SQLite from asking for the words once for each row that fits: 12 s for 3,000 of them.
            inside = f"AND +rowid IN (SELECT vector_id FROM chunks JOIN documents ON document = number WHERE {where.sql})"
            values = where.values
        query = (
            "SELECT chunks.row, -found.rank FROM (SELECT rowid AS id, rank FROM terms "
            f"WHERE terms MATCH ? {inside} ORDER BY rank LIMIT ?) AS found JOIN chunks ON vector_id = found.id "
            "ORDER BY found.rank, chunks.row"
        )
        return [(int(row), float(score)) for row, score in self._rows(query, expression, *values, k)]

    def totals(self) -> tuple[int, int]:
        """How many passages the term index holds, and how many words they have in all."""
        return terms.totals(self._row("SELECT block FROM terms_data WHERE id = 1")[0])

    def place(self, chunk_id: str) -> int | None:
        """The row of a passage, or None."""
        found = self._row("SELECT row FROM chunks WHERE id = ?", chunk_id)
        return None if found is None else int(found[0])

    def words_of(self, first: int, end: int) -> Iterator[tuple[int, str, str, str]]:
        """Row, title, column heads and text of the passages of the rows `first` to `end`, by row."""
        with self._explained():
            yield from self._db.execute(
                "SELECT row, title, head, text FROM chunks WHERE row >= ? AND row < ? ORDER BY row", (first, end)
            )

    def word_points(self, text: str, chunk_id: str) -> dict[str, float]:
        """What each word of a question adds to a passage's BM25 score; 0 for a word that it does not have."""
        found = self._row("SELECT vector_id FROM chunks WHERE id = ?", chunk_id)
        points: dict[str, float] = {}
        for word in terms.query(text).split(" OR ") if found else ():
            row = self._row("SELECT -rank FROM terms WHERE terms MATCH ? AND rowid = ?", word, found[0]) if word else None
            name = word.strip('"*')
            points[name] = points.get(name, 0.0) + (float(row[0]) if row else 0.0)
        return points

    def chunks(self, places: Iterable[int]) -> dict[int, Chunk]:
        """The passages of some rows, by row; those that have been deleted since are left out.

        Raises:
            IndexError_: a passage is not as it was written; it is not handed out.
        """
        return {row: chunk for row, chunk in (self._chunk("row = ?", int(place)) for place in places) if chunk is not None}

    def stands(self, chunk_id: str) -> bool:
        """Whether a passage is there, at its place and with its words: its id is of both."""
        return self._row("SELECT 1 FROM chunks WHERE id = ?", chunk_id) is not None

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


def _identity(generation: Path) -> tuple[int, int]:
    found = (generation / "index.sqlite").stat()
    return found.st_dev, found.st_ino


def _trouble(error: sqlite3.Error) -> str:
    """What SQLite says of a database, with what to do next."""
    words = str(error)
    if "full" in words or "disk I/O" in words:
        return f"cannot be written ({words}). Free some space and run it again; earlier work is kept."
    if "readonly" in words:
        return f"cannot be written ({words}). Make its folder writable, or run as the user who owns it."
    if "locked" in words:
        return f"is in use by another process ({words}). Try again when it has finished."
    if "closed database" in words:
        return "is closed. Open it again: Writer.open or Retriever.open."
    if isinstance(error, sqlite3.ProgrammingError | sqlite3.IntegrityError):
        whole = "Check it: llmbench index verify PIPELINE"
        return f"rejected a change ({words}), and is unchanged. {whole}"
    return f"cannot be used ({words}). Rebuild it: llmbench index build PIPELINE --rebuild"
