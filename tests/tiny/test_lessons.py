"""The lessons: right answers, turns in order, and trick questions that really have no answer."""

from __future__ import annotations

import re
from itertools import islice
from random import Random
from typing import get_args

import pytest

from llmbench.tiny.lessons import NOT_STATED, Stage, conversations, draw_things, not_stated, unanswerable

STAGES: tuple[Stage, ...] = get_args(Stage)


@pytest.mark.parametrize("stage", STAGES)
def test_turns_alternate_and_begin_with_the_user(stage: Stage) -> None:
    for talk in islice(conversations(stage, 1, budget=800), 100):
        assert [turn["role"] for turn in talk] == ["user", "assistant"] * (len(talk) // 2)


def test_the_same_seed_writes_the_same_lessons() -> None:
    first, again = (list(islice(conversations("long", 9, budget=900), 20)) for _ in range(2))
    assert first == again
    assert first != list(islice(conversations("long", 10, budget=900), 20))


def test_every_value_that_is_asked_for_stands_in_the_passages() -> None:
    asked = 0
    for talk in islice(conversations("long", 2, budget=1500), 200):
        if not talk[0]["content"].startswith("Passages:"):
            continue
        passages = talk[0]["content"].split("\n\nQuestion: ")[0]
        for answer in (turn["content"] for turn in talk if turn["role"] == "assistant"):
            for number in re.findall(r"\d+", answer):
                assert number in passages
                asked += 1
    assert asked > 200


def test_an_unanswerable_question_asks_what_no_passage_tells() -> None:
    rng = Random(3)
    for _ in range(300):
        things = draw_things(rng, 3, "train")
        question = unanswerable(rng, things, "train")
        for thing in things:
            if not re.search(rf"\b{re.escape(thing.name)}\b", question):
                continue
            ways = {ask for fact in thing.facts for ask in fact.attribute.asks}
            assert question not in {way.replace("{n}", thing.the) for way in ways}


def test_passages_often_share_a_name_or_a_noun() -> None:
    rng = Random(4)
    alike = 0
    for _ in range(300):
        words = [word for thing in draw_things(rng, 3, "train") for word in thing.name.split()]
        alike += len(set(words)) < len(words)
    assert alike > 60


def test_what_is_not_stated_is_a_missing_fact_or_a_missing_thing() -> None:
    rng = Random(5)
    kinds = {True: 0, False: 0}
    for _ in range(300):
        things = draw_things(rng, 3, "train")
        thing, attribute = not_stated(rng, things, "train")
        told = {(t.name, fact.attribute.key) for t in things for fact in t.facts}
        assert (thing.name, attribute.key) not in told
        kinds[thing in things] += 1
    assert min(kinds.values()) > 60


def test_an_answer_that_is_asked_to_cite_states_first_what_it_looks_for() -> None:
    told = absent = 0
    for talk in islice(conversations("absence", 6, budget=1500), 300):
        passages = talk[0]["content"].split("\n\n")[0]
        for question, answer in zip(talk[::2], talk[1::2], strict=True):
            if not re.search(r"^(Passages:.*Question: )?Cite: ", question["content"], re.DOTALL):
                continue
            value = answer["content"].split(" is ", 1)[1].removesuffix(".")
            if value == NOT_STATED:
                absent += 1
            else:
                told += 1
                assert value.rsplit(" [", 1)[0] in passages or value in passages
    assert told > 500
    assert absent > 400
