"""How many questions are answered at once, and how: what is beyond the limit is refused, and not queued at everyone's cost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llmbench.gateway.metrics import Metrics
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

    The application says in `scope["state"]["model"]` which variant it was, and in `["served"]` whose count it is part of.
    """

    def __init__(self, app: ASGIApp, *, open: Open, metrics: Metrics) -> None:
        self._app = app
        self._open = open
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands a request on, or answers it with the refusal."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._open.count >= self._open.most:
            message = f"{self._open.most:,} requests are already being answered. Try again in a second."
            refusal = Refusal(429, message, code="rate_limit_exceeded", retry_after="1")
            self._metrics.answered("", _name_of_key(scope), refusal.status, 0.0)
            await refusal.response()(scope, receive, send)
            return
        begun, status = time.monotonic(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._open.count += 1
        self._metrics.running.inc()
        try:
            await self._app(scope, receive, sent)
        finally:
            self._open.count -= 1
            self._metrics.running.dec()
            state = scope.get("state", {})
            if (served := state.get("served")) is not None:
                served.requests.running -= 1
            self._metrics.answered(state.get("model", ""), _name_of_key(scope), status, time.monotonic() - begun)


def _name_of_key(scope: Scope) -> str:
    key = scope.get("state", {}).get("key")
    return "" if key is None else str(key.name)
