"""What a RAG pipeline can do besides grounding a conversation: embed, rerank and search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llmbench.retrieval import Hit, Timings

__all__ = ["Embedding", "Reranking", "Searching"]


class Embedding(Protocol):
    """What makes vectors of texts; a pipeline's embedder is one."""

    query_prefix: str
    document_prefix: str
    max_tokens: int

    @property
    def dim(self) -> int:
        """The length of a vector."""
        ...

    @property
    def special_tokens(self) -> int:
        """How many are put around a text."""
        ...

    def starts(self, text: str) -> list[int]:
        """Where each token of a text begins."""
        ...

    def embed_documents(
        self, texts: Sequence[str], tokens: Sequence[int] | None = None, *, stop: Event | None = None
    ) -> NDArray[np.float32]:
        """Vectors of shape (n, dim), length 1."""
        ...

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same of queries."""
        ...


class Reranking(Protocol):
    """What reads a query and a passage together; a pipeline's reranker is one."""

    def measure(self, query: str, passages: Sequence[str]) -> tuple[list[int], bool]:
        """Tokens read for each passage, and whether the query is too long."""
        ...

    def scores(self, query: str, passages: Sequence[str], *, stop: Event | None = None) -> NDArray[np.float32]:
        """How well each passage answers the query; ends with CancelledError once `stop` is set."""
        ...


class Searching(Protocol):
    """A whole pipeline, as `Retriever` is; a `Grounder` of which more is asked."""

    @property
    def embedder(self) -> Embedding:
        """What embeds its queries."""
        ...

    @property
    def reranker(self) -> Reranking | None:
        """What looks at candidates again, where the pipeline has it."""
        ...

    def search(
        self, query: str, top_k: int | None = None, *, where: Mapping[str, Any] | None = None, timings: Timings | None = None
    ) -> list[Hit]:
        """The passages that fit a query best."""
        ...
