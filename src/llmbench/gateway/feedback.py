"""What is said about answers after they were given: a vote of whoever got one, a score of a judge.

Which variant gave an answer is remembered for a day and for the last 100,000 requests, in memory alone. A named key speaks of
its own requests; whoever has `gateway.api_key`, and everybody on a server without keys, of any.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from llmbench.gateway.api.feedback import FeedbackRequest, Metric
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.refusal import Refusal

__all__ = ["ANSWERS", "Feedback", "FeedbackSink", "Feedbacks", "RememberedRequest"]

ANSWERS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")
"""The paths whose answers can be spoken about."""

_MOST = 100_000
_SECONDS = 86_400.0


@dataclass(slots=True)
class RememberedRequest:
    """What feedback needs to know of a request. `begun` is by the monotonic clock; the others are the exchange's."""

    id: str
    key: str
    asked: str
    variant: str
    arm: str | None
    unit: str | None
    begun: float
    ended: bool = False
    given: dict[Metric, float] | None = None
    """What was said about it so far; the last of each kind."""
    waiting: dict[Metric, Feedback] | None = None
    """What was said about it before it ended; the last of each kind."""


@dataclass(frozen=True)
class Feedback:
    """One statement about one answer. `value` is 0 to 1, of a vote 0 or 1; `repeated`: one of its kind was given before."""

    request: RememberedRequest
    metric: Metric
    value: float
    comment: str | None = None
    repeated: bool = False


FeedbackSink = Callable[[Feedback], None]
"""Is told of each feedback once its request has ended; called in the event loop, so it may not block."""


class Feedbacks:
    """The requests that can be spoken about. All calls come from the event loop.

    Args:
        sinks: are told of what is said, each time.
        clock: the monotonic clock that exchanges are timed by.
        most: how many requests are remembered.
    """

    def __init__(
        self, sinks: Sequence[FeedbackSink] = (), *, clock: Callable[[], float] = time.monotonic, most: int = _MOST
    ) -> None:
        self.sinks = list(sinks)
        self._clock = clock
        self._most = most
        self._requests: OrderedDict[tuple[str, str], RememberedRequest] = OrderedDict()
        self._keys: Counter[str] = Counter()
        """How many requests of each key are remembered."""

    @property
    def count(self) -> int:
        """How many requests are remembered."""
        return len(self._requests)

    def begun(self, exchange: Exchange) -> None:
        """Remembers a request whose variant is known, where its answer can be spoken about; an earlier one of its id and key is
        forgotten.
        """
        if exchange.path not in ANSWERS:
            return
        self._forget((exchange.key, exchange.id))
        while self._requests and (len(self._requests) >= self._most or self._is_old(next(iter(self._requests.values())))):
            self._forget(next(iter(self._requests)))
        self._requests[exchange.key, exchange.id] = RememberedRequest(
            exchange.id, exchange.key, exchange.asked, exchange.variant, exchange.arm, exchange.unit, exchange.begun
        )
        self._keys[exchange.key] += 1

    def told(self, exchange: Exchange) -> None:
        """Forgets a request that was not answered, and passes on what was said about one meanwhile; the last of the sinks."""
        request = self._requests.get((exchange.key, exchange.id))
        if request is None or request.begun != exchange.begun:
            return
        if exchange.status != 200:
            self._forget((exchange.key, exchange.id))
            return
        request.ended = True
        waiting, request.waiting = request.waiting or {}, None
        for one in waiting.values():
            self._tell(one)

    def give(self, wanted: FeedbackRequest, key: str | None) -> Feedback:
        """Takes what is said about a request.

        Args:
            wanted: what a client sent.
            key: the name of its key; None may speak about every key's requests.

        Raises:
            Refusal: status 404: no such request of this key is remembered.
        """
        found = self._find(wanted.request_id, key)
        if found is None:
            whose = " of this key" if key is not None else ""
            message = (
                f"No request{whose} with the x-request-id {wanted.request_id!r:.100} was answered since the server started, "
                f"within {_SECONDS / 3600:.0f} hours and the last {self._most:,} requests."
            )
            raise Refusal(404, message, param="request_id", code="request_not_found")
        if found.given is None:
            found.given = {}
        given = found.given
        feedback = Feedback(found, wanted.metric, wanted.value, wanted.comment, repeated=wanted.metric in given)
        given[wanted.metric] = wanted.value
        if found.ended:
            self._tell(feedback)
        else:  # nobody has been told of an earlier one
            found.waiting = (found.waiting or {}) | {wanted.metric: replace(feedback, repeated=False)}
        return feedback

    def _find(self, id: str, key: str | None) -> RememberedRequest | None:
        names: Iterator[str] = iter(self._keys) if key is None else iter((key,))
        found = (self._requests.get((name, id)) for name in names)
        return next((one for one in found if one is not None and not self._is_old(one)), None)

    def _is_old(self, request: RememberedRequest) -> bool:
        return request.begun < self._clock() - _SECONDS

    def _forget(self, place: tuple[str, str]) -> None:
        if self._requests.pop(place, None) is not None:
            self._keys[place[0]] -= 1
            if not self._keys[place[0]]:
                del self._keys[place[0]]

    def _tell(self, feedback: Feedback) -> None:
        for sink in self.sinks:
            sink(feedback)
