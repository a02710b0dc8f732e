"""A streamed answer that always closes vLLM's side, whichever side ends first, so that nothing is computed for nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import httpx
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

__all__ = ["EventStream"]


class EventStream(StreamingResponse):
    """Server-sent events from vLLM's answer `upstream`."""

    def __init__(self, pieces: AsyncIterator[bytes], upstream: httpx.Response) -> None:
        super().__init__(
            pieces, media_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        )
        self._upstream = upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events until either side ends."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._upstream.aclose()
