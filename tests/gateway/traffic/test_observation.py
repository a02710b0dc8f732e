"""What an exchange says about each guard-rail, and which exchanges say nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmbench.gateway.exchange import Exchange
from llmbench.gateway.traffic.observation import observed

PHRASE = r"\bnot stated\b|don.t know"


def answered(text: str, **more: Any) -> Exchange:
    exchange = Exchange("/v1/chat/completions", arm="new", unit="u", status=200, seconds=2.0, keeps=True)
    exchange.body = [json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}).encode()]
    for name, value in more.items():
        setattr(exchange, name, value)
    return exchange


def streamed(*events: dict[str, Any], **more: Any) -> Exchange:
    body = [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]
    return answered("", stream=True, first=0.25, body=body, **more)


SAYS = {"choices": [{"index": 0, "delta": {"content": "Red."}, "finish_reason": "stop"}]}


def test_an_answer_has_a_length_and_no_error() -> None:
    assert observed(answered(" Red. "), PHRASE) == {"errors": 0, "seconds": 2.0, "length": 4, "abstention": 0}


def test_a_stream_has_a_first_token() -> None:
    assert observed(streamed(SAYS), PHRASE) == {"errors": 0, "first_token": 0.25, "length": 4, "abstention": 0}


def test_an_empty_answer_is_an_error_unless_it_calls_a_tool() -> None:
    assert observed(answered(""), PHRASE) == {"errors": 1, "seconds": 2.0}
    call = {"choices": [{"message": {"content": None, "tool_calls": [{}]}, "finish_reason": "tool_calls"}]}
    assert observed(answered("", body=[json.dumps(call).encode()]), PHRASE) == {"errors": 0, "seconds": 2.0}


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("The kettle is red [1].", 0.0),
        ("It weighs 300 grams [1].", 0.0),
        ("The kettle is red.", 1.0),
        ("The kettle is red [2].", 1.0),
        ("The kettle is red [1][2].", 1.0),
        ("It weighs 400 grams [1].", 1.0),
        ("Refunds take many working days [1].", 1.0),
        ("That is Not Stated.", 0.0),
        ("I don\u2019t know.", 0.0),
    ],
)
def test_citations_hold_where_they_name_passages_that_say_so(text: str, bad: float) -> None:
    sources = [{"n": 1, "text": "The Alba kettle is red. It weighs 300 grams."}]
    values = observed(answered(text, sources=sources, conversation=[{"role": "user", "content": "And the kettle?"}]), PHRASE)
    assert values is not None and values["citations"] == bad
    assert values["abstention"] == ("Not Stated" in text or "know" in text)
    assert "citations" not in (observed(answered(text, sources=[]), PHRASE) or {})


@pytest.mark.parametrize(
    ("more", "values"),
    [
        ({"status": 500}, {"errors": 1.0}),
        ({"status": 502, "error": "engine_error"}, {"errors": 1.0}),
        ({"status": 503, "error": "retrieval_unavailable"}, {"errors": 1.0}),
        ({"status": 503, "error": "engine_unavailable"}, None),
        ({"status": 503}, None),
        ({"status": 503, "error": "server_overloaded"}, None),
        ({"status": 503, "error": "keys_unavailable"}, None),
        ({"status": 504, "error": "request_timeout"}, None),
        ({"status": 504, "error": "request_timeout", "engine_at": 0.1}, {"errors": 1.0}),
        ({"status": 429, "error": "rate_limit_exceeded"}, None),
        ({"status": 400}, None),
        ({"status": 499}, None),
        ({"arm": None}, None),
        ({"path": "/tokenize"}, None),
        ({"path": "/detokenize"}, None),
    ],
)
def test_what_is_nobody_s_fault_is_no_observation(more: dict[str, Any], values: dict[str, float] | None) -> None:
    assert observed(answered("Red.", **more), PHRASE) == values


def test_a_stream_that_breaks_is_an_error_and_one_whose_client_left_is_not() -> None:
    assert observed(streamed(SAYS, broken=True), PHRASE) == {"first_token": 0.25}
    failed = {"error": {"message": "no", "code": None}}
    assert observed(streamed(SAYS, failed, broken=True), PHRASE) == {"errors": 1.0, "first_token": 0.25}
    gone = {"error": {"message": "no", "code": "engine_unavailable"}}
    assert observed(streamed(SAYS, gone, broken=True), PHRASE) is None


def test_an_answer_of_another_shape_counts_as_one() -> None:
    assert observed(answered("", body=[b'{"output": []}']), PHRASE) == {"errors": 0.0}
