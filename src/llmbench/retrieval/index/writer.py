"""The one writer of an index: documents in, passages cut, embedded while the next are read, and written whole.

with Writer.open(recipe) as writer:
    writer.upsert([Document(...)])
    writer.delete(where=Filter.of({"year": {"$lt": 2020}}))

What a program does not `finish` itself is finished at the end of the block, unless an error ends it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench import workspace
from llmbench.errors import DataError, IndexError_, LlmbenchError
from llmbench.recipe import RagRecipe
from llmbench.retrieval import chunking
from llmbench.retrieval.chunking import Chunk
from llmbench.retrieval.documents import Document, check
from llmbench.retrieval.embedding import Embedder
from llmbench.retrieval.index import upkeep
from llmbench.retrieval.index.compact import compact, wasted
from llmbench.retrieval.index.generation import open_for_writing
from llmbench.retrieval.index.names import Names
from llmbench.retrieval.index.pipeline import Batches
from llmbench.retrieval.index.steps import BeginFile, EndFile, PutDocument, SeeDocument, TouchFile
from llmbench.retrieval.reading import Cleaner
from llmbench.retrieval.search import language
from llmbench.retrieval.store import FileState, Filter, Standing, WritableIndex, layout
from llmbench.retrieval.store.vectors import BrokenIndex, Nearest, Plan, tuning
from llmbench.shown import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Writer", "window"]

PURGE_UP_TO = 100_000
"""Passages up to which a change also rewrites the postings, so that replaced words leave the file at once (2 s)."""


class Writer:
    """Holds the index's lock from `open` to its end. `index` is the generation being written.

    Threads may share it: `upsert`, `delete`, `compact`, `flush` and `finish` wait for one another.
    """

    def __init__(self, recipe: RagRecipe, folder: Path, index: WritableIndex, embedder: Embedder, *, switch: bool) -> None:
        """Use `open`."""
        self.recipe, self.folder, self.embedder, self.switch = recipe, folder, embedder, switch
        self.batches = Batches(recipe, index, embedder, current=int(index.get("pass") or 0) + 1)
        self.tally = self.batches.tally
        self._turn = threading.RLock()
        self._begun: set[str] = set()
        self.names = Names(self.batches.standing, lambda source: self.index.first_line(source), self.batches.current)
        self.language: language.Language | None = None
        """Whether the embedder was made for the documents' language, after `finish`."""
        self.settled = True
        """Whether nothing of what was deleted is left in any file, after `finish`: a search that goes on may hold it up."""

    @property
    def index(self) -> WritableIndex:
        """The generation being written; another after `compact`."""
        return self.batches.index

    @classmethod
    @contextmanager
    def open(
        cls,
        recipe: RagRecipe,
        *,
        rebuild: bool = False,
        renew: bool = False,
        switch: bool = True,
        wait: float = 0,
        embedder: Embedder | None = None,
    ) -> Iterator[Writer]:
        """Opens the index of a pipeline for writing, makes it when there is none, and closes it at the end of the block.

        Args:
            recipe: the pipeline.
            rebuild: write a new generation, begun here or continued, instead of the current one.
            renew: the same where an earlier version of llmbench made the current one; its documents are the caller's to
                bring over.
            switch: whether a new generation becomes the current one when `finish` is called.
            wait: seconds to wait for another writer.
            embedder: one that is there already; else the recipe's, on a GPU where there is one.

        Raises:
            IndexError_: it was built with another embedder or other chunks, or is broken.
            LlmbenchError: another process writes it; the message names it.
        """
        folder = workspace.indexes() / recipe.name
        layout.check_claim(folder, recipe)
        with workspace.lock(folder, "index", wait=wait):
            index, embedder = open_for_writing(folder, recipe, embedder, rebuild=rebuild, renew=renew)
            layout.claim(folder, recipe)
            writer = cls(recipe, folder, index, embedder, switch=switch)
            try:
                yield writer
                if writer.batches.dirty or writer.batches.waiting:
                    writer.finish()
            finally:
                writer.close()

    def close(self) -> None:
        """Lets go of the files; what was handed over and not flushed is dropped."""
        self.batches.close()

    # -- documents of files, as `build` hands them on

    def begin(self, source: str, settings: str) -> None:
        """A file's documents follow, read by such settings (see `FileState`)."""
        if source not in self._begun:
            self._begun.add(source)
            self.batches.take(BeginFile(source, settings))

    def add(self, document: Document, *, file: str | None = None, trusted: bool = False) -> None:
        """Takes a document; one that is there unchanged and read by the same rules (`trusted`) is only noted as seen.

        One of a file whose name is taken is left out, as `end` tells.

        Raises:
            LlmbenchError: it holds what no database can keep.
        """
        check(document)
        if file is not None and not self.names.free(document, file):
            return
        known, _ = self.batches.standing(document.source)
        self.batches.expect(Standing(document.id, file, self.batches.current), document.first_line, source=document.source)
        if trusted and known is not None and known.id == document.id:
            self.batches.take(SeeDocument(document.source, document.id))
        else:
            chunks = self._cut(document)
            texts = [self._embedded(chunk) for chunk in chunks]
            digests = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
            self.batches.put(PutDocument(document, chunks, texts, digests, file), known)
        self.batches.full()

    def end(self, state: FileState) -> FileState:
        """All of a file's documents were handed on. Returns the state with what of it is left out."""
        self._begun.discard(state.source)
        state = self.names.told(state)
        self.batches.take(EndFile(state))
        return state

    def later(self, state: FileState) -> None:
        """Notes that a file has another size or time, but the same content."""
        self.batches.take(TouchFile(state))
        self.batches.full()

    def flush(self) -> None:
        """Writes everything that was handed on."""
        with self._turn:
            self.batches.flush()

    # -- documents of programs

    def upsert(self, documents: Iterable[Document]) -> None:
        """Adds documents, or replaces those of the same source; all of them or, where an error ends it, whole batches.

        They are looked at before the first is taken, and so are all in memory: hand on many in several calls.

        Raises:
            LlmbenchError: one is no document, has no text, or is called like a file's.
        """
        if isinstance(documents, Document) or not isinstance(documents, Iterable):
            raise LlmbenchError("upsert takes a list of documents. For a single one: writer.upsert([document]).")
        given = list(documents)
        with self._turn:
            for document in given:
                self._look_at(document)
            try:
                for document in given:
                    self.add(document)
                self.flush()
            except BaseException:
                self.batches.drop()
                raise
            self.note()

    def _look_at(self, document: Document) -> None:
        """Raises LlmbenchError for what a program cannot give."""
        check(document)
        if not document.text.strip():
            raise LlmbenchError(f"document {document.source!a} has no text, so no search could find it. Add some.")
        there, _ = self.batches.standing(document.source)
        if there is not None and there.file is not None:
            how = "Give it another source, or exclude the file."
            raise LlmbenchError(f"document {document.source!a} has the same source as one from file {there.file}. {how}")

    def delete(self, *, sources: Iterable[str] = (), where: Filter | Mapping[str, Any] | None = None) -> int:
        """Deletes documents by source or by filter; returns how many there were.

        After `finish` nothing of them is left in any file.

        Raises:
            LlmbenchError: `sources` is one text, or the filter is empty and so fits every document.
        """
        if isinstance(sources, str):
            raise LlmbenchError(f"sources takes a list. For a single source: writer.delete(sources=[{sources!a}]).")
        if isinstance(where, Mapping):
            where = Filter.of(where)
        if where is not None and where.fits_all:
            raise LlmbenchError('an empty filter matches every document. To delete all: {"source": {"$glob": "*"}}.')
        with self._turn:
            self.flush()
            with self.index.transaction():
                count = self.index.delete(sources=sources, where=where)
            self.tally.removed += count
            self.note()
        return count

    def compact(self) -> None:
        """Writes the index anew without what was deleted."""
        with self._turn:
            self.flush()
            self.batches.index = compact(self.folder, self.index)

    def finish(self, *, purge: bool = False) -> dict[str, Any]:
        """Ends the work: packs, folds logs, searches well; and makes a new generation the current one.

        Returns how vectors are searched, and the recall that was measured.
        """
        with self._turn:
            return self._finish(purge)

    def _finish(self, purge: bool) -> dict[str, Any]:
        self.flush()
        if wasted(self.index):
            self.batches.index = compact(self.folder, self.index)
        found = self._nearest()
        self.language = language.measure(self.index, self.embedder)
        purge |= bool(self.index.get("purge"))  # documents were deleted; of a writer that was killed as well
        all_words = purge or self.index.count() <= PURGE_UP_TO
        failed: IndexError_ | None = None
        try:
            upkeep.update(self.index, purge=all_words)
        except IndexError_ as error:  # searches do without these files, and what is indexed is to be searched
            failed = error
        if self.batches.dirty or purge:
            self.settled = self.index.settle(purge=all_words)
            self.batches.dirty = False
        if self.index.get("purge") and failed is None:
            self.index.set(purge=False)
        if not self.index.get("complete"):  # from now on a rebuild would not continue it
            self.index.set(complete=True)
        now = layout.current(self.folder)
        if now != self.index.path and (self.switch or now is None or not now.exists()):
            layout.point(self.folder, self.index.path)
            for old in layout.unpointed(self.folder):
                layout.remove(old)
        if failed is not None:
            raise failed
        return found

    def embed(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        """The vectors of passages: shape (len(chunks), dim)."""
        return self.embedder.embed_documents([self._embedded(chunk) for chunk in chunks])

    # -- inside

    def _nearest(self) -> dict[str, Any]:
        """Builds the approximate index where one is due; says how vectors are searched."""
        spec, index = self.recipe.search, self.index
        vectors, dead, path = index.vectors, index.dead(), index.path / "nearest.faiss"
        stored, note = index.get("nearest"), ""
        try:
            nearest = Nearest() if stored is None else Nearest.load(path, Plan(**stored))
        except BrokenIndex:
            nearest = Nearest()
            index.set(nearest=None)
        if tuning.due(nearest, vectors.rows, len(dead), spec.index):
            asked, note = self._questions()
            built = tuning.build(
                vectors.records["vector"], dead=dead, kind=spec.index, target_recall=spec.target_recall, queries=asked
            )
            if built.plan is not None:
                index.set(nearest=asdict(built.save(path)))
                nearest = built
        if nearest.plan is None:
            words = f"Exact search over {counted(index.count(), 'vector')} (recall@10 = 1)."
            return {"kind": "exact", "recall": 1.0, "words": words}
        return {**asdict(nearest.plan), "words": f"{nearest.plan}.{note}"}

    def _questions(self) -> tuple[NDArray[np.float32] | None, str]:
        """The vectors of the pipeline's own questions, at most as many as measure; and why there are none of those it names."""
        path = self.recipe.questions
        if path is None:
            return None, ""
        from llmbench.retrieval.evaluation import read

        try:
            texts = list(dict.fromkeys(text for text in map(Cleaner(), read(path).queries.values()) if text.strip()))
        except DataError as error:
            return None, f" Recall was not measured on the pipeline's questions: {str(error).splitlines()[0]}"
        return self.embedder.embed_queries(texts[:: max(1, len(texts) // tuning.QUERIES)][: tuning.QUERIES]), ""

    def note(self) -> None:
        """Something was written, which `finish` folds in."""
        self.batches.dirty = True

    def _cut(self, document: Document) -> list[Chunk]:
        """The passages, none longer than the embedder reads together with title, prefix and special tokens."""
        spec, window = self.recipe.chunking, self._window
        size = min(spec.max_tokens, window)
        return chunking.chunks(
            document,
            self.embedder,
            max_tokens=size,
            overlap=min(spec.overlap, size - 1),
            method=spec.method,
            sentences=spec.sentences,
            parent_tokens=spec.parent_tokens,
            window=window,
        )

    @cached_property
    def _window(self) -> int:
        return window(self.embedder)

    def _embedded(self, chunk: Chunk) -> str:
        return chunking.embedded_text(chunk.title, chunk.text, self.embedder, head=chunk.head)


def window(embedder: Embedder) -> int:
    """How many tokens of a passage an embedder reads beside a title, its prefix and its special tokens.

    Raises:
        IndexError_: too few to be of use.
    """
    taken = embedder.special_tokens + len(embedder.starts(embedder.document_prefix)) + chunking.TITLE_TOKENS + 2
    left = embedder.max_tokens - taken
    if left < 8:
        raise IndexError_(f"embedder {embedder.promise.model} reads too few tokens ({embedder.max_tokens}). Choose another.")
    return left
