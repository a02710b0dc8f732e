"""Search: a query to ranked passages, and a conversation to one that has its passages in it."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbench import workspace
from llmbench.endpoint import Message
from llmbench.errors import IndexError_, LlmbenchError, MissingPackage
from llmbench.recipe import RagRecipe
from llmbench.retrieval.chunking import Chunk
from llmbench.retrieval.documents import Document
from llmbench.retrieval.embedding import Embedder, Embeds
from llmbench.retrieval.store import Index, current

__all__ = ["Grounded", "Hit", "Retriever"]


@dataclass(frozen=True)
class Hit:
    """A passage that was found. `score` is the cosine similarity, -1 to 1, higher is better; `rank` counts from 1."""

    chunk: Chunk
    score: float
    rank: int

    def source(self) -> dict[str, Any]:
        """The hit as a JSON object; its number in the prompt is its rank."""
        c = self.chunk
        place = {"source": c.source, "title": c.title, "start": c.start, "end": c.end, "page": c.page, "line": c.line}
        return {"n": self.rank, **place, "score": round(self.score, 4), "text": c.text}


@dataclass(frozen=True)
class Grounded:
    """A conversation whose last user message carries passages; `sources[i]` is passage `i + 1`."""

    messages: list[Message]
    sources: tuple[dict[str, Any], ...]


class Retriever:
    """An open index. Safe to use from several threads; sees what other processes write at the next search.

    `complete` is False while the index is being built, or when building it was interrupted.
    """

    def __init__(self, recipe: RagRecipe, embedder: Embedder | None = None) -> None:
        """Use `open`."""
        self.recipe = recipe
        self._folder = workspace.indexes() / recipe.name
        self._lock = threading.Lock()
        self._index: Index | None = None
        self._version = -1
        self._faiss: Any = None
        self._given = embedder
        self._embedder: Embeds | None = None
        self._fingerprint = ""

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
        _faiss()
        retriever = cls(recipe, embedder)
        with retriever._lock:
            retriever._fresh()
        return retriever

    def __enter__(self) -> Retriever:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the database."""
        with self._lock:
            if self._index is not None:
                self._index.close()
            self._index, self._version = None, -1

    @property
    def complete(self) -> bool:
        """Whether every document was indexed when last looked."""
        with self._lock:
            return bool(self._fresh().get("complete"))

    def search(self, query: str, top_k: int | None = None) -> list[Hit]:
        """The passages nearest to a query, best first, at most `top_k` (else the recipe's), none below its `min_score`.

        Raises:
            LlmbenchError: the query is empty.
        """
        if not query.strip():
            raise LlmbenchError("The query is empty. Ask something.")
        wanted = top_k or self.recipe.search.top_k
        with self._lock:
            index = self._fresh()
            if self._faiss is None or self._embedder is None:
                return []
            vector = self._embedder.embed([(self.recipe.embedder.query_prefix or "") + query])
            scores, numbers = self._faiss.search(vector, min(wanted, self._faiss.ntotal))
            found = [(float(s), index.chunk(int(n))) for s, n in zip(scores[0], numbers[0], strict=True) if n >= 0]
        least = self.recipe.search.min_score
        least = least.get("dense") if isinstance(least, dict) else least
        kept = [(chunk, max(-1.0, min(1.0, s))) for s, chunk in found if chunk is not None and (least is None or s >= least)]
        return [Hit(chunk, score, rank) for rank, (chunk, score) in enumerate(kept, 1)]

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
        with self._lock:
            document = self._fresh().document(source)
        if document is None:
            raise IndexError_(f"index {self.recipe.name} has no document {source}. Run: llmbench index {self.recipe.source}")
        return document

    def sources(self) -> list[tuple[str, str, int]]:
        """`(source, title, passages)` of every document, by source."""
        with self._lock:
            return self._fresh().sources()

    def _fresh(self) -> Index:
        """The index as it now is on disk, FAISS with it. Called under the lock."""
        path = current(self._folder)
        if path is None or not path.exists():
            source = self.recipe.source
            raise IndexError_(f"{source}: index {self.recipe.name} is not built. Run: llmbench index {source}")
        if self._index is None or self._index.path != path:
            self._attach(path)
        assert self._index is not None
        version = self._index.version
        if version != self._version:
            self._faiss = _exact(self._index)
            self._version = version
        return self._index

    def _attach(self, path: Path) -> None:
        """Opens a database and the embedder that it was made with."""
        embedder = self._given or Embedder(self.recipe.embedder)
        index = Index(path)
        index.check(self.recipe, embedder.fingerprint)
        if self._given is None:
            embedder.dtype = index.get("dtype")
            embedder.load()
        if self._index is not None:
            self._index.close()
        self._index, self._version, self._embedder = index, -1, embedder


def _exact(index: Index) -> Any:
    """FAISS over all vectors, exact; None when there are none."""
    faiss, result = _faiss(), None
    for numbers, vectors in index.vectors():
        if result is None:
            result = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
        result.add_with_ids(vectors, numbers)
    return result


def _faiss() -> Any:
    """The package; its SWIG types warn of themselves when Python 3.12 or newer imports them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import faiss
    except ImportError as error:
        raise MissingPackage("search", "faiss-cpu", "rag") from error
    return faiss


def fill(template: str, values: Mapping[str, str]) -> str:
    """Replaces the first `{name}` of each value, in one pass: braces inside a value are never looked at."""
    left = dict(values)

    def value(match: re.Match[str]) -> str:
        return left.pop(match[1], match[0])

    return re.sub(r"\{(" + "|".join(map(re.escape, values)) + r")\}", value, template)
