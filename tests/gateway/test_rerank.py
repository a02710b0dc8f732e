"""`/v1/rerank`: documents in the order of their scores, in the form of Jina and Cohere."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.gateway.pipelines import FakePipeline, WordReranker, ask_and_leave, over
from tests.gateway.test_app import client

from llmbench.gateway.keys import KeyStore
from llmbench.gateway.ledger import Ledger
from llmbench.gateway.quota import Limits
from llmbench.recipe import RerankSpec
from llmbench.retrieval.search.rerank import Reranker

ASK = {"model": "pages", "query": "red kettle", "documents": ["a lamp", {"text": "red kettle"}, "red lamp"]}


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
async def test_documents_come_best_first_with_their_numbers(path: str) -> None:
    async with client(over(FakePipeline())) as http:
        data = (await http.post(path, json=ASK)).json()
    assert data["model"] == "pages"
    assert [(one["index"], one["relevance_score"]) for one in data["results"]] == [(1, 2.0), (2, 1.0), (0, 0.0)]
    assert data["results"][0]["document"] == {"text": "red kettle"}
    assert data["usage"] == {"prompt_tokens": 12, "total_tokens": 12}


async def test_only_what_is_asked_for_comes_back() -> None:
    async with client(over(FakePipeline())) as http:
        data = (await http.post("/v1/rerank", json=ASK | {"model": "rag", "top_n": 1, "return_documents": False})).json()
    assert data["results"] == [{"index": 1, "relevance_score": 2.0}]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"query": "a b c d e"}, "query", "longer than half"),
        ({"query": " "}, "query", "not empty"),
        ({"documents": []}, "documents", "1 to 1,000"),
        ({"documents": ["a", {"title": "b"}]}, "documents[1]", '{"text": "..."}'),
        ({"top_n": 0}, "top_n", "whole number from 1"),
        ({"max_tokens_per_doc": 5}, "max_tokens_per_doc", "read whole"),
        ({"rank_fields": ["a"]}, "rank_fields", "one text"),
        ({"model": "base"}, "model", "Available: pages"),
    ],
)
async def test_what_cannot_be_reranked_is_refused_by_name(fields: dict[str, Any], param: str, said: str) -> None:
    async with client(over(FakePipeline())) as http:
        answer = await http.post("/v1/rerank", json=ASK | fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param and said in answer.json()["error"]["message"]


async def test_a_pipeline_without_a_reranker_names_what_to_set() -> None:
    async with client(over(FakePipeline(reranks=False))) as http:
        answer = await http.post("/v1/rerank", json=ASK)
    assert answer.status_code == 400 and "search.rerank.model_name_or_path" in answer.json()["error"]["message"]


async def test_a_key_spends_the_tokens_that_are_read(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys.sqlite")
    key = store.new("alice", limits=Limits(tokens_per_day=20))
    ledger = Ledger(store.path)
    try:
        async with client(over(FakePipeline(), ledger=ledger)) as http:
            http.headers["Authorization"] = f"Bearer {key}"
            answers = [await http.post("/v1/rerank", json=ASK) for _ in range(2)]
    finally:
        ledger.close()
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[0].headers["x-ratelimit-remaining-tokens"] == "8"
    store.close()


def test_a_reranker_tells_what_it_reads_before_it_does() -> None:
    reranker = Reranker(RerankSpec(model_name_or_path="all-MiniLM-L6-v2", kind="late-interaction"))
    assert reranker.measure("a kettle", ["a red kettle", ""]) == ([5, 2], False)
    assert reranker.measure("word " * 1000, ["a"])[1]
    assert np.argmax(reranker.scores("a red kettle", ["brass lamp", "the kettle is red"])) == 1


async def test_a_client_that_leaves_ends_the_reading_for_it() -> None:
    class Slow(WordReranker):
        begun, ended = threading.Event(), threading.Event()

        def scores(self, query: str, passages: Sequence[str], *, stop: threading.Event | None = None) -> NDArray[np.float32]:
            self.begun.set()
            assert stop is not None
            if stop.wait(30):
                self.ended.set()
            raise CancelledError

    pipeline, slow = FakePipeline(), Slow()
    pipeline.reranker = slow
    assert await ask_and_leave(over(pipeline), "/v1/rerank", ASK, slow.begun) == 499
    assert slow.ended.wait(30)


@pytest.mark.parametrize("batches", [0, 2])
def test_a_reranker_stops_between_batches(batches: int) -> None:
    class Later(threading.Event):
        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks > batches

    reranker, stop = Reranker(RerankSpec(model_name_or_path="all-MiniLM-L6-v2", kind="late-interaction", batch_size=1)), Later()
    with pytest.raises(CancelledError):
        reranker.scores("a red kettle", ["brass lamp", "the kettle is red", "a door", "a wall"], stop=stop)
    assert stop.looks == batches + 1
    assert np.argmax(reranker.scores("a red kettle", ["brass lamp", "the kettle is red"], stop=threading.Event())) == 1
