"""`/detokenize` and `/ready`, with a transport in vLLM's place."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from tests.gateway.test_app import FakeEngine, client, reply, serve

from llmbench.gateway import Catalogue, build
from llmbench.gateway.relay import Upstream


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(lambda: httpx.Response(200, json={"prompt": "Hi"}))


async def test_tokens_become_the_text_that_the_variants_model_reads_in_them(engine: FakeEngine) -> None:
    async with client(serve(engine)) as http:
        answer = await http.post("/detokenize", json={"model": "mine", "tokens": [1, 2], "user": None})
    assert answer.json() == {"prompt": "Hi"}
    assert engine.bodies == [{"model": "abc", "tokens": [1, 2]}]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "mine"}, "tokens"),
        ({"model": "mine", "tokens": "1"}, "tokens"),
        ({"model": "mine", "tokens": [1, -2]}, "tokens"),
        ({"model": "mine", "tokens": [True]}, "tokens"),
        ({"model": "mine", "tokens": [2**31]}, "tokens"),
        ({"tokens": [1]}, "model"),
        ({"model": "mine", "tokens": [1], "prompt": "Hi"}, "prompt"),
    ],
)
async def test_what_is_no_list_of_tokens_is_refused(engine: FakeEngine, body: dict[str, Any], param: str) -> None:
    async with client(serve(engine)) as http:
        answer = await http.post("/detokenize", json=body)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param
    assert engine.bodies == []


async def test_a_server_is_ready_once_its_engine_answers_and_needs_no_key_to_say_so() -> None:
    async with client(serve(FakeEngine(reply), api_key="secret")) as http:
        assert (await http.get("/ready")).json() == {"status": "ready"}
        known = await http.get("/ready", headers={"Authorization": "Bearer secret"})
    assert known.json() == {"status": "ready", "models": ["base", "mine"]}


async def test_a_server_whose_engine_is_gone_is_not_ready() -> None:
    def gone() -> httpx.Response:
        raise httpx.ConnectError("no such file")

    async with client(serve(FakeEngine(gone), problem="vLLM died.")) as http:
        answer = await http.get("/ready")
    assert answer.status_code == 503 and answer.headers["retry-after"] == "5"
    assert answer.json()["error"]["message"] == "vLLM died."


async def test_a_server_without_variants_is_not_ready_though_it_lives(engine: FakeEngine) -> None:
    async with client(build(Catalogue([], context=64), Upstream(engine, lambda: None))) as http:
        answers = [await http.get(path) for path in ("/health", "/ready")]
    assert [answer.status_code for answer in answers] == [200, 503]
    assert answers[1].headers["retry-after"] == "5"
