"""The retriever: a query to ranked passages, and a conversation to one that has its passages in it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmbench import workspace
from llmbench.endpoint import Message
from llmbench.errors import IndexError_, LlmbenchError
from llmbench.recipe import RagRecipe
from llmbench.retrieval.documents import Document
from llmbench.retrieval.embedding import Embedder
from llmbench.retrieval.search import candidates
from llmbench.retrieval.search.hits import Grounded, Hit
from llmbench.retrieval.search.prompt import fill
from llmbench.retrieval.search.view import View
from llmbench.retrieval.store import Filter, current

__all__ = ["Retriever"]


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
        self._given = embedder
        self._embedder: Embedder | None = None

    @classmethod
    def open(cls, recipe: RagRecipe, *, embedder: Embedder | None = None) -> Retriever:
        """Opens the index of a pipeline and loads its embedder.

        Args:
            recipe: the pipeline.
            embedder: one that is loaded already; else the recipe's, on the CPU, so that a GPU is left to the model.

        Raises:
            IndexError_: not built, or built with another embedder or other chunks; the message holds the command.
            MissingPackage: FAISS or sentence-transformers is not installed.
        """
        retriever = cls(recipe, embedder)
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

    def search(self, query: str, top_k: int | None = None, *, where: Mapping[str, Any] | None = None) -> list[Hit]:
        """The passages that fit a query best, best first.

        Args:
            query: the question.
            top_k: at most so many; else the recipe's.
            where: a filter on the documents' fields, beside the recipe's own.

        Raises:
            LlmbenchError: the query is empty, or the filter is wrong.
        """
        if not query.strip():
            raise LlmbenchError("The query is empty. Ask something.")
        spec = self.recipe.search
        filters = [words for words in (spec.filter, where) if words]
        condition = Filter.of({"$and": filters} if len(filters) > 1 else filters[0]) if filters else None
        vector = None
        if spec.mode != "terms":
            embedder = self._ready()
            vector = embedder.embed([(self.recipe.embedder.query_prefix or "") + query])[0]
        with self._now() as view:
            return candidates.search(view, spec, query, vector, top_k or spec.top_k, condition)

    def ground(self, messages: Sequence[Message]) -> Grounded:
        """Searches with the last user message and puts the passages into it, as the recipe's prompt says.

        Raises:
            LlmbenchError: there is no user message.
        """
        last = next((i for i in range(len(messages) - 1, -1, -1) if messages[i]["role"] == "user"), None)
        if last is None:
            raise LlmbenchError("There is no user message to search with.")
        question = messages[last]["content"]
        hits = self.search(question)
        passages = "\n".join(
            fill(
                self.recipe.passage,
                {
                    "n": str(hit.rank),
                    "text": " ".join(hit.chunk.text.split()),
                    "title": hit.chunk.title,
                    "source": hit.chunk.source,
                },
            )
            for hit in hits
        )
        prompt = fill(self.recipe.prompt, {"passages": passages, "question": question})
        grounded = [dict(message) for message in messages]
        grounded[last]["content"] = prompt
        if self.recipe.system:
            if grounded[0]["role"] == "system":  # chat templates take one system message
                grounded[0]["content"] = f"{self.recipe.system}\n\n{grounded[0]['content']}"
            else:
                grounded.insert(0, {"role": "system", "content": self.recipe.system})
        return Grounded(grounded, tuple(hit.source() for hit in hits))

    def document(self, source: str) -> Document:
        """A whole document, into which a hit's `start` and `end` point.

        Raises:
            IndexError_: no document has this source.
        """
        with self._now() as view:
            document = view.index.document(source)
        if document is None:
            raise IndexError_(f"index {self.recipe.name} has no document {source}. Run: llmbench index {self.recipe.source}")
        return document

    def sources(self) -> list[tuple[str, str, int]]:
        """`(source, title, passages)` of every document, by source."""
        with self._now() as view:
            return view.index.sources()

    def _ready(self) -> Embedder:
        """The embedder of the index as it now is."""
        with self._now():
            assert self._embedder is not None
            return self._embedder

    @contextmanager
    def _now(self) -> Iterator[View]:
        """The index as it now is on disk, for one thread at a time."""
        with self._lock:
            path = current(self._folder)
            if path is None or not path.exists():
                source = self.recipe.source
                raise IndexError_(f"{source}: index {self.recipe.name} is not built. Run: llmbench index {source}")
            if self._view is None or self._view.index.path != path:
                self._attach()
            assert self._view is not None
            with self._view.now() as view:
                yield view

    def _attach(self) -> None:
        """Opens the current generation, and the embedder that it was made with."""
        embedder = self._given or Embedder(self.recipe.embedder)
        view = _open(self._folder)
        view.index.check(self.recipe, embedder.contract)
        if self._given is None:
            embedder.dtype = view.index.get("dtype")
            embedder.load()
        if self._view is not None:
            self._view.close()
        self._view, self._embedder = view, embedder


def _open(folder: Path) -> View:
    """The current generation. One that a writer removes between the look and the opening is looked for again."""
    while True:
        path = current(folder)
        if path is None:
            raise IndexError_(f"{folder} holds no index any more.")
        try:
            return View(path)
        except IndexError_:
            if current(folder) == path:
                raise
