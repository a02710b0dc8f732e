"""Hands vLLM's answer on to the client, event by event as it comes, under the variant's name and with its sources."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from llmbench.gateway.refusal import Refusal

__all__ = ["Upstream", "events"]

_TIMEOUT = httpx.Timeout(600.0, connect=5.0, pool=600.0)
_CONNECTIONS = 512


class Upstream:
    """vLLM's API. `transport` leads to it, `problem` says in one line why the engine does not run, or None."""

    def __init__(self, transport: httpx.AsyncBaseTransport, problem: Callable[[], str | None]) -> None:
        self._problem = problem
        self._client = httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=_TIMEOUT)

    @classmethod
    def at(cls, socket: Path, problem: Callable[[], str | None]) -> Upstream:
        """The API on a Unix socket."""
        # A connection each: vLLM closes an idle one after five seconds, and a request that is sent at that moment is lost.
        limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=0)
        return cls(httpx.AsyncHTTPTransport(uds=str(socket), limits=limits), problem)

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.aclose()

    async def health(self) -> None:
        """Raises Refusal (503) unless the engine answers."""
        try:
            response = await self._client.get("/health", timeout=5.0)
        except httpx.HTTPError as error:
            raise self._gone(error) from error
        if response.is_error:
            raise Refusal(503, self._problem() or "The engine does not answer.", code="engine_unavailable")

    async def chat(self, body: dict[str, Any]) -> httpx.Response:
        """Starts a chat completion; the answer's body is still to be read, and the answer to be closed.

        Raises:
            Refusal: the engine is gone, or refuses the request.
        """
        request = self._client.build_request("POST", "/v1/chat/completions", json=body)
        try:
            response = await self._client.send(request, stream=True)
            if response.is_success:
                return response
            try:
                await response.aread()
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise self._gone(error) from error
        raise _refused(response)

    async def tokens(self, body: dict[str, Any]) -> int:
        """How many tokens a text (`prompt`) or a conversation (`messages`) has.

        Raises:
            Refusal: the engine is gone, or refuses the conversation.
        """
        try:
            response = await self._client.post("/tokenize", json=body, timeout=30.0)
            if response.is_success:
                return int(response.json()["count"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            raise self._gone(error) from error
        raise _refused(response)

    async def read(self, response: httpx.Response) -> dict[str, Any]:
        """Reads an answer that is not streamed, and closes it."""
        try:
            await response.aread()
            data: dict[str, Any] = response.json()
            return data
        except (httpx.HTTPError, ValueError) as error:
            raise self._gone(error) from error
        finally:
            await response.aclose()

    def broke_off(self, error: Exception) -> bytes:
        """The last event of a stream that the engine did not finish."""
        return b"data: " + json.dumps(self._gone(error).body()).encode() + b"\n\n"

    def _gone(self, error: Exception) -> Refusal:
        reason = self._problem() or f"The engine does not answer ({type(error).__name__}: {error})."
        return Refusal(503, reason, code="engine_unavailable")


def _refused(response: httpx.Response) -> Refusal:
    """vLLM's own error as one of ours: a client's mistake stays one, everything else is the server's."""
    try:
        error = response.json()["error"]
        message, param = str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError):
        message, param = response.text[:200], None
    if response.status_code in (400, 413, 422, 429):
        return Refusal(response.status_code, message, param=param)
    return Refusal(502, f"The engine answered {response.status_code}: {message[:500]}", code="engine_error")


async def events(
    response: httpx.Response, upstream: Upstream, *, engine_name: str, name: str, sources: Sequence[dict[str, Any]] | None
) -> AsyncIterator[bytes]:
    """The server-sent events of a stream. The first is given the sources; the others pass as bytes with the name replaced.

    Inside JSON text every quote is escaped, so `"model":"..."` with bare quotes is the field and never something a model wrote.
    """
    field = re.compile(rb'"model":\s*"' + re.escape(engine_name.encode()) + b'"')
    named = b'"model":' + json.dumps(name).encode()
    buffer, first = b"", sources is not None
    try:
        async for piece in response.aiter_raw():
            buffer += piece
            whole, separator, buffer = buffer.rpartition(b"\n\n")
            if not separator:
                continue
            if first:
                head, _, rest = whole.partition(b"\n\n")
                whole = _with_sources(head, sources) + (b"\n\n" + rest if rest else b"")
                first = False
            yield field.sub(named, whole) + separator
    except httpx.HTTPError as error:
        yield upstream.broke_off(error)


def _with_sources(event: bytes, sources: Sequence[dict[str, Any]] | None) -> bytes:
    data = json.loads(event.removeprefix(b"data:"))
    return b"data: " + json.dumps(data | {"sources": list(sources or ())}, ensure_ascii=False, separators=(",", ":")).encode()
