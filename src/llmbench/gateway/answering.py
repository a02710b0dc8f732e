"""How a variant answers: its passages and defaults put into the request, vLLM asked, the answer handed on under its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbench.errors import IndexError_, LlmbenchError
from llmbench.gateway import chat, completions, relay
from llmbench.gateway.catalogue import Served
from llmbench.gateway.events import Events
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.meter import Meter
from llmbench.gateway.refusal import Refusal, as_json
from llmbench.gateway.room import Room
from llmbench.gateway.words import Words
from llmbench.message import Message

if TYPE_CHECKING:
    from typing import Any

    import httpx
    from starlette.responses import Response

__all__ = ["Answering"]


class Answering:
    """Answers of the variants.

    Args:
        upstream: where vLLM answers.
        context: tokens that the base takes, prompt and answer together.
        words: how control tokens are kept out of what clients and documents say.
    """

    def __init__(self, upstream: relay.Upstream, context: int, words: Words) -> None:
        self._upstream = upstream
        self._context = context
        self._words = words

    async def chat(self, served: Served, wanted: chat.ChatRequest, exchange: Exchange, meter: Meter) -> Response:
        """Grounds the conversation if the variant is a RAG one, and asks vLLM."""
        variant = served.variant
        self._words.refuse_endless(wanted.messages, self._context)
        fields = self._words.apart_in(chat.with_defaults(wanted.fields, variant.sampling))

        def prepared(given: list[Message]) -> list[Message]:
            return chat.with_system(self._words.apart(given), variant.system)

        messages = wanted.messages
        exchange.conversation, exchange.stream = messages, wanted.stream
        if served.grounding is not None:
            room = Room(
                self._upstream, served.engine_name, context=self._context,
                answer=fields.get("max_completion_tokens") or fields["max_tokens"], prepared=prepared, fields=fields,
            )  # fmt: skip
            messages = await _grounded(served, messages, room, exchange)
        body = fields | {
            "model": served.engine_name,
            "messages": prepared(messages),
            "stream": wanted.stream,
            **served.ends(fields),
        }
        return await self._handed_on("/v1/chat/completions", body, served, exchange, meter)

    async def complete(
        self, served: Served, wanted: completions.CompletionRequest, exchange: Exchange, meter: Meter
    ) -> Response:
        """Asks vLLM to continue a text."""
        completions.refuse_conversational(served.variant, grounded=served.grounding is not None)
        exchange.stream = wanted.stream
        fields = chat.with_defaults(wanted.fields, served.variant.sampling)
        body = fields | {"model": served.engine_name, "prompt": wanted.prompt, "stream": wanted.stream, **served.ends(fields)}
        return await self._handed_on("/v1/completions", body, served, exchange, meter)

    async def _handed_on(self, path: str, body: dict[str, Any], served: Served, exchange: Exchange, meter: Meter) -> Response:
        from llmbench.gateway.stream import EventStream

        name, sources = exchange.asked, exchange.sources
        response: httpx.Response = await meter.ask(self._upstream, path, body)
        exchange.answered()
        if exchange.stream:
            events = Events(
                self._upstream, engine_name=served.engine_name, name=name, sources=sources, used=meter.used,
                hide_usage=meter.hides_usage, fingerprint=served.fingerprint,
            )  # fmt: skip
            return EventStream(events, response)
        data = await self._upstream.read(response)
        exchange.answered()
        meter.used(data.get("usage"))
        if served.fingerprint and (engine := data.get("system_fingerprint")):
            data["system_fingerprint"] = f"{engine}-{served.fingerprint}"
        return as_json(data | {"model": name} | ({} if sources is None else {"sources": sources}))


async def _grounded(served: Served, messages: list[Message], room: Room, exchange: Exchange) -> list[Message]:
    """The conversation with passages, which the exchange is told."""
    assert served.grounding is not None
    await room.refuse_too_long(messages)
    begun = exchange.retrieval_at = exchange.elapsed()
    exchange.pipeline = served.grounding.name
    try:
        found = await served.grounding.ground(messages, room)
    except IndexError_ as error:
        raise Refusal(503, str(error), code="retrieval_unavailable") from error
    except LlmbenchError as error:
        raise Refusal(400, str(error), param="messages") from error
    exchange.retrieval_seconds = exchange.elapsed() - begun
    exchange.sources = list(found.sources)
    return list(found.messages)
