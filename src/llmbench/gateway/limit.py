"""How many questions are answered at once: what is beyond is refused at once, and not queued where it costs everyone."""

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
    """Counts a question from its head to the last byte of its answer, and refuses those beyond the limit."""

    def __init__(self, app: ASGIApp, *, open: Open) -> None:
        self._app = app
        self._open = open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands a request on, or answers it with the refusal."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._open.count >= self._open.most:
            message = f"{self._open.most:,} requests are being answered already. Try again in a second."
            refusal = Refusal(429, message, code="rate_limit_exceeded", retry_after="1")
            await refusal.response()(scope, receive, send)
            return
        self._open.count += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open.count -= 1
