"""Answers with passages, and citations that point to no passage."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from llmbench import retrieval
from llmbench.endpoint import Delta, Message, Reply
from llmbench.recipe import RagRecipe
from llmbench.retrieval import Citations, Retriever, ask, check_citations


class Echo:
    """An endpoint that answers with the prompt it was given."""

    def __init__(self, sources: tuple[dict[str, Any], ...] = ()) -> None:
        self.sources = sources

    async def models(self) -> list[str]:
        return ["echo"]

    async def chat(self, messages: Sequence[Message], model: str, *, max_tokens: int | None = None) -> Reply:
        return Reply(messages[-1]["content"], model, 0.0, sources=self.sources)

    async def stream(self, messages: Sequence[Message], model: str, *, max_tokens: int | None = None) -> AsyncIterator[Delta]:
        for line in messages[-1]["content"].splitlines():
            yield Delta(text=line)
        yield Delta(reply=await self.chat(messages, model), sources=self.sources)


async def test_the_model_reads_the_passages_and_the_reply_carries_them(recipe: RagRecipe) -> None:
    retrieval.build(recipe)
    question = [{"role": "user", "content": "What is the Borin lamp made of?"}]
    with Retriever.open(recipe) as retriever:
        first, *_, last = [delta async for delta in ask(retriever, Echo(), question, "echo")]
        assert first.sources[0]["source"] == "lamp.md" and not first.text
        assert last.reply is not None and last.reply.sources == first.sources
        assert "[1] The Borin lamp is made of brass." in last.reply.text
        own = ({"n": 1, "source": "elsewhere"},)
        *_, last = [delta async for delta in ask(retriever, Echo(own), question, "echo")]
        assert last.reply is not None and last.reply.sources == own


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
