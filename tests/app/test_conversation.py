"""Sides, turns, and what a browser keeps of them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
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


def test_a_vote_is_kept_and_a_turn_of_before_there_were_votes_is_read(conversation: Any) -> None:
    turn = conversation.Turn("q", "m", text="a", vote=False)
    turn.take(Delta(reply=Reply("a", "m", latency=1.0, request_id="r1")))
    stored = json.loads(json.dumps(turn.stored()))
    again = conversation.Turn.restored(stored)
    assert again.vote is False and again.reply.request_id == "r1"
    del stored["vote"], stored["figures"][-1]
    again = conversation.Turn.restored(stored)
    assert again.vote is None and again.reply.request_id == "" and again.reply.latency == 1.0


def test_a_turn_that_was_running_comes_back_stopped(conversation: Any) -> None:
    turn = conversation.Turn("q", "m", text="so f")
    assert conversation.Turn.restored(turn.stored()).stopped


@pytest.mark.parametrize(
    "stored", [None, 3, "x", [], {}, {"url": 1, "shown": [0], "sides": []}, {"url": "u", "shown": ["x"], "sides": [{}] * 4}]
)
def test_what_no_session_wrote_is_no_session(conversation: Any, stored: Any) -> None:
    with pytest.raises(ValueError, match="not a conversation"):
        conversation.Session.restored(stored, "http://127.0.0.1:1/v1")


def test_a_conversation_follows_the_app_to_another_endpoint_unless_one_was_chosen(conversation: Any) -> None:
    stored = conversation.Session(url="http://127.0.0.1:1/v1", given="http://127.0.0.1:1/v1").stored()
    assert conversation.Session.restored(stored, "http://127.0.0.1:2/v1").url == "http://127.0.0.1:2/v1"
    chosen = conversation.Session(url="http://else/v1", given="http://127.0.0.1:1/v1").stored()
    assert conversation.Session.restored(chosen, "http://127.0.0.1:2/v1").url == "http://else/v1"


def test_reasoning_is_folded_away_from_the_answer_and_never_sent_back(conversation: Any) -> None:
    turn = conversation.Turn("one?", "m")
    for piece in ("<think>\nLet ", "me reason.\n</think>", "\n\n42"):
        turn.take(Delta(text=piece))
    assert (turn.answer, turn.reasoning) == ("42", "Let me reason.")
    assert turn.thought_seconds is not None
    apart = conversation.Turn("two?", "m")
    for delta in (Delta(reasoning="Hm."), Delta(text="7")):
        apart.take(delta)
    assert (apart.answer, apart.reasoning) == ("7", "Hm.")
    sent = conversation.Side("m", [turn, apart]).messages("three?")
    assert [message["content"] for message in sent] == ["one?", "42", "two?", "7", "three?"]
    again = conversation.Turn.restored(json.loads(json.dumps(apart.stored())))
    assert (again.answer, again.reasoning, again.thought_seconds) == ("7", "Hm.", apart.thought_seconds)


def test_halves_of_a_character_are_put_together(conversation: Any) -> None:
    turn = conversation.Turn("q", "m")
    for piece in ("\ud83d", "\ude00"):
        turn.take(Delta(text=piece))
    assert turn.text == "\U0001f600"


def test_a_side_says_what_it_has_not_seen(conversation: Any) -> None:
    one, two = answered(conversation, "one?", "1"), answered(conversation, "two?", "2")
    late, whole = conversation.Side("m"), conversation.Side("m", [one, two])
    assert late.note(whole.seen) == "has not seen 2 earlier questions"
    assert conversation.Side("m", [two]).note(whole.seen) == "has not seen the first question"
    assert whole.note(whole.seen) == ""
    assert conversation.Side("other", [one, two]).note(whole.seen) == "was sent earlier answers by m"


def test_a_conversation_is_kept_and_one_that_cannot_be_says_so(
    program: ModuleType, conversation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = importlib.import_module("llmbench_app.archive")
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path))
    key = "0" * 32
    session, problem = archive.read(key, "http://127.0.0.1:1/v1")
    assert problem == ""
    session.sides[0].turns.append(answered(conversation, "half \ud83d?", "1"))
    assert archive.write(session) == ""
    assert archive.read(key, "u")[0].sides[0].turns[0].question == "half \ud83d?"
    assert not archive.read("../../etc/passwd", "u")[0].id
    archive.forget(key)
    assert not list((tmp_path / "conversations").iterdir())
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "file" / "x"))
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert "is not saved" in archive.write(session)
    opened, problem = archive.read(key, "u")
    assert not opened.sides[0].turns and "is not saved" in problem


@pytest.mark.parametrize("text", ["{", '{"url": "", "shown": [0, 1], "sides": [{"model": "m", "talk": []}]}', "\x00"])
def test_a_conversation_that_cannot_be_read_is_kept_under_another_name(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    archive = importlib.import_module("llmbench_app.archive")
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path))
    key, folder = "0" * 32, tmp_path / "conversations"
    folder.mkdir()
    for n in (1, 2):
        (folder / f"{key}.json").write_text(f"{text}{n}", encoding="utf-8")
        session, problem = archive.read(key, "u")
        aside = folder / f"{key}.unreadable-{n}"
        assert not session.talking and str(aside) in problem
        assert archive.write(session) == "" and aside.read_text(encoding="utf-8") == f"{text}{n}"


def test_a_question_that_is_asked_again_is_not_missed_by_itself(conversation: Any) -> None:
    session = conversation.Session(shown=[0, 1])
    for side in session.sides[:2]:
        side.model, side.turns = "m", [conversation.Turn(question, "m", text="Yes.") for question in ("One?", "Two?")]
    session.sides[0].turns.pop()
    assert session.sides[0].note(session.seen_before("Two?")) == ""
    assert session.sides[0].note(session.seen_before("Three?")) == "has not seen question 2"
