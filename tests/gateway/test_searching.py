"""`/v1/search` and OpenAI's vector stores: passages alone, without a model."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest
from tests.conftest import Served
from tests.gateway.pipelines import FakePipeline, ask_and_leave, hit, over
from tests.gateway.test_app import client

HITS = [hit(1, "docs/a.md", "Red.", 0.9), hit(2, "docs/b.md", "Blue.", 0.4)]
STORE = "/v1/vector_stores/pages/search"


async def test_a_search_gives_the_passages_and_what_it_cost() -> None:
    pipeline = FakePipeline(hits=HITS)
    where = {"year": {"$gte": 2024}}
    async with client(over(pipeline)) as http:
        data = (
            await http.post("/v1/search", json={"model": "rag", "query": "What is red?", "top_k": 1, "filter": where})
        ).json()
    assert data["hits"] == [HITS[0].source()]
    assert data["pipeline"] == "pages" and data["query"] == "What is red?" and data["notes"] == ["A note."]
    assert data["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert pipeline.searches == [("What is red?", 1, where)]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"query": ""}, "query", "not empty"),
        ({"top_k": 0}, "top_k", "from 1 to 1000"),
        ({"limit": 3}, "limit", "say top_k"),
        ({"filter": "x"}, "filter", "an object"),
        ({"model": "base"}, "model", "no RAG pipeline"),
    ],
)
async def test_a_search_that_is_wrong_is_refused_by_name(fields: dict[str, Any], param: str, said: str) -> None:
    async with client(over(FakePipeline())) as http:
        answer = await http.post("/v1/search", json={"model": "pages", "query": "x"} | fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param and said in answer.json()["error"]["message"]


async def test_a_store_is_searched_in_openais_form() -> None:
    pipeline = FakePipeline(hits=HITS)
    filters = {
        "type": "and",
        "filters": [{"type": "gte", "key": "year", "value": 2024}, {"type": "eq", "key": "kind", "value": "md"}],
    }
    options = {"ranker": "auto", "score_threshold": 0.5}
    body = {"query": ["x", "y"], "filters": filters, "ranking_options": options, "rewrite_query": False}
    async with client(over(pipeline)) as http:
        data = (await http.post(STORE, json=body)).json()
    [found] = data.pop("data")
    assert data == {
        "object": "vector_store.search_results.page", "search_query": ["x", "y"], "has_more": False, "next_page": None,
    }  # fmt: skip
    assert found["file_id"] == "docs/a.md" and found["filename"] == "a.md" and found["score"] == 0.9
    assert found["attributes"]["year"] == 2024 and found["content"] == [{"type": "text", "text": "Red."}]
    where = {"$and": [{"year": {"$gte": 2024}}, {"kind": {"$eq": "md"}}]}
    assert pipeline.searches == [("x", 10, where), ("y", 10, where)]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"query": None}, "query", "not empty"),
        ({"query": ["x"] * 11}, "query", "up to 10"),
        ({"query": ["x", 3]}, "query[1]", "not empty"),
        ({"rewrite_query": True}, "rewrite_query", "search.expand"),
        ({"max_num_results": 51}, "max_num_results", "from 1 to 50"),
        ({"filters": {"type": "like", "key": "a", "value": "b"}}, "filters", "must be one of eq, ne"),
        ({"filters": {"type": "eq", "key": "$or", "value": "b"}}, "filters", "the name of a field"),
        ({"filters": {"type": "or", "filters": []}}, "filters", "a list of filters"),
        ({"ranking_options": {"ranker": "x"}}, "ranking_options", "search.rerank"),
        ({"ranking_options": {"text_weight": 1}}, "ranking_options.text_weight", "search.alpha"),
        ({"stream": True}, "stream", "not accepted"),
    ],
)
async def test_what_a_store_cannot_do_is_refused_by_name(fields: dict[str, Any], param: str, said: str) -> None:
    async with client(over(FakePipeline())) as http:
        answer = await http.post(STORE, json={"query": "x"} | fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param and said in answer.json()["error"]["message"]


async def test_an_unknown_store_is_missing() -> None:
    async with client(over(FakePipeline())) as http:
        answer = await http.post("/v1/vector_stores/other/search", json={"query": "x"})
    assert answer.status_code == 404 and "Available: pages" in answer.json()["error"]["message"]


def test_openais_client_finds_the_page_that_answers(endpoint: Served) -> None:
    import openai

    client = openai.OpenAI(base_url=endpoint.base_url, api_key="none")
    found = list(client.vector_stores.search("pages", query="How long do refunds take?", max_num_results=1))
    assert [one.filename for one in found] == ["refunds.md"] and "14 days" in found[0].content[0].text
    by_kind: Any = {"type": "eq", "key": "source", "value": found[0].file_id}
    filtered = list(client.vector_stores.search("base-rag", query="red kettle", filters=by_kind))
    assert {one.file_id for one in filtered} == {found[0].file_id}
    data = httpx.post(f"{endpoint.base_url}/search", json={"model": "pages", "query": "red kettle", "top_k": 1}).json()
    assert data["hits"][0]["source"].endswith("kettle.md") and data["usage"]["prompt_tokens"] == 4
    wrong = httpx.post(f"{endpoint.base_url}/search", json={"model": "pages", "query": "x", "filter": {"a": {"$like": 1}}})
    assert wrong.status_code == 400 and "$like" in wrong.json()["error"]["message"]


async def test_a_client_that_leaves_ends_the_search_before_its_next_query() -> None:
    class Slow(FakePipeline):
        begun, left, went_on = threading.Event(), threading.Event(), threading.Event()

        def search(self, query: str, *_: Any, **__: Any) -> list[Any]:
            (self.went_on if self.begun.is_set() else self.begun).set()
            assert self.left.wait(30)
            return []

    pipeline = Slow()
    assert await ask_and_leave(over(pipeline), STORE, {"query": ["one", "two", "three"]}, pipeline.begun) == 499
    pipeline.left.set()
    assert not pipeline.went_on.wait(0.5)
