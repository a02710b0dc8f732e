"""`/v1/responses`: OpenAI's Responses as chats, whole and streamed, with calls, thoughts and sources."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.conftest import Served
from tests.gateway.test_app import FakeEngine, FakeRetriever, Pieces, client, serve

if TYPE_CHECKING:
    import openai

ASK = {"model": "base", "input": "Hi"}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def whole(reason: str = "stop", **message: Any) -> Callable[[], httpx.Response]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    return lambda: httpx.Response(200, json={"id": "1", "model": "base", "choices": [choice], "usage": USAGE})


def stream(
    *deltas: dict[str, Any], reason: str | None = "stop", last: bytes = b"data: [DONE]\n\n"
) -> Callable[[], httpx.Response]:
    events: list[dict[str, Any]] = [
        {"model": "base", "choices": [{"index": 0, "delta": delta}]}
        for delta in ({"role": "assistant", "content": ""}, *deltas)
    ]
    if reason is not None:
        events += [{"model": "base", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}]
        events += [{"model": "base", "choices": [], "usage": USAGE}]
    sent = [b"data: " + json.dumps(one, separators=(",", ":")).encode() + b"\n\n" for one in events]
    return lambda: httpx.Response(200, stream=Pieces(b": keep-alive\n\n", *sent, last))


async def asked(engine: FakeEngine, body: dict[str, Any], **more: Any) -> httpx.Response:
    async with client(serve(engine, **more)) as http:
        return await http.post("/v1/responses", json=ASK | body)


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    found = []
    for block in answer.text.split("\n\n"):
        if block.startswith("event: "):
            kind, data = block.split("\n")
            found.append(json.loads(data.removeprefix("data: ")))
            assert found[-1]["type"] == kind.removeprefix("event: ")
    assert [one["sequence_number"] for one in found] == list(range(len(found)))
    return found


async def test_a_text_is_answered_as_a_chat_would_be() -> None:
    engine = FakeEngine(whole(content="Hello."))
    fields = {
        "instructions": "Be kind.", "max_output_tokens": 5, "temperature": 0.5, "top_p": 0.9, "metadata": {"a": "b"},
        "user": "u", "store": False, "truncation": "disabled", "include": [], "reasoning": {"effort": "low"},
        "service_tier": "auto",
    }  # fmt: skip
    data = (await asked(engine, {"model": "mine", **fields})).json()
    assert engine.bodies == [
        {
            "model": "abc", "stream": False, "temperature": 0.5, "top_p": 0.9, "max_completion_tokens": 5,
            "reasoning_effort": "low",
            "messages": [{"role": "system", "content": "Brief.\n\nBe kind."}, {"role": "user", "content": "Hi"}],
            "stop_token_ids": [2],
        }
    ]  # fmt: skip
    assert data["object"] == "response" and data["model"] == "mine" and data["status"] == "completed"
    assert (data["store"], data["metadata"], data["max_output_tokens"]) == (False, {"a": "b"}, 5)
    [item] = data["output"]
    assert item["type"] == "message" and item["content"][0] == {
        "type": "output_text", "text": "Hello.", "annotations": [], "logprobs": [],
    }  # fmt: skip
    assert data["usage"] == {
        "input_tokens": 7, "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0}, "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 10,
    }  # fmt: skip


async def test_a_conversation_with_calls_and_thoughts_becomes_messages() -> None:
    engine = FakeEngine(whole(content="Done."))
    items = [
        {"role": "developer", "content": [{"type": "input_text", "text": "Rule."}]},
        {"type": "message", "role": "user", "content": "Go."},
        {"type": "reasoning", "id": "rs", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "function_call", "id": "fc", "call_id": "c1", "name": "f", "arguments": '{"a": 1}', "status": "completed"},
        {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "one"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
    ]
    form = {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}}
    choice = {"type": "function", "name": "f"}
    body = {"input": items, "instructions": "Be brief.", "tools": [TOOL], "tool_choice": choice, "text": form}
    assert (await asked(engine, body | {"parallel_tool_calls": False})).status_code == 200
    [sent] = engine.bodies
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
        {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    ]
    assert sent["messages"] == [
        {"role": "developer", "content": "Be brief.\n\nRule."},
        {"role": "user", "content": "Go."},
        {"role": "assistant", "content": "", "reasoning": "Hm.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c2", "content": "two"},
    ]
    assert sent["tools"] == [{"type": "function", "function": {k: v for k, v in TOOL.items() if k != "type"}}]
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "f"}} and sent["parallel_tool_calls"] is False
    assert sent["response_format"]["json_schema"]["name"] == "n"


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"store": True}, "store", "keeps no responses"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "whole conversation"),
        ({"conversation": "c"}, "conversation", "whole conversation"),
        ({"background": True}, "background", "stream it"),
        ({"include": ["message.output_text.logprobs"]}, "include", "all that"),
        ({"truncation": "auto"}, "truncation", "silently"),
        ({"max_tokens": 3}, "max_tokens", "say max_output_tokens"),
        ({"max_output_tokens": 0}, "max_output_tokens", "max_output_tokens must be"),
        ({"stop": ["x"]}, "stop", "/v1/chat/completions"),
        ({"input": None}, "input", "must be a text"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]", "not 'item_reference'"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]", "input_text"),
        ({"input": [{"role": "critic", "content": "x"}]}, "input[0]", "role must be"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0]", "call_id"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "no tools of its own"),
        ({"tools": [TOOL | {"parameters": {"$ref": "#/no"}}], "tool_choice": "required"}, "tools", "tools[0].parameters.$ref"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice", "a function with its name"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "medium"),
        ({"text": {"format": {"type": "xml"}}}, "text.format", "text.format.type must be"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format", "text.format must be an object"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary", "in full"),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "must be one of"),
        ({"temperature": "hot"}, "temperature", "a number"),
        ({"model": None}, "model", "missing"),
        ({"nonsense": 1}, "nonsense", "not accepted"),
    ],
)
async def test_every_other_field_is_refused_by_name(fields: dict[str, Any], param: str, said: str) -> None:
    engine = FakeEngine(whole(content="x"))
    answer = await asked(engine, fields)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param and said in answer.json()["error"]["message"]
    assert engine.bodies == []


async def test_thoughts_words_and_calls_are_items_of_their_own() -> None:
    data = (await asked(FakeEngine(whole("length", content="Hi", reasoning="Hm", tool_calls=[CALL])), {})).json()
    assert [item["type"] for item in data["output"]] == ["reasoning", "message", "function_call"]
    assert data["output"][0]["content"] == [{"type": "reasoning_text", "text": "Hm"}]
    assert {key: data["output"][2][key] for key in ("call_id", "name", "arguments")} == {
        "call_id": "c1", "name": "f", "arguments": "{}",
    }  # fmt: skip
    assert data["status"] == "incomplete" and data["incomplete_details"] == {"reason": "max_output_tokens"}


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_rag_variants_sources_and_citations_come_with_the_answer(streamed: bool) -> None:
    text = "It is red [1], not [2]. Red [1]."
    engine = FakeEngine(stream({"content": text}) if streamed else whole(content=text))
    answer = await asked(engine, {"model": "rag", "stream": streamed}, retriever=FakeRetriever())
    data = events(answer)[-1]["response"] if streamed else answer.json()
    assert data["sources"] == [{"n": 1, "text": "Red."}]
    assert data["output"][0]["content"][0]["annotations"] == [
        {"type": "file_citation", "file_id": "", "filename": "", "index": 0}
    ]
    assert not streamed or "response.output_text.annotation.added" in answer.text
    assert engine.bodies[0]["messages"][-1]["content"].startswith("[1] Red.")


async def test_a_stream_names_each_item_from_its_first_piece_to_its_end() -> None:
    part = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"a"'}}
    deltas: list[dict[str, Any]] = [
        {"reasoning": "H"}, {"reasoning_content": "m"}, {"content": "Hel"}, {"content": "lo"}, {"tool_calls": [part]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}, {"tool_calls": [part | {"index": 1, "id": "c2"}]},
    ]  # fmt: skip
    engine = FakeEngine(stream(*deltas, reason="tool_calls"))
    found = events(await asked(engine, {"stream": True, "tools": [TOOL]}))
    assert [one["type"].removeprefix("response.") for one in found] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta", "reasoning_text.done",
        "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta", "output_text.done",
        "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta", "function_call_arguments.done",
        "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    last = found[-1]["response"]
    assert [item["type"] for item in last["output"]] == ["reasoning", "message", "function_call", "function_call"]
    assert last["output"][1]["content"][0]["text"] == "Hello" and last["output"][2]["arguments"] == '{"a":1}'
    assert [item["call_id"] for item in last["output"][2:]] == ["c1", "c2"]
    assert last["usage"]["output_tokens"] == 3 and last["id"] == found[0]["response"]["id"]
    assert engine.bodies[0]["stream_options"] == {"include_usage": True}


async def test_a_stream_without_words_and_one_that_was_cut_end_as_they_should() -> None:
    empty = events(await asked(FakeEngine(stream()), {"stream": True}))
    assert empty[-1]["type"] == "response.completed" and empty[-1]["response"]["output"][0]["content"][0]["text"] == ""
    cut = events(await asked(FakeEngine(stream({"content": "x"}, reason="length")), {"stream": True}))
    assert cut[-1]["type"] == "response.incomplete" and cut[-1]["response"]["output"][0]["status"] == "incomplete"
    assert cut[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


async def test_a_stream_that_the_engine_breaks_off_has_failed() -> None:
    answer = await asked(FakeEngine(stream({"content": "x"}, reason=None, last=b"")), {"stream": True})
    found = events(answer)
    assert found[-1]["type"] == "response.failed"
    assert "too early" in found[-1]["response"]["error"]["message"]
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == "x"


async def test_thoughts_pass_through_chats_unmixed() -> None:
    chat = {"model": "base", "messages": [{"role": "user", "content": "Hi"}]}
    message = {"content": "Hi", "reasoning": "Hm", "reasoning_content": "Hm"}
    async with client(serve(FakeEngine(whole(**message)))) as http:
        data = (await http.post("/v1/chat/completions", json=chat)).json()
    assert data["choices"][0]["message"] == {"role": "assistant", **message}
    deltas: list[dict[str, Any]] = [{"reasoning": "H"}, {"reasoning_content": "m"}, {"content": "Hi"}]
    async with client(serve(FakeEngine(stream(*deltas)))) as http:
        answer = await http.post("/v1/chat/completions", json=chat | {"stream": True})
    lines = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    assert [one["choices"][0]["delta"] for one in lines[1:4]] == deltas


@pytest.fixture
def real(endpoint: Served) -> openai.OpenAI:
    import openai

    return openai.OpenAI(base_url=endpoint.base_url, api_key="none")


def test_openais_client_gets_the_words_of_a_chat(real: openai.OpenAI) -> None:
    chat = real.chat.completions.create(model="adapter", messages=[{"role": "user", "content": "Hi"}], max_tokens=8)
    found = real.responses.create(model="adapter", input="Hi", max_output_tokens=8)
    assert found.output_text == chat.choices[0].message.content and found.model == "adapter"
    assert chat.usage is not None and found.usage is not None
    assert found.usage.input_tokens == chat.usage.prompt_tokens and found.usage.output_tokens == chat.usage.completion_tokens
    again: Any = [{"role": "user", "content": "Hi"}, *found.output, {"role": "user", "content": "More"}]
    assert real.responses.create(model="adapter", input=again, max_output_tokens=8).status in ("completed", "incomplete")


def test_openais_client_follows_a_stream_to_the_same_words_with_its_sources(real: openai.OpenAI) -> None:
    whole = real.responses.create(model="base-rag", input="What colour is the Alba kettle?", max_output_tokens=16)
    with real.responses.stream(model="base-rag", input="What colour is the Alba kettle?", max_output_tokens=16) as events:
        kinds = [event.type for event in events]
        final = events.get_final_response()
    assert final.output_text == whole.output_text and kinds.count("response.output_text.delta") > 1
    assert final.model_extra is not None and whole.model_extra is not None
    assert final.model_extra["sources"] == whole.model_extra["sources"] and len(whole.model_extra["sources"]) == 2


def test_openais_client_gets_json_and_names_what_cannot_be_stored(real: openai.OpenAI) -> None:
    import openai

    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}
    form: Any = {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}}
    found = real.responses.create(model="base", input="Hi", text=form, max_output_tokens=32)
    assert isinstance(json.loads(found.output_text)["a"], bool)
    with pytest.raises(openai.BadRequestError, match="keeps no responses"):
        real.responses.create(model="base", input="Hi", store=True)
