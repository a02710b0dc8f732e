"""Documents on their way into an index: a batch gathers, the one before is embedded, and what is embedded is written."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmbench.errors import IndexError_
from llmbench.recipe import RagRecipe
from llmbench.retrieval.embedding import Embedder
from llmbench.retrieval.index.steps import BeginFile, EndFile, PutDocument, SeeDocument, Step, Tally, TouchFile
from llmbench.retrieval.store import Index, Standing, WritableIndex

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BATCH", "Batches"]

BATCH = 1024
"""Passages embedded and written at once at most: enough of them to sort by length."""
SECONDS = 10.0
"""What a batch may take to read, and again to embed: what a kill costs."""
FIRST = 4096
"""Tokens of the first batch, which tells how fast this embedder is on this machine."""


@dataclass
class _Batch:
    """Documents on their way: what to write, in order, and what is being embedded for it."""

    steps: list[Step] = field(default_factory=list)
    chunks: int = 0
    tokens: int = 0
    began: float = field(default_factory=time.monotonic)
    known: dict[bytes, Any] = field(default_factory=dict)
    before: list[bytes] = field(default_factory=list)
    """What the batch before it has embedded."""
    fresh: list[bytes] = field(default_factory=list)
    vectors: Future[tuple[NDArray[np.float32], float]] | None = None
    """And how many tokens a second it took."""
    standing: dict[str, tuple[Standing, int]] = field(default_factory=dict)
    """By source, what will be known of its documents, and the line on which each begins."""
    added: int = 0
    changed: int = 0

    @property
    def puts(self) -> Iterator[PutDocument]:
        """What is to be written with passages."""
        return (step for step in self.steps if isinstance(step, PutDocument))


class Batches:
    """The batches of one writer. `index` is the generation being written; close it at the end.

    A batch is one transaction: after an error or a kill the index holds whole batches.
    """

    def __init__(self, recipe: RagRecipe, index: WritableIndex, embedder: Embedder, *, current: int) -> None:
        self.recipe, self.index, self.embedder, self.current = recipe, index, embedder, current
        self.tally = Tally()
        self.earlier: Index | None = None
        """Another index of the same embedder, whose vectors are taken where the same text is embedded again."""
        self.dirty = self._checked = False
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embed")
        self._batch, self._ahead = _Batch(), None
        self._room, self._stop = float(FIRST), threading.Event()
        self._last: dict[bytes, Any] = {}

    _ahead: _Batch | None

    @property
    def waiting(self) -> bool:
        """Whether something is not written yet."""
        return bool(self._batch.steps) or self._ahead is not None

    def close(self) -> None:
        """Lets go of the files; what is not written is dropped."""
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self.index.close()

    def drop(self) -> None:
        """Forgets what is not written."""
        self._batch, self._ahead = _Batch(), None

    def take(self, step: Step) -> None:
        """Adds a step that embeds nothing."""
        self._batch.steps.append(step)

    def expect(self, standing: Standing, line: int, *, source: str) -> None:
        """Notes what will be known of a document, and the line on which it begins."""
        self._batch.standing[source] = standing, line

    def put(self, step: PutDocument, known: Standing | None) -> None:
        """Adds a document with what is known of the one in its place."""
        self._batch.added += known is None
        self._batch.changed += known is not None and known.seen != self.current
        self._batch.steps.append(step)
        self._batch.chunks += len(step.chunks)
        self._batch.tokens += sum(chunk.tokens for chunk in step.chunks)

    def full(self) -> None:
        """Writes what is embedded by now, and sends a batch on its way when it is large or old enough."""
        batch, ahead = self._batch, self._ahead
        if ahead is not None and (ahead.vectors is None or ahead.vectors.done()):
            self._ahead = None
            self._write(ahead)
        large = batch.chunks >= BATCH or batch.tokens >= self._room or len(batch.steps) >= 8 * BATCH
        if large or time.monotonic() - batch.began > SECONDS:
            self._advance()

    def standing(self, source: str) -> tuple[Standing | None, int]:
        """What is known of a source's document, written or on its way; and its line, 0 where it is written."""
        for batch in (self._batch, self._ahead):
            if batch is not None and source in batch.standing:
                return batch.standing[source]
        return self.index.standing(source), 0

    def flush(self) -> None:
        """Writes everything that was handed over."""
        self._advance()
        self._advance()

    def _advance(self) -> None:
        """Starts embedding what has gathered, and meanwhile writes what was embedded before."""
        batch, self._batch = self._batch, _Batch()
        if batch.steps:
            self._start(batch)
        ahead, self._ahead = self._ahead, batch if batch.steps else None
        if ahead is not None:
            self._write(ahead)
            self._batch.began = time.monotonic()

    def _start(self, batch: _Batch) -> None:
        texts = {d: t for step in batch.puts for d, t in zip(step.digests, step.texts, strict=True)}
        rows = self.index.known(list(texts))
        if rows:
            batch.known = _vectors(self.index, rows)
        if self.earlier is not None and (others := [digest for digest in texts if digest not in rows]):
            with suppress(IndexError_):  # damaged: then they are embedded
                taken = _vectors(self.earlier, self.earlier.known(others))
                batch.known |= taken
                rows = rows | dict.fromkeys(taken, -1)
        # The batch before is being embedded and not yet written: the same words in both are embedded once.
        ahead = frozenset(self._ahead.fresh) if self._ahead else frozenset()
        batch.before = [digest for digest in texts if digest not in rows and digest in ahead]
        batch.fresh = [digest for digest in texts if digest not in rows and digest not in ahead]
        self.tally.embedded += len(batch.fresh)
        if batch.fresh:
            if not self._checked:
                self.index.check(self.recipe, self.embedder, canaries=True)
                self._checked = True
            sizes = {d: c.tokens for step in batch.puts for d, c in zip(step.digests, step.chunks, strict=True)}
            work = [texts[digest] for digest in batch.fresh], [sizes[digest] for digest in batch.fresh]
            batch.vectors = self._pool.submit(self._embed, *work)

    def _embed(self, texts: list[str], sizes: list[int]) -> tuple[NDArray[np.float32], float]:
        """The vectors of some texts, and how many tokens a second that took."""
        began = time.monotonic()
        vectors = self.embedder.embed_documents(texts, sizes, stop=self._stop)
        return vectors, sum(sizes) / max(time.monotonic() - began, 1e-6)

    def _write(self, batch: _Batch) -> None:
        """One transaction."""
        vectors = batch.known | {digest: self._last[digest] for digest in batch.before}
        self._last = {}
        if batch.vectors is not None:
            own, speed = batch.vectors.result()
            self._room = SECONDS * speed
            self._last = dict(zip(batch.fresh, own, strict=True))
            vectors |= self._last
        self.dirty = True
        with self.index.transaction():
            if self.index.get("complete"):
                self.index.set(complete=False)
            self.index.set(**{"pass": self.current})
            for step in batch.steps:
                self._step(step, vectors)
        self.tally.added += batch.added
        self.tally.changed += batch.changed

    def _step(self, step: Step, vectors: Mapping[bytes, Any]) -> None:
        import numpy as np

        index = self.index
        match step:
            case BeginFile(source, settings):
                index.begin_file(source, settings)
            case SeeDocument(source, identity):
                if not index.see(source, identity, self.current):
                    raise IndexError_(f"{index.path}: document {source} vanished while it was indexed. Index again.")
            case PutDocument(document, chunks, _, digests, file):
                own = np.array([vectors[d] for d in digests], dtype=np.float32).reshape(len(chunks), index.dim)
                index.put(document, chunks, digests, own, file=file, current=self.current)
            case EndFile(state):
                self.tally.removed += index.end_file(state, self.current)
            case TouchFile(state):
                index.touch_file(state)


def _vectors(index: Index, rows: Mapping[bytes, int]) -> dict[bytes, Any]:
    """The vectors of some rows, by digest."""
    places = list(rows.values())
    return dict(zip(rows, index.vectors.take(places, index.identities(places)), strict=True)) if places else {}
