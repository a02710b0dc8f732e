"""What a served model has room for, counted by vLLM itself: with the model's own tokenizer and chat template."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from llmbench.gateway.relay import Upstream
from llmbench.gateway.words import too_long
from llmbench.message import Message, images_of

__all__ = ["Room", "most_tokens"]

TEMPLATE = 512
"""Tokens that a chat template may add around a conversation without vLLM being asked how many they are."""
MESSAGE = 16
"""And around each message."""


class Room:
    """The budget of one request. Its plain methods are for another thread than the event loop's, and wait for vLLM.

    Args:
        upstream: where vLLM answers.
        model: what it calls the model.
        context: tokens that the model takes, prompt and answer together.
        answer: tokens that the answer may have; at most a quarter of the context is kept for it.
        prepared: what the gateway does to the messages before they are sent.
        fields: the request's others, of which the template writes the tools and sees its variables.
    """

    def __init__(
        self,
        upstream: Upstream,
        model: str,
        *,
        context: int,
        answer: int,
        prepared: Callable[[list[Message]], list[Message]],
        fields: dict[str, Any],
    ) -> None:
        self._upstream, self._model, self._prepared = upstream, model, prepared
        self._context = context
        self._room = context - min(answer, context // 4)
        self._template: dict[str, Any] = {key: fields[key] for key in ("tools", "chat_template_kwargs") if key in fields}
        self._loop = asyncio.get_running_loop()
        self.count = lru_cache(maxsize=None)(self._count)

    async def refuse_too_long(self, messages: Sequence[Message]) -> None:
        """Refuses, before documents are searched for it, a conversation that does not fit even without a passage.

        Raises:
            Refusal: status 400.
        """
        sent, most = self._most(messages)
        if self._template or most > self._context:
            count = await self._upstream.tokens({"model": self._model, "messages": sent, **self._template})
            if count >= self._context:
                raise too_long(self._context, f"{count:,}")

    def excess(self, messages: Sequence[Message]) -> int:
        """How many tokens a conversation is over the room; 0 or less where it fits."""
        sent, most = self._most(messages)
        if not self._template and most <= self._room:
            return most - self._room
        return self._ask({"messages": sent, **self._template}) - self._room

    def _most(self, messages: Sequence[Message]) -> tuple[list[Message], int]:
        """A conversation as it is sent, and how many tokens it has at most."""
        sent = self._prepared([message.copy() for message in messages])
        return sent, most_tokens(sent)

    def _count(self, text: str) -> int:
        return self._ask({"prompt": text, "add_special_tokens": False})

    def _ask(self, body: dict[str, Any]) -> int:
        return asyncio.run_coroutine_threadsafe(self._upstream.tokens({"model": self._model, **body}), self._loop).result()


def most_tokens(messages: Sequence[Message]) -> int:
    """How many tokens a conversation has at most, without tools and variables of the template.

    No token is shorter than a byte: most conversations with a model of a long context are known to fit without asking. Not
    those with images, whose bytes say nothing about their tokens.
    """
    if any(images_of(message) for message in messages):
        return sys.maxsize
    return TEMPLATE + sum(MESSAGE + len(json.dumps(message, ensure_ascii=False).encode()) for message in messages)
