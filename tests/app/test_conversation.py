"""Sides, turns, and what a browser keeps of them."""

from __future__ import annotations

import importlib
import json
from types import ModuleType
from typing import Any

import pytest

from llmbench.endpoint import Delta, Reply


@pytest.fixture
def conversation(program: ModuleType) -> Any:
    return importlib.import_module("llmbench_app.conversation")


def answered(conversation: Any, question: str, text: str) -> Any:
    turn = conversation.Turn(question, "m")
    turn.take(Delta(sources=({"n": 1, "text": "t", "source": "s.md", "title": "T", "score": 0.5},)))
    turn.take(Delta(text=text, reply=Reply(text, "m", latency=1.0, first_token=0.5, completion_tokens=3)))
    return turn


def test_a_side_remembers_its_own_conversation(conversation: Any) -> None:
    failed = conversation.Turn("broken?", "m", error="down")
    side = conversation.Side("m", [answered(conversation, "one?", "1"), failed])
    assert side.messages("two?", "Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "two?"},
    ]


def test_two_sides_start_with_the_first_and_the_last_variant(conversation: Any) -> None:
    session = conversation.Session()
    session.choose(["base", "base-rag", "adapter", "adapter-rag"])
    assert [side.model for side in session.sides] == ["base", "adapter-rag", "base-rag", "adapter"]


def test_a_choice_outlives_a_new_connection_where_it_is_on_offer(conversation: Any) -> None:
    session = conversation.Session()
    session.choose(["a", "b", "c"])
    session.sides[0].model = "c"
    session.choose(["b", "c"])
    assert session.sides[0].model == "c"
    session.choose([])
    assert {side.model for side in session.sides} == {""}


def test_a_session_survives_the_browser_without_its_key(conversation: Any) -> None:
    session = conversation.Session(url="http://127.0.0.1:1/v1", api_key="secret", shown=[0, 2])
    session.sides[2].turns.append(answered(conversation, "one?", "1"))
    stored = json.loads(json.dumps(session.stored()))
    assert "secret" not in json.dumps(stored)
    again = conversation.Session.restored(stored, "http://else/v1")
    assert (again.url, again.shown) == (session.url, [0, 2])
    assert again.stored() == stored
    assert again.sides[2].turns[0].reply.completion_tokens == 3


def test_a_turn_that_was_running_comes_back_stopped(conversation: Any) -> None:
    turn = conversation.Turn("q", "m", text="so f")
    assert conversation.Turn.restored(turn.stored()).stopped


@pytest.mark.parametrize(
    "stored", [None, 3, "x", [], {}, {"url": 1, "shown": [0], "sides": []}, {"url": "u", "shown": ["x"], "sides": [{}] * 4}]
)
def test_what_no_session_wrote_starts_a_new_one(conversation: Any, stored: Any) -> None:
    session = conversation.Session.restored(stored, "http://127.0.0.1:1/v1")
    assert session.url == "http://127.0.0.1:1/v1"
    assert session.shown == [0, 1] and not session.talking
