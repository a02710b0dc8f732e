"""A pipeline whose embedder counts words and whose reranker counts common ones, and a gateway over it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from tests.gateway.test_app import FakeEngine, FakeRetriever, reply

from llmbench.gateway import Access, Catalogue, Grounding, Served, build
from llmbench.gateway.exchange import Sink
from llmbench.gateway.ledger import Ledger
from llmbench.gateway.relay import Upstream
from llmbench.recipe import Variant
from llmbench.retrieval import Chunk, Hit


class WordEmbedder:
    """A token is a word, and two are put around each text. A vector is (1, 0) for a query and (0, 1) for a document."""

    query_prefix, document_prefix = "query: ", ""
    max_tokens, special_tokens, dim = 8, 2, 2

    def __init__(self) -> None:
        self.blocks: list[int] = []
        self.threads: set[str] = set()

    def starts(self, text: str) -> list[int]:
        return list(range(len(text.split())))

    def embed_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.tile(np.asarray([1, 0], dtype=np.float32), (len(texts), 1))

    def embed_documents(
        self, texts: Sequence[str], tokens: Sequence[int] | None = None, *, stop: threading.Event | None = None
    ) -> NDArray[np.float32]:
        assert tokens is not None and len(tokens) == len(texts)
        self.blocks.append(len(texts))
        self.threads.add(threading.current_thread().name)
        return np.tile(np.asarray([0, 1], dtype=np.float32), (len(texts), 1))


class WordReranker:
    """Counts the words of the query in each passage; reads queries of up to four words."""

    def measure(self, query: str, passages: Sequence[str]) -> tuple[list[int], bool]:
        return [len(query.split()) + len(one.split()) for one in passages], len(query.split()) > 4

    def scores(self, query: str, passages: Sequence[str], *, stop: threading.Event | None = None) -> NDArray[np.float32]:
        return np.asarray([sum(word in one.split() for word in query.split()) for one in passages], dtype=np.float32)


def hit(rank: int, source: str, text: str, score: float) -> Hit:
    chunk = Chunk(f"{source}#{rank}", source, "Title", text, 0, len(text), None, 1)
    return Hit(chunk, score, rank, "fused", metadata={"year": 2024})


class FakePipeline(FakeRetriever):
    """Finds `hits`, whatever is asked."""

    def __init__(self, *, reranks: bool = True, hits: Sequence[Hit] = ()) -> None:
        super().__init__()
        self.embedder = WordEmbedder()
        self.reranker = WordReranker() if reranks else None
        self.hits = list(hits)
        self.searches: list[tuple[str, int | None, Any]] = []

    def search(
        self, query: str, top_k: int | None = None, *, where: Mapping[str, Any] | None = None, timings: Any = None
    ) -> list[Hit]:
        self.searches.append((query, top_k, where))
        if timings is not None:
            timings.notes.append("A note.")
        return self.hits[:top_k]


def over(
    pipeline: FakePipeline, *, ledger: Ledger | None = None, engine: FakeEngine | None = None, sinks: Sequence[Sink] = ()
) -> Starlette:
    """A gateway with the variants `base` and `rag`, whose pipeline is `pages`."""
    card = {"embedder": "words", "reranker": None, "dimensions": 2, "max_model_len": 8}
    models = [
        Served(Variant(name="base"), "base", {}),
        Served(Variant(name="rag"), "base", {"rag": "pages"}, Grounding("pages", lambda: pipeline, card)),
    ]
    upstream = Upstream(engine or FakeEngine(reply), lambda: None)
    access = Access(None, frozenset({"127.0.0.1"}))
    return build(Catalogue(models, context=1024), upstream, access=access, ledger=ledger, sinks=sinks)


async def ask_and_leave(app: Starlette, path: str, body: Mapping[str, Any], begun: threading.Event) -> int:
    """Asks, and closes the connection when the work has begun; the status that nobody reads any more."""
    statuses, messages = list[int](), [json.dumps(body).encode()]

    async def receive() -> dict[str, Any]:
        if messages:
            return {"type": "http.request", "body": messages.pop(), "more_body": False}
        await asyncio.to_thread(begun.wait, 30)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
    }  # fmt: skip
    await app(scope, receive, send)
    return statuses[0]
