"""vLLM's API: what is asked of it, what it answers, and what is said where it does not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from llmbench.gateway.faults import refusal_of
from llmbench.gateway.refusal import Refusal

if TYPE_CHECKING:
    from llmbench.gateway.balancing import LoadBalancer
    from llmbench.gateway.transport import EngineTransport

__all__ = ["Upstream"]

_METRICS_TIMEOUT = 1.0
_FRESH = 2.0
"""Seconds for which a sign of life of the engine counts."""
_HEALTHY = 5.0
"""Seconds in which it must say that it is well."""
_AT = httpx.URL("http://engine")
_WRITTEN = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_READ = json.JSONDecoder(parse_constant=lambda _: None)  # NaN, which JSON does not have
_HEADERS = [("host", "engine"), ("content-type", "application/json")]


@cache
def _address(path: str) -> httpx.URL:
    return _AT.join(path)  # once for each path: it takes as long as the rest of a request


class Upstream:
    """vLLM's API. `transport` leads to it, `problem` says in one line why the engine does not run, or None."""

    def __init__(self, transport: httpx.AsyncBaseTransport, problem: Callable[[], str | None]) -> None:
        self._problem = problem
        self._transport = transport
        self._connections: EngineTransport | None = None
        self._balancer: LoadBalancer | None = None
        self._ending: str | None = None
        self._ended: dict[str, str] = {}
        self.heard = float("-inf")
        """When the engine last sent something, by the monotonic clock."""

    @classmethod
    def at(cls, socket: Path, problem: Callable[[], str | None]) -> Upstream:
        """The API on a Unix socket."""
        from llmbench.gateway.transport import EngineTransport

        connections = EngineTransport(socket)
        upstream = cls(connections, problem)
        upstream._connections = connections
        return upstream

    @classmethod
    def over(cls, balancer: LoadBalancer) -> Upstream:
        """The API of several engines."""
        upstream = cls(balancer, lambda: balancer.problem)
        upstream._balancer = balancer
        return upstream

    async def close(self) -> None:
        """Closes every connection."""
        await self._transport.aclose()

    async def cut(self, reason: str, *, model: str | None = None) -> None:
        """Ends every answer that is still running, or those of one of the engine's models, with an error that gives the reason.

        Requests that come later end in the same error, those of one model until `allow`.
        """
        if model is None:
            self._ending = reason
            await self._transport.aclose()
            return
        self._ended[model] = reason
        for connections in (self._connections, self._balancer):
            if connections is not None:
                await connections.end(model)

    def allow(self, model: str) -> None:
        """Lets requests pass to a model of the engine whose answers were cut."""
        self._ended.pop(model, None)

    def hold(self, reason: str) -> None:
        """Refuses requests with this reason until `moved`: the engine is being started again."""
        self._ending = reason

    def moved(self, socket: Path) -> None:
        """Lets requests pass, to the engine on another socket."""
        if self._connections is not None:
            self._connections.at = socket
            self._connections.drop_idle()
        self._ending = None

    async def health(self) -> None:
        """Raises Refusal (503) unless the engine answers, or has just sent a piece of some answer."""
        if self._problem() is None and time.monotonic() - self.heard < _FRESH:
            return
        try:
            response = await self._get("/health", _HEALTHY)
        except (httpx.HTTPError, TimeoutError) as error:
            raise self._gone(error) from error
        if response.is_error:
            raise Refusal(503, self._problem() or "The engine is not responding.", code="engine_unavailable", retry_after="5")
        self.heard = time.monotonic()

    async def metrics(self) -> bytes:
        """What the engine's /metrics says; nothing where it does not answer within a second.

        Of several engines, each one's series have a label `engine_url`.
        """
        if self._ending is not None:
            return b""
        if self._balancer is not None:
            return await self._balancer.metrics(_METRICS_TIMEOUT)
        try:
            response = await self._get("/metrics", _METRICS_TIMEOUT)
        except (httpx.HTTPError, TimeoutError):
            return b""
        return response.content if response.is_success else b""

    async def ask(
        self, path: str, body: dict[str, Any], traceparent: str | None = None, done: Callable[[], None] | None = None
    ) -> httpx.Response:
        """Starts an answer of the API's path; its body is still to be read, and the answer to be closed.

        `traceparent` is the span that the engine's own are part of, where there is one. `done` is called when the engine has
        sent the whole answer, which may be long before a slow client has read it.

        Raises:
            Refusal: the engine is gone, or refuses the request.
        """
        model = body.get("model")
        if self._ending is not None or model in self._ended:
            raise self._gone(ConnectionError(), model)
        content = _WRITTEN.encode(body).encode()
        headers = [*_HEADERS, ("content-length", str(len(content)))]
        if traceparent is not None:
            headers.append(("traceparent", traceparent))
        request = httpx.Request(  # with a stream, as httpx looks through `content` for longer than all of this takes
            "POST", _address(path), headers=headers, stream=httpx.ByteStream(content),
            extensions={"model": model, "body": body, "done": done},
        )  # fmt: skip
        request.read()
        try:
            response = await self._send(request)
            self.heard = time.monotonic()
            if response.is_success:
                return response
            try:
                await response.aread()
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise self._gone(error, model) from error
        raise refusal_of(response, body)

    async def _get(self, path: str, seconds: float) -> httpx.Response:
        """The whole answer of one of the engine's own paths."""
        async with asyncio.timeout(seconds):
            response = await self._send(httpx.Request("GET", _address(path)))
            try:
                await response.aread()
            finally:
                await response.aclose()
        return response

    async def _send(self, request: httpx.Request) -> httpx.Response:
        response = await self._transport.handle_async_request(request)
        response.request = request
        return response

    async def chat(self, body: dict[str, Any]) -> httpx.Response:
        """Starts a chat completion."""
        return await self.ask("/v1/chat/completions", body)

    async def tokens(self, body: dict[str, Any]) -> int:
        """How many tokens a text (`prompt`) or a conversation (`messages`) has.

        Raises:
            Refusal: the engine is gone, or refuses the conversation.
        """
        data = await self.read(await self.ask("/tokenize", body))
        try:
            return int(data["count"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._gone(error) from error

    async def read(self, response: httpx.Response) -> dict[str, Any]:
        """Reads an answer that is not streamed, and closes it."""
        try:
            content = b"".join([piece async for piece in _body_of(response)])
            data = _READ.decode(content.decode("utf-8", "surrogatepass"))
        except httpx.HTTPError as error:
            raise self._gone(error, response.request.extensions.get("model")) from error
        except (ValueError, RecursionError) as error:
            raise Refusal(502, f"The engine's answer is not JSON ({type(error).__name__}).", code="engine_error") from error
        finally:
            await response.aclose()
        if not isinstance(data, dict):
            raise Refusal(502, f"The engine's answer is {type(data).__name__}, not an object.", code="engine_error")
        return data

    def broke_off(self, error: Exception, model: str | None = None) -> bytes:
        """The last event of a stream that the engine did not finish."""
        return b"data: " + json.dumps(self._gone(error, model).body()).encode() + b"\n\n"

    def _gone(self, error: Exception, model: str | None = None) -> Refusal:
        reason = (
            self._ending
            or self._ended.get(model or "")
            or self._problem()
            or f"The engine is not responding ({type(error).__name__}: {error})."
        )
        return Refusal(503, reason, code="engine_unavailable", retry_after="5")


def _body_of(response: httpx.Response) -> AsyncIterator[bytes]:
    """The body of an answer as it comes. The engine is asked for none that is compressed."""
    assert isinstance(response.stream, httpx.AsyncByteStream)
    return aiter(response.stream)
