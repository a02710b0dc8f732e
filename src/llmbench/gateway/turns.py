"""Whose request the engine gets next, when it is full.

vLLM takes requests in the order in which they come, so that whoever sends a thousand at once is served and the next waits for
all of them. Here as many are handed on as vLLM computes at once, and what is beyond waits: each key has a line of its own, and
the lines take turns by the tokens that they may cost (start-time fair queueing: Goyal, Vin and Cheng 1996). Work that can wait
(`service_tier: flex`) is a line whose tokens count ten times.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from dataclasses import dataclass, field
from typing import Literal

from llmbench.gateway.exchange import Exchange
from llmbench.gateway.refusal import Refusal

__all__ = ["OVERLOADED", "TIMED_OUT", "Tier", "Turns"]

Tier = Literal["default", "flex"]
OVERLOADED = "server_overloaded"
TIMED_OUT = "request_timeout"
_COSTS = {"default": 1.0, "flex": 10.0}
_SMOOTH = 0.1
"""Share that the newest answer has in the mean time of an answer."""


@dataclass(order=True)
class _Waiting:
    start: float
    number: int
    seats: int = field(compare=False)
    turn: asyncio.Future[None] = field(compare=False)


class Turns:
    """The engine's places, and the lines before it. Of one event loop.

    Args:
        places: answers that the engine computes at once; may change.
        most: requests that may wait.
    """

    def __init__(self, places: int, most: int) -> None:
        self._places = places
        self.most = most
        self._taken = 0
        self._waiting: list[_Waiting] = []
        self._gone = 0  # of those that wait: given up
        self._now = 0.0
        self._ends: dict[str, float] = {}
        self._number = 0
        self._mean = 0.0

    @property
    def places(self) -> int:
        """Answers that the engine computes at once."""
        return self._places

    @places.setter
    def places(self, places: int) -> None:
        self._places = places
        self._next()

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting) - self._gone

    @property
    def free(self) -> bool:
        """Whether one more would not wait."""
        return not self.waiting and self._taken < self.places

    async def take(self, exchange: Exchange, *, cost: int, seats: int = 1, tier: Tier = "default") -> None:
        """Waits for a place, which is given back when the engine has sent its answer, and when the exchange ends at the latest.

        Args:
            exchange: the request; its key is the line that it stands in, and `deadline` how long it may wait.
            cost: tokens that it may use.
            seats: answers that it asks for at once.
            tier: whether it can wait.

        Raises:
            Refusal: status 503: too many wait, or it would wait for longer than its client does.
        """
        seats = min(seats, self.places)
        begun = exchange.elapsed()
        line, full = f"{tier}\0{exchange.key}", self.waiting > 0 or self._taken + seats > self.places
        if full:
            self._refuse_hopeless(exchange)
        start = self._stand(line, cost * _COSTS[tier])
        if full:
            await self._wait(start, seats)
        else:
            self._taken += seats
            self._now = start
        taken = exchange.elapsed()
        exchange.queue_seconds = taken - begun
        exchange.at_end.append(lambda: self._give(seats, exchange.elapsed() - taken))

    def _stand(self, name: str, cost: float) -> float:
        """Puts a request at the end of a line; its place among all of them."""
        start = max(self._now, self._ends.get(name, 0.0))
        if len(self._ends) > self.most:  # lines that are empty; those that are not end later than now
            self._ends = {one: end for one, end in self._ends.items() if end > self._now}
        self._ends[name] = start + cost
        return start

    def _refuse_hopeless(self, exchange: Exchange) -> None:
        left = math.inf if exchange.deadline is None else exchange.deadline - exchange.elapsed()
        expected = self._mean * (self.waiting + 1) / self.places
        if self.waiting >= self.most:
            raise self._refusal(f"{self.waiting:,} requests are waiting already", expected)
        if expected > left:
            raise self._refusal(f"The estimated wait of {expected:.0f} s exceeds the client's timeout", expected)

    async def _wait(self, start: float, seats: int) -> None:
        self._number += 1
        mine = _Waiting(start, self._number, seats, asyncio.get_running_loop().create_future())
        heapq.heappush(self._waiting, mine)
        try:
            await mine.turn
        except BaseException:  # its client has gone, or waits no longer
            self._leave(mine)
            raise

    def _leave(self, mine: _Waiting) -> None:
        """Gives up waiting; a place that was given in the same moment is given on."""
        if mine.turn.done() and not mine.turn.cancelled():
            self._give(mine.seats, None)
        else:
            self._gone += 1
            mine.turn.cancel()
            self._next()

    def _give(self, seats: int, seconds: float | None) -> None:
        self._taken -= seats
        if seconds is not None:
            self._mean = seconds if self._mean == 0 else self._mean + _SMOOTH * (seconds - self._mean)
        self._next()

    def _next(self) -> None:
        while self._waiting:
            first = self._waiting[0]
            if first.turn.cancelled():
                self._gone -= 1
            elif self._taken and self._taken + first.seats > self.places:  # alone it goes, though there are fewer places now
                return
            else:
                self._taken += first.seats
                self._now = max(self._now, first.start)
                first.turn.set_result(None)
            heapq.heappop(self._waiting)

    def _refusal(self, why: str, expected: float) -> Refusal:
        seconds = max(1, math.ceil(expected))
        return Refusal(503, f"{why}. Try again in {seconds} s.", code=OVERLOADED, retry_after=str(seconds))
