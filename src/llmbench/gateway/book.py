"""Where it is written what keys have spent: what a ledger needs of such a place, and the key file as one."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from llmbench.gateway.keys import KeyStore
from llmbench.gateway.quota import Account

__all__ = ["BEAT", "DEAD", "Book", "Grant", "SqliteBook", "Transaction", "UnknownOutcome"]

T = TypeVar("T")

BEAT = 2.0
"""Seconds between signs of life while answers are running."""
DEAD = 15.0
"""Seconds without one after which a gateway's reservations no longer count as running."""


@dataclass(frozen=True)
class Grant:
    """A reservation: tokens that were taken from a key on a day (days since 1970)."""

    number: int
    name: str
    tokens: int
    day: int


@dataclass
class Transaction:
    """The accounts at one moment. What is changed in them is written all at once, or not at all.

    Args:
        now: seconds since 1970 by the clock of the book.
        account: the account of a key, to be changed in place.
        end: takes a reservation of this gateway away; False where it no longer counted as running.
        landed: whether a transaction that ended in `UnknownOutcome` was written; False where none did.
    """

    now: float
    account: Callable[[str], Account]
    end: Callable[[Grant], bool]
    landed: bool = False
    changed: set[str] = field(default_factory=set)
    """Keys whose accounts are to be written."""
    made: list[Grant] = field(default_factory=list)
    """Reservations that are to be written."""


class UnknownOutcome(Exception):
    """The connection was lost after a transaction had been sent. The next one that succeeds says whether it was written."""


class Book(Protocol):
    """Holds accounts and reservations for any number of gateways. But for `clock`, one thread uses it."""

    patience: float
    """Seconds after which a request that waits for a transaction is refused."""

    def clock(self) -> float:
        """Seconds since 1970, the same for every gateway; asks nobody, so that an event loop may call it."""

    def trouble(self, error: Exception) -> str:
        """What is wrong, in a sentence that clients may read."""

    def transact(self, names: Collection[str], work: Callable[[Transaction], T]) -> T:
        """Does some work on the accounts of these names, and writes what it changed. The work may be called several times.

        Raises:
            UnknownOutcome: it may have been written or not.
            Exception: whatever prevented it; nothing was written.
        """

    def beat(self, *, running: bool) -> None:
        """Says that this gateway is alive if answers are running, and ends the reservations of gateways that are not.

        Raises:
            Exception: whatever prevented it.
        """

    def close(self) -> None:
        """Ends this gateway's reservations, which stay spent. Never fails."""


class SqliteBook:
    """The tables of the key file.

    A commit reaches the operating system, so that it survives the end of the process. The disk is waited for at every beat, as
    waiting for each commit would add 5 ms and 0.2 ms of processor time to a request.

    Args:
        store: the file; it remains open.
        id: this gateway.
        clock: seconds since 1970, the same for everybody who uses the file.
    """

    patience = 15.0

    def __init__(self, store: KeyStore, id: int, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._store, self._db, self._id = store, store.db, id
        self._accounts: dict[str, Account] = {}  # valid while nobody else has written (`data_version`)
        self._version = -1
        self._signed = -math.inf
        self._dirty = False
        self._db.execute("PRAGMA synchronous = NORMAL")

    def trouble(self, error: Exception) -> str:
        """SQLite's own words."""
        return f"The key file cannot be written ({type(error).__name__}: {error})."

    def transact(self, names: Collection[str], work: Callable[[Transaction], T]) -> T:
        """One transaction that writes."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            version = self._db.execute("PRAGMA data_version").fetchone()[0]
            if version != self._version:
                self._accounts.clear()
                self._version = version
            transaction = Transaction(self.clock(), self._account, self._end)
            done = work(transaction)
            self._save(transaction.changed, transaction.made, transaction.now)
            self._db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            self._accounts.clear()
            self._signed = -math.inf
            raise
        return done

    def beat(self, *, running: bool) -> None:
        """Also has what was committed reach the disk."""
        now = self.clock()
        if running:
            self._sign(now)
        if self._dirty:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")  # waits for the disk, too
            self._dirty = False
        others = self._db.execute("SELECT DISTINCT gateway FROM reservations WHERE gateway <> ?", (self._id,)).fetchall()
        living = set(self._db.execute("SELECT id FROM gateways WHERE seen >= ?", (now - DEAD,)))
        for dead in set(others) - living:
            self._db.execute("DELETE FROM reservations WHERE gateway = ?", dead)
            self._db.execute("DELETE FROM gateways WHERE id = ?", dead)
            self._accounts.clear()  # how many requests are running is counted again

    def close(self) -> None:
        """Leaves the file open."""
        with suppress(sqlite3.Error):
            self._db.execute("DELETE FROM reservations WHERE gateway = ?", (self._id,))
            self._db.execute("DELETE FROM gateways WHERE id = ?", (self._id,))

    def _account(self, name: str) -> Account:
        if name not in self._accounts:
            self._accounts[name] = self._store.account(name) or Account()
        return self._accounts[name]

    def _end(self, grant: Grant) -> bool:
        ended = (self._id, grant.number)
        return self._db.execute("DELETE FROM reservations WHERE gateway = ? AND number = ?", ended).rowcount > 0

    def _save(self, changed: Iterable[str], made: Collection[Grant], now: float) -> None:
        self._db.executemany(
            "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(name, a.requests, a.tokens, a.at, a.day, a.day_requests, a.day_tokens)
             for name in changed for a in (self._accounts[name],)],
        )  # fmt: skip
        if made:
            rows = [(self._id, grant.number, grant.name, grant.tokens) for grant in made]
            self._db.executemany("INSERT INTO reservations VALUES (?, ?, ?, ?)", rows)
            if not 0 <= now - self._signed < BEAT:
                self._sign(now)
        self._dirty = True

    def _sign(self, now: float) -> None:
        self._db.execute("INSERT OR REPLACE INTO gateways VALUES (?, ?)", (self._id, now))
        self._signed = now
