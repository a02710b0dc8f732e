"""Between the variants and the engine: how many tokens a request may use, and how many its answer has used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx

from llmbench.gateway.charge import Charge
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.refusal import Refusal
from llmbench.gateway.relay import Upstream
from llmbench.gateway.room import most_tokens
from llmbench.gateway.turns import Tier, Turns

__all__ = ["Meter"]

_BEGINNING = 16
"""Tokens that a tokenizer may put before a text."""
_COUNTED_SINGLY = 8
"""Texts of one request that the engine is asked to count; the tokens of more are bounded by their bytes."""


class Meter:
    """Hands one request on to the engine and counts its tokens; where it has a named key, within that key's limits.

    Args:
        exchange: is told the tokens.
        state: that of the request, with the charge of its key if it has one.
        context: tokens that the model takes, prompt and answer together.
        turns: the places at the engine.
        tier: whether the request can wait for others.
    """

    def __init__(
        self, exchange: Exchange, state: Mapping[str, Any], context: int, turns: Turns, tier: Tier = "default"
    ) -> None:
        self._exchange, self._context, self._turns, self._tier = exchange, context, turns, tier
        self._charge: Charge | None = state.get("charge")
        self.hides_usage = False
        """Whether a stream is to name its usage to this server alone."""

    async def ask(self, upstream: Upstream, path: str, body: dict[str, Any]) -> httpx.Response:
        """Starts an answer, as `Upstream.ask` does, once its key may spend what it may take.

        Raises:
            Refusal: a limit of the key is reached; the engine is gone, or refuses the request.
        """
        answers = _answers(body)
        longest = max(body.get("max_completion_tokens") or 0, body.get("max_tokens") or 0)
        if self._charge is not None:
            most, count = self._bound(upstream, body)
            await self._charge.reserve(
                1 + answers * longest,
                self._with_answers(most, answers, longest),
                None if count is None else partial(self._counted, count, answers, longest),
            )
            body = self._telling(body)
        try:
            await self._turns.take(self._exchange, cost=1 + answers * longest, seats=answers, tier=self._tier)
        except BaseException:  # refused, or its client has gone: the engine has seen nothing
            if self._charge is not None:
                self._charge.used(0)
            raise
        self._exchange.engine_at, trace = self._exchange.elapsed(), self._exchange.trace
        try:
            return await upstream.ask(path, body, trace.traceparent() if trace is not None else None, self._exchange.end)
        except Refusal as refusal:
            if self._charge is not None and _computed_nothing(refusal):
                self._charge.used(0)
            raise

    @asynccontextmanager
    async def taking(self, tokens: int) -> AsyncIterator[None]:
        """Reserves what the block's work takes, which is not the engine's; what is refused in it costs nothing.

        Raises:
            Refusal: a limit of the key is reached.
        """
        if self._charge is not None:
            await self._charge.reserve(tokens, tokens, None)
        try:
            yield
        except Refusal:
            if self._charge is not None:
                self._charge.used(0)
            raise
        self.used({"prompt_tokens": tokens})

    def used(self, usage: Any, complete: bool = True) -> None:
        """Counts what an answer says that it has used; what is complete settles the charge."""
        self._exchange.used(usage)
        if self._charge is not None and complete and isinstance(usage, dict):
            counts = [usage.get("prompt_tokens"), usage.get("completion_tokens", 0)]
            if all(type(count) is int and count >= 0 for count in counts):
                self._charge.used(sum(counts))

    def _telling(self, body: dict[str, Any]) -> dict[str, Any]:
        """The same request with a stream that names its usage at its end."""
        options = body.get("stream_options") or {}
        if not body.get("stream") or options.get("include_usage") not in (None, False):
            return body
        self.hides_usage = True
        return body | {"stream_options": {"include_usage": True}}

    def _bound(self, upstream: Upstream, body: dict[str, Any]) -> tuple[int, Callable[[], Awaitable[int]] | None]:
        """How many tokens a prompt has at most, and what counts them exactly."""
        model: dict[str, Any] = {"model": body["model"]}
        if "messages" in body:
            template: dict[str, Any] = {key: body[key] for key in ("tools", "chat_template_kwargs") if key in body}
            most = self._context if template else min(most_tokens(body["messages"]), self._context)
            return most, partial(upstream.tokens, {**model, "messages": body["messages"], **template})
        prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
        if prompts and isinstance(prompts[0], int):
            return len(prompts), None
        sizes = [_BEGINNING + len(one.encode()) if isinstance(one, str) else len(one) for one in prompts]
        texts = [one for one in prompts if isinstance(one, str)]
        if not texts or len(texts) > _COUNTED_SINGLY:
            return sum(sizes), None

        async def count() -> int:
            ids = sum(len(one) for one in prompts if not isinstance(one, str))
            return ids + sum([await upstream.tokens({**model, "prompt": text}) for text in texts])

        return sum(sizes), count

    async def _counted(self, count: Callable[[], Awaitable[int]], answers: int, longest: int) -> int:
        return self._with_answers(await count(), answers, longest)

    def _with_answers(self, prompt: int, answers: int, longest: int) -> int:
        """Tokens of a prompt and of its answers. One that fills the context leaves them less room."""
        if answers == 1:
            return min(prompt + longest, self._context)
        return prompt + answers * longest


def _answers(body: Mapping[str, Any]) -> int:
    """How many texts the engine will write."""
    prompt = body.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and not isinstance(prompt[0], int) else 1
    count: int = body.get("n", 1)
    return prompts * count


def _computed_nothing(refusal: Refusal) -> bool:
    """Whether the engine has not begun with what is refused."""
    return refusal.status < 500 or isinstance(refusal.__cause__, httpx.ConnectError)
