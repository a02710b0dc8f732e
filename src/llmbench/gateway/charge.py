"""What a request costs its key: reserved before it is handed on, settled after its last byte, whichever way it ends."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from llmbench.gateway.keys import Key
from llmbench.gateway.ledger import Grant, Ledger
from llmbench.gateway.quota import Account, Excess, Limits, duration
from llmbench.gateway.refusal import Refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Charge", "Quota", "Waiting"]

_FRESH = 1.0
"""Seconds for which an account as it was last seen may refuse a request; another gateway may have given something back."""


class Waiting:
    """How many requests of each key have begun and reserved nothing yet, such as those that documents are searched for."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        """Requests of a key."""
        return self._counts.get(name, 0)

    def add(self, name: str, count: int) -> None:
        """Counts one more, or one less."""
        self._counts[name] = self[name] + count
        if not self._counts[name]:
            del self._counts[name]


class Charge:
    """One request of a key, from its head to the last byte of its answer."""

    def __init__(self, ledger: Ledger, key: Key, waiting: Waiting) -> None:
        self.key = key
        self._ledger = ledger
        self._waiting = waiting
        self._begun = self._refused = self._waits = False
        self._grant: Grant | None = None
        self._used: int | None = None

    def begin(self) -> Refusal | None:
        """The refusal, without a look into the file, where this process already knows that a limit is reached."""
        if self.key.limits:
            settling = self._ledger.is_settling(self.key.name)
            account, waiting = self._account(-math.inf if settling else _FRESH), self._waiting[self.key.name]
            account.take(waiting, waiting)
            account.open += waiting
            if (excess := account.excess(self.key.limits, 1)) is not None:
                return refused(excess, self.key.limits, 1)
        self._begun = self._waits = True
        self._waiting.add(self.key.name, 1)
        return None

    async def reserve(self, least: int, most: int, count: Callable[[], Awaitable[int]] | None) -> None:
        """Takes what a request may use from the key's limits, durably.

        Args:
            least: tokens that it may use at any rate.
            most: an upper bound that was cheap to compute.
            count: computes the bound exactly, which takes a while; None where `most` is exact.

        Raises:
            Refusal: status 429: a limit is reached; 503: the file cannot be written.
        """
        if not self.key.limits:
            return
        self._wait_no_more()  # before it is granted, or the same request would count twice
        found = await self._ledger.reserve(self.key, most)
        if isinstance(found, Excess) and found.limit in ("tokens", "day") and count is not None and found.left >= least:
            most = await count()
            found = await self._ledger.reserve(self.key, most)
        if isinstance(found, Excess):
            self._refused = True
            raise refused(found, self.key.limits, most)
        self._grant = found

    def used(self, tokens: int) -> None:
        """What the answer has used in all, once that is certain."""
        self._used = tokens

    def close(self) -> None:
        """Settles. What a reservation was for stays spent where the engine has not said what was used."""
        if self._grant is not None:
            self._ledger.settle(self._grant, self._used)
        elif self._begun and not self._refused:
            self._ledger.spend(self.key, tokens=self._used or 0)
        self._grant, self._begun = None, False
        self._wait_no_more()

    def headers(self) -> list[tuple[bytes, bytes]]:
        """`x-ratelimit-*` as of now."""
        limits = self.key.limits
        if not limits:
            return []
        return self._account().headers(limits)

    def _account(self, at_most: float = math.inf) -> Account:
        """A copy of the account as it was last seen, brought up to now; an empty one where that is older than `at_most`."""
        found, now = self._ledger.seen(self.key.name), self._ledger.clock()
        copy = Account() if found is None or now - found.at > at_most else replace(found)
        copy.advance(self.key.limits, now)
        return copy

    def _wait_no_more(self) -> None:
        if self._waits:
            self._waits = False
            self._waiting.add(self.key.name, -1)


class Quota:
    """Charges the requests of named keys, refuses those beyond their limits, and says in each answer what is left.

    The guard says in `scope["state"]["key"]` whose request it is; the charge stands in `scope["state"]["charge"]`.
    """

    def __init__(self, app: ASGIApp, *, ledger: Ledger) -> None:
        self._app = app
        self._ledger = ledger
        self._waiting = Waiting()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands a request on, or answers it with the refusal."""
        key = scope.get("state", {}).get("key") if scope["type"] == "http" else None
        if key is None:
            await self._app(scope, receive, send)
            return
        charge = scope["state"]["charge"] = Charge(self._ledger, key, self._waiting)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *charge.headers()]
            await send(message)

        refusal = charge.begin() if scope["method"] == "POST" else None
        if refusal is not None:
            scope["state"]["exchange"].error = refusal.code
            await refusal.response()(scope, receive, sent)
            return
        try:
            await self._app(scope, receive, sent)
        finally:
            charge.close()


def refused(excess: Excess, limits: Limits, tokens: int) -> Refusal:
    """The answer to a request beyond a limit, as OpenAI's clients read it; `tokens` is what it may use."""
    wait = "" if math.isinf(excess.wait) else f" Try again in {duration(excess.wait)}."
    may = f"this request may take {tokens:,} (its prompt and max_tokens)" if tokens > 1 else "this request needs more"
    match excess.limit:
        case "requests":
            message = f"This key may send {limits.requests_per_minute:,} requests a minute."
        case "concurrent":
            message = f"This key may have {limits.concurrent:,} requests at once."
        case "tokens" if not wait:
            message = (
                f"This key may use {limits.tokens_per_minute:,} tokens a minute, and {may}. Lower max_tokens or shorten it."
            )
        case "tokens":
            left = max(0, excess.left)
            message = f"This key may use {limits.tokens_per_minute:,} tokens a minute. {left:,} are left, and {may}."
        case "day":
            message = f"This key may use {limits.tokens_per_day:,} tokens a day. {max(0, excess.left):,} are left, and {may}."
    is_spent = excess.limit == "day" and excess.wait > 1
    if is_spent:
        wait = f" The day ends in {duration(excess.wait)}, at 00:00 UTC."
    return Refusal(
        429,
        message + wait,
        code="insufficient_quota" if is_spent else "rate_limit_exceeded",
        retry_after=None if math.isinf(excess.wait) else str(math.ceil(excess.wait)),
        retry=not is_spent and bool(wait),
    )
