"""Several engines as one: each request goes to the healthy one that likely has its beginning cached, if that is not too full.

Consistent hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam 2016) over rendezvous hashing (`gateway.affinity`).
An engine that fails is left out for a second, and longer each time (outlier ejection, as Envoy calls it), until `gateway.fleet`
finds it well and lets it in again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

import httpx

from llmbench.engine import Address
from llmbench.gateway.affinity import beginning_of, ranked
from llmbench.gateway.observing.engine_series import merged
from llmbench.gateway.transport import Dropped, EngineTransport, PouredStream

__all__ = ["DEVIATIONS", "LOAD_FACTOR", "Backend", "LoadBalancer"]

LOAD_FACTOR, DEVIATIONS = 1.25, 2.0
"""How far the running requests of an engine may exceed the mean: by this factor, or by as many standard deviations as a random
spread would have, whichever is more. Of a few requests a bound within that noise would move many for nothing."""
_FAILURES = 3
"""In a row, until an engine is left out; one that takes no connection is left out at once."""
_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds for which it is, the first time and at most."""
_TAKEN_UP = 0.05
"""Seconds for requests that an engine has lost to be on their way to another one."""
_CALM = 60.0
"""Seconds without a failure after which the first pause is the shortest again."""
_COMPUTING = ("/v1/chat/completions", "/v1/completions")
_NOT_LOADED = 404


class Backend:
    """One engine. Only the event loop changes it; other threads read."""

    def __init__(self, address: Address) -> None:
        self.name = address.url
        self.transport = EngineTransport(address)
        self.healthy = False
        """Whether it is given requests."""
        self.is_leaving = False
        """Whether it will never be given requests again: it only ends its answers."""
        self.running = 0
        """Answers that it is computing."""
        self.outcomes: Counter[str] = Counter()
        """Of requests: answered; refused (4xx); failed (5xx); unreachable (no byte of an answer came); broken (the answer ended
        too early); cancelled (nobody waited any longer)."""
        self.reason = "not asked yet"
        """Why it is left out."""
        self.until = 0.0
        """When it may be tried again, by the monotonic clock."""
        self.failures = 0
        self.pause = 0.0
        self.since = 0.0

    def row(self) -> dict[str, object]:
        """How it stands, for people."""
        state = "draining" if self.is_leaving else "ready" if self.healthy else "out"
        reason = None if self.healthy or self.is_leaving else self.reason
        return {"url": self.name, "state": state, "requests": self.running, "reason": reason}


class LoadBalancer(httpx.AsyncBaseTransport):
    """The transport to several engines. Of one event loop, but for what is done before it runs.

    Args:
        backends: the engines; none is healthy before it is admitted.
        say: told when one is left out, a line each.
        changed: called when the number of healthy engines is another.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        say: Callable[[str], None] = lambda _: None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.backends = {backend.name: backend for backend in backends}
        """By their URLs. Replaced whole, as other threads read it."""
        self.changed = changed
        self._say = say
        self._ends: Counter[str | None] = Counter()

    @property
    def healthy(self) -> list[Backend]:
        """The engines that are given requests."""
        return [backend for backend in self.backends.values() if backend.healthy]

    @property
    def problem(self) -> str | None:
        """Why no request can be answered; None while one can."""
        if self.healthy:
            return None
        count = len(self.backends)
        return "The engine is not available." if count == 1 else f"None of the {count} engines is available."

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Sends a request to the engine that should have it; to the next one too where the first one fails before it answers.

        An answer that has begun is never asked for again. Where both engines answer with the same kind of error, it is the
        request's, and counts against neither.

        Raises:
            httpx.TransportError: a ConnectError where no engine is healthy; as `EngineTransport`.
        """
        done = request.extensions.get("done")
        response = await self._answer(request)
        response.extensions["ended"].tell(done)
        return response

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        """The first engine's answer, or the second's; it is not yet said when it has ended."""
        ends = self._ended(request)
        first = self._choose(request, None)
        if first is None:
            raise httpx.ConnectError(self.problem or "")
        try:
            answer = await self._ask(first, request)
        except (httpx.ConnectError, httpx.ConnectTimeout, Dropped) as error:
            second = self._choose(request, first)
            if second is None or self._ended(request) != ends:
                raise
            try:
                return await self._ask(second, request)
            except httpx.ConnectError:
                raise error from None  # the first engine may have computed something
        if not _is_doubtful(answer):
            return answer
        second = self._choose(request, first)
        if second is None or self._ended(request) != ends:
            return answer
        try:
            await answer.aread()
        finally:
            await answer.aclose()
        try:
            other = await self._ask(second, request)
        except httpx.TransportError:
            return answer
        if not _is_doubtful(other):
            reason = f"it answered {answer.status_code} where {second.name} answers"
            self._failed(first, reason, at_once=answer.status_code == _NOT_LOADED)
        return other

    async def metrics(self, seconds: float) -> bytes:
        """What vLLM counts, of every healthy engine that says so within these seconds, with a label `engine_url`."""

        async def one(backend: Backend) -> tuple[str, bytes]:
            try:
                async with asyncio.timeout(seconds):
                    response = await backend.transport.handle_async_request(httpx.Request("GET", "http://engine/metrics"))
                    try:
                        return backend.name, await response.aread() if response.is_success else b""
                    finally:
                        await response.aclose()
            except (httpx.HTTPError, TimeoutError):
                return backend.name, b""

        return merged(dict(await asyncio.gather(*map(one, self.healthy))))

    def admit(self, backend: Backend) -> None:
        """Gives an engine requests from now on."""
        backend.healthy, backend.failures, backend.since = True, 0, time.monotonic()
        self.changed()

    def eject(self, backend: Backend, reason: str, *, hangs: bool = False) -> None:
        """Gives an engine no more requests, for twice as long as the last time; those that are running go on.

        Of one that `hangs`, those of whose answers nothing has come go to other engines.
        """
        now = time.monotonic()
        calm = backend.healthy and now - backend.since > _CALM
        fresh = calm or not backend.pause or not backend.since  # one that has never been in may be loading yet
        backend.pause = _PAUSE if fresh else min(2 * backend.pause, _LONGEST_PAUSE)
        backend.until, backend.reason = now + backend.pause, reason
        backend.transport.drop_idle()
        if backend.healthy:
            backend.healthy = False
            self._say(f"Engine {backend.name} is left out: {reason}. {len(self.healthy)} of {len(self.backends)} answer")
            self.changed()
        if hangs:
            backend.transport.give_up()

    def include(self, backend: Backend) -> None:
        """Has one more engine, which is given no requests before it is admitted."""
        self.backends = {**self.backends, backend.name: backend}

    def retire(self, backend: Backend) -> None:
        """Gives an engine no more requests; those that are running go on."""
        backend.is_leaving, backend.healthy = True, False
        self.changed()

    async def drop(self, backend: Backend) -> int:
        """Forgets an engine. What it has not begun to answer is asked of another one; how many answers end with an error."""
        self.retire(backend)
        backend.transport.give_up()
        await asyncio.sleep(_TAKEN_UP)
        cut = backend.running
        await backend.transport.aclose()
        self.backends = {name: one for name, one in self.backends.items() if one is not backend}
        return cut

    async def aclose(self) -> None:
        """Closes every connection; what is being read from it ends in an error."""
        await self.end(None)
        for backend in self.backends.values():
            await backend.transport.aclose()

    async def end(self, model: str | None) -> None:
        """Ends the requests of one of the engines' models, or all of them, with an error; none is sent to another engine."""
        self._ends[model] += 1
        for backend in self.backends.values():
            await backend.transport.end(model)

    def _ended(self, request: httpx.Request) -> tuple[int, int]:
        return self._ends[None], self._ends[request.extensions.get("model")]

    def _choose(self, request: httpx.Request, but: Backend | None) -> Backend | None:
        """The healthy engine that should have a request; None where there is none but the one that had it."""
        healthy = {name: backend for name, backend in self.backends.items() if backend.healthy and backend is not but}
        if len(healthy) < 2 or request.url.path not in _COMPUTING:
            return min(healthy.values(), key=lambda backend: backend.running, default=None)
        mean = (sum(backend.running for backend in healthy.values()) + 1) / len(healthy)
        most = math.ceil(max(LOAD_FACTOR * mean, mean + DEVIATIONS * math.sqrt(mean)))
        order = ranked(beginning_of(request.extensions["body"]), list(healthy))
        return next(healthy[name] for name in order if healthy[name].running < most)

    async def _ask(self, backend: Backend, request: httpx.Request) -> httpx.Response:
        counts = request.url.path in _COMPUTING
        ends = self._ended(request)
        backend.running += counts
        own = request.extensions["done"] = _Ended()
        try:
            response, first = await _begun(backend.transport, request)
        except BaseException as error:
            backend.running -= counts
            if self._ended(request) != ends or not isinstance(error, httpx.TransportError):
                backend.outcomes["cancelled"] += counts
            else:
                backend.outcomes["unreachable"] += counts
                self._failed(backend, _in_words(error), at_once=isinstance(error, httpx.ConnectError))
            raise

        def ended(problem: httpx.TransportError | None, complete: bool) -> None:
            backend.running -= counts
            if problem is not None and self._ended(request) == ends:
                backend.outcomes["broken"] += counts
                self._failed(backend, _in_words(problem), at_once=False)
            elif not complete:
                backend.outcomes["cancelled"] += counts
            else:
                kind = "answered" if response.status_code < 400 else "refused" if response.status_code < 500 else "failed"
                backend.outcomes[kind] += counts
                if kind == "answered":
                    backend.failures = 0

        response.extensions["ended"] = own
        response.stream = _Stream(response.stream, first, ended)
        return response

    def _failed(self, backend: Backend, reason: str, *, at_once: bool) -> None:
        backend.failures += 1
        if backend.healthy and (at_once or backend.failures >= _FAILURES):
            self.eject(backend, reason if at_once else f"{backend.failures} failures in a row, the last: {reason}")


async def _begun(transport: EngineTransport, request: httpx.Request) -> tuple[httpx.Response, bytes]:
    """An answer with its first piece: vLLM sends the head of a stream before it computes anything.

    Raises:
        httpx.TransportError: as `EngineTransport`; Dropped where the answer ended behind its head.
    """
    response = await transport.handle_async_request(request)
    assert isinstance(response.stream, httpx.AsyncByteStream)
    try:
        return response, await anext(aiter(response.stream), b"")
    except BaseException as error:
        await response.aclose()
        if isinstance(error, (httpx.ReadError, httpx.RemoteProtocolError)):
            raise Dropped(str(error)) from error
        raise


class _Ended:
    """Notes that an answer has ended, and passes it on once it is known that it is the one that the client gets."""

    def __init__(self) -> None:
        self._has_ended = False
        self._done: Callable[[], None] | None = None

    def __call__(self) -> None:
        """It has ended."""
        self._has_ended = True
        if self._done is not None:
            self._done()

    def tell(self, done: Callable[[], None] | None) -> None:
        """Calls this when it ends, or now."""
        self._done = done
        if self._has_ended and done is not None:
            done()


class _Stream(PouredStream):
    """The body of an answer whose first piece was read before. It tells once how it ended."""

    def __init__(
        self,
        stream: httpx.SyncByteStream | httpx.AsyncByteStream,
        first: bytes,
        ended: Callable[[httpx.TransportError | None, bool], None],
    ) -> None:
        assert isinstance(stream, PouredStream)
        self._stream, self._pieces, self._first = stream, aiter(stream), first
        self._ended: Callable[[httpx.TransportError | None, bool], None] | None = ended

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            self._tell(None, True)
            raise
        except httpx.TransportError as error:
            self._tell(error, False)
            raise

    async def pour(self, take: Callable[[bytes], bool]) -> bool:
        """As `PouredStream`."""
        first, self._first = self._first, b""
        if first and not take(first):
            return False
        try:
            has_ended = await self._stream.pour(take)
        except httpx.TransportError as error:
            self._tell(error, False)
            raise
        if has_ended:
            self._tell(None, True)
        return has_ended

    async def aclose(self) -> None:
        await self._stream.aclose()
        self._tell(None, False)

    def _tell(self, problem: httpx.TransportError | None, complete: bool) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(problem, complete)


def _is_doubtful(answer: httpx.Response) -> bool:
    """Whether another engine may answer better: this one has failed, or lacks an adapter that it should have."""
    return answer.status_code in (500, 502, 503, _NOT_LOADED)


def _in_words(error: httpx.TransportError) -> str:
    return f"{type(error).__name__}: {error}"
