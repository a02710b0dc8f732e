"""What the sinks are told of a request."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from llmbench.endpoint import Budget, Message
from llmbench.gateway import Catalogue, Grounding, Served, build
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.relay import Upstream
from llmbench.recipe import Variant

ASK = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "user": "ann"}
STAMP = {"system_fingerprint": "vllm-1"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}
pytestmark = pytest.mark.anyio


class _Engine(httpx.AsyncBaseTransport):
    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if json.loads(request.content).get("stream"):
            return httpx.Response(200, stream=_Stream(self.broken))
        choice = {"message": {"role": "assistant", "content": "Hello [1]"}, "finish_reason": "stop"}
        return httpx.Response(200, json={"model": "base", "choices": [choice], "usage": USAGE, **STAMP})


class _Stream(httpx.AsyncByteStream):
    def __init__(self, broken: bool) -> None:
        self.broken = broken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for text, reason in (("Hel", None), ("lo", None if self.broken else "stop")):
            yield _event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]})
        if self.broken:
            raise httpx.ReadError("gone")
        yield _event({"choices": [], "usage": USAGE, **STAMP}) + b"data: [DONE]\n\n"


def _event(values: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(values | {"model": "base"}, separators=(",", ":")).encode() + b"\n\n"


async def _told(body: dict[str, Any], *, broken: bool = False, id: str | None = None) -> tuple[httpx.Response, Exchange]:
    told: list[Exchange] = []
    models = Catalogue([Served(Variant(name="m"), "base", {})], context=1024)
    app = build(models, Upstream(_Engine(broken=broken), lambda: None), sinks=[told.append])

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        answer = await client.post("/v1/chat/completions", json=body, headers={"x-request-id": id} if id else {})
    assert len(told) == 1
    return answer, told[0]


async def test_a_whole_answer_is_told_with_its_variant_user_tokens_and_times() -> None:
    answer, exchange = await _told(ASK)
    assert (exchange.asked, exchange.variant, exchange.user, exchange.status) == ("m", "m", "ann", 200)
    assert (exchange.prompt_tokens, exchange.completion_tokens) == (3, 2)
    assert exchange.engine_at is not None and exchange.engine_seconds is not None
    assert 0 <= exchange.engine_at + exchange.engine_seconds <= exchange.seconds
    assert not exchange.broken and exchange.error is None
    assert answer.headers["x-request-id"] == exchange.id


async def test_a_stream_is_told_after_its_last_byte() -> None:
    _, exchange = await _told(ASK | {"stream": True, "stream_options": {"include_usage": True}})
    assert exchange.stream and not exchange.broken and exchange.first is not None
    assert exchange.completion_tokens == 2


async def test_a_stream_that_the_engine_breaks_off_is_told_so() -> None:
    _, exchange = await _told(ASK | {"stream": True}, broken=True)
    assert exchange.status == 200 and exchange.broken


async def test_a_refusal_is_told_with_its_code() -> None:
    _, exchange = await _told(ASK | {"model": "other"})
    assert (exchange.status, exchange.error, exchange.variant) == (404, "model_not_found", "")


async def test_a_client_may_name_its_request_in_safe_characters_only() -> None:
    _, exchange = await _told(ASK, id="order-7")
    assert exchange.id == "order-7"
    _, exchange = await _told(ASK, id="a b\tc")
    assert exchange.id != "a b\tc" and len(exchange.id) == 32


async def test_its_size_counts_every_byte_that_it_holds() -> None:
    call = {"id": "c1", "function": {"name": "f" * 3000, "arguments": json.dumps({"text": "Ü" * 3000}, ensure_ascii=False)}}
    messages = [
        {"role": "user", "content": "ö" * 5000},
        {"role": "assistant", "content": "", "tool_calls": [call], "reasoning": "r" * 3000},
    ]
    _, exchange = await _told(ASK | {"messages": [*messages, *ASK["messages"]]})
    held = len(json.dumps(list(exchange.conversation), ensure_ascii=False).encode())
    assert held > 22_000 and held <= exchange.size() < 2 * held
    exchange.sources, exchange.body, before = [{"text": "ä" * 1000}], [b"x" * 500], exchange.size()
    assert exchange.size() == before + 2500


def test_a_stream_whose_error_is_followed_by_its_end_is_broken() -> None:
    exchange = Exchange("/v1/chat/completions", stream=True)
    for piece in (b'data: {"error":{"message":"no"}}\n\n', b"data: [DONE]\n\n"):
        exchange.sent({"type": "http.response.body", "body": piece, "more_body": True})
    assert exchange.broken


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_is_read_as_the_answer_that_it_is(stream: bool) -> None:
    item = {"type": "message", "content": [{"type": "output_text", "text": "It is red."}]}
    response = {"status": "completed", "error": None, "output": [{"type": "reasoning", "summary": []}, item]}
    event = {"type": "response.completed", "response": response}
    lines = b"event: response.created\ndata: {}\n\nevent: response.completed\ndata: " + json.dumps(event).encode() + b"\n\n"
    exchange = Exchange("/v1/responses", status=200, stream=stream, keeps=True)
    exchange.body = [lines if stream else json.dumps(response).encode()]
    said = exchange.said()
    assert said is not None and (said.text, said.finish_reason, said.calls_tools) == ("It is red.", "stop", False)
    exchange.sent({"type": "http.response.body", "body": b'data: {"text":"event: response.failed"}\n\n', "more_body": True})
    assert not exchange.broken, "words are no event"


async def test_each_variant_has_a_fingerprint_of_its_own() -> None:
    app = build(
        Catalogue([Served(Variant(name="m"), "base", {"fingerprint": "0123456789abcdef"})], context=1024),
        Upstream(_Engine(), lambda: None),
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        whole = (await client.post("/v1/chat/completions", json=ASK)).json()
        stream = (await client.post("/v1/chat/completions", json=ASK | {"stream": True})).text
    assert whole["system_fingerprint"] == "vllm-1-01234567"
    assert stream.count('"system_fingerprint":"vllm-1-01234567"') == 1


def test_what_was_said_is_read_from_the_bytes_that_were_kept() -> None:
    whole = Exchange("/v1/chat/completions", status=200, keeps=True)
    whole.body = [json.dumps({"choices": [{"message": {"content": "Hello [1]"}, "finish_reason": "stop"}]}).encode()]
    assert whole.said() is not None
    assert (whole.said().text, whole.said().finish_reason) == ("Hello [1]", "stop")  # type: ignore[union-attr]
    stream = Exchange("/v1/chat/completions", status=200, stream=True, keeps=True)
    event = _event({"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}]})
    stream.body = [event[:20], event[20:], b": keep-alive\n\n", _event({"choices": []}), b"data: [DONE]\n\n"]
    said = stream.said()
    assert said is not None and said.text == "Hello" and said.finish_reason is None
    assert Exchange("/v1/chat/completions", status=500, body=[b"{}"]).said() is None


class _Slow:
    """A retriever that takes a tenth of a second."""

    def ground(self, messages: Sequence[Message], *, budget: Budget | None = None) -> _Slow:
        time.sleep(0.1)
        self.messages, self.sources = messages, list[dict[str, Any]]()
        return self

    def close(self) -> None:
        pass


def _parts(answer: httpx.Response) -> dict[str, float]:
    """What an answer says that it took, in milliseconds."""
    entries = [entry.split(";dur=") for entry in answer.headers["server-timing"].split(", ")]
    return {name: float(value) for name, value in entries}


async def test_an_answer_says_what_its_time_went_to_and_the_parts_are_the_whole() -> None:
    class Thinking(_Engine):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await asyncio.sleep(0.2)
            return await super().handle_async_request(request)

    async def body() -> AsyncIterator[bytes]:
        await asyncio.sleep(0.15)
        yield json.dumps(ASK).encode()

    models = Catalogue([Served(Variant(name="m"), "base", {}, Grounding("pages", _Slow))], context=1024)
    app = build(models, Upstream(Thinking(), lambda: None))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        begun = time.monotonic()
        headers = {"content-type": "application/json"}
        answer = await client.post("/v1/chat/completions", content=body(), headers=headers)
        wall = 1000 * (time.monotonic() - begun)
    parts = _parts(answer)
    assert parts["engine"] >= 199 and parts["retrieval"] >= 99 and parts["body"] >= 149
    assert 450 <= sum(parts.values()) <= wall + 1
    overhead = float(answer.headers["x-llmbench-overhead-ms"])
    assert overhead == pytest.approx(parts["accept"] + parts["checks"] + parts["retrieval"], abs=0.02)
    assert overhead <= wall - 349


async def test_a_refused_request_says_it_too_and_the_engines_refusal_is_the_engines_time() -> None:
    class Refusing(_Engine):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await asyncio.sleep(0.2)
            return httpx.Response(400, json={"error": {"message": "no"}})

    app = build(Catalogue([Served(Variant(name="m"), "base", {})], context=1024), Upstream(Refusing(), lambda: None))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        ours = await client.post("/v1/chat/completions", json=ASK | {"model": "gpt"})
        theirs = await client.post("/v1/chat/completions", json=ASK)
    assert (ours.status_code, _parts(ours)["engine"]) == (404, 0)
    assert theirs.status_code == 400 and _parts(theirs)["engine"] >= 199
    assert float(theirs.headers["x-llmbench-overhead-ms"]) == pytest.approx(
        _parts(theirs)["checks"] + _parts(theirs)["accept"], abs=0.02
    )
