"""The server's side of a connection: HTTP/1.1 with deadlines for clients that send or read too slowly.

uvicorn's h11 protocol and not its httptools one: that one drops the body of a request that offers `Upgrade: h2c`, as Java's
HttpClient and `curl --http2` do by default (RFC 9110 7.8: a server that does not upgrade goes on as if nobody had asked).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from llmbench.gateway.refusal import Refusal

__all__ = ["Connection"]

HEAD = 20.0
"""Seconds from the first byte of a request (or from the connection) to the end of its head."""
UNREAD = 120.0
"""Seconds that an answer may wait for a client that does not read."""


class _Chunking(h11.Connection):
    """h11's rules, without its checks for each piece of a stream, and with a whole answer's head and body in one write."""

    _chunked = False
    _head = b""

    def send(self, event: Any) -> Any:
        """The bytes of an event; None at the end of the connection. The head of an answer with a length comes with its body."""
        if type(event) is h11.Data and self._chunked and self.our_state is h11.SEND_BODY:
            return self.piece(event.data)
        written = super().send(event)
        if isinstance(event, h11.Response):
            lines = written.lower()
            self._chunked = b"\r\ntransfer-encoding: chunked\r\n" in lines
            if b"\r\ncontent-length: " in lines:
                self._head = written
                return b""
        elif self._head and written is not None:
            written, self._head = self._head + written, b""
        return written

    def piece(self, data: bytes) -> bytes:
        """The bytes of a piece of a stream whose head was sent."""
        if not self._chunked:  # HTTP/1.0: the answer ends with its connection
            return data
        return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class Connection(H11Protocol):
    """A connection that is closed when its client keeps it open for nothing; for streams it is a `Wire`."""

    conn: _Chunking
    _head: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _left: Callable[[], None] | None = None

    def __init__(self, *args: Any, **named: Any) -> None:
        """Arguments are uvicorn's."""
        super().__init__(*args, **named)
        self.conn = _Chunking(h11.SERVER)
        self.app_state = self.app_state | {"wire": self}  # uvicorn copies this into the scope of each request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Waits for a request, but not for ever."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Takes in bytes; the first of a request start its deadline, the end of its head ends it."""
        self.app_state["received"] = time.monotonic()
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the deadlines, and tells whoever works for the client."""
        for timer in (self._head, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        for state in (self.app_state, self.scope["state"] if self.scope is not None else {}):
            state.pop("wire", None)  # a circle, which would keep it until the next collection of garbage
        if self._left is not None:
            self._left()

    def has_body(self) -> bool:
        """Whether the request's body has come to its end."""
        return not self.cycle.more_body

    def write(self, piece: bytes) -> bool:
        """Sends a piece of a stream whose head was sent; False where the client should read before the next."""
        if not self.cycle.disconnected:
            self.transport.write(self.conn.piece(piece))
        return not self.flow.write_paused

    async def drained(self) -> None:
        """Waits until the client has read, or has gone."""
        if not self.cycle.disconnected:
            await self.flow.drain()

    def when_left(self, call: Callable[[], None] | None) -> bool:
        """Calls this when the client goes away, until it is told None; False where it has gone already."""
        if self.cycle.disconnected:
            return False
        if call is not None:
            self.flow.resume_reading()  # or nobody would notice
        self._left = call
        return True

    def pause_writing(self) -> None:
        """The client does not read: it is given some time."""
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP as an error object, where an answer can still be given, and closes."""
        error = sys.exc_info()[1]  # uvicorn calls this while it handles h11's error, and hands on a fixed text
        large = isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431
        refusal = Refusal(431, "The headers are too large.") if large else Refusal(400, "This is not an HTTP/1.1 request.")
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = refusal.response()
            head = h11.Response(status_code=refusal.status, headers=[*answer.raw_headers, (b"connection", b"close")])
            for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _should_upgrade(self) -> bool:
        return False

    def _watch(self) -> None:
        """Starts the deadline of a request that has begun, ends that of one whose head is there."""
        waiting = self.cycle is None or self.cycle.response_complete
        if not waiting and self._head is not None:
            self._head.cancel()
            self._head = None
        elif waiting and self._head is None and self.timeout_keep_alive_task is None:
            self._head = self.loop.call_later(HEAD, self.transport.close)
