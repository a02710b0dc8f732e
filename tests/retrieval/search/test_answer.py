"""Answers with passages, and citations that point to no passage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from llmbench import retrieval
from llmbench.endpoint import Delta, Message, Reply
from llmbench.message import text_of
from llmbench.recipe import RagRecipe
from llmbench.retrieval import Citations, Retriever, ask, check_citations


class Echo:
    """An endpoint that answers with the prompt it was given."""

    def __init__(self, sources: tuple[dict[str, Any], ...] = ()) -> None:
        self.sources = sources

    async def models(self) -> list[str]:
        return ["echo"]

    async def chat(self, messages: Sequence[Message], model: str, *, max_tokens: int | None = None) -> Reply:
        return Reply(text_of(messages[-1]), model, 0.0, sources=self.sources)

    async def stream(self, messages: Sequence[Message], model: str, *, max_tokens: int | None = None) -> AsyncIterator[Delta]:
        for line in text_of(messages[-1]).splitlines():
            yield Delta(text=line)
        yield Delta(reply=await self.chat(messages, model), sources=self.sources)


async def test_the_model_reads_the_passages_and_the_reply_carries_them(recipe: RagRecipe) -> None:
    retrieval.build(recipe)
    question: list[Message] = [{"role": "user", "content": "What is the Borin lamp made of?"}]
    with Retriever.open(recipe) as retriever:
        first, *_, last = [delta async for delta in ask(retriever, Echo(), question, "echo")]
        assert first.sources[0]["source"] == "lamp.md" and not first.text
        assert last.reply is not None and last.reply.sources == first.sources
        assert "[1] The Borin lamp is made of brass." in last.reply.text
        own = ({"n": 1, "source": "elsewhere"},)
        *_, last = [delta async for delta in ask(retriever, Echo(own), question, "echo")]
        assert last.reply is not None and last.reply.sources == own


class Narrow:
    """A served model that takes so many words and line ends."""

    def __init__(self, words: int) -> None:
        self.words = words

    def count(self, text: str) -> int:
        return len(text.split()) + text.count("\n")

    def excess(self, messages: Sequence[Message]) -> int:
        return sum(self.count(text_of(message)) for message in messages) - self.words


def test_passages_give_way_to_what_the_model_has_room_for(recipe: RagRecipe) -> None:
    retrieval.build(recipe)
    question: list[Message] = [{"role": "user", "content": "What is the Borin lamp made of?"}]
    with Retriever.open(recipe) as retriever:
        whole = retriever.ground(question)
        size, kept = Narrow(0).excess(whole.messages), list[int]()
        for room in range(size, 0, -1):
            grounded = retriever.ground(question, budget=Narrow(room))
            kept.append(sum(len(source["text"].split()) for source in grounded.sources))
            if grounded.sources:
                assert Narrow(room).excess(grounded.messages) <= 0
            else:
                assert "(There was no room for a passage.)" in grounded.messages[-1]["content"]
    assert retriever.recipe.context.max_tokens is None
    assert kept[0] == sum(len(source["text"].split()) for source in whole.sources) > kept[-1] == 0
    assert kept == sorted(kept, reverse=True) and len(set(kept)) > 2


@pytest.mark.parametrize(
    ("text", "valid", "invalid"),
    [
        ("It is brass [1].", (1,), ()),
        ("Brass [2][1], [2] again.", (2, 1), ()),
        ("Brass [1, 3].", (1,), (3,)),
        ("Brass [0] [7].", (), (0, 7)),
        ("Brass [one], a[12345], (1).", (), ()),
    ],
)
def test_citations_are_checked_against_the_sources(text: str, valid: tuple[int, ...], invalid: tuple[int, ...]) -> None:
    assert check_citations(text, [{"n": 1}, {"n": 2}]) == Citations(valid, invalid)
