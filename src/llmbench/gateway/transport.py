"""The way to an engine, over a Unix socket or TCP, as a transport of httpx: HTTP/1.1 on connections that are kept.

Connections of our own, and not the client of httpx or aiohttp: an answer takes 0.05 ms of processor time instead of
0.5 or 0.13, none waits for a place in a pool, and the requests of one model can be ended without the others'.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import httpx

from llmbench.engine import Address, Place
from llmbench.gateway import connecting

__all__ = ["IDLE", "Dropped", "EngineTransport", "PouredStream"]

IDLE = 60.0
"""Seconds for which an idle connection is used again; the engine keeps it for longer (`VLLM_HTTP_TIMEOUT_KEEP_ALIVE`)."""
_CONNECT, _READ = 30.0, 600.0
"""Seconds in which the engine must take a connection, and send its next bytes."""
_REACH = 5.0
"""Seconds in which an engine on another machine must take a connection."""
_AHEAD = 262_144
"""Bytes that are read before somebody takes them; after that the engine waits."""


class Dropped(httpx.ReadError):
    """The connection ended before the engine sent anything in answer."""


class _Link(asyncio.Protocol):
    """A connection, with one request at a time on it."""

    def __init__(self, at: Place) -> None:
        self.at = at
        self.model: str | None = None
        self._done: Callable[[], None] | None = None
        self.idle_since = 0.0
        self.is_closed = False
        self._loop = asyncio.get_running_loop()
        self._parser, self._parser_errors = _parser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._waits_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._error: httpx.TransportError | None = None
        self._take: Callable[[bytes], bool] | None = None
        self._asked = self._paused = False
        self._begin()

    def _begin(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self._size = 0
        self._heard = self._has_head = self._has_body = self._has_length = self._complete = self._is_kept = False

    async def ask(self, sent: bytes, model: str | None, done: Callable[[], None] | None) -> None:
        """Sends a request and waits for the head of its answer. `done` is called once when the answer has ended here.

        Raises:
            httpx.TransportError: the connection ended, or nothing came in time.
        """
        self._begin()
        self.model, self._done, self._asked = model, done, True
        self._transport.write(sent)
        while not self._has_head:
            await self._more()

    async def piece(self) -> bytes:
        """What has come of the body since the last time, as soon as there is something; empty at its end."""
        while not self._pieces:
            if self._complete:
                return b""
            await self._more()
        return self._taken()

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        """Gives what comes of the body to `take`, in the moment in which it comes; see `PouredStream`."""
        self._take = take
        try:
            while True:
                if self._pieces and not take(self._taken()):
                    return False
                if self._complete:
                    return True
                await self._more()
                if self._take is None:
                    return False
        finally:
            self._take = None

    def _taken(self) -> bytes:
        """What has come of the body since the last time."""
        found = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces, self._size = [], 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return found

    @property
    def status(self) -> int:
        """That of the answer, once its head is there."""
        return int(self._parser.get_status_code())

    def end_request(self) -> bool:
        """Forgets the request, and says whether another may follow on this connection."""
        self._asked = False
        self.model = None
        return self._is_kept and not self._error and not self.is_closed

    def give_up(self) -> None:
        """Ends the request if nothing of its answer but the head has come."""
        if not self._has_body:
            self.fail(Dropped("the engine no longer answers"))

    def fail(self, error: httpx.TransportError) -> None:
        """Closes the connection; whoever waits for its answer gets this error."""
        self._error = self._error or error
        self.close()
        self._wake()

    def close(self) -> None:
        """Closes it."""
        self.is_closed = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._asked or self._complete:
            self.fail(httpx.RemoteProtocolError("the engine sent what was not asked for"))
            return
        self._heard = True
        try:
            self._parser.feed_data(data)
        except self._parser_errors as error:
            self.fail(httpx.RemoteProtocolError(str(error) or "not an HTTP/1.1 answer"))
            return
        if self._take is not None:
            self._waits_since = self._loop.time()
            if self._pieces:
                self._hand_on(self._take)
            if not self._complete:
                return
        if self._size > _AHEAD and not self._complete:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._has_head and not self._has_length and exc is None:
            self._complete = True  # an answer without a length ends with its connection
        if self._error is None:
            self._error = httpx.ReadError("the engine closed the connection") if self._heard else Dropped("no answer came")
        if self._has_head:  # one without may be sent once more
            self._tell_done()
        self._wake()

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("a second answer to one request")  # the parser ends, and the connection with it

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))
        self._has_length = self._has_length or name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        self._has_head = self.status >= 200

    def on_body(self, piece: bytes) -> None:
        self._has_body = True
        self._pieces.append(piece)
        self._size += len(piece)

    def on_message_complete(self) -> None:
        if self._has_head:
            self._complete = True
            self._is_kept = self._parser.should_keep_alive()  # which the parser knows now only
            self._tell_done()
        else:  # 100 Continue and its like
            self.headers.clear()

    def _hand_on(self, take: Callable[[bytes], bool]) -> None:
        """Gives what has come to whoever waits in `pour`, and wakes it only where it takes no more."""
        try:
            if take(self._taken()):
                return
        except Exception as error:  # it belongs to whoever waits, not to the event loop
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(error)
        self._take = None
        self._wake()

    def _tell_done(self) -> None:
        done, self._done = self._done, None
        if done is not None:
            done()

    async def _more(self) -> None:
        """Waits until something has come."""
        if self._error is not None:
            raise self._error
        self._waiter, self._waits_since = self._loop.create_future(), self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(_READ, self._look)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _look(self) -> None:
        """Ends a wait that takes too long. One timer serves all waits of the connection, however many pieces come."""
        left = self._waits_since + _READ - self._loop.time()
        self._timer = None
        if self._waiter is not None and left <= 0:
            self.fail(httpx.ReadTimeout(f"nothing came for {_READ:.0f} s"))
        elif self._waiter is not None:
            self._timer = self._loop.call_later(left, self._look)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class PouredStream(httpx.AsyncByteStream, ABC):
    """A body that can be given on as it comes, without a task that wakes for each piece."""

    @abstractmethod
    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        """Calls `take` with each piece until it returns False, as it wants no more for now, or the body has ended.

        Returns:
            Whether the body has ended. If not, the engine's next bytes are kept for the next call.

        Raises:
            httpx.TransportError: the connection broke off.
            Exception: what `take` raises.
        """


class _Body(PouredStream):
    """The body of an answer. Closed before its end it closes the connection, so that the engine stops computing."""

    def __init__(self, link: _Link, transport: EngineTransport) -> None:
        self._link: _Link | None = link
        self._transport = transport

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._link.piece() if self._link is not None else b""
        if not piece:
            raise StopAsyncIteration
        return piece

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        """As `PouredStream`."""
        return self._link is None or await self._link.pour(take)

    async def aclose(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            self._transport.release(link)


class EngineTransport(httpx.AsyncBaseTransport):
    """Connections to one engine: as many as there are requests at once, each used again for `IDLE` seconds.

    A request that finds its kept connection closed, with nothing received on it, is sent once more on a new one: the engine may
    close an idle connection in the moment in which a request is on its way.
    """

    def __init__(self, at: Place) -> None:
        self.at = at
        self._idle: deque[_Link] = deque()
        self._busy: set[_Link] = set()
        self._ends = self._given_up = 0
        self._ends_of: dict[str, int] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request whose content is in memory; the answer's body is still to be read, and the answer to be closed.

        The extensions `model` and `done` of the request say whose answers `end` ends with it, and what is called when the last
        byte of the answer is here, though nobody may have read it yet.

        Raises:
            httpx.TransportError: a ConnectError if the engine is not there, Dropped if the connection ended before an answer;
                it broke off, or sent nothing for 600 s.
        """
        model, done = request.extensions.get("model"), request.extensions.get("done")
        sent = connecting.written(request, self.at)
        given_up = self._given_up
        if (kept := self._take()) is not None:
            try:
                return await self._ask(kept, sent, model, done)
            except Dropped:
                if self._given_up != given_up:
                    raise
        return await self._ask(await self._connected(model), sent, model, done)

    async def aclose(self) -> None:
        """Closes every connection; what is being read from it ends in an error."""
        self.drop_idle()
        await self.end(None)

    async def end(self, model: str | None) -> None:
        """Ends the requests of one of the engine's models, or all of them, with an error."""
        self._ends += model is None
        if model is not None:
            self._ends_of[model] = self._ends_of.get(model, 0) + 1
        for link in [one for one in self._busy if model in (None, one.model)]:
            link.fail(httpx.ReadError("the answer was cut off"))

    def give_up(self) -> None:
        """Ends the requests of whose answers nothing has come, with `Dropped`: the engine hangs."""
        self._given_up += 1
        for link in list(self._busy):
            link.give_up()

    def drop_idle(self) -> None:
        """Closes the connections on which nobody waits, such as those to an engine that is gone."""
        while self._idle:
            self._idle.pop().close()

    def release(self, link: _Link) -> None:
        """Takes a connection back; one whose answer was not read to its end is closed."""
        self._busy.discard(link)
        if not link.end_request() or link.at != self.at:
            link.close()
            return
        link.idle_since = now = time.monotonic()
        self._idle.append(link)
        while self._idle[0].idle_since < now - IDLE:
            self._idle.popleft().close()

    def _take(self) -> _Link | None:
        """The connection that was used last, if it can still be used."""
        while self._idle:
            link = self._idle.pop()
            if not link.is_closed and link.idle_since >= time.monotonic() - IDLE:
                return link
            link.close()
        return None

    async def _connected(self, model: str | None) -> _Link:
        ends, seconds = self._ended(model), _REACH if isinstance(self.at, Address) else _CONNECT
        try:
            async with asyncio.timeout(seconds):
                link = await connecting.connected(self.at, partial(_Link, self.at))
        except TimeoutError as error:
            raise httpx.ConnectTimeout(f"the engine took no connection for {seconds:.0f} s") from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        if self._ended(model) != ends:
            link.close()
            raise httpx.ConnectError("the answer was cut off")
        return link

    def _ended(self, model: str | None) -> tuple[int, int]:
        """How often requests of a model have been ended."""
        return self._ends, self._ends_of.get(model or "", 0)

    async def _ask(self, link: _Link, sent: bytes, model: str | None, done: Callable[[], None] | None) -> httpx.Response:
        self._busy.add(link)
        try:
            await link.ask(sent, model, done)
        except BaseException:
            self.release(link)
            raise
        return httpx.Response(link.status, headers=link.headers, stream=_Body(link, self))


def _parser(link: _Link) -> tuple[Any, tuple[type[Exception], ...]]:
    """What reads answers, and what it raises. It is imported here, as it is part of the extra `serve`."""
    import httptools

    return httptools.HttpResponseParser(link), (httptools.HttpParserError, httptools.HttpParserUpgrade)
