"""The record of every request: made at its first byte, sent back in its answer's headers, and told at its last byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbench.gateway.exchange import Sink, of_request
from llmbench.gateway.observing.trace import trace_of
from llmbench.gateway.refusal import Refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Recorded"]


class Recorded:
    """The outermost layer: gives each request its exchange and tells the sinks of it once, whoever answers it.

    The exchange stands in `scope["state"]["exchange"]`, for everything inside to fill in. Every answer, refusals among them,
    has its id and what its time went to in its headers.

    Args:
        app: what answers.
        tell: is told of each exchange after the last byte of its answer.
        traced: the share of the questions without a trace of their own that are sampled; None: no question gets a trace.
    """

    def __init__(self, app: ASGIApp, *, tell: Sink, traced: float | None = None) -> None:
        self._app = app
        self._tell = tell
        self._traced = traced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands a request on. An exception is answered with status 500, and raised again for the server's log."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        exchange = state["exchange"] = of_request(scope)
        own = [(b"x-request-id", exchange.id.encode())]
        if self._traced is not None and scope["method"] == "POST":
            exchange.trace = trace_of(scope["headers"], self._traced)
            own.append((b"x-trace-id", exchange.trace.name.encode()))
        begun = ended = False

        async def sent(message: Message) -> None:
            nonlocal begun, ended
            exchange.sent(message)
            if message["type"] == "http.response.start":
                variant = [(b"x-llmbench-variant", exchange.variant.encode())] if exchange.variant else []
                message["headers"] = [*message["headers"], *own, *variant, *exchange.timing()]
                begun = True
            await send(message)
            ended = message["type"] == "http.response.body" and not message.get("more_body")

        try:
            await self._app(scope, receive, sent)
        except Exception as error:
            if not begun:
                refusal = Refusal(500, f"The gateway failed ({type(error).__name__}). See its log.")
                await refusal.response()(scope, receive, sent)
            raise
        finally:
            exchange.end()
            exchange.seconds = exchange.elapsed()
            exchange.broken = exchange.broken or not ended
            self._tell(exchange)
