"""Which engine should have a request: what stays together, and what moves when engines come and go."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from llmbench.gateway.affinity import BEGINNING, beginning_of, ranked


def chat(*texts: str, system: str | None = None, **fields: Any) -> dict[str, Any]:
    """A conversation of user and assistant in turns."""
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages += [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return {"model": "base", "messages": messages} | fields


def keys(count: int) -> list[bytes]:
    return [beginning_of(chat(f"Question {number}")) for number in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_an_engine_that_leaves_or_comes_moves_its_share_and_no_other(seed: int) -> None:
    draw = random.Random(seed)
    engines = [f"http://10.0.{draw.randrange(256)}.{number}:{draw.randrange(1, 65536)}" for number in range(draw.randint(2, 9))]
    gone = draw.choice(engines)
    left = [one for one in engines if one != gone]
    draw.shuffle(left)
    for key in keys(300):
        before = ranked(key, engines)
        assert sorted(before) == sorted(engines)
        assert ranked(key, left) == [one for one in before if one != gone]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_every_engine_has_the_same_share_and_hands_it_to_all_others(count: int) -> None:
    engines = [f"http://10.0.0.{number}:8001" for number in range(count)]
    orders = [ranked(key, engines) for key in keys(6000)]
    first = Counter(order[0] for order in orders)
    # Of 6,000 draws, five standard deviations of a binomial count are less than 200.
    assert all(abs(first[one] - 6000 / count) < 200 for one in engines)
    if count > 2:
        heirs = Counter(order[1] for order in orders if order[0] == engines[0])
        assert all(abs(heirs[one] - first[engines[0]] / (count - 1)) < 200 for one in engines[1:])


def test_a_conversation_that_grows_stays_where_it_was() -> None:
    texts = [f"turn {number} " * 40 for number in range(9)]
    grown = {beginning_of(chat(*texts[:length], system="Be brief.")) for length in range(1, 10)}
    assert len(grown) == 1


def test_questions_about_the_same_passages_meet() -> None:
    passages = "Passages:\n[1] The Alba kettle is red. " + "It weighs 300 grams. " * 60
    assert len(passages) > BEGINNING
    one, other = (
        beginning_of(chat(f"{passages}\n\nQuestion: {text}", system="Cite.")) for text in ("How heavy?", "Which colour?")
    )
    assert one == other
    assert one != beginning_of(chat(f"Passages:\n[1] Borin. {passages}", system="Cite."))


@pytest.mark.parametrize(
    "other",
    [
        chat("Hello", model="a" * 16),
        chat("Hello!"),
        chat("Hello", system="x" * 3000 + "y"),
        chat("Hello", tools=[{"type": "function", "function": {"name": "f"}}]),
        {"model": "base", "prompt": "Hello"},
    ],
)
def test_what_is_computed_anew_from_the_start_is_spread(other: dict[str, Any]) -> None:
    assert beginning_of(other) != beginning_of(chat("Hello"))
    longer = chat("Hello", system="x" * 3001)
    assert beginning_of(other) != beginning_of(longer)


def test_what_comes_after_the_prompt_does_not_count() -> None:
    assert beginning_of(chat("Hello", temperature=1, max_tokens=9, stream=True)) == beginning_of(chat("Hello"))


def test_images_count_by_their_own_bytes() -> None:
    def of(image: str) -> bytes:
        part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'iVBORw0KGgo' * 400}{image}"}}
        return beginning_of(
            {"model": "m", "messages": [{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}]}
        )

    assert of("AAAA") == of("AAAA") != of("BBBB")


@pytest.mark.parametrize(
    ("prompt", "same"),
    [
        ("x" * BEGINNING + "one", "x" * BEGINNING + "two"),
        ([7] * BEGINNING + [1], [7] * BEGINNING + [2]),
        (["shots", "a"], ["shots", "b"]),
        ([[5, 6], [7]], [[5, 6], [8]]),
    ],
)
def test_texts_that_begin_alike_meet(prompt: Any, same: Any) -> None:
    key = beginning_of({"model": "base", "prompt": prompt})
    assert key == beginning_of({"model": "base", "prompt": same})
    assert key != beginning_of({"model": "base", "prompt": "y"})
