"""The durable index: SQLite holds documents, passages and vectors; whoever searches builds FAISS from it and is never stale.

    outputs/indexes/NAME/
    ├── index.json        which database is the current one
    └── index-1.sqlite    documents, chunks, vectors, and the contract with the embedder

A transaction writes whole documents, so a kill at any moment leaves whole documents. `--rebuild` fills the next database
and changes index.json last: until then searches go on in the old one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench import workspace
from llmbench.errors import IndexError_
from llmbench.retrieval.chunking import VERSION, Chunk
from llmbench.retrieval.documents import Document, Heading

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmbench.recipe import RagRecipe

__all__ = ["Contract", "Index", "current"]

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE documents (
    source TEXT PRIMARY KEY, sha256 TEXT NOT NULL, path TEXT NOT NULL, title TEXT NOT NULL,
    kind TEXT NOT NULL, text TEXT NOT NULL,
    metadata TEXT NOT NULL, pages TEXT NOT NULL, headings TEXT NOT NULL);
CREATE TABLE chunks (
    vector_id INTEGER PRIMARY KEY AUTOINCREMENT, -- grows only: a freed number never names another passage
    id TEXT NOT NULL UNIQUE, source TEXT NOT NULL REFERENCES documents ON DELETE CASCADE, title TEXT NOT NULL,
    text TEXT NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL, page INTEGER, line INTEGER, vector BLOB NOT NULL);
CREATE INDEX chunks_source ON chunks (source);
"""


@dataclass(frozen=True)
class Contract:
    """What an index's vectors depend on. A search whose recipe promises otherwise is refused."""

    embedder: str
    """The name in the recipe; not compared, since a folder may move."""
    fingerprint: str
    query_prefix: str
    document_prefix: str
    max_tokens: int
    overlap: int
    chunker: int

    @classmethod
    def of(cls, recipe: RagRecipe, fingerprint: str) -> Contract:
        """What a recipe promises."""
        spec, chunking = recipe.embedder, recipe.chunking
        name = spec.model_name_or_path
        return cls(
            name,
            fingerprint,
            spec.query_prefix or "",
            spec.document_prefix or "",
            chunking.max_tokens,
            chunking.overlap,
            VERSION,
        )

    def difference(self, other: Contract) -> str:
        """The first field in which an index (self) differs from a recipe (other), in words; empty when none does."""
        for field in fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if field.name == "embedder" or mine == theirs:
                continue
            if field.name == "fingerprint":
                if self.embedder == other.embedder:
                    return f"another embedder (the files of {self.embedder} have changed)"
                return f"another embedder ({self.embedder}, not {other.embedder})"
            return f"another {field.name} ({mine!r}, not {theirs!r})"
        return ""


def current(folder: Path) -> Path | None:
    """The database that searches use, or None where nothing is built.

    Raises:
        IndexError_: index.json is broken.
    """
    try:
        name = json.loads((folder / "index.json").read_text(encoding="utf-8"))["database"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IndexError_(f"{folder / 'index.json'} is broken ({error}). Remove {folder} and index again.") from error
    return folder / str(name)


def generation(path: Path) -> int:
    """The number in `index-3.sqlite`."""
    return int(path.stem.rpartition("-")[2])


class Index:
    """One open database. A connection belongs to one thread at a time; callers hold a lock.

    Raises (every method):
        IndexError_: the file is broken, or the disk is full.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._explained():
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA foreign_keys = ON")

    @classmethod
    def create(cls, path: Path, contract: Contract, dtype: str) -> Index:
        """A new, empty database."""
        index = cls(path)
        with index._explained():
            index._db.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        index.set(contract=asdict(contract), dtype=dtype, complete=False)
        return index

    def close(self) -> None:
        """Closes the file; its log is folded in by the last to leave."""
        self._db.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if "full" in str(error) or "disk I/O" in str(error):
                advice = "Free some space and index again; what was done before is kept."
                raise IndexError_(f"{self.path} cannot be written ({error}). {advice}") from error
            again = "Build it again: llmbench index PIPELINE --rebuild"
            raise IndexError_(f"{self.path} cannot be used ({error}). {again}") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything in the block is written, or nothing is."""
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.rollback()
                raise
            self._db.execute("COMMIT")

    def set(self, **values: Any) -> None:
        """Notes facts about the index."""
        rows = [(key, json.dumps(value)) for key, value in values.items()]
        with self._explained():
            self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    def get(self, key: str) -> Any:
        """A fact about the index, or None."""
        row = self._row("SELECT value FROM meta WHERE key = ?", key)
        return None if row is None else json.loads(row[0])

    @property
    def contract(self) -> Contract | None:
        """What the vectors depend on; None when creating the database was interrupted."""
        values = self.get("contract")
        return None if values is None else Contract(**values)

    def check(self, recipe: RagRecipe, fingerprint: str) -> None:
        """Closes the index and raises IndexError_ when a recipe with such an embedder does not fit it."""
        mine = self.contract
        difference = mine.difference(Contract.of(recipe, fingerprint)) if mine else "nothing in it"
        if difference:
            self.close()
            built = f"{recipe.source}: index {recipe.name} was built with {difference}"
            raise IndexError_(f"{built}. Run: llmbench index {recipe.source} --rebuild")

    @property
    def version(self) -> int:
        """Changes whenever another connection has written."""
        return int(self._row("PRAGMA data_version")[0])

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._explained():
            return self._db.execute(query, values).fetchall()

    def _row(self, query: str, *values: Any) -> Any:
        with self._explained():
            return self._db.execute(query, values).fetchone()

    def hashes(self) -> dict[str, str]:
        """The SHA-256 of every indexed file, by source."""
        return dict(self._rows("SELECT source, sha256 FROM documents"))

    def put(self, document: Document, path: Path, chunks: Sequence[Chunk], vectors: NDArray[np.float32]) -> None:
        """Replaces one document with its passages; vectors of shape (len(chunks), dim). Call it inside a transaction."""
        self.delete(document.source)
        row = (document.source, document.id, _storable(str(path)), document.title, document.kind, document.text)
        marks = (document.metadata, document.pages, [asdict(heading) for heading in document.headings])
        columns = 'id, source, title, text, start, "end", page, line, vector'
        with self._explained():
            self._db.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (*row, *map(json.dumps, marks)))
            self._db.executemany(
                f"INSERT INTO chunks ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants
                [(*_columns(chunk), vector.tobytes()) for chunk, vector in zip(chunks, vectors, strict=True)],
            )

    def delete(self, source: str) -> None:
        """Removes one document with its passages and vectors."""
        with self._explained():
            self._db.execute("DELETE FROM documents WHERE source = ?", (source,))

    def count(self) -> int:
        """How many passages there are."""
        return int(self._row("SELECT count(*) FROM chunks")[0])

    def vectors(self, block: int = 8192) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """All vectors with their numbers, block by block: arrays of shape (n,) and (n, dim)."""
        import numpy as np

        last = -1
        while rows := self._rows(
            "SELECT vector_id, vector FROM chunks WHERE vector_id > ? ORDER BY vector_id LIMIT ?", last, block
        ):
            last = rows[-1][0]
            flat = np.frombuffer(b"".join(row[1] for row in rows), dtype=np.float32)
            yield np.array([row[0] for row in rows], dtype=np.int64), flat.reshape(len(rows), -1)

    def chunk(self, vector_id: int) -> Chunk | None:
        """The passage of a vector; None when it has been deleted since."""
        row = self._row('SELECT id, source, title, text, start, "end", page, line FROM chunks WHERE vector_id = ?', vector_id)
        return None if row is None else Chunk(*row)

    def document(self, source: str) -> Document | None:
        """A document as it was read, or None."""
        columns = "sha256, source, title, text, kind, metadata, pages, headings"
        row = self._row(f"SELECT {columns} FROM documents WHERE source = ?", source)  # noqa: S608 - a constant
        if row is None:
            return None
        identity, source, title, text, kind, metadata, pages, headings = row
        marks = tuple(Heading(**heading) for heading in json.loads(headings))
        return Document(identity, source, title, text, kind, json.loads(metadata), tuple(json.loads(pages)), marks)

    def sources(self) -> list[tuple[str, str, int]]:
        """`(source, title, passages)` of every document, by source."""
        query = (
            "SELECT d.source, d.title, count(c.id) FROM documents d LEFT JOIN chunks c USING (source) "
            "GROUP BY d.source ORDER BY d.source"
        )
        return [(str(a), str(b), int(n)) for a, b, n in self._rows(query)]


def _columns(chunk: Chunk) -> tuple[Any, ...]:
    return (chunk.id, chunk.source, chunk.title, chunk.text, chunk.start, chunk.end, chunk.page, chunk.line)


def _storable(text: str) -> str:
    """A path whose bytes are not UTF-8, made fit for a database."""
    return text.encode("utf-8", "replace").decode()


def point(folder: Path, database: Path) -> None:
    """Makes a database the current one, and removes the others."""
    workspace.write_json(folder / "index.json", {"database": database.name})
    for path in folder.glob("index-*.sqlite*"):
        if not path.name.startswith(database.name):
            path.unlink(missing_ok=True)
