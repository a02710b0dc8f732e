"""How many questions are answered at once, and how: what is beyond the limit is refused, and not queued at everyone's cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbench.gateway.refusal import Refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Limit", "Open"]


class Open:
    """The number of questions that are being answered."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = 0


class Limit:
    """Counts a question from its head to the last byte of its answer, and refuses those beyond the limit.

    The application says in `scope["state"]["served"]` whose count a question is part of.
    """

    def __init__(self, app: ASGIApp, *, open: Open) -> None:
        self._app = app
        self._open = open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands a request on, or answers it with the refusal."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        state = scope["state"]
        if self._open.count >= self._open.most:
            message = f"{self._open.most:,} requests are already being answered. Try again in a second."
            refusal = Refusal(429, message, code="rate_limit_exceeded", retry_after="1")
            state["exchange"].error = refusal.code
            await refusal.response()(scope, receive, send)
            return
        self._open.count += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open.count -= 1
            if (served := state.get("served")) is not None:
                served.requests.running -= 1
