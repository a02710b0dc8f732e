"""Builds an index and brings it up to date: only files whose bytes changed are read, cut and embedded again."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from llmbench import workspace
from llmbench.errors import IndexError_, MissingPackage
from llmbench.recipe import RagRecipe
from llmbench.retrieval import chunking, reading
from llmbench.retrieval.chunking import Chunk
from llmbench.retrieval.documents import Document, Skipped, Unreadable
from llmbench.retrieval.embedding import Embedder
from llmbench.retrieval.reading import File
from llmbench.retrieval.store import Contract, Index, current, generation, point

__all__ = ["IndexReport", "build"]

Progress = Callable[[int, int, str], None]
"""Called with files done, files in all, and the source just done."""

BATCH = 256
"""Passages embedded and written at once: large enough for full batches, small enough that a kill costs seconds."""


@dataclass(frozen=True)
class IndexReport:
    """What indexing did. `skipped` holds (source, reason); a PDF of which some pages failed is in both."""

    added: int
    changed: int
    removed: int
    unchanged: int
    skipped: tuple[Skipped, ...]
    chunks: int
    embedded: int
    seconds: float


def build(recipe: RagRecipe, *, rebuild: bool = False, progress: Progress | None = None) -> IndexReport:
    """Brings the index of a pipeline up to date with its documents.

    Args:
        recipe: the pipeline.
        rebuild: embed everything anew; searches use the old index until the new one is whole.
        progress: told of each file.

    Raises:
        IndexError_: the index was built with another embedder or other chunks (and not `rebuild`), or is broken.
        LlmbenchError: another process is indexing it, the embedder is not found, the disk is full.
    """
    began = time.perf_counter()
    _need_packages()
    embedder = Embedder(recipe.embedder, gpu=True)
    folder = workspace.indexes() / recipe.name
    with workspace.lock(folder, "index"):
        index = _open(folder, recipe, embedder, rebuild)
        try:
            job = _Job(recipe, index, embedder, progress or (lambda done, total, source: None))
            job.run()
            index.set(complete=True)
            chunks = index.count()
        finally:
            index.close()
        if current(folder) != index.path:
            point(folder, index.path)
    counts = (job.added, job.changed, job.removed, job.unchanged)
    return IndexReport(*counts, tuple(sorted(job.skipped)), chunks, job.embedded, time.perf_counter() - began)


def _need_packages() -> None:
    """Says now, rather than after the first file, what is not installed."""
    from importlib.util import find_spec

    for module, package in (
        ("sentence_transformers", "sentence-transformers"),
        ("faiss", "faiss-cpu"),
        ("selectolax", "selectolax"),
    ):
        if find_spec(module) is None:
            raise MissingPackage("index", package, "rag")


def _open(folder: Path, recipe: RagRecipe, embedder: Embedder, rebuild: bool) -> Index:
    """The database to write: the current one, a new one, or the next generation of a rebuild, begun or continued."""
    contract = Contract.of(recipe, embedder.fingerprint)
    now = current(folder)
    if now is not None and now.exists() and not rebuild:
        index = Index(now)
        index.check(recipe, embedder.fingerprint)
        embedder.dtype = index.get("dtype")
        index.set(complete=False)
        return index
    path = folder / f"index-{generation(now) + 1 if now else 1}.sqlite"
    if path.exists():
        begun = _begun(path, contract)
        if begun is not None:
            embedder.dtype = begun.get("dtype")
            return begun
        for part in folder.glob(f"{path.name}*"):
            part.unlink()
    embedder.load()
    index = Index.create(path, contract, str(embedder.dtype))
    if now is None or not now.exists():
        point(folder, path)
    return index


def _begun(path: Path, contract: Contract) -> Index | None:
    """A database that an interrupted run left behind, when it can be continued."""
    index = Index(path)
    try:
        if index.contract == contract:
            return index
    except IndexError_:  # killed before its tables were made
        pass
    index.close()
    return None


class _Job:
    """One pass over the documents."""

    def __init__(self, recipe: RagRecipe, index: Index, embedder: Embedder, progress: Progress) -> None:
        self.recipe, self.index, self.embedder, self.progress = recipe, index, embedder, progress
        self.added = self.changed = self.removed = self.unchanged = self.embedded = 0
        self.skipped: list[Skipped] = []

    def run(self) -> None:
        files, skipped = reading.walk(self.recipe.places)
        self.skipped += skipped
        known = self.index.hashes()
        present: set[str] = set()
        waiting: list[tuple[File, Document, list[Chunk]]] = []
        for done, (file, document) in enumerate(_read_ahead(files, known), 1):
            match document:
                case None:
                    self.unchanged += 1
                    present.add(file.source)
                case Unreadable():
                    self.skipped.append((file.source, str(document)))
                case Document():
                    present.add(file.source)
                    self.added += file.source not in known
                    self.changed += file.source in known
                    waiting.append((file, document, self._cut(document)))
                    if unread := document.metadata.get("unread_pages"):
                        self.skipped.append((file.source, f"pages that could not be read: {unread}"))
            if sum(len(chunks) for _, _, chunks in waiting) >= BATCH:
                self._write(waiting)
                waiting = []
            self.progress(done, len(files), file.source)
        self._write(waiting)
        gone = known.keys() - present
        with self.index.transaction():
            for source in gone:
                self.index.delete(source)
        self.removed = len(gone)

    def _cut(self, document: Document) -> list[Chunk]:
        """The passages, none longer than the embedder reads together with title, prefix and special tokens."""
        embedder, spec = self.embedder, self.recipe.chunking
        taken = (
            embedder.special_tokens
            + len(embedder.starts(self.recipe.embedder.document_prefix or ""))
            + chunking.TITLE_TOKENS
            + 2
        )
        size = min(spec.max_tokens, embedder.max_tokens - taken)
        if size < 8:
            raise IndexError_(
                f"embedder {self.recipe.embedder.model_name_or_path} reads too few tokens: {embedder.max_tokens}."
            )
        return chunking.chunks(document, embedder, max_tokens=size, overlap=min(spec.overlap, size - 1))

    def _write(self, batch: Sequence[tuple[File, Document, list[Chunk]]]) -> None:
        """Embeds and writes some documents, all or none."""
        prefix = self.recipe.embedder.document_prefix or ""
        chunks = [chunk for _, _, chunks in batch for chunk in chunks]
        if not batch:
            return
        vectors = self.embedder.embed([prefix + chunking.embedded_text(c.title, c.text, self.embedder) for c in chunks])
        self.embedded += len(chunks)
        start = 0
        with self.index.transaction():
            for file, document, own in batch:
                self.index.put(document, file.path, own, vectors[start : start + len(own)])
                start += len(own)


def _read_ahead(files: Sequence[File], known: dict[str, str]) -> Iterator[tuple[File, Document | Unreadable | None]]:
    """Reads files in order, a few ahead in threads (a PDF is a process that takes seconds); None is unchanged."""

    def one(file: File) -> Document | Unreadable | None:
        try:
            with file.path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return None if known.get(file.source) == digest else reading.read(file)
        except OSError as error:
            return Unreadable(f"cannot be read ({error.strerror})")
        except Unreadable as error:
            return error

    pool = ThreadPoolExecutor(max_workers=2)
    try:
        ahead: deque[tuple[File, Future[Document | Unreadable | None]]] = deque()
        for file in files:
            ahead.append((file, pool.submit(one, file)))
            if len(ahead) > 4:
                first, future = ahead.popleft()
                yield first, future.result()
        for first, future in ahead:
            yield first, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
