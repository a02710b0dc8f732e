"""What keys have spent, durable before a request is handed on: one thread writes for all requests, many with one commit.

A reservation is in the file before its request reaches the engine. Whatever ends the gateway, what was reserved stays spent
unless the answer has said how much it used. Only a power failure may forget the last seconds: the disk is waited for every two,
as waiting for each commit would add 5 ms and 0.2 ms of processor time to a request. Several gateways may share a file: each
decision is made in a transaction that writes.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from llmbench.errors import LlmbenchError
from llmbench.gateway.keys import Key, KeyStore, default_path
from llmbench.gateway.quota import Account, Excess
from llmbench.gateway.refusal import Refusal
from llmbench.recipe import GatewaySpec

__all__ = ["Grant", "Ledger", "opened"]

_SOON = 0.05
"""Seconds until what is settled is written, if no reservation takes it along earlier."""
_LOOK = 0.4
"""Seconds between looks at whether keys have changed."""
_BEAT = 2.0
"""Seconds between signs of life while answers are running."""
_DEAD = 15.0
"""Seconds without one after which a gateway's reservations no longer count as running."""


@dataclass(frozen=True)
class Grant:
    """A reservation: tokens that were taken from a key on a day (days since 1970)."""

    number: int
    name: str
    tokens: int
    day: int


@dataclass(frozen=True)
class _Asked:
    """Tokens that somebody waits for."""

    key: Key
    tokens: int
    answer: asyncio.Future[Grant | Excess]


@dataclass(frozen=True)
class _Settled:
    grant: Grant
    used: int | None


@dataclass(frozen=True)
class _Spent:
    """What was spent without a reservation."""

    key: Key
    requests: int
    tokens: int


_Entry = _Asked | _Settled | _Spent


class Ledger:
    """The accounts of all keys of a file, for one gateway. Closing it writes what is left.

    Args:
        path: the key file.
        clock: seconds since 1970, the same for everybody who uses the file.

    Raises:
        LlmbenchError: the file cannot be used.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._store = KeyStore(path)
        self._store.db.execute("PRAGMA synchronous = NORMAL")
        self._id, self._last = secrets.randbits(62), 0
        self._accounts: dict[str, Account] = {}  # the thread's; valid while nobody else has written (`data_version`)
        self._version = -1
        self._told: dict[str, Account] = {}
        self._settling = Counter[str]()
        self._running: set[int] = set()
        self._queue: list[_Entry] = []
        self._urgent = self._closing = self._writing = False
        self._wake = threading.Condition()
        self._changes, self._looked, self._beaten, self._signed = -1, 0.0, 0.0, -math.inf
        self._dirty = False
        self.keys: Mapping[str, Key] = {}
        """Every key by its id; another mapping once one has changed."""
        self._read_keys()
        with self._store.explained():
            self._beat()
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
        with suppress(sqlite3.Error):
            self._store.db.execute("DELETE FROM reservations WHERE gateway = ?", (self._id,))
            self._store.db.execute("DELETE FROM gateways WHERE id = ?", (self._id,))
        self._store.close()

    def seen(self, name: str) -> Account | None:
        """A key's account as this gateway last saw it, at `at`; None where it has not looked yet."""
        return self._told.get(name)

    def is_settling(self, name: str) -> bool:
        """Whether a key is about to get something back that `seen` does not know of."""
        return self._settling[name] > 0

    def is_written(self) -> bool:
        """Whether everything that was settled or spent is in the file."""
        with self._wake:
            return not self._queue and not self._writing

    async def reserve(self, key: Key, tokens: int) -> Grant | Excess:
        """Takes a request and its tokens from a key's limits, or says which of them it would exceed.

        Raises:
            Refusal: status 503: the file cannot be written.
        """
        answer: asyncio.Future[Grant | Excess] = asyncio.get_running_loop().create_future()
        with self._wake:
            if self._closing:
                raise Refusal(503, "The server is stopping.", code="server_stopping", retry_after="5")
            self._queue.append(_Asked(key, tokens, answer))
            self._urgent = True
            self._wake.notify()
        try:
            return await answer
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
                    self._wake.wait(_SOON if self._running or self._queue else _LOOK)
                batch, self._queue, self._urgent = self._queue, [], False
                self._writing = bool(batch)
                ending = self._closing
            if batch:
                self._write(batch, last=ending)
                with self._wake:
                    self._writing = False
            now = time.monotonic()
            if now - self._looked >= _LOOK:
                self._looked = now
                with suppress(LlmbenchError):
                    self._read_keys()
            if now - self._beaten >= _BEAT:
                self._beaten = now
                with suppress(sqlite3.Error):
                    self._beat()
            if ending:
                return

    def _write(self, batch: list[_Entry], *, last: bool) -> None:
        """One transaction for all entries. Where it fails nothing is granted, and what was settled is tried again."""
        answers: list[tuple[_Asked, Grant | Excess]] = []
        db = self._store.db
        try:
            db.execute("BEGIN IMMEDIATE")
            looked = self._applied(batch, answers)
            db.execute("COMMIT")
        except Exception as error:  # whatever it was: requests wait for an answer, and none may pass without being written
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            self._accounts.clear()
            self._signed = -math.inf
            with self._wake:
                kept: list[_Entry] = [entry for entry in batch if not isinstance(entry, _Asked) and not last]
                self._queue = kept + self._queue
            problem = Refusal(
                503,
                f"The key file cannot be written ({type(error).__name__}: {error}).",
                code="keys_unavailable",
                retry_after="5",
            )
            self._deliver([(entry, problem) for entry in batch if isinstance(entry, _Asked)])
            return
        for name in looked:
            self._told[name] = replace(self._accounts[name])
        settled = [entry.grant for entry in batch if isinstance(entry, _Settled)]
        with self._wake:
            self._settling.subtract(grant.name for grant in settled)
        self._running -= {grant.number for grant in settled}
        self._running |= {answer.number for _, answer in answers if isinstance(answer, Grant)}
        self._deliver(answers)

    def _applied(self, batch: Iterable[_Entry], answers: list[tuple[_Asked, Grant | Excess]]) -> set[str]:
        """Changes the accounts by some entries and writes what has changed: the names of those that were looked at."""
        db, now = self._store.db, self.clock()
        version = db.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._accounts.clear()
            self._version = version
        looked, changed, made = set[str](), set[str](), list[Grant]()
        for entry in batch:
            name = entry.grant.name if isinstance(entry, _Settled) else entry.key.name
            account = self._account(name)
            looked.add(name)
            match entry:
                case _Settled(grant, used):
                    ended = (self._id, grant.number)
                    if not db.execute("DELETE FROM reservations WHERE gateway = ? AND number = ?", ended).rowcount:
                        continue  # it counted as dead, and so stays spent
                    account.open -= 1
                    account.held -= grant.tokens
                    account.give_back(grant.tokens - used if used is not None else 0, grant.day)
                case _Spent(key, requests, tokens):
                    account.advance(key.limits, now)
                    account.take(tokens, requests)
                case _Asked(key, tokens):
                    account.advance(key.limits, now)
                    excess = account.excess(key.limits, tokens)
                    if excess is not None:
                        answers.append((entry, excess))
                        continue
                    account.take(tokens)
                    account.open += 1
                    account.held += tokens
                    self._last += 1
                    made.append(Grant(self._last, name, tokens, account.day))
                    answers.append((entry, made[-1]))
            changed.add(name)
        self._save(changed, made, now)
        return looked

    def _account(self, name: str) -> Account:
        if name not in self._accounts:
            self._accounts[name] = self._store.account(name) or Account()
        return self._accounts[name]

    def _save(self, changed: Iterable[str], made: Iterable[Grant], now: float) -> None:
        db = self._store.db
        db.executemany(
            "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(name, a.requests, a.tokens, a.at, a.day, a.day_requests, a.day_tokens)
             for name in changed for a in (self._accounts[name],)],
        )  # fmt: skip
        if made:
            rows = [(self._id, grant.number, grant.name, grant.tokens) for grant in made]
            db.executemany("INSERT INTO reservations VALUES (?, ?, ?, ?)", rows)
            if not 0 <= now - self._signed < _BEAT:
                self._sign(now)
        self._dirty = True

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

    def _sign(self, now: float) -> None:
        self._store.db.execute("INSERT OR REPLACE INTO gateways VALUES (?, ?)", (self._id, now))
        self._signed = now

    def _read_keys(self) -> None:
        changes = self._store.changes()
        if changes != self._changes:
            self.keys = {key.id: key for key in self._store.every()}
            self._changes = changes

    def _beat(self) -> None:
        """Says that this gateway lives while answers are running, and ends the reservations of those that no longer do."""
        db, now = self._store.db, self.clock()
        if self._running:
            self._sign(now)
        if self._dirty:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")  # waits for the disk, too
            self._dirty = False
        others = db.execute("SELECT DISTINCT gateway FROM reservations WHERE gateway <> ?", (self._id,)).fetchall()
        living = set(db.execute("SELECT id FROM gateways WHERE seen >= ?", (now - _DEAD,)))
        for dead in set(others) - living:
            db.execute("DELETE FROM reservations WHERE gateway = ?", dead)
            db.execute("DELETE FROM gateways WHERE id = ?", dead)
            self._accounts.clear()  # how many requests are running is counted again


@contextmanager
def opened(spec: GatewaySpec, log: Callable[[str], None] | None) -> Iterator[Ledger | None]:
    """The ledger of the keys that a serving document names, inside the block; None where it names none.

    Raises:
        LlmbenchError: the file cannot be used.
    """
    if spec.keys is False:
        yield None
        return
    path = default_path() if spec.keys is True else spec.keys
    with Ledger(path) as ledger:
        active = [key.name for key in ledger.keys.values() if key.state(ledger.clock()) == "active"]
        if log is not None:
            log(f"Keys of {path}: {', '.join(active) or 'none yet. Make one: llmbench keys new NAME'}")
        yield ledger
