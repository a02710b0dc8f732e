"""What a key may spend: token buckets for a minute, a sum for the day, requests at once. Arithmetic alone, without a clock.

A bucket holds a minute's worth and refills evenly, so that over any T minutes a key gets at most (T + 1) times its limit. An
account keeps what has been taken and has not flowed back yet, not what is left: a limit that changes applies at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["DAY", "NO_LIMITS", "Account", "Excess", "Limits", "duration"]

DAY = 86_400
"""Seconds of a day of UTC, as clocks of POSIX count them."""
_MINUTE = 60.0
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Limits:
    """What a key may use; None is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent: int | None = None
    """Requests at once."""
    tokens_per_day: int | None = None
    """Prompt and answer, in a day of UTC."""

    def __bool__(self) -> bool:
        """Whether there is any limit."""
        return any(
            limit is not None
            for limit in (self.requests_per_minute, self.tokens_per_minute, self.concurrent, self.tokens_per_day)
        )


NO_LIMITS = Limits()


@dataclass(frozen=True)
class Excess:
    """Why something cannot be spent. `wait` is in seconds and infinite where waiting does not help, `left` counts tokens."""

    limit: Literal["requests", "tokens", "concurrent", "day"]
    wait: float
    left: int = 0


@dataclass
class Account:
    """What a key has spent. Buckets are filled up to `at` (seconds since 1970); `open` requests hold `held` tokens."""

    requests: float = 0.0
    """Requests taken out of the bucket of a minute and not yet refilled."""
    tokens: float = 0.0
    at: float = 0.0
    day: int = 0
    """Days since 1970."""
    day_requests: int = 0
    day_tokens: int = 0
    open: int = 0
    held: int = 0

    def advance(self, limits: Limits, now: float) -> None:
        """Refills the buckets and turns the day.

        A clock that is put back refills nothing, and one put back over midnight does not give out the day again.
        """
        passed = max(0.0, now - self.at)
        self.requests = _drained(self.requests, limits.requests_per_minute, passed)
        self.tokens = _drained(self.tokens, limits.tokens_per_minute, passed)
        self.at = now
        today = int(now // DAY)
        if today > self.day or today < self.day - 1:
            self.day, self.day_requests, self.day_tokens = today, 0, 0

    def excess(self, limits: Limits, tokens: int) -> Excess | None:
        """The limit that a request for so many tokens would exceed, if any; one that waiting does not help with comes first."""
        day, minute, most = limits.tokens_per_day, limits.tokens_per_minute, limits.requests_per_minute
        if minute is not None and tokens > minute:
            return Excess("tokens", math.inf, math.floor(minute - self.tokens))
        if day is not None and self.day_tokens + tokens > day:
            returning = self.day_tokens - self.held + tokens <= day  # enough, once running answers give back their rest
            midnight = (self.day + 1) * DAY - self.at
            return Excess("day", 1.0 if returning else midnight, day - self.day_tokens)
        if limits.concurrent is not None and self.open >= limits.concurrent:
            return Excess("concurrent", 1.0)
        if most is not None and self.requests + 1 > most + _ROUNDING:
            return Excess("requests", (self.requests + 1 - most) * _MINUTE / most)
        if minute is not None and self.tokens + tokens > minute + _ROUNDING:
            return Excess("tokens", (self.tokens + tokens - minute) * _MINUTE / minute, math.floor(minute - self.tokens))
        return None

    def take(self, tokens: int, requests: int = 1) -> None:
        """Spends."""
        self.requests += requests
        self.tokens += tokens
        self.day_requests += requests
        self.day_tokens += tokens

    def give_back(self, tokens: int, day: int) -> None:
        """Returns tokens that were taken on a day and not used; negative where more were used than taken."""
        self.tokens = max(0.0, self.tokens - tokens)
        if day == self.day:
            self.day_tokens = max(0, self.day_tokens - tokens)

    def headers(self, limits: Limits) -> list[tuple[bytes, bytes]]:
        """OpenAI's `x-ratelimit-*`. Those of tokens are of the minute, and of the day where a minute has no limit."""
        found: list[tuple[bytes, bytes]] = []
        if (most := limits.requests_per_minute) is not None:
            found += _told(b"requests", most, most - self.requests, self.requests * _MINUTE / most)
        if (most := limits.tokens_per_minute) is not None:
            found += _told(b"tokens", most, most - self.tokens, self.tokens * _MINUTE / most)
        elif (most := limits.tokens_per_day) is not None:
            found += _told(b"tokens", most, most - self.day_tokens, (self.day + 1) * DAY - self.at)
        return found


def duration(seconds: float) -> str:
    """`6m0s`, `1s`, `12ms`: as OpenAI writes them, rounded up."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms" if seconds > 0 else "0s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest}s"


def _drained(taken: float, limit: int | None, seconds: float) -> float:
    """What is still missing from a bucket after some seconds; nothing is where there is no limit."""
    return 0.0 if limit is None else max(0.0, taken - limit * seconds / _MINUTE)


def _told(what: bytes, limit: int, left: float, reset: float) -> list[tuple[bytes, bytes]]:
    return [
        (b"x-ratelimit-limit-" + what, b"%d" % limit),
        (b"x-ratelimit-remaining-" + what, b"%d" % max(0, math.floor(left + _ROUNDING))),
        (b"x-ratelimit-reset-" + what, duration(reset).encode()),
    ]
