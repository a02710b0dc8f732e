"""The tiny model's language: names that never meet, facts that can be asked for, pages that tell them."""

from __future__ import annotations

from random import Random

import pytest

from llmbench.tiny.language import ATTRIBUTES, CUSTOMERS, Kind, draw_thing, name, split_of, write_passage

KINDS: tuple[Kind, ...] = ("product", "plan", "shop", "policy")


def test_training_names_and_held_out_names_never_meet() -> None:
    rng = Random(1)
    trained = {name(rng, "train") for _ in range(4000)}
    held_out = {name(rng, "held_out") for _ in range(4000)}
    assert not trained & held_out
    assert {split_of(word) for word in held_out} == {"held_out"}


def test_there_are_too_many_names_to_memorise() -> None:
    rng = Random(2)
    assert len({name(rng, "train") for _ in range(4000)}) > 3000


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_tells_every_fact_of_its_thing(kind: Kind) -> None:
    rng = Random(3)
    for _ in range(50):
        thing = draw_thing(rng, "held_out", kind=kind)
        page = write_passage(thing, rng)
        assert all(fact.value in page for fact in thing.facts)
        assert thing.name in page.split(".")[0]


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_of_asking_names_the_thing_and_leaves_no_gap(kind: Kind) -> None:
    rng = Random(4)
    thing = draw_thing(rng, "train", kind=kind)
    for attribute in ATTRIBUTES[kind]:
        for _ in range(20):
            for question in (thing.ask(attribute, rng), thing.ask_as_customer(attribute, rng)):
                assert thing.name in question
                assert "{" not in question


def test_an_answer_is_one_sentence_with_the_value() -> None:
    thing = draw_thing(Random(5), "train", kind="product")
    for fact in thing.facts:
        answer = thing.answer(fact)
        assert fact.value in answer
        assert answer.endswith(".")
        assert answer[0].isupper()


def test_missing_attributes_are_those_that_no_fact_tells() -> None:
    thing = draw_thing(Random(6), "train", kind="plan")
    told = {fact.attribute.key for fact in thing.facts}
    assert told | {attribute.key for attribute in thing.missing()} == {attribute.key for attribute in ATTRIBUTES["plan"]}
    assert not told & {attribute.key for attribute in thing.missing()}


def test_customers_ask_for_everything_in_ways_that_the_base_model_never_met() -> None:
    attributes = [attribute for kind in KINDS for attribute in ATTRIBUTES[kind]]
    assert set(CUSTOMERS) == {attribute.key for attribute in attributes}
    assert not {way for ways in CUSTOMERS.values() for way in ways} & {way for a in attributes for way in a.asks}
