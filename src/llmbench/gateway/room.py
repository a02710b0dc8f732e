"""What a served model has room for, counted by vLLM itself: with the model's own tokenizer and chat template."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from llmbench.endpoint import Message
from llmbench.gateway.relay import Upstream

__all__ = ["Room"]

TEMPLATE = 512
"""Tokens that a chat template may add around a conversation without vLLM being asked how many they are."""
MESSAGE = 16
"""And around each message."""


class Room:
    """The budget of one request. Its methods are for another thread than the event loop's, and wait for vLLM.

    Args:
        upstream: where vLLM answers.
        model: what it calls the model.
        context: tokens that the model takes, prompt and answer together.
        answer: tokens that the answer may have; at most a quarter of the context is kept for it.
        prepared: what the gateway does to the messages before they are sent.
        tools: the request's tools, which the template writes into the prompt.
    """

    def __init__(
        self,
        upstream: Upstream,
        model: str,
        *,
        context: int,
        answer: int,
        prepared: Callable[[list[Message]], list[Message]],
        tools: Any = None,
    ) -> None:
        self._upstream, self._model, self._prepared = upstream, model, prepared
        self._room = context - min(answer, context // 4)
        self._tools = {} if tools is None else {"tools": tools}
        self._loop = asyncio.get_running_loop()
        self.count = lru_cache(maxsize=None)(self._count)

    def excess(self, messages: Sequence[Message]) -> int:
        """How many tokens a conversation is over the room; 0 or less where it fits."""
        sent = self._prepared([dict(message) for message in messages])
        # No token is shorter than a byte: most conversations with a model of a long context are known to fit without asking.
        most = TEMPLATE + sum(MESSAGE + len(json.dumps(message, ensure_ascii=False).encode()) for message in sent)
        if not self._tools and most <= self._room:
            return most - self._room
        return self._ask({"messages": sent, **self._tools}) - self._room

    def _count(self, text: str) -> int:
        return self._ask({"prompt": text, "add_special_tokens": False})

    def _ask(self, body: dict[str, Any]) -> int:
        return asyncio.run_coroutine_threadsafe(self._upstream.tokens({"model": self._model, **body}), self._loop).result()
