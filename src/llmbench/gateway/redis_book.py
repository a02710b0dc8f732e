"""What keys have spent, in a Redis that gateways on several machines share, by Redis' own clock.

A transaction reads the accounts, computes here, and writes if nobody else has written them meanwhile; else it begins again. A
counter of each gateway's own, which the same write moves, shows after a lost connection whether the last one was written.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.gateway.book import DEAD, Grant, Transaction, UnknownOutcome
from llmbench.gateway.quota import DAY, Account

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["RedisBook"]

T = TypeVar("T")

_ACCOUNTS, _GATEWAYS, _MARKS = "llmbench:accounts", "llmbench:gateways", "llmbench:marks"
"""Hashes: a key's account by its name; when a gateway was last seen, and the mark of what it last wrote, by its id."""
_TIMEOUT = 1.0
"""Seconds for connecting, and for each answer."""
_CONTENDED = 3.0
"""Seconds for which a transaction that others get ahead of begins again."""
_WRITE = """
if (redis.call('HGET', KEYS[3], ARGV[1]) or '') ~= ARGV[2] then return 0 end
for i = 5, #ARGV, 3 do
  if (redis.call('HGET', KEYS[1], ARGV[i]) or '') ~= ARGV[i + 1] then return 0 end
end
redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
for i = 5, #ARGV, 3 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2]) end
return 1
"""
"""Takes a gateway, its mark before and after, the time, and of each account its name, its text before and after."""


@dataclass(frozen=True)
class _Stored:
    """What stands in Redis at one moment."""

    now: float
    mark: str
    seen: Mapping[str, float]
    texts: Mapping[str, str]


@dataclass(frozen=True)
class _Sent:
    """A write, with the reservations of this gateway as they are once it is done."""

    before: str
    mark: str
    open: Mapping[str, dict[int, int]]


@dataclass
class _Read:
    """An account, and the reservations of other gateways that are running: requests and tokens."""

    account: Account
    others: dict[str, tuple[int, int]] = field(default_factory=dict)


class RedisBook:
    """A Redis of version 5 or newer.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`, as redis-py takes it.
        say: is told when Redis stops answering, and when it answers again.
        clock: seconds since 1970; without it Redis' clock.
        verb: the verb that needs it, for the error that redis-py is not installed.

    Raises:
        MissingPackage: redis-py is not installed.
        LlmbenchError: Redis does not answer, or refuses what a book needs.
    """

    patience = 5.0

    def __init__(
        self,
        url: str,
        say: Callable[[str], None] | None = None,
        clock: Callable[[], float] | None = None,
        *,
        verb: str = "serve",
    ) -> None:
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise MissingPackage(verb, "redis", "redis") from None
        self._slow, self._refusal, self._error = redis.TimeoutError, redis.ResponseError, redis.RedisError
        try:
            self.address = _address(url)
        except ValueError:  # its text quotes the URL
            raise LlmbenchError("The URL of Redis is not redis://[USER:PASSWORD@]HOST:PORT/DB. Correct it.") from None
        self._say = say or (lambda _: None)
        self._given_clock = clock
        self._id = secrets.token_hex(8)
        self._offset = 0.0
        self._trusts_from = -math.inf
        """Until then gateways that were not seen count as alive: they could not reach Redis either."""
        self._down = False
        self._doubt: _Sent | None = None
        self._landed = False
        """Whether what the caller does not know to be written was, until a transaction has told it."""
        self._open: dict[str, dict[int, int]] = {}
        """Tokens of this gateway's reservations by key and number, as Redis has them."""
        try:
            self._redis: Redis = redis.Redis.from_url(
                url,
                protocol=2,
                decode_responses=True,
                socket_timeout=_TIMEOUT,
                socket_connect_timeout=_TIMEOUT,
                retry=Retry(NoBackoff(), 0),
            )
            self._script = self._redis.register_script(_WRITE)
            self._read(["-"])
            self._redis.script_load(_WRITE)
        except (self._error, OSError, ValueError, TypeError) as error:
            reason = _reason(error) if isinstance(error, (self._error, OSError)) else "redis-py does not take the URL"
            raise LlmbenchError(
                f"gateway.limits_in: Redis at {self.address} cannot be used ({reason}). Start it, or correct the URL."
            ) from None

    def clock(self) -> float:
        """By this machine's clock, set by Redis' at every transaction."""
        return time.monotonic() + self._offset if self._given_clock is None else self._given_clock()

    def trouble(self, error: Exception) -> str:
        """One sentence without an address, as clients read it."""
        return f"Redis cannot say what this key has spent ({type(error).__name__}). Try again."

    def transact(self, names: Collection[str], work: Callable[[Transaction], T]) -> T:
        """Begins again for as long as others get ahead of it, for 3 seconds at most."""
        names, end = sorted(names), time.monotonic() + _CONTENDED
        self._landed = self._resolved() or self._landed
        while True:
            stored = self._read(names)
            read = {name: self._parsed(name, stored) for name in names}
            open = {name: dict(self._open.get(name, {})) for name in names}
            transaction = Transaction(stored.now, partial(_account, read), partial(_ended, open), self._landed)
            done = work(transaction)
            for grant in transaction.made:
                open[grant.name][grant.number] = grant.tokens
            if not transaction.changed:
                self._landed = False
                return done
            changes = [(name, stored.texts[name], self._text(read[name], open[name])) for name in transaction.changed]
            sent = _Sent(stored.mark, secrets.token_hex(8), open)
            try:
                written = self._write(sent, stored.now, changes)
            except self._refusal:
                raise  # Redis has run nothing of it
            except Exception as error:
                self._doubt = sent
                try:
                    written = self._resolved()
                except Exception:
                    self._landed = False
                    raise UnknownOutcome(_reason(error)) from error
            if written:
                self._open.update(open)
                self._landed = False
                return done
            if time.monotonic() > end:
                raise TimeoutError("other gateways write without a pause")

    def account(self, name: str) -> Account | None:
        """What a key has spent, as of its last request; None where it has not been used."""
        stored = self._read([name])
        return self._parsed(name, stored).account if stored.texts[name] else None

    def beat(self, *, running: bool) -> None:
        """Also forgets gateways that were not seen for a day."""
        if not running:
            return
        stored = self._read(["-"])
        self._redis.hset(_GATEWAYS, self._id, repr(stored.now))
        if old := [id for id, seen in stored.seen.items() if seen < stored.now - DAY and id != self._id]:
            self._redis.hdel(_GATEWAYS, *old)
            self._redis.hdel(_MARKS, *old)

    def close(self) -> None:
        """Leaves the accounts. Who is not among the gateways runs nothing."""
        with suppress(self._error, OSError):
            self._redis.hdel(_GATEWAYS, self._id)
            self._redis.hdel(_MARKS, self._id)
        self._redis.close()

    def _read(self, names: Collection[str]) -> _Stored:
        """What stands in Redis now; a connection that it has closed meanwhile is opened again."""
        for again in (True, False):
            try:
                with self._redis.pipeline(transaction=True) as pipe:
                    pipe.time()
                    pipe.hget(_MARKS, self._id)
                    pipe.hgetall(_GATEWAYS)
                    pipe.hmget(_ACCOUNTS, list(names))
                    (seconds, microseconds), mark, seen, texts = pipe.execute()
                break
            except Exception as error:
                if not again or isinstance(error, (self._slow, self._refusal)) or self._down:
                    self._noted(error)
                    raise
        now = seconds + microseconds / 1e6
        self._offset = now - time.monotonic()
        if self._given_clock is not None:
            now = self._given_clock()
        if self._down:
            self._down, self._trusts_from = False, now + DEAD
            self._say(f"Redis at {self.address} answers again.")
        return _Stored(
            now,
            mark or "",
            {id: float(text) for id, text in seen.items()},
            {name: text or "" for name, text in zip(names, texts, strict=True)},
        )

    def _write(self, sent: _Sent, now: float, changes: Collection[tuple[str, str, str]]) -> bool:
        """Whether nobody else had written; if somebody had, nothing is changed."""
        arguments = [self._id, sent.before, sent.mark, repr(now), *(text for change in changes for text in change)]
        return bool(self._script(keys=[_ACCOUNTS, _GATEWAYS, _MARKS], args=arguments))

    def _resolved(self) -> bool:
        """Whether the write in doubt was done, if there is one. If it was not, it never will be: a new mark is in its way."""
        while (sent := self._doubt) is not None:
            stored = self._read(["-"])
            if stored.mark == sent.mark:
                self._open.update(sent.open)
                self._doubt = None
                return True
            if stored.mark != sent.before or self._write(_Sent(sent.before, secrets.token_hex(8), {}), stored.now, []):
                self._doubt = None
        return False

    def _parsed(self, name: str, stored: _Stored) -> _Read:
        """An account with the reservations of every gateway that is alive."""
        text = stored.texts[name]
        spent, holders = json.loads(text) if text else ([], {})
        read = _Read(Account(*spent))
        for id, (count, tokens) in holders.items():
            alive = stored.seen.get(id, -math.inf) >= stored.now - DEAD or stored.now < self._trusts_from
            if id != self._id and alive:
                read.others[id] = (count, tokens)
        mine = self._open.get(name, {})
        if holders.get(self._id, [0, 0]) != [len(mine), sum(mine.values())]:
            self._open[name] = mine = {}  # others took this gateway for dead, or Redis has lost something: it stays spent
        read.account.open = len(mine) + sum(count for count, _ in read.others.values())
        read.account.held = sum(mine.values()) + sum(tokens for _, tokens in read.others.values())
        return read

    def _text(self, read: _Read, mine: Mapping[int, int]) -> str:
        account = read.account
        spent = [account.requests, account.tokens, account.at, account.day, account.day_requests, account.day_tokens]
        holders: dict[str, tuple[int, int]] = dict(read.others)
        if mine:
            holders[self._id] = (len(mine), sum(mine.values()))
        return json.dumps([spent, holders], separators=(",", ":"))

    def _noted(self, error: Exception) -> None:
        if not self._down:
            self._down = True
            self._say(f"Redis at {self.address} does not answer ({_reason(error)}). Requests of keys with limits get 503.")


def _account(read: Mapping[str, _Read], name: str) -> Account:
    return read[name].account


def _ended(open: Mapping[str, dict[int, int]], grant: Grant) -> bool:
    return open[grant.name].pop(grant.number, None) is not None


def _address(url: str) -> str:
    """Where a URL leads, without its password."""
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"


def _reason(error: Any) -> str:
    """An error in one line, without what it may quote."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text:.200}" if text else type(error).__name__
