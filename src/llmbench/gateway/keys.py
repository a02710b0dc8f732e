"""Named keys: where they are stored, and how the gateway verifies one.

The file holds a salted scrypt hash of each key. A gateway computes it once for each key that it is shown; from then on it
compares an HMAC under a key of its own process. Unknown, revoked and wrong keys cost the same and are answered alike.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench import workspace
from llmbench.errors import LlmbenchError
from llmbench.gateway.quota import NO_LIMITS, Account, Limits
from llmbench.gateway.refusal import Refusal
from llmbench.sqlite_file import SqliteFile

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Key", "KeyStore", "Keyring", "default_path", "wrong_key"]

_SCHEMA = """
CREATE TABLE keys (
    name TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, salt BLOB NOT NULL, hash BLOB NOT NULL,
    models TEXT,                  -- a JSON list; null: every variant
    requests_per_minute INTEGER, tokens_per_minute INTEGER, concurrent INTEGER, tokens_per_day INTEGER,
    created REAL NOT NULL, expires REAL, revoked REAL) WITHOUT ROWID;
CREATE TABLE changes (count INTEGER NOT NULL);
INSERT INTO changes VALUES (0);
CREATE TABLE accounts (           -- by name: a new key of an old name has spent what that one had
    name TEXT PRIMARY KEY, requests REAL NOT NULL, tokens REAL NOT NULL, at REAL NOT NULL,
    day INTEGER NOT NULL, day_requests INTEGER NOT NULL, day_tokens INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE gateways (id INTEGER PRIMARY KEY, seen REAL NOT NULL);
CREATE TABLE reservations (       -- of answers that are running; one whose gateway has died stays spent
    gateway INTEGER NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, tokens INTEGER NOT NULL,
    PRIMARY KEY (gateway, number)) WITHOUT ROWID;
"""
"""Statements that end in `;` and a new line. `changes` counts those of keys: a gateway reads them again when it has moved."""
_VERSION = 1
_LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent", "tokens_per_day")
_KEY = re.compile(rb"llmb-([0-9a-f]{12})-([A-Za-z0-9_-]{43})")
_COST = 2**12
"""scrypt's N, with r = 8 and p = 1: 4 MiB and about 10 ms. A secret of 256 random bits needs no stretching, and whoever sends
wrong keys makes the gateway compute this."""
_REMEMBERED = 4096
"""Wrong keys that are known again without computing."""
_WAITING = 64
"""Keys that may wait for being verified."""


def default_path() -> Path:
    """The workspace's key file."""
    return workspace.home() / "keys.sqlite"


@dataclass(frozen=True)
class Key:
    """A named key without its secret. `models` are the variants it may ask, None for all. Times are seconds since 1970."""

    name: str
    id: str
    salt: bytes = field(repr=False)
    hash: bytes = field(repr=False)
    models: tuple[str, ...] | None
    limits: Limits
    created: float
    expires: float | None = None
    revoked: float | None = None

    def state(self, now: float) -> str:
        """`active`, `expired` or `revoked`."""
        return "revoked" if self.revoked is not None else "expired" if self.has_expired(now) else "active"

    def has_expired(self, now: float) -> bool:
        """Whether its time is over."""
        return self.expires is not None and now >= self.expires

    def may_ask(self, model: str) -> bool:
        """Whether a variant exists for this key."""
        return self.models is None or model in self.models


class KeyStore(SqliteFile):
    """The key file. A connection is used by one thread at a time.

    Raises (every method):
        LlmbenchError: the file cannot be read or written, or is something else.
    """

    purpose = "as a key file"

    def __init__(self, path: Path) -> None:
        """Opens the file, and makes it where it is missing, readable by its owner alone."""
        pragmas = ("synchronous = FULL", "secure_delete = FAST")
        super().__init__(path, _SCHEMA.split(";\n"), table="keys", version=_VERSION, pragmas=pragmas)

    def every(self) -> list[Key]:
        """All keys, by name, revoked ones among them."""
        with self.explained():
            return [_key(row) for row in self.db.execute("SELECT * FROM keys ORDER BY name")]

    def changes(self) -> int:
        """A number that grows whenever a key is made, changed or revoked."""
        with self.explained():
            return int(self.db.execute("SELECT count FROM changes").fetchone()[0])

    def account(self, name: str) -> Account | None:
        """What a key has spent, as of its last request; None where it has not been used."""
        with self.explained():
            row = self.db.execute("SELECT * FROM accounts WHERE name = ?", (name,)).fetchone()
            held = self.db.execute("SELECT count(*), total(tokens) FROM reservations WHERE name = ?", (name,)).fetchone()
        if row is None:
            return None
        found = Account(*row[1:])
        found.open, found.held = held[0], int(held[1])
        return found

    def new(
        self, name: str, *, limits: Limits = NO_LIMITS, models: Sequence[str] | None = None, expires: float | None = None
    ) -> str:
        """Makes a key and returns it; it can never be read again. The name of a revoked key may be used again.

        Raises:
            LlmbenchError: the name is taken or not fit for one.
        """
        workspace.check_name(name, "key name")
        identity, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_bytes(16)
        with self._changing():
            found = self._found(name)
            if found is not None and found.revoked is None:
                raise LlmbenchError(f"Key {name} already exists. Choose another name, or first: llmbench keys revoke {name}")
            self.db.execute("DELETE FROM keys WHERE name = ?", (name,))
            values = (
                name,
                identity,
                salt,
                _hash(secret.encode(), salt),
                _names(models),
                *_values(limits),
                time.time(),
                expires,
            )
            self.db.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)", values)
        return f"llmb-{identity}-{secret}"

    def update(self, key: Key) -> None:
        """Writes a key's limits, models and expiry; its secret stays.

        Raises:
            LlmbenchError: it has been revoked or replaced meanwhile.
        """
        with self._changing():
            if self._wanted(key.name).id != key.id:
                raise LlmbenchError(f"Key {key.name} was replaced meanwhile. Try again.")
            self.db.execute(
                "UPDATE keys SET models = ?, requests_per_minute = ?, tokens_per_minute = ?, concurrent = ?, "
                "tokens_per_day = ?, expires = ? WHERE id = ?",
                (_names(key.models), *_values(key.limits), key.expires, key.id),
            )

    def named(self, name: str) -> Key:
        """A key that is not revoked.

        Raises:
            LlmbenchError: there is none of that name.
        """
        with self.explained():
            return self._wanted(name)

    def revoke(self, name: str) -> None:
        """Ends a key; running answers end in their own time.

        Raises:
            LlmbenchError: there is no such key.
        """
        with self._changing():
            self._wanted(name)
            self.db.execute("UPDATE keys SET revoked = ? WHERE name = ?", (time.time(), name))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """A transaction that gateways notice."""
        with self.writing():
            yield
            self.db.execute("UPDATE changes SET count = count + 1")

    def _found(self, name: str) -> Key | None:
        row = self.db.execute("SELECT * FROM keys WHERE name = ?", (name,)).fetchone()
        return None if row is None else _key(row)

    def _wanted(self, name: str) -> Key:
        found = self._found(name)
        if found is None or found.revoked is not None:
            what = "has been revoked" if found is not None else "does not exist"
            raise LlmbenchError(f"Key {name!r:.100} {what}. List the keys: llmbench keys list")
        return found


class Keyring:
    """Verifies what clients send, for one event loop.

    Args:
        keys: the keys by id as they are now; another mapping once one has changed.
        clock: seconds since 1970.
    """

    def __init__(self, keys: Callable[[], Mapping[str, Key]], clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._clock = clock
        self._seen: Mapping[str, Key] = {}
        self._right: dict[str, bytes] = {}
        """The HMAC of each key that has been shown, by id."""
        self._wrong: OrderedDict[bytes, None] = OrderedDict()
        self._running: dict[bytes, asyncio.Future[bool]] = {}
        self._process, self._nobody = secrets.token_bytes(32), secrets.token_bytes(16)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="keys")

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def find(self, headers: list[tuple[bytes, bytes]]) -> Key:
        """The key in a request's headers.

        Raises:
            Refusal: status 401; 429 where too many keys wait for being verified.
        """
        sent = [value for name, value in headers if name == b"authorization"]
        match = _KEY.fullmatch(sent[0].removeprefix(b"Bearer ")) if len(sent) == 1 and sent[0].startswith(b"Bearer ") else None
        if match is None:
            raise wrong_key()
        self._notice()
        key = self._seen.get(identity := match[1].decode())
        if not await self._is_right(identity, key, match[2]) or key is None or key.revoked is not None:
            raise wrong_key()
        if key.has_expired(self._clock()):
            date = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(key.expires))
            raise Refusal(401, f"This API key expired on {date}. Ask for a new one.", code="invalid_api_key")
        return key

    def _notice(self) -> None:
        """Forgets what no longer holds once keys have changed."""
        keys = self._keys()
        if keys is not self._seen:
            self._seen = keys
            self._right = {id: tag for id, tag in self._right.items() if id in keys and keys[id].revoked is None}
            self._wrong.clear()

    async def _is_right(self, identity: str, key: Key | None, secret: bytes) -> bool:
        tag = hmac.digest(self._process, identity.encode() + secret, "sha256")
        known = self._right.get(identity)
        if known is not None and hmac.compare_digest(known, tag):
            return True
        if tag in self._wrong:
            return False
        if (running := self._running.get(tag)) is None:
            if len(self._running) >= _WAITING:
                message = "Too many keys are waiting for being verified. Try again in a second."
                raise Refusal(429, message, code="rate_limit_exceeded", retry_after="1")
            salt, wanted = (key.salt, key.hash) if key is not None else (self._nobody, self._process)
            work = asyncio.get_running_loop().run_in_executor(self._thread, _hash, secret, salt)
            running = self._running[tag] = asyncio.ensure_future(self._compared(work, wanted, identity, tag, self._seen))
        return await asyncio.shield(running)  # several requests may wait for it

    async def _compared(
        self, work: asyncio.Future[bytes], wanted: bytes, identity: str, tag: bytes, seen: Mapping[str, Key]
    ) -> bool:
        """Compares a hash once it is there, and remembers what came of it unless keys have changed meanwhile."""
        try:
            right = hmac.compare_digest(await work, wanted)
        finally:
            del self._running[tag]
        if right and seen is self._seen and seen[identity].revoked is None:
            self._right[identity] = tag
        elif seen is self._seen:
            self._wrong[tag] = None
            if len(self._wrong) > _REMEMBERED:
                self._wrong.popitem(last=False)
        return right


def wrong_key() -> Refusal:
    """The answer to whoever has no key, an unknown one, a wrong one or a revoked one."""
    return Refusal(401, "The API key is missing or wrong: send Authorization: Bearer KEY.", code="invalid_api_key")


def _hash(secret: bytes, salt: bytes) -> bytes:
    return hashlib.scrypt(secret, salt=salt, n=_COST, r=8, p=1, dklen=32)


def _key(row: Sequence[Any]) -> Key:
    name, identity, salt, digest, models, *limits, created, expires, revoked = row
    names = None if models is None else tuple(json.loads(models))
    return Key(name, identity, salt, digest, names, Limits(*limits), created, expires, revoked)


def _names(models: Sequence[str] | None) -> str | None:
    return None if models is None else json.dumps(list(models))


def _values(limits: Limits) -> list[int | None]:
    return [getattr(limits, name) for name in _LIMITS]
