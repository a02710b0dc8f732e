"""Asks a model with passages, and checks that what it cites is among them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llmbench import scoring
from llmbench.endpoint import Delta, Endpoint, Message
from llmbench.retrieval.search.retriever import Retriever

__all__ = ["Citations", "ask", "check_citations"]


@dataclass(frozen=True)
class Citations:
    """The passage numbers that an answer cites, each once, in its order: those that exist and those that do not."""

    valid: tuple[int, ...]
    invalid: tuple[int, ...]


def check_citations(text: str, sources: Sequence[dict[str, Any]]) -> Citations:
    """Reads `[1]`, `[1, 3]` and `[1; 3]` in an answer; a citation is valid when a source has that `n`."""
    known = {int(source["n"]) for source in sources}
    ordered = list(dict.fromkeys(scoring.cited(text)))
    return Citations(tuple(n for n in ordered if n in known), tuple(n for n in ordered if n not in known))


async def ask(
    retriever: Retriever,
    endpoint: Endpoint,
    messages: Sequence[Message],
    model: str,
    *,
    max_tokens: int | None = None,
    where: Mapping[str, Any] | None = None,
) -> AsyncIterator[Delta]:
    """Grounds a conversation here and streams a model's answer: first the sources, then the text, last the reply.

    For a model that does not retrieve by itself. Should it send sources of its own, those are the ones reported.

    Raises:
        EndpointError: the endpoint does not answer.
        IndexError_: the index cannot be used.
    """
    grounded = await asyncio.to_thread(retriever.ground, messages, where=where)
    yield Delta(sources=grounded.sources)
    async for delta in endpoint.stream(grounded.messages, model, max_tokens=max_tokens):
        if delta.reply is not None and not delta.reply.sources:
            delta = replace(delta, sources=grounded.sources, reply=replace(delta.reply, sources=grounded.sources))
        yield delta
