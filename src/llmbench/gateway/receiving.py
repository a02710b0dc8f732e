"""A request as it comes in: its body, within limits, and its client, who may leave or stop waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from llmbench.gateway.chat import MAX_BODY
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.refusal import Refusal
from llmbench.gateway.turns import TIMED_OUT

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["body", "unless_gone"]

_BODY_TIMEOUT = 30.0
T = TypeVar("T")


async def body(request: Request) -> bytes:
    """The body, up to its limit in bytes and seconds. JSON only: a web page cannot send that across origins unasked."""
    scope = request.scope
    headers: dict[bytes, list[str]] = {}
    for name, value in scope["headers"]:
        if name.startswith(b"content-"):
            headers.setdefault(name, []).append(value.decode("latin-1"))
    kind, _, rest = ", ".join(headers.get(b"content-type", ())).lower().partition(";")
    if kind.strip() != "application/json":
        raise Refusal(415, "Send the request as application/json.")
    charset = rest.replace(" ", "").partition("charset=")[2].partition(";")[0].strip('"')
    if charset not in ("", "utf-8", "utf8", "us-ascii"):
        raise Refusal(415, f"Send the request as UTF-8, not as {charset!r:.40}.")
    packed = headers.get(b"content-encoding", ["identity"])[0].lower()
    if packed not in ("", "identity"):
        raise Refusal(415, f"The body is compressed ({packed!r:.40}). Send it as it is, without Content-Encoding.")
    if int(headers.get(b"content-length", ["0"])[0]) > MAX_BODY:
        raise Refusal(413, f"The request is larger than {MAX_BODY:,} bytes.")
    found, exchange, wire = bytearray(), scope["state"]["exchange"], scope["state"].get("wire")
    begun = exchange.elapsed()
    try:
        async with asyncio.timeout(None if wire is not None and wire.has_body() else _BODY_TIMEOUT):
            more = True
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(499, "The client disconnected.")
                found += message.get("body", b"")
                if len(found) > MAX_BODY:
                    raise Refusal(413, f"The request is larger than {MAX_BODY:,} bytes.")
                more = message.get("more_body", False)
    except TimeoutError:
        raise Refusal(408, f"The request did not arrive within {_BODY_TIMEOUT:.0f} s.") from None
    finally:
        exchange.arrived(len(found), exchange.elapsed() - begun)
    return bytes(found)


async def unless_gone(request: Request, exchange: Exchange, work: Awaitable[T]) -> T:
    """Does the work, but drops it (and with it the request to vLLM) when the client goes away, or waits no longer."""
    from llmbench.gateway import stream

    try:
        return await stream.unless_gone(request.scope, request.receive, _in_time(exchange, work))
    except stream.ClientLeft:
        raise Refusal(499, "The client disconnected.") from None


async def _in_time(exchange: Exchange, work: Awaitable[T]) -> T:
    """Does the work within the client's own time, if it has said how much that is."""
    if exchange.deadline is None:
        return await work
    try:
        async with asyncio.timeout(max(0.0, exchange.deadline - exchange.elapsed())):
            return await work
    except TimeoutError:
        message = (
            f"Timed out {exchange.deadline:.3g} s after the request began, by the client's own timeout (the header "
            "x-request-timeout or x-stainless-read-timeout)."
        )
        raise Refusal(504, message, code=TIMED_OUT, retry=False) from None
