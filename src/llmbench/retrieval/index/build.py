"""Builds an index and brings it up to date: only files that changed are read, only words that are new are embedded."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Literal

from llmbench.errors import MissingPackage
from llmbench.recipe import RagRecipe
from llmbench.retrieval import reading
from llmbench.retrieval.documents import LOCKED, NOT_OPENED, Momentary, Skipped, not_read
from llmbench.retrieval.embedding import Embedder
from llmbench.retrieval.index import carry, freshness
from llmbench.retrieval.index.writer import Writer
from llmbench.retrieval.reading import File, Reading
from llmbench.retrieval.reading.password import need_passwords
from llmbench.retrieval.reading.standard_input import SOURCE, read_input
from llmbench.retrieval.store import FileState, Index

__all__ = ["IndexReport", "build"]

Progress = Callable[[int, int, str], None]
"""Called with files done, files in all, and the source just done."""

_HIDDEN = re.compile("hidden text|.* hidden instructions")
"""How a document's warning of text that nobody sees begins."""


@dataclass(frozen=True)
class IndexReport:
    """What indexing did, counted in documents. `skipped` holds (source, reason); a file read in part is in both.

    `kept` holds (source, reason) of files that are there and could not be read now: what was read of them before stays, and is
    counted as unchanged.
    """

    added: int
    changed: int
    removed: int
    unchanged: int
    skipped: tuple[Skipped, ...]
    kept: tuple[Skipped, ...]
    chunks: int
    embedded: int
    seconds: float
    generation: int
    vectors: dict[str, Any]
    """How vectors are searched, and the recall@10 that was measured against exact search."""
    carried: int = 0
    """Documents that a rebuild took over from the old index: a program gave them, or their file cannot be read now."""
    notes: tuple[str, ...] = ()
    """What a rebuild could not take over, a line each."""
    language: str = ""
    """That the embedder hardly knows the language of the documents, in a line."""


def build(
    recipe: RagRecipe,
    *,
    rebuild: bool = False,
    switch: bool = True,
    wait: float = 0,
    engine: Literal["local", "ray"] = "local",
    embedder: Embedder | None = None,
    progress: Progress | None = None,
    stdin: BinaryIO | None = None,
) -> IndexReport:
    """Brings the index of a pipeline up to date with its documents.

    Args:
        recipe: the pipeline.
        rebuild: cut and embed everything anew; searches use the old index until the new one is whole. What programs wrote is
            taken over from there, and a tuned alpha where it still holds.
        switch: whether searches go over to what was rebuilt; False leaves both side by side.
        wait: seconds to wait for another process that is writing the index.
        engine: `ray` has the machines of a Ray cluster read, cut and embed; `local` is this process.
        embedder: one that is there already; else the recipe's, on a GPU where there is one.
        progress: told of each file.
        stdin: read where the pipeline names standard input.

    Raises:
        DataError: the pipeline names standard input, and it is not given, a terminal, empty or too large; or a folder of it is
            gone, cannot be read, or is empty although the index holds files of it.
        IndexError_: the index was built with another embedder or other chunks (and not `rebuild`), or is broken.
        LlmbenchError: another process is indexing it, the embedder is not found, the disk is full.
    """
    began = time.perf_counter()
    _need_packages()
    given = read_input(recipe, stdin)  # before anything of the index is touched
    with (
        Writer.open(recipe, rebuild=rebuild, renew=True, switch=switch, wait=wait, embedder=embedder) as writer,
        carry.former(writer) as former,
    ):
        if former is not None and not rebuild:
            writer.batches.earlier = former
        job = _Job(recipe, writer, progress or (lambda done, total, source: None), former)
        job.run(engine, given)
        vectors = writer.finish(purge=job.removed > 0)
        index = writer.index
        documents = index.document_count()
        counts = (job.added, job.changed, job.removed, documents - job.added - job.changed - job.carried)
        told = (tuple(sorted(set(job.skipped))), tuple(sorted(set(job.kept))))
        facts = (*told, index.count(), writer.tally.embedded)
        known = writer.language.words(recipe.embedder.model_name_or_path) if writer.language else ""
        taken = job.carried, tuple(job.notes), known
        return IndexReport(*counts, *facts, time.perf_counter() - began, int(index.path.name), vectors, *taken)


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


class _Job:
    """One pass over the documents."""

    def __init__(self, recipe: RagRecipe, writer: Writer, progress: Progress, former: Index | None = None) -> None:
        self.recipe, self.writer, self.progress, self.former = recipe, writer, progress, former
        self.carried, self.notes = 0, list[str]()
        self.hiding: list[str] = []
        self.added = self.changed = self.removed = 0
        self.skipped: list[Skipped] = []
        self.kept: list[Skipped] = []
        self.known = writer.index.files()
        self.held = writer.index.held() | (former.held() if former is not None else set())
        self.states: dict[str, FileState] = {}
        self.unread: set[str] = set()
        self.trusted: set[str] = set()
        self.done = 0

    def run(self, engine: str = "local", given: File | None = None) -> None:
        if self.former is not None:  # before the files: their names are taken
            self._carry({None})
        need_passwords(self.recipe)
        walk = reading.walk(self.recipe.documents, given, self.held - {SOURCE})
        files = walk.files
        self.skipped += walk.skipped
        for name, reason in walk.unread:
            self._unread(name, reason)
        if engine == "ray":  # standard input is here, and stays here
            self._spread([file for file in files if file.data is None], len(files))
            self._read([file for file in files if file.data is not None], len(files))
        else:
            self._read(files, len(files))
        self.writer.flush()
        gone = self.known.keys() - {file.source for file in files} - {source for source, _ in self.kept}
        gone |= self.unread
        with self.writer.index.transaction():
            self.removed = self.writer.tally.removed + sum(self.writer.index.delete_file(source) for source in gone)
        self.added, self.changed = self.writer.tally.added, self.writer.tally.changed
        if self.former is not None:
            self._carry({source for source, _ in self.kept} - self.writer.index.held())
            self.notes += filter(None, [carry.alpha(self.former, self.writer)])
        if self.writer.batches.earlier is not None:
            self.notes.append(
                "This index was built by an earlier version of llmbench. It was rebuilt; unchanged passages kept their vectors."
            )

        if self.hiding:
            named = ", ".join(self.hiding[:3]) + (f" and {len(self.hiding) - 3} more" if len(self.hiding) > 3 else "")
            report = f"llmbench index report {self.recipe.source}"
            self.notes.append(f"Left out text that is hidden from readers: {named}. Details: {report}")

    def _carry(self, files: Collection[str | None]) -> None:
        """Takes over the documents of some files from the old index; those of None are the programs'."""
        assert self.former is not None
        count, notes = carry.documents(self.former, self.writer, files)
        self.carried += count
        self.notes += notes

    def _read(self, files: Sequence[File], total: int) -> None:
        """Reads what changed in this process."""
        for read in reading.read_all(self._to_read(files)):
            self._take(read)
            if read.last:
                self.done += 1
            self.progress(self.done, total, read.file.source)

    def _spread(self, files: Sequence[File], total: int) -> None:
        """Has a cluster embed what changed, and merges its shards as they come."""
        from llmbench.retrieval.index import cluster

        wanted = [(file, self.states[file.source]) for file in self._to_read(files)]
        self.writer.flush()
        if not wanted:
            return
        for shard in cluster.spread(self.recipe, self.writer.folder, self.writer.index.contract, wanted):
            self.skipped += cluster.merge(self.writer, shard)
            for source, reason in shard.unread:
                self._unread(source, reason)
            self.done += len(shard.states) + len(shard.unread)
            self.progress(self.done, total, shard.path.name)

    def _to_read(self, files: Sequence[File]) -> Iterator[File]:
        """The files that are not known as they are. Runs ahead of the rest, so it touches nothing but this job's notes."""
        for file in files:
            known = self.known.get(file.source)
            settings = freshness.settings(file)
            if known and (known.settings != settings or (file.place.password_env and known.skipped in _ENCRYPTED)):
                known = None  # read otherwise than now, or with another password
            try:
                if file.data is not None:
                    digest = hashlib.sha256(file.data).hexdigest()
                    state = FileState(file.source, digest, len(file.data), 0, settings, "")
                else:
                    stat = file.path.stat()
                    state = FileState(file.source, "", stat.st_size, freshness.known_time(stat.st_mtime_ns), settings, "")
                    if known and known.sha256 and (known.size, known.mtime) == (state.size, state.mtime) and known.mtime:
                        self._keep(known)
                        continue
                    with file.path.open("rb") as stream:
                        state = replace(state, sha256=hashlib.file_digest(stream, "sha256").hexdigest())
            except OSError as error:
                found = not_read(error)
                if isinstance(found, Momentary):
                    self._unread(file.source, str(found))
                else:  # it was there a moment ago
                    self.skipped.append((file.source, str(found)))
                    self.unread.add(file.source)
                self.done += 1
                continue
            if known and known.sha256 == state.sha256:
                if (known.size, known.mtime) != (state.size, state.mtime):
                    self.writer.later(replace(state, skipped=known.skipped))
                self._keep(known)
                continue
            self.states[file.source] = state
            if known:
                self.trusted.add(file.source)
            yield file

    def _keep(self, known: FileState) -> None:
        self.done += 1
        if known.skipped:
            self.skipped.append((known.source, known.skipped))

    def _unread(self, name: str, reason: str) -> None:
        """Notes a file, or a folder (`name/`), that is there and cannot be read now: what is held of it stays."""
        start = "" if name == "./" else name
        found = [source for source in self.held if source == name or (name.endswith("/") and source.startswith(start))]
        self.kept += [(source, reason) for source in found]
        if not found:
            self.skipped.append((name, reason))

    def _take(self, read: Reading) -> None:
        """Cuts what was read of a file and hands it to the writer."""
        source = read.file.source
        if read.momentary:  # rows of it that were handed on are in; that it was not read to its end is noted with them
            self._unread(source, read.failure or "")
            self.states.pop(source)
            return
        self.hiding += [document.source for document in read.documents if any(map(_HIDDEN.match, document.warnings))]
        self.writer.begin(source, self.states[source].settings)
        for document in read.documents:
            self.writer.add(document, file=source, trusted=source in self.trusted)
        if read.failure:
            self.states[source] = replace(self.states[source], skipped=read.failure)
        if read.last and (skipped := self.writer.end(self.states.pop(source)).skipped):
            self.skipped.append((source, skipped))


_ENCRYPTED = (LOCKED, NOT_OPENED)
