"""Answers a request for a response by the chat that it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llmbench.gateway.answering import Answering
from llmbench.gateway.api.responses.asking import ResponseRequest, in_our_words
from llmbench.gateway.api.responses.events import of_response
from llmbench.gateway.api.responses.object import begun, ended, items_of
from llmbench.gateway.catalogue import Served
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.meter import Meter
from llmbench.gateway.refusal import Refusal, as_json

if TYPE_CHECKING:
    from starlette.responses import Response

__all__ = ["answer"]


async def answer(answering: Answering, served: Served, wanted: ResponseRequest, exchange: Exchange, meter: Meter) -> Response:
    """The response, streamed or whole."""
    from llmbench.gateway.stream import EventStream

    variant = served.variant
    try:
        found = await answering.chat(served, wanted.chat, exchange, meter)
    except Refusal as refusal:
        raise in_our_words(refusal) from refusal
    sampling: dict[str, Any] = {"temperature": variant.sampling.temperature, "top_p": variant.sampling.top_p}
    said = wanted.said | {key: value for key, value in sampling.items() if wanted.said[key] is None}
    response = begun(exchange.asked, said)
    if isinstance(found, EventStream):
        found.through(lambda pieces: of_response(pieces, response))
        return found
    data: dict[str, Any] = json.loads(bytes(found.body))
    choice, sources = data["choices"][0], data.get("sources")
    output = items_of(choice["message"], sources or (), choice.get("finish_reason"))
    whole = ended(response, output, choice.get("finish_reason"), data.get("usage"))
    return as_json(whole | ({} if sources is None else {"sources": sources}))
