"""Who may ask: checked before any path is looked at, on what the server parsed and not on what the client called it."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from llmbench.gateway.refusal import Refusal

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Guard", "host_name"]


class Guard:
    """Refuses requests that call this server by a foreign name (a web page that rebinds DNS), or that lack the key."""

    def __init__(self, app: ASGIApp, *, api_key: str | None, hosts: frozenset[str] | None) -> None:
        self._app = app
        self._key = _digest(f"Bearer {api_key}".encode()) if api_key is not None else None
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands a request on, or answers it with the refusal."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._check(scope) if scope["type"] == "http" else Refusal(404, "There are no web sockets here.")
        app = self._app if refusal is None else refusal.response()
        await app(scope, receive, send)

    def _check(self, scope: Scope) -> Refusal | None:
        hosts = [value for key, value in scope["headers"] if key == b"host"]
        if self._hosts is not None and (len(hosts) != 1 or host_name(hosts[0]) not in self._hosts):
            return Refusal(421, "This server answers to other names only. Ask it at the address it printed.")
        if self._key is None or scope["path"] == "/health":
            return None
        keys = [value for key, value in scope["headers"] if key == b"authorization"]
        if len(keys) != 1 or not hmac.compare_digest(_digest(keys[0]), self._key):
            return Refusal(401, "The API key is missing or wrong: send Authorization: Bearer KEY.", code="invalid_api_key")
        return None


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
