"""Who may ask: checked before any path is looked at, on what the server parsed and not on what the client called it."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from llmbench.gateway.keys import Keyring, wrong_key
from llmbench.gateway.refusal import Refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from llmbench.gateway.exchange import Exchange

__all__ = ["Access", "Guard", "host_name"]

_MAX_HEADERS = 128
_MAX_HEADER_BYTES = 65_536
_OPEN = ("/health", "/ready")
"""Paths that need no key, for whoever starts and watches servers."""
_SHORT = 8
"""Characters of a key; a shorter one is no secret, and its text may stand anywhere."""
_NAMED = r"llmb-[0-9a-f]{12}-[A-Za-z0-9_-]+"
_OUR_NAMES = 5
"""How many of the allowed names a refusal lists."""


class Access:
    """What a request must bring: the key, if there is one, and one of the names of this server; None allows any name."""

    def __init__(self, api_key: str | None = None, hosts: frozenset[str] | None = None) -> None:
        self.change(api_key, hosts)

    def change(self, api_key: str | None, hosts: frozenset[str] | None) -> None:
        """Asks for something else from now on."""
        self.key = _digest(f"Bearer {api_key}".encode()) if api_key is not None else None
        self.hosts = hosts
        # What begins as the key does goes to its end, as a text may have been cut anywhere.
        own = rf"|{re.escape(api_key[:_SHORT])}[^\s\"']*" if api_key is not None and len(api_key) >= _SHORT else ""
        self._keys = re.compile(_NAMED + own)

    def hide(self, text: str) -> str:
        """A text without this server's key and without anything that looks like a named one."""
        return self._keys.sub("[key]", text)


class Guard:
    """Refuses requests that call this server by a foreign name (a web page that rebinds DNS), or that lack a key.

    Whose named key it is stands in `scope["state"]["key"]`; `api_key` has no name.
    """

    def __init__(self, app: ASGIApp, *, access: Access, keyring: Keyring | None = None) -> None:
        self._app = app
        self._access = access
        self._keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands a request on, or answers it with the refusal."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await Refusal(404, "This server has no WebSockets.").response()(scope, receive, send)
            return
        exchange: Exchange = scope["state"]["exchange"]
        refusal = self._check(_origin_form(scope))
        if refusal is None and self._keyring is not None and not scope["state"]["has_key"]:
            refusal = await self._find(self._keyring, scope)
        exchange.path, exchange.accept_seconds = scope["path"], exchange.elapsed()
        if refusal is None:
            await self._app(scope, receive, send)
            return
        exchange.error = refusal.code
        refusal.message = self._access.hide(refusal.message)
        await refusal.response()(scope, receive, send)

    def _check(self, scope: Scope) -> Refusal | None:
        headers = scope["headers"]
        if len(headers) > _MAX_HEADERS or sum(len(key) + len(value) for key, value in headers) > _MAX_HEADER_BYTES:
            return Refusal(431, f"A request may have {_MAX_HEADERS} headers of {_MAX_HEADER_BYTES:,} bytes in all.")
        refusal = self._check_host([value for key, value in headers if key == b"host"], scope["http_version"])
        if refusal is not None:
            return refusal
        has_key = scope["state"]["has_key"] = self._has_key(headers)
        return None if has_key or self._keyring is not None or scope["path"] in _OPEN else wrong_key()

    async def _find(self, keyring: Keyring, scope: Scope) -> Refusal | None:
        """Looks for a named key."""
        try:
            key = scope["state"]["key"] = await keyring.find(scope["headers"])
        except Refusal as refusal:
            return None if scope["path"] in _OPEN else refusal
        scope["state"]["has_key"], scope["state"]["exchange"].key = True, key.name
        return None

    def _check_host(self, hosts: list[bytes], version: str) -> Refusal | None:
        """A web page that rebinds DNS sends its own name; a health check in HTTP/1.0 sends none, which no browser does."""
        allowed = self._access.hosts
        if allowed is None or (not hosts and version == "1.0"):
            return None
        if len(hosts) == 1 and host_name(hosts[0]) in allowed:
            return None
        ours = ", ".join(sorted(allowed)[:_OUR_NAMES])
        asked = host_name(hosts[0])[:100] if len(hosts) == 1 else "several names"
        return Refusal(
            421,
            f"This server answers to {ours}, not to {asked!r}. "
            "If a proxy forwards that name, its owner can list it in gateway.allowed_hosts.",
        )

    def _has_key(self, headers: list[tuple[bytes, bytes]]) -> bool:
        key = self._access.key
        if key is None:
            return self._keyring is None
        keys = [value for name, value in headers if name == b"authorization"]
        return len(keys) == 1 and hmac.compare_digest(_digest(keys[0]), key)


def _origin_form(scope: Scope) -> Scope:
    """A request in absolute form (`GET http://host/path`): its host counts, not the header's (RFC 9112 3.2.2)."""
    raw: bytes = scope.get("raw_path") or b""
    scheme, separator, rest = raw.partition(b"://")
    if separator and scheme.lower() in (b"http", b"https"):
        host, slash, path = rest.partition(b"/")
        scope["raw_path"] = slash + path or b"/"
        scope["path"] = unquote(scope["raw_path"].decode("latin-1"))
        scope["headers"] = [(b"host", host), *((key, value) for key, value in scope["headers"] if key != b"host")]
    return scope


def host_name(header: bytes) -> str:
    """`127.0.0.1:8000` -> `127.0.0.1`, `[::1]:8000` -> `::1`; anything with other parts stays as it is."""
    text = header.decode("latin-1").lower()
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        return name if bracket and (not port or (port[0] == ":" and port[1:].isdigit())) else text
    name, colon, port = text.partition(":")
    return name if not colon or port.isdigit() else text


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
