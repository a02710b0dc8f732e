"""Ways to an engine: a connection over a Unix socket, TCP or TLS, and a request in the bytes that are sent on it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx

from llmbench.engine import Address, Place, tls

__all__ = ["connected", "written"]

_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 25_000}
"""By which the kernel notices within 25 s, while an answer is computed, that the other machine is gone."""
_BUSY = 0.01
"""Seconds until the next attempt where the engine's queue of new connections is full."""
P = TypeVar("P", bound=asyncio.Protocol)


async def connected(at: Place, factory: Callable[[], P]) -> P:
    """A new connection to an engine, with the protocol that the factory makes.

    Raises:
        OSError: nothing takes connections there, or its certificate is not known.
    """
    return await (_tcp(at, factory) if isinstance(at, Address) else _unix(at, factory))


def written(request: httpx.Request, at: Place) -> bytes:
    """A request as it is sent; to an address by its name, and with its key."""
    headers = request.headers.raw
    if isinstance(at, Address):
        own = {"host": at.authority} | at.headers
        headers = [
            *((name.encode(), value.encode()) for name, value in own.items()),
            *(h for h in headers if h[0].lower() != b"host"),
        ]
    head = [f"{request.method} ".encode() + request.url.raw_path + b" HTTP/1.1"]
    head += [name + b": " + value for name, value in headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + request.content


async def _unix(path: Path, factory: Callable[[], P]) -> P:
    """A new connection, as soon as the engine's queue has a place for it.

    Both event loops misread a full queue: asyncio takes it for a connection, uvloop for an error.
    """
    connecting = socket.socket(socket.AF_UNIX)
    try:
        connecting.setblocking(False)
        while True:
            try:
                connecting.connect(str(path))
                break
            except BlockingIOError:
                await asyncio.sleep(_BUSY)
        _, link = await asyncio.get_running_loop().create_unix_connection(factory, sock=connecting)
    except BaseException:
        connecting.close()
        raise
    return link


async def _tcp(at: Address, factory: Callable[[], P]) -> P:
    """A new connection to the first of the host's addresses that takes one."""
    loop = asyncio.get_running_loop()
    problem: OSError = OSError(f"{at.host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(at.host, at.port, type=socket.SOCK_STREAM):
        connecting = socket.socket(family, kind, protocol)
        try:
            connecting.setblocking(False)
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connecting.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _ALIVE.items():
                if (number := getattr(socket, option, None)) is not None:  # macOS has other names
                    connecting.setsockopt(socket.IPPROTO_TCP, number, value)
            await loop.sock_connect(connecting, address)
            _, link = await loop.create_connection(
                factory, sock=connecting, ssl=tls() if at.secure else None,
                server_hostname=at.host if at.secure else None,
            )  # fmt: skip
        except OSError as error:
            problem = error
            connecting.close()
        except BaseException:
            connecting.close()
            raise
        else:
            return link
    raise problem
