"""How many questions are answered at once, and how: what is beyond the limit is refused, and not queued at everyone's cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbench.gateway.exchange import Sink, of_request
from llmbench.gateway.refusal import Refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Limit", "Open"]


class Open:
    """The number of questions that are being answered."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0


class Limit:
    """Counts a question from its head to the last byte of its answer, and refuses those beyond the limit.

    The exchange stands in `scope["state"]["exchange"]`, for the application to fill in; `tell` is told of it at its end. The
    application says in `["served"]` whose count a question is part of.
    """

    def __init__(self, app: ASGIApp, *, open: Open, tell: Sink) -> None:
        self._app = app
        self._open = open
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands a request on, or answers it with the refusal."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        exchange = of_request(scope)
        id = (b"x-request-id", exchange.id.encode())
        ended = False

        async def sent(message: Message) -> None:
            nonlocal ended
            exchange.sent(message)
            if message["type"] == "http.response.start":
                variant = [(b"x-llmbench-variant", exchange.variant.encode())] if exchange.variant else []
                message["headers"] = [*message["headers"], id, *variant, *exchange.timing()]
            await send(message)
            ended = message["type"] == "http.response.body" and not message.get("more_body")

        if self._open.count >= self._open.most:
            message = f"{self._open.most:,} requests are already being answered. Try again in a second."
            refusal = Refusal(429, message, code="rate_limit_exceeded", retry_after="1")
            exchange.error = refusal.code
            await refusal.response()(scope, receive, sent)
            self._tell(exchange)
            return
        state = scope.setdefault("state", {})
        state["exchange"] = exchange
        self._open.count += 1
        try:
            await self._app(scope, receive, sent)
        finally:
            self._open.count -= 1
            if (served := state.get("served")) is not None:
                served.requests.running -= 1
            exchange.end()
            exchange.seconds = exchange.elapsed()
            exchange.broken = exchange.broken or not ended
            self._tell(exchange)
