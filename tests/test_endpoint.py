"""The client of any OpenAI-compatible URL, against a transport that answers as such servers do."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from llmbench.endpoint import Delta, HttpEndpoint
from llmbench.errors import EndpointError
from llmbench.message import ImagePart, Message, images_of, text_of, with_text
from llmbench.reasoning import reasoning_apart

Answer = Callable[[httpx.Request], httpx.Response]
HI: list[Message] = [{"role": "user", "content": "Hi"}]


def endpoint(answer: Answer) -> HttpEndpoint:
    return HttpEndpoint("http://127.0.0.1:9/v1", transport=httpx.MockTransport(answer))


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


async def test_a_whole_answer_carries_usage_and_sources() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        assert body == {"model": "base", "messages": HI, "max_tokens": 5}
        choice = {"message": {"content": "Hello!"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 2}
        return httpx.Response(200, json={"choices": [choice], "usage": usage, "sources": [{"n": 1}]})

    async with endpoint(answer) as client:
        reply = await client.chat(HI, "base", max_tokens=5)
    assert (reply.text, reply.finish_reason, reply.prompt_tokens, reply.completion_tokens) == ("Hello!", "stop", 7, 2)
    assert reply.sources == ({"n": 1},)
    assert reply.latency > 0


async def test_a_stream_gives_its_pieces_then_the_whole_reply() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert json.loads(request.content)["stream"] is True
        pieces = [
            event(sources=[{"n": 1}], choices=[]),
            event(choices=[{"delta": {"role": "assistant", "content": ""}}]),
            event(choices=[{"delta": {"content": "Hel"}}]),
            event(choices=[{"delta": {"content": "lo"}, "finish_reason": "stop"}]),
            event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2}),
            b"data: [DONE]\n\n",
        ]
        return httpx.Response(200, content=b"".join(pieces))

    async with endpoint(answer) as client:
        deltas: list[Delta] = [delta async for delta in client.stream(HI, "base")]
    assert [delta.text for delta in deltas if delta.text] == ["Hel", "lo"]
    reply = deltas[-1].reply
    assert reply is not None
    assert (reply.text, reply.finish_reason, reply.completion_tokens) == ("Hello", "stop", 2)
    assert reply.sources == ({"n": 1},)
    assert reply.first_token is not None
    assert 0 < reply.first_token <= reply.latency


async def test_a_stream_asks_for_more_and_brings_tool_calls_and_log_probabilities() -> None:
    def part(**function: str) -> dict[str, Any]:
        return {"index": 0, "function": function}

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        assert (body["temperature"], body["tools"], body["max_tokens"], body["stream"]) == (
            0.5,
            [{"type": "function"}],
            9,
            True,
        )
        pieces = [
            event(
                choices=[{"delta": {"tool_calls": [part(name="weigh", arguments="") | {"id": "c1"}]}}], system_fingerprint="v-1"
            ),
            event(choices=[{"delta": {"tool_calls": [part(arguments='{"of": ')]}}]),
            event(choices=[{"delta": {"tool_calls": [part(arguments='"kettle"}')]}}]),
            event(choices=[{"delta": {"tool_calls": [{"index": 1, "id": "c2", "function": {"name": "stop"}}]}}]),
            event(choices=[{"delta": {"content": "Hi"}, "logprobs": {"content": [{"token": "Hi", "logprob": -0.5}]}}]),
            event(choices=[{"delta": {}, "finish_reason": "tool_calls"}]),
        ]
        return httpx.Response(200, content=b"".join(pieces))

    async with endpoint(answer) as client:
        options = {"temperature": 0.5, "tools": [{"type": "function"}]}
        deltas = [delta async for delta in client.stream(HI, "base", max_tokens=9, options=options)]
    reply = deltas[-1].reply
    assert reply is not None
    assert [(call["id"], call["function"]) for call in reply.tool_calls] == [
        ("c1", {"name": "weigh", "arguments": '{"of": "kettle"}'}),
        ("c2", {"name": "stop", "arguments": ""}),
    ]
    assert (reply.logprobs, reply.fingerprint) == ((("Hi", -0.5),), "v-1")


@pytest.mark.parametrize("variant", [True, False])
async def test_only_an_answer_of_a_gateway_says_what_feedback_is_given_under(variant: bool) -> None:
    headers = {"x-request-id": "r1"} | ({"x-llmbench-variant": "base"} if variant else {})
    whole = {"choices": [{"message": {"content": "Hello!"}}]}
    piece = event(choices=[{"delta": {"content": "Hello!"}, "finish_reason": "stop"}])
    said: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if request.url.path == "/v1/feedback":
            said.append(body)
            return httpx.Response(200 if body["value"] is not False else 404, json={"error": {"message": "No request"}})
        content: dict[str, Any] = {"content": piece} if body.get("stream") else {"json": whole}
        return httpx.Response(200, headers=headers, **content)

    async with endpoint(answer) as client:
        reply = await client.chat(HI, "base")
        streamed = [delta async for delta in client.stream(HI, "base")][-1].reply
        assert streamed is not None and [reply.request_id, streamed.request_id] == (["r1"] * 2 if variant else [""] * 2)
        await client.feedback("r1", True)
        await client.feedback("r1", 0.5, metric="judge", comment="Half.")
        with pytest.raises(EndpointError, match="answered 404: No request"):
            await client.feedback("r1", False)
    assert said == [
        {"request_id": "r1", "metric": "vote", "value": True},
        {"request_id": "r1", "metric": "judge", "value": 0.5, "comment": "Half."},
        {"request_id": "r1", "metric": "vote", "value": False},
    ]


async def test_an_error_inside_a_stream_is_not_taken_for_an_answer() -> None:
    content = event(choices=[{"delta": {"content": "Hel"}}]) + event(error={"message": "the engine died"})
    async with endpoint(lambda _: httpx.Response(200, content=content)) as client:
        with pytest.raises(EndpointError, match="the engine died"):
            _ = [delta async for delta in client.stream(HI, "base")]


async def test_an_error_in_place_of_an_answer_is_told_although_its_status_says_ok() -> None:
    async with endpoint(lambda _: httpx.Response(200, json={"error": {"message": "no credits left"}})) as client:
        with pytest.raises(EndpointError, match="no credits left"):
            await client.chat(HI, "x")
        with pytest.raises(EndpointError, match="no credits left"):
            _ = [delta async for delta in client.stream(HI, "x")]


async def test_fields_that_are_null_are_as_good_as_missing() -> None:
    pieces = [
        event(error=None, usage=None, choices=[{"delta": {"content": "Hi"}, "finish_reason": "stop"}]),
        event(choices=None, usage={"prompt_tokens": None}),
    ]
    async with endpoint(lambda _: httpx.Response(200, content=b"".join(pieces))) as client:
        deltas = [delta async for delta in client.stream(HI, "x")]
    assert deltas[-1].reply is not None and (deltas[-1].reply.text, deltas[-1].reply.prompt_tokens) == ("Hi", 0)


async def test_a_stream_that_ends_in_the_middle_is_not_taken_for_an_answer() -> None:
    content = event(choices=[{"delta": {"content": "Hel"}}])
    async with endpoint(lambda _: httpx.Response(200, content=content)) as client:
        with pytest.raises(EndpointError, match="stopped mid-answer"):
            _ = [delta async for delta in client.stream(HI, "base")]


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
async def test_reasoning_that_the_server_sends_apart_is_no_answer(field: str) -> None:
    pieces = [
        event(choices=[{"delta": {field: "Hm. ", "content": None}}]),
        event(choices=[{"delta": {field: "So."}}]),
        event(choices=[{"delta": {"content": "42"}, "finish_reason": "stop"}]),
    ]
    async with endpoint(lambda _: httpx.Response(200, content=b"".join(pieces))) as client:
        deltas = [delta async for delta in client.stream(HI, "base")]
    reply = deltas[-1].reply
    assert reply is not None and (reply.text, reply.reasoning) == ("42", "Hm. So.")
    assert "".join(delta.reasoning for delta in deltas) == "Hm. So."
    whole = {"choices": [{"message": {"content": "42", field: "Hm."}, "finish_reason": "stop"}]}
    async with endpoint(lambda _: httpx.Response(200, json=whole)) as client:
        reply = await client.chat(HI, "base")
    assert (reply.text, reply.reasoning) == ("42", "Hm.")


@pytest.mark.parametrize(
    ("text", "apart"),
    [
        ("<think>\nLet me reason.\n</think>\n\nThe answer is 42.", ("Let me reason.", "The answer is 42.")),
        ("The template opened it.\n</think>\n\n42", ("The template opened it.", "42")),
        ("<thinking>a</thinking>b", ("a", "b")),
        ("[THINK]a[/THINK]b", ("a", "b")),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b", ("a", "b")),
        ("<think>still", ("still", "")),
        ("<think></think>\n\nb", ("", "b")),
        ("a\n<think>b</think>\nc", ("b", "a\n\nc")),
        ("Wrap it in `<think>` and `</think>` tags.", ("", "Wrap it in `<think>` and `</think>` tags.")),
        ("```\n<think>a</think>\n```", ("", "```\n<think>a</think>\n```")),
        ("plain", ("", "plain")),
    ],
)
def test_reasoning_between_tags_is_told_from_the_answer(text: str, apart: tuple[str, str]) -> None:
    assert reasoning_apart(text) == apart


async def test_a_dead_engine_behind_a_living_server_is_found() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "http://127.0.0.1:9/health"
        return httpx.Response(503, json={"error": {"message": "vLLM ended"}})

    async with endpoint(answer) as client:
        assert "vLLM ended" in (await client.health() or "")
    for other in (httpx.Response(200), httpx.Response(404), httpx.Response(401)):
        async with endpoint(lambda _, other=other: other) as client:  # type: ignore[misc]
            assert await client.health() is None


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (httpx.Response(404, json={"error": {"message": "There is no model x."}}), "answered 404: There is no model x."),
        (httpx.Response(401, json={"error": {"message": "no"}}), "no. Check the key in OPENAI_API_KEY."),
        (httpx.Response(502, text="<html>bad gateway"), "answered 502"),
        (httpx.Response(200, text="<html>hello"), "does not speak the OpenAI API"),
        (httpx.Response(200, json={"choices": []}), "does not speak the OpenAI API"),
        (httpx.Response(200, json={"choices": [{"message": {}}], "usage": [1]}), "does not speak the OpenAI API"),
    ],
)
async def test_a_server_that_answers_wrongly_is_one_line(response: httpx.Response, words: str) -> None:
    async with endpoint(lambda _: response) as client:
        with pytest.raises(EndpointError, match=words) as caught:
            await client.chat(HI, "x")
    assert "\n" not in str(caught.value)


async def test_nobody_there_says_how_to_start_one() -> None:
    async with HttpEndpoint("http://127.0.0.1:9/v1") as client:
        with pytest.raises(EndpointError, match=r"No endpoint answers at .* Start one: llmbench serve"):
            await client.models()


@pytest.mark.parametrize(
    "url", ["localhost:8000", "http://", "http://[::1", "http://localhost:99999/v1", "http://a\n/v1", "https://a" * 9999]
)
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(EndpointError, match="is not a URL") as caught:
        HttpEndpoint(url)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("key", ["sk-\u2026abc", "sk-a\r\nHost: b", "\u043a\u043b\u044e\u0447"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(EndpointError, match="API key") as caught:
        HttpEndpoint("http://127.0.0.1:9/v1", api_key=key)
    assert "sk-" not in str(caught.value)


async def test_a_key_is_sent_without_the_line_end_that_its_file_had() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == "Bearer sk-a"
        return httpx.Response(200, json={"data": []})

    transport = httpx.MockTransport(answer)
    async with HttpEndpoint("http://127.0.0.1:9/v1", api_key="sk-a\n", transport=transport) as client:
        assert await client.models() == []


IMAGE: ImagePart = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


async def test_a_message_of_parts_is_sent_as_it_is() -> None:
    bodies: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content)["messages"])
        return httpx.Response(200, json={"choices": [{"message": {"content": "A lamp."}}]})

    asked: list[Message] = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, IMAGE]}]
    async with endpoint(answer) as client:
        assert (await client.chat(asked, "base")).text == "A lamp."
    assert bodies == [asked]


def test_the_text_of_a_message_is_what_of_it_is_text() -> None:
    parts: Message = {"role": "user", "content": [{"type": "text", "text": "a"}, IMAGE, {"type": "text", "text": "b"}]}
    assert (text_of(parts), images_of(parts)) == ("a\nb", [IMAGE])
    assert text_of({"role": "user", "content": [IMAGE]}) == ""
    assert (text_of(HI[0]), images_of(HI[0])) == ("Hi", [])
    assert with_text(HI[0], "Ho") == {"role": "user", "content": "Ho"} and HI[0]["content"] == "Hi"
    assert with_text(parts, "c") == {"role": "user", "content": [{"type": "text", "text": "c"}, IMAGE]}
