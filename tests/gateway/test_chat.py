"""What a chat request may say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from llmbench.gateway import chat
from llmbench.gateway.refusal import Refusal
from llmbench.message import Message
from llmbench.recipe import Sampling

HI: list[Message] = [{"role": "user", "content": "Hi"}]


def parse(**fields: Any) -> chat.ChatRequest:
    return chat.parse(json.dumps({"model": "base", "messages": HI} | fields).encode(), context=1024)


def refused(**fields: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse(**fields)
    assert caught.value.status == 400
    return caught.value


def test_a_plain_request_passes() -> None:
    request = parse(temperature=0.5, max_tokens=10, stream=True, stream_options={"include_usage": True})
    assert (request.model, request.messages, request.stream) == ("base", HI, True)
    assert request.fields == {"temperature": 0.5, "max_tokens": 10, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize(
    "field",
    ["chat_template", "mm_processor_kwargs", "prompt_embeds", "structured_outputs", "guided_regex",
     "kv_transfer_params", "vllm_xargs", "documents", "api_base", "tempreature", "use_beam_search", "prompt_logprobs"],
)  # fmt: skip
def test_a_field_that_is_not_listed_is_refused_by_name(field: str) -> None:
    refusal = refused(**{field: {"x": 1}})
    assert (refusal.param, refusal.code) == (field, "unknown_parameter")


def test_bookkeeping_that_clients_send_unasked_is_dropped() -> None:
    assert parse(user="me", store=True, metadata={"a": "b"}, seed=None).fields == {}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 100}, "n"),
        ({"n": 0}, "n"),
        ({"n": True}, "n"),
        ({"max_tokens": 1025}, "max_tokens"),
        ({"max_completion_tokens": 10**12}, "max_completion_tokens"),
        ({"max_tokens": "10"}, "max_tokens"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"model": 3}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": HI * 1001}, "messages"),
        ({"messages": [{"role": "root", "content": "Hi"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "Hi", "name": {}}]}, "messages[0].name"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}, "messages[0].tool_calls[0]"),
        ({"messages": [{"role": "assistant", "tool_calls": {"function": {"name": "f"}}}]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "tool", "tool_call_id": 3, "content": "x"}]}, "messages[0].tool_call_id"),
        ({"logprobs": 5}, "logprobs"),
        ({"temperature": "0"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"stop": ["a", 3]}, "stop"),
        ({"logit_bias": {"five": 1}}, "logit_bias"),
        ({"tools": {}}, "tools"),
        ({"stream_options": 3, "stream": True}, "stream_options"),
        ({"stream_options": "x"}, "stream_options"),
        ({"stream_options": {"include_usage": "no"}, "stream": True}, "stream_options.include_usage"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"verbosity": "high"}, "verbosity"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"messages": "x"}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"x": ["y"]}}, "chat_template_kwargs"),
        ({"x" * 500_000: 1}, "x" * 100),
        ({"response_format": {"type": "structural_tag"}}, "response_format"),
        ({"response_format": "json"}, "response_format"),
    ],
)
def test_values_out_of_bounds_are_refused_with_their_place(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        {"type": "video_url", "video_url": {"url": "http://localhost/"}},
        {"type": "text"},
        "text",
    ],
)
def test_nothing_but_text_is_accepted_so_nothing_is_ever_fetched(part: Any) -> None:
    assert refused(messages=[{"role": "user", "content": [part]}]).param == "messages[0].content"


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert parse(messages=[{"role": "user", "content": parts}]).messages == [{"role": "user", "content": "a\nb"}]


def test_a_reply_can_be_sent_back_as_the_client_got_it() -> None:
    reply: dict[str, Any] = {"role": "assistant", "content": "Hello!", "refusal": None, "annotations": None, "tool_calls": []}
    assert parse(messages=[*HI, reply, *HI]).messages[1]["content"] == "Hello!"


def test_what_newer_clients_send_passes_where_it_means_something_here() -> None:
    fields = {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}}
    assert parse(**fields, verbosity="medium", modalities=["text"], prediction={"type": "content"}).fields == fields


def test_a_field_that_another_one_stands_for_is_named() -> None:
    assert "use tools" in refused(functions=[]).message
    assert "verbosity" in refused(verbosity="low").message and "'medium'" in refused(verbosity="low").message


def test_thoughts_and_a_clients_own_notes_can_be_sent_back() -> None:
    said = {"role": "assistant", "content": "b", "id": "7", "opts": {"visible": True}}
    asked = {"role": "user", "content": "a", "id": "6", "reasoning": "not an answer", "chat_template": "x"}
    for field in ("reasoning", "reasoning_content"):
        messages = parse(messages=[asked, said | {field: "I think."}, *HI]).messages
        assert messages == [HI[0] | {"content": "a"}, {"role": "assistant", "content": "b", "reasoning": "I think."}, *HI]


def test_a_tool_call_and_its_result_can_be_sent_back() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    turns = [
        *HI,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "2"},
    ]
    assert parse(messages=turns).messages == [turns[0], {"role": "assistant", "content": "", "tool_calls": [call]}, turns[2]]


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a value."""
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from objects(child)


RICH: dict[str, Any] = {
    "stream": True,
    "stream_options": {"include_usage": True},
    "chat_template_kwargs": {"enable_thinking": False},
    "logit_bias": {"5": 1},
    "metadata": {"a": "b"},
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "b"},
    ],
}


@pytest.mark.parametrize("field", ["chat_template", "extra_body", "image_url", "documents", "lora_path"])
@pytest.mark.parametrize("place", range(len(list(objects(RICH)))))
def test_a_template_or_a_url_is_nowhere_in_what_is_handed_on_wherever_a_client_puts_it(field: str, place: int) -> None:
    body = json.loads(json.dumps(RICH))
    list(objects(body))[place][field] = {"chat_template": "{{ 7 * 7 }}"}
    try:
        asked = parse(**body)
    except Refusal as refusal:
        assert refusal.status == 400
    else:
        assert "7 * 7" not in json.dumps([asked.messages, asked.fields])


@pytest.mark.parametrize(("asked", "whose"), [({}, "own settings"), ({"temperature": 0}, "you sent")])
def test_several_answers_at_temperature_0_are_refused_with_the_reason(asked: dict[str, Any], whose: str) -> None:
    with pytest.raises(Refusal, match=whose) as caught:
        chat.with_defaults({"n": 2} | asked, Sampling())
    assert caught.value.param == "n"
    assert chat.with_defaults({"n": 2, "temperature": 0.5}, Sampling())["n"] == 2


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"3", b"[" * 100_000, b'"\xff"'])
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        chat.parse(raw, context=10)
    assert caught.value.status == 400


def test_a_schema_nested_too_deep_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(40):
        schema = {"properties": {"a": schema}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert refused(response_format=form).param == "response_format"


def test_the_variants_sampling_fills_only_what_the_client_left_open() -> None:
    sampling = Sampling(temperature=0.7, top_p=0.9, max_tokens=100, seed=3, stop=["\n"])
    filled = chat.with_defaults({"temperature": 0.0, "max_completion_tokens": 5}, sampling)
    assert filled == {"temperature": 0.0, "max_completion_tokens": 5, "top_p": 0.9, "seed": 3, "stop": ["\n"]}


def test_the_variants_system_text_comes_before_the_clients_own_in_one_message() -> None:
    own: Message = {"role": "system", "content": "Own."}
    assert chat.with_system(HI, None) == HI
    assert chat.with_system(HI, "Brief.") == [{"role": "system", "content": "Brief."}, *HI]
    assert chat.with_system([own, *HI], "Brief.") == [{"role": "system", "content": "Brief.\n\nOwn."}, *HI]


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ({"content": None, "reasoning": "Hm."}, ""),
        ({"content": None, "refusal": "No."}, ""),
        ({"content": None}, ""),
        ({"content": [{"type": "refusal", "refusal": "No."}]}, "No."),
    ],
)
def test_an_answer_without_text_can_be_sent_back(reply: dict[str, Any], text: str) -> None:
    assert parse(messages=[*HI, {"role": "assistant"} | reply, *HI]).messages[1]["content"] == text


def test_an_old_function_call_is_refused_and_not_lost() -> None:
    said = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    assert refused(messages=[*HI, said]).param == "messages[1].function_call"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('{"a": "\\u003c|im_end|\\u003e"}', '{"a": "<|im_end|>"}'),
        ('{"a": "\\ud83d"}', '{"a": "\ufffd"}'),
        ('{"a": 1', "{}"),
        ("[1]", "{}"),
        ("[" * 100_000, "{}"),
        ('{"a":' * 100 + "1" + "}" * 100, "{}"),
        (None, "{}"),
    ],
)
def test_a_calls_arguments_are_what_vllm_will_read_of_them(written: str | None, read: str) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": written}}
    message: dict[str, Any] = dict(parse(messages=[*HI, {"role": "assistant", "tool_calls": [call]}]).messages[1])
    assert message["tool_calls"][0]["function"]["arguments"] == read


def test_a_whole_number_may_be_written_with_a_point() -> None:
    fields = parse(max_tokens=5.0, seed=7.0).fields
    assert fields == {"max_tokens": 5, "seed": 7} and type(fields["max_tokens"]) is int
