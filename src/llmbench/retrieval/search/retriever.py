"""The retriever: a query to ranked passages, and a conversation to one that has its passages in it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench import workspace
from llmbench.endpoint import Budget, Message
from llmbench.errors import IndexError_, LlmbenchError
from llmbench.recipe import ExpandSpec, RagRecipe
from llmbench.retrieval.chunking import Chunk
from llmbench.retrieval.documents import Document
from llmbench.retrieval.embedding import Embedder, Together
from llmbench.retrieval.reading import Cleaner
from llmbench.retrieval.search import candidates, expand, language, stages
from llmbench.retrieval.search.candidates import PreparedQuery
from llmbench.retrieval.search.condition import condition, unmet
from llmbench.retrieval.search.explain import explain, shares
from llmbench.retrieval.search.grounding import around, ground, said
from llmbench.retrieval.search.hits import Grounded, Hit
from llmbench.retrieval.search.passages import Passage
from llmbench.retrieval.search.stages import Timings
from llmbench.retrieval.search.view import View
from llmbench.retrieval.store import layout
from llmbench.retrieval.store.vectors import library

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmbench.retrieval.search.packing import Count
    from llmbench.retrieval.search.rerank import Reranker

__all__ = ["Retriever", "asked"]

TRIES = 3
"""How often a question is searched whose hits a writer takes away meanwhile."""
LONGEST = 8_000
"""Characters of a query that are searched for; embedders read the first thousand or two."""
DEEPEST = 10_000
"""Candidates up to which a list is searched again where copies of a few passages fill it."""


class Retriever:
    """An open index. Safe to use from several threads; sees what other processes write at the next search.

    `complete` is False while the index is being built, or when building it was interrupted.
    """

    def __init__(self, recipe: RagRecipe, embedder: Embedder | None = None) -> None:
        """Use `open`."""
        self.recipe = recipe
        self._folder = workspace.indexes() / recipe.name
        self._lock = threading.RLock()
        self._view: View | None = None
        self._inside = False
        self._given = embedder
        self._embedder: Embedder | None = None
        self._together: tuple[Embedder, Together] | None = None
        self._reranker: Reranker | None = None
        self._count: Count | None = None

    @classmethod
    def open(cls, recipe: RagRecipe, *, embedder: Embedder | None = None) -> Retriever:
        """Opens the index of a pipeline and finds its embedder and its reranker.

        Args:
            recipe: the pipeline.
            embedder: one that is loaded already; else the recipe's, on the CPU, so that a GPU is left to the model.

        Raises:
            IndexError_: not built, or built with another embedder or other chunks; the message holds the command.
            MissingPackage: FAISS or sentence-transformers is not installed.
        """
        library()  # what is not installed is said before what is not built
        retriever = cls(recipe, embedder)
        layout.check_claim(retriever._folder, recipe)
        _ = retriever.reranker  # found now, or said why not
        if recipe.context.tokenizer is not None:
            from llmbench.retrieval.search.packing import tokenizer_count

            retriever._count = tokenizer_count(recipe.context.tokenizer)
        with retriever._now():
            pass
        return retriever

    def __enter__(self) -> Retriever:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files."""
        with self._lock:
            if self._view is not None:
                self._view.close()
            self._view = None

    @property
    def complete(self) -> bool:
        """Whether every document was indexed when last looked."""
        with self._now() as view:
            return bool(view.index.get("complete"))

    @property
    def warning(self) -> str:
        """What makes searches slower than they should be, in one line; empty when nothing does."""
        with self._now() as view:
            return view.warning

    def search(
        self,
        query: str,
        top_k: int | None = None,
        *,
        where: Mapping[str, Any] | None = None,
        timings: Timings | None = None,
    ) -> list[Hit]:
        """The passages that fit a query best, best first.

        Args:
            query: the question.
            top_k: at most so many; else the recipe's.
            where: a filter on the documents' fields, beside the recipe's own.
            timings: told how long each stage took, and of what a user should know.

        Raises:
            LlmbenchError: the query is empty, `top_k` is no whole number from 1, or the filter is wrong.
            EndpointError: the model that is to expand the query does not answer.
        """
        query = asked(query)
        if not query.strip():
            raise LlmbenchError("The query is empty.")
        spec, timings = self.recipe.search, timings or Timings()
        wanted = spec.top_k if top_k is None else _whole(top_k)
        where_all = condition(spec.filter, where)
        question = self._question(query, timings)
        count = max(spec.candidates, stages.needed(spec, wanted))
        with self._now() as view:
            timings.notes += unmet(view.index, spec.filter, where)
            alpha = self._weight(view, query)
            found = candidates.find(view, spec, question, count, where_all, alpha)
            timings.mark("candidates")
            if spec.expand is not None and spec.expand.method == "feedback":
                question = self._fed_back(view, spec.expand, query, question, found.rows)
                found = candidates.find(view, spec, question, count, where_all, alpha)
                timings.mark("feedback")
            hits = stages.gather(found, view.index.chunks, spec, wanted)
            while spec.deduplicate and len(hits) < wanted and count < DEEPEST and found.full(count):
                count *= 4  # copies of a few passages were all there was
                found = candidates.find(view, spec, question, count, where_all, alpha)
                timings.mark("candidates")
                hits = stages.gather(found, view.index.chunks, spec, wanted)
            hits = [(row, replace(hit, metadata=view.index.metadata(hit.chunk.source))) for row, hit in hits]
            vectors = view.vectors([row for row, _ in hits]) if spec.mmr is not None and hits else None
            timings.mark("passages")
        return stages.order(hits, vectors, query, spec, wanted, self.reranker, timings)

    def unmet(self, where: Mapping[str, Any] | None = None) -> list[str]:
        """A line for each field that the recipe's filter, or `where`, asks for in vain."""
        with self._now() as view:
            return unmet(view.index, self.recipe.search.filter, where)

    def explain(self, query: str, hit: Hit) -> str:
        """Why a hit of a query stands where it does, a line for each stage."""
        with self._now() as view:
            points = view.word_points(asked(query), hit.chunk.id)
        reranker = self.reranker
        return explain(
            hit,
            terms=shares(points),
            unmatched=[word for word, value in points.items() if value <= 0],
            reranker=reranker.spec.model_name_or_path if reranker else "",
            scale=reranker.scale if reranker and "rerank" in hit.stages else "",
        )

    def ground(
        self, messages: Sequence[Message], *, where: Mapping[str, Any] | None = None, budget: Budget | None = None
    ) -> Grounded:
        """Searches with the last user message and puts the passages into it, as the recipe's prompt says.

        Args:
            messages: the conversation.
            where: a filter beside the recipe's own.
            budget: the served model's room, into which fewer passages go where all of them are too many.

        Raises:
            LlmbenchError: there is no user message, or it has no text. Its images are left to the model.
        """
        last = next((i for i in range(len(messages) - 1, -1, -1) if messages[i]["role"] == "user"), None)
        if last is None:
            raise LlmbenchError("There is no user message to search with.")
        hits, passages = self._passages(said(messages[last]), where)
        count = self._count
        if count is None and self.recipe.context.max_tokens is not None:
            embedder = self.embedder
            count = lambda text: len(embedder.starts(text))  # noqa: E731 - a line is what it is
        return ground(self.recipe, messages, last, hits, passages, count, budget)

    def _passages(self, query: str, where: Mapping[str, Any] | None) -> tuple[list[Hit], list[Passage]]:
        """Hits with what belongs around them, all of one moment.

        A search may take seconds (a reranker, a model), in which a writer should not wait for it. When a hit is gone or
        changed by then, it is searched again; under a writer that never rests, what still stands is handed on.
        """
        for again in reversed(range(TRIES)):
            hits = self.search(query, where=where)
            with self._now() as view:
                standing = [hit for hit in hits if view.index.stands(hit.chunk.id)]
                if len(standing) == len(hits) or not again:
                    return standing, around(self.recipe, standing, self)
        raise AssertionError("the last try returns")

    def document(self, source: str) -> Document:
        """A whole document, into which a hit's `start` and `end` point.

        Raises:
            IndexError_: no document has this source.
        """
        with self._now() as view:
            document = view.index.document(source)
        if document is None:
            raise IndexError_(
                f"index {self.recipe.name} has no document {source}. Run: llmbench index build {self.recipe.source}"
            )
        return document

    def around(self, chunk_id: str, before: int, after: int) -> list[Chunk]:
        """A passage with those before and after it in its document, in order; empty when it has been deleted."""
        with self._now() as view:
            return view.index.around(chunk_id, before, after)

    def sources(self) -> list[tuple[str, str, int]]:
        """`(source, title, passages)` of every document, by source."""
        with self._now() as view:
            return view.index.sources()

    def _question(self, query: str, timings: Timings) -> PreparedQuery:
        """All wordings of a query with their vectors."""
        spec = self.recipe.search
        texts, answers = [query], list[str]()
        if spec.expand is not None and spec.expand.method != "feedback":
            more = expand.expand_now(spec.expand, query, api_key=os.environ.get("OPENAI_API_KEY"))
            timings.notes += [more.note] if more.note else []
            (answers if spec.expand.method == "hyde" else texts).extend(more.queries)
            timings.mark(spec.expand.method)
        if spec.mode == "terms":
            return PreparedQuery(None, tuple(texts))
        embedder = self.embedder
        reading = embedder.reading(query)
        if reading.unknown == reading.characters:  # its vector is that of every other unknown text
            name = self.recipe.embedder.model_name_or_path
            what = "there is nothing to search for" if spec.mode == "dense" else "only words are searched"
            timings.notes.append(f"{name} does not know the characters of this query: {what}.")
            return PreparedQuery(None, tuple(texts))
        vectors = self._vectors(embedder, texts)
        if answers:
            import numpy as np

            written = embedder.embed_documents(answers)
            vectors = expand.mean_vector(np.concatenate([vectors, written]))[None]
        timings.mark("embed")
        return PreparedQuery(vectors, tuple(texts))

    def _vectors(self, embedder: Embedder, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of wordings, computed with those of other threads; each embedder has its own batches."""
        with self._lock:
            if self._together is None or self._together[0] is not embedder:
                self._together = embedder, Together(embedder.embed_queries)
            batches = self._together[1]
        return batches(texts)

    def _fed_back(
        self, view: View, spec: ExpandSpec, query: str, question: PreparedQuery, rows: Sequence[int]
    ) -> PreparedQuery:
        """The question with the telling words of its first hits."""
        first = view.index.chunks(rows[: spec.count])
        words = expand.feedback(query, [first[row].text for row in rows if row in first], spec.count)
        return PreparedQuery(question.vectors, (" ".join([query, *words]),))

    def weight(self, query: str) -> float:
        """The weight of meaning in a question where nothing was tuned."""
        embedder = self.embedder
        with self._now() as view:
            return language.weight(language.stored(view.index), embedder.reading(asked(query)))

    def _weight(self, view: View, query: str) -> float | None:
        """What `llmbench evaluate rag --tune` found; else what the language of the question and of the documents asks for."""
        tuned: float | None = view.index.get("alpha")
        if tuned is not None or self.recipe.search.mode != "hybrid":
            return tuned
        assert self._embedder is not None
        return language.weight(language.stored(view.index), self._embedder.reading(query))

    @property
    def reranker(self) -> Reranker | None:
        """The reranker that the recipe names, found once; its model is loaded by the first query."""
        spec = self.recipe.search.rerank
        if spec is None:
            return None
        with self._lock:
            if self._reranker is None or self._reranker.spec != spec:
                from llmbench.retrieval.search.rerank import Reranker

                self._reranker = Reranker(spec)
            return self._reranker

    @property
    def embedder(self) -> Embedder:
        """The embedder of the index as it now is."""
        with self._now():
            assert self._embedder is not None
            return self._embedder

    @contextmanager
    def _now(self) -> Iterator[View]:
        """The index as it now is on disk, for one thread at a time."""
        with self._lock:
            if self._inside:  # one moment stays one moment
                assert self._view is not None
                yield self._view
                return
            path = layout.standing(self._folder)
            if path is None:
                source = self.recipe.source
                raise IndexError_(f"{source}: index {self.recipe.name} is not built. Run: llmbench index build {source}")
            # A folder that was removed and made anew may have the same name.
            if self._view is None or self._view.index.path != path or not self._view.index.is_on_disk():
                self._attach()
            assert self._view is not None
            with self._view.now() as view:
                self._inside = True
                try:
                    yield view
                finally:
                    self._inside = False

    def _attach(self) -> None:
        """Opens the current generation, and the embedder that it was made with."""
        view = _open(self._folder)
        stored = view.index.contract.embedder
        try:
            if self._embedder is not None and not stored.difference(self._embedder.promise):
                embedder = self._embedder  # loaded already: packing an index changes no model
            else:
                embedder = self._given or Embedder(self.recipe.embedder, like=stored, queries=True)
            view.index.check(self.recipe, embedder, canaries=self.recipe.search.mode != "terms")
        except BaseException:
            view.close()
            raise
        if self._view is not None:
            self._view.close()
        self._view, self._embedder = view, embedder


def asked(query: str) -> str:
    """A query as it is searched with: cleaned as documents are, so that what was pasted finds the same. Plain ASCII stays.

    Of one longer than LONGEST the beginning and the end are searched for: a question stands before or behind what is pasted.
    """
    if len(query) > LONGEST:
        query = f"{query[: LONGEST // 2]}\n{query[-LONGEST // 2 :]}"
    return Cleaner()(query)


def _whole(top_k: object) -> int:
    """How many hits a caller asks for."""
    if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
        raise LlmbenchError(f"top_k is {top_k!r}. It must be a whole number, 1 or more.")
    return top_k


def _open(folder: Path) -> View:
    """The current generation. One that a writer removes between the look and the opening is looked for again."""
    while True:
        path = layout.current(folder)
        if path is None:
            raise IndexError_(f"{folder} no longer holds an index.")
        try:
            view = View(path)
        except IndexError_:
            if layout.current(folder) == path:
                raise
            continue
        if layout.current(folder) == path and view.index.is_on_disk():  # all of its files were there when they were opened
            return view
        view.close()
