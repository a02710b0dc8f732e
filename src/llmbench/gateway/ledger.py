"""What keys have spent, written before a request is handed on: one thread writes for all requests, many with one transaction.

A reservation is written before its request reaches the engine. Whatever ends the gateway, what was reserved stays spent
unless the answer has said how much it used. Several gateways may share a book: each decision is made in a transaction that
writes.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from llmbench.errors import LlmbenchError
from llmbench.gateway.book import BEAT, Book, Grant, SqliteBook, Transaction, UnknownOutcome
from llmbench.gateway.keys import Key, KeyStore, default_path
from llmbench.gateway.quota import Account, Excess
from llmbench.gateway.redis_book import RedisBook
from llmbench.gateway.refusal import Refusal
from llmbench.recipe import GatewaySpec

__all__ = ["Grant", "Ledger", "opened"]

_SOON = 0.05
"""Seconds until what is settled is written, if no reservation takes it along earlier."""
_LOOK = 0.4
"""Seconds between looks at whether keys have changed."""


@dataclass(frozen=True)
class _Asked:
    """Tokens that somebody waits for."""

    key: Key
    tokens: int
    answer: asyncio.Future[Grant | Excess]

    @property
    def name(self) -> str:
        return self.key.name


@dataclass(frozen=True)
class _Settled:
    grant: Grant
    used: int | None

    @property
    def name(self) -> str:
        return self.grant.name


@dataclass(frozen=True)
class _Spent:
    """What was spent without a reservation."""

    key: Key
    requests: int
    tokens: int

    @property
    def name(self) -> str:
        return self.key.name


@dataclass
class _Outcome:
    """What a transaction came to."""

    settled: list[_Settled | _Spent] = field(default_factory=list)
    answers: list[tuple[_Asked, Grant | Excess]] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)


@dataclass(frozen=True)
class _Doubt:
    """A transaction that may have been written: to be done again if it was not, or else what it granted is to be returned."""

    again: list[_Settled | _Spent]
    back: list[_Settled]


_Entry = _Asked | _Settled | _Spent


class Ledger:
    """The accounts of all keys of a file, for one gateway. Closing it writes what is left.

    Args:
        path: the key file.
        clock: seconds since 1970, the same for everybody who uses the file.
        book: where the accounts are, if not in the key file; it is closed with the ledger, and has a clock of its own.

    Raises:
        LlmbenchError: the file cannot be used.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time, book: Book | None = None) -> None:
        self._store = KeyStore(path)
        self._last = 0
        self._told: dict[str, Account] = {}
        self._settling = Counter[str]()
        self._running: set[int] = set()
        self._queue: list[_Entry] = []
        self._doubt: _Doubt | None = None
        self._urgent = self._closing = self._writing = False
        self._wake = threading.Condition()
        self._changes, self._looked, self._beaten = -1, 0.0, 0.0
        self.keys: Mapping[str, Key] = {}
        """Every key by its id; another mapping once one has changed."""
        self._read_keys()
        with self._store.explained():
            self._book: Book = book or SqliteBook(self._store, secrets.randbits(62), clock)
            self._book.beat(running=False)
        self.clock = self._book.clock
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Writes what is left and closes the file; answers that still run stay spent as they were reserved."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self._book.close()
        self._store.close()

    def seen(self, name: str) -> Account | None:
        """A key's account as this gateway last saw it, at `at`; None where it has not looked yet."""
        return self._told.get(name)

    def is_settling(self, name: str) -> bool:
        """Whether a key is about to get something back that `seen` does not know of."""
        return self._settling[name] > 0

    def is_written(self) -> bool:
        """Whether everything that was settled or spent is in the book."""
        with self._wake:
            return not self._queue and not self._writing and self._doubt is None

    async def reserve(self, key: Key, tokens: int) -> Grant | Excess:
        """Takes a request and its tokens from a key's limits, or says which of them it would exceed.

        Raises:
            Refusal: status 503: the book cannot be written.
        """
        answer: asyncio.Future[Grant | Excess] = asyncio.get_running_loop().create_future()
        with self._wake:
            if self._closing:
                raise Refusal(503, "The server is stopping.", code="server_stopping", retry_after="5")
            self._queue.append(_Asked(key, tokens, answer))
            self._urgent = True
            self._wake.notify()
        try:
            async with asyncio.timeout(self._book.patience):
                return await answer
        except TimeoutError as error:
            raise Refusal(503, self._book.trouble(error), code="keys_unavailable", retry_after="5") from None
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._return(answer.result())  # it came in the same moment in which the client went
            raise

    def settle(self, grant: Grant, used: int | None) -> None:
        """Ends a reservation: what was not used flows back; None leaves all of it spent."""
        with self._wake:
            self._settling[grant.name] += 1
            self._queue.append(_Settled(grant, used))

    def spend(self, key: Key, *, requests: int = 1, tokens: int = 0) -> None:
        """Writes down what was spent without a reservation."""
        with self._wake:
            self._queue.append(_Spent(key, requests, tokens))

    def _return(self, answer: Grant | Excess | Refusal) -> None:
        if isinstance(answer, Grant):
            self.settle(answer, 0)

    def _work(self) -> None:
        """The thread: writes what has come together since the last commit, until it is told to end."""
        while True:
            with self._wake:
                if not self._urgent and not self._closing:
                    self._wake.wait(_SOON if self._running or self._queue or self._doubt else _LOOK)
                batch, self._queue, self._urgent = self._queue, [], False
                self._writing = bool(batch)
                ending = self._closing
            if batch or self._doubt is not None:
                self._write(batch, last=ending)
                with self._wake:
                    self._writing = False
            now = time.monotonic()
            if now - self._looked >= _LOOK:
                self._looked = now
                with suppress(LlmbenchError):
                    self._read_keys()
            if now - self._beaten >= BEAT:
                self._beaten = now
                with suppress(Exception):
                    self._book.beat(running=bool(self._running))
            if ending:
                return

    def _write(self, batch: list[_Entry], *, last: bool) -> None:
        """One transaction for all entries. Where it fails nothing is granted, and what was settled is tried again."""
        doubt, outcome = self._doubt, _Outcome()
        names = {entry.name for entry in batch}
        if doubt is not None:
            names |= {entry.name for entry in (*doubt.again, *doubt.back)}

        def work(transaction: Transaction) -> None:
            nonlocal outcome
            before = () if doubt is None else doubt.back if transaction.landed else doubt.again
            outcome = self._applied([*before, *batch], transaction)

        try:
            self._book.transact(names, work)
        except Exception as error:  # whatever it was: requests wait for an answer, and none may pass without being written
            kept: list[_Entry] = []
            if isinstance(error, UnknownOutcome):
                back = [_Settled(answer, 0) for _, answer in outcome.answers if isinstance(answer, Grant)]
                self._doubt = _Doubt(outcome.settled, back)
            elif not last:
                kept = _merged(entry for entry in batch if not isinstance(entry, _Asked))
            with self._wake:
                self._queue = kept + self._queue
            problem = Refusal(503, self._book.trouble(error), code="keys_unavailable", retry_after="5")
            self._deliver([(entry, problem) for entry in batch if isinstance(entry, _Asked)])
            return
        self._doubt = None
        self._told.update(outcome.accounts)
        settled = [entry.grant for entry in (*batch, *(doubt.again if doubt else ())) if isinstance(entry, _Settled)]
        with self._wake:
            self._settling.subtract(grant.name for grant in settled)
        self._running -= {grant.number for grant in settled}
        self._running |= {answer.number for _, answer in outcome.answers if isinstance(answer, Grant)}
        self._deliver(outcome.answers)

    def _applied(self, entries: Iterable[_Entry], transaction: Transaction) -> _Outcome:
        """Changes the accounts by some entries, and says what came of them."""
        outcome, now, looked = _Outcome(), transaction.now, set[str]()
        for entry in entries:
            name = entry.name
            account = transaction.account(name)
            looked.add(name)
            match entry:
                case _Settled(grant, used):
                    outcome.settled.append(entry)
                    if not transaction.end(grant):
                        continue  # it counted as dead, and so stays spent
                    account.open -= 1
                    account.held -= grant.tokens
                    account.give_back(grant.tokens - used if used is not None else 0, grant.day)
                case _Spent(key, requests, tokens):
                    outcome.settled.append(entry)
                    account.advance(key.limits, now)
                    account.take(tokens, requests)
                case _Asked(key, tokens):
                    account.advance(key.limits, now)
                    excess = account.excess(key.limits, tokens)
                    if excess is not None:
                        outcome.answers.append((entry, excess))
                        continue
                    account.take(tokens)
                    account.open += 1
                    account.held += tokens
                    self._last += 1
                    grant = Grant(self._last, name, tokens, account.day)
                    transaction.made.append(grant)
                    outcome.answers.append((entry, grant))
            transaction.changed.add(name)
        outcome.accounts = {name: replace(transaction.account(name)) for name in looked}
        return outcome

    def _deliver(self, answers: Sequence[tuple[_Asked, Grant | Excess | Refusal]]) -> None:
        """Hands answers to whoever waits for them, with one call for each event loop."""

        def hand_over(mine: list[tuple[_Asked, Grant | Excess | Refusal]]) -> None:
            for entry, answer in mine:
                if entry.answer.done():  # its client has gone
                    self._return(answer)
                elif isinstance(answer, Refusal):
                    entry.answer.set_exception(answer)
                else:
                    entry.answer.set_result(answer)

        for loop in {entry.answer.get_loop() for entry, _ in answers}:
            with suppress(RuntimeError):  # the loop has ended, and its answers stay spent
                loop.call_soon_threadsafe(hand_over, [(e, a) for e, a in answers if e.answer.get_loop() is loop])

    def _read_keys(self) -> None:
        changes = self._store.changes()
        if changes != self._changes:
            self.keys = {key.id: key for key in self._store.every()}
            self._changes = changes


def _merged(entries: Iterable[_Settled | _Spent]) -> list[_Entry]:
    """The same with what was spent without a reservation as one entry a key, since it may be long until they are written."""
    kept: list[_Entry] = []
    spent: dict[str, _Spent] = {}
    for entry in entries:
        if isinstance(entry, _Settled):
            kept.append(entry)
        else:
            so_far = spent.get(entry.name, _Spent(entry.key, 0, 0))
            spent[entry.name] = _Spent(entry.key, so_far.requests + entry.requests, so_far.tokens + entry.tokens)
    return [*kept, *spent.values()]


@contextmanager
def opened(spec: GatewaySpec, log: Callable[[str], None] | None) -> Iterator[Ledger | None]:
    """The ledger of the keys that a serving document names, inside the block; None where it names none.

    Raises:
        LlmbenchError: the file cannot be used, or Redis.
        MissingPackage: redis-py is not installed.
    """
    if spec.keys is False:
        yield None
        return
    path = default_path() if spec.keys is True else spec.keys
    book = None if spec.limits_in is None else RedisBook(spec.limits_in, log)
    with Ledger(path, book=book) as ledger:
        active = [key.name for key in ledger.keys.values() if key.state(ledger.clock()) == "active"]
        if log is not None:
            log(f"Keys of {path}: {', '.join(active) or 'none yet. Make one: llmbench keys new NAME'}")
            if book is not None:
                log(f"Their limits hold together with every gateway that uses Redis at {book.address}")
        yield ledger
