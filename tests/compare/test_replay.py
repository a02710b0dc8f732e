"""Asking again: same bits, same tokens, or drifted, with the first difference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from llmbench import compare
from llmbench.compare.answers import Answer
from llmbench.compare.replay import verdict_of
from llmbench.endpoint import Delta, Reply
from llmbench.errors import EndpointError, LlmbenchError
from llmbench.recipe import CompareRecipe

Document = Callable[..., CompareRecipe]


class Spelling:
    """An endpoint with log-probabilities, which are off by `noise`."""

    def __init__(self, fake: Any) -> None:
        self.fake, self.noise = fake, 0.0

    async def listing(self) -> list[dict[str, Any]]:
        return list(self.fake.entries)

    async def stream(self, messages: Any, model: str, *, max_tokens: int | None = None, options: Any = None) -> Any:
        text = self.fake.answer(model, messages[-1]["content"])
        told = tuple((word, -0.1 - self.noise) for word in text.split(" ")) if (options or {}).get("logprobs") else ()
        yield Delta(reply=Reply(text, model, latency=0.1, completion_tokens=len(text.split(" ")), logprobs=told))


def test_the_same_answers_are_the_same_bits_or_at_least_the_same_tokens(fake: Any, document: Document) -> None:
    spelling = Spelling(fake)
    asked = document("variants=[base, adapter]", "logprobs=true")
    compare.run(asked, endpoint=spelling)
    found = compare.replay(asked, endpoint=spelling)
    assert [(one.variant, one.same_bits, one.state) for one in found.variants] == [
        ("base", 16, "same bits"),
        ("adapter", 16, "same bits"),
    ]
    spelling.noise = 1e-9
    found = compare.replay(asked, endpoint=spelling)
    assert [(one.same_tokens, one.state) for one in found.variants] == [(16, "same tokens")] * 2
    assert found.holds


def test_one_answer_that_came_otherwise_is_shown_with_what_has_changed(fake: Any, document: Document) -> None:
    asked = document("variants=[base, adapter]")
    before = compare.run(asked, endpoint=fake)
    calm = fake.answer
    fake.answer = lambda v, q: "It weighs 8 grams [1]." if (v, q) == ("adapter", "How heavy is kettle 3?") else calm(v, q)
    fake.entries[2]["fingerprint"] = "f2"
    found = compare.replay(asked, endpoint=fake)
    assert (found.holds, found.with_bits) == (False, False)
    assert [(one.variant, one.same_tokens, one.drifted) for one in found.variants] == [("base", 16, 0), ("adapter", 15, 1)]
    one = found.variants[1]
    assert one.first is not None
    assert (one.first.id, one.first.at, one.first.before[10], one.first.now[10]) == ("q3", 10, "9", "8")
    assert one.changed == ("model: none -> f2",)
    assert compare.load("kettles") == before, "nothing was written"


def test_a_replay_asks_only_for_what_was_answered(fake: Any, document: Document) -> None:
    compare.run(document("questions.limit=4"), endpoint=fake)
    fake.asked.clear()
    compare.replay(document(), endpoint=fake)
    assert len(fake.asked) == 16


def test_a_failure_is_no_answer(fake: Any, document: Document) -> None:
    asked = document("variants=[base]", "questions.limit=2")
    compare.run(asked, endpoint=fake)

    def gone(variant: str, question: str) -> str:
        raise EndpointError("http://127.0.0.1:1/v1 answered 500: out of memory", status=500)

    fake.answer = gone
    found = compare.replay(asked, endpoint=fake)
    assert (found.holds, found.variants[0].state) == (False, "failed")


def test_what_was_never_asked_cannot_be_replayed(fake: Any, document: Document) -> None:
    with pytest.raises(LlmbenchError, match=r"kettles has no answers to these questions yet\. Ask first: llmbench compare"):
        compare.replay(document(), endpoint=fake)
    assert fake.asked == []


OLD = Answer("q", "v", "k", text="a b", completion_tokens=2, bits="b1", tokens="t1")


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (OLD, "same bits"),
        (replace(OLD, bits="b2"), "same tokens"),
        (replace(OLD, bits="", tokens=""), "same tokens"),
        (replace(OLD, bits="b2", tokens="t2"), "drifted"),
        (replace(OLD, text="a c"), "drifted"),
        (replace(OLD, completion_tokens=3), "drifted"),
        (replace(OLD, tool_calls=({"id": "1"},)), "drifted"),
        (replace(OLD, turns=("x", "a b")), "drifted"),
        (replace(OLD, error="gone"), "failed"),
    ],
)
def test_two_answers_are_judged_by_all_that_they_say(now: Answer, state: str) -> None:
    assert verdict_of(OLD, now) == state
