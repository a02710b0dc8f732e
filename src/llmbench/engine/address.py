"""Where a vLLM answers, a Unix socket or an address of its own, and the client that asks it there."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import httpx

__all__ = ["Address", "Place", "accepts", "client", "tls"]

_REACHED_SECONDS = 5.0
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """A host and a port, on this machine or another. `key` is what the engine there asks for; nothing prints it."""

    host: str
    port: int
    secure: bool = False
    """Whether it is reached over TLS."""
    key: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str, key: str | None = None) -> Address:
        """That of `http://HOST:PORT` or `https://HOST:PORT`."""
        parts = urlsplit(url)
        return cls(parts.hostname or "", parts.port or _PORTS[parts.scheme], parts.scheme == "https", key)

    @property
    def url(self) -> str:
        """`http://HOST:PORT`, without the key."""
        return f"{'https' if self.secure else 'http'}://{self.authority}"

    @property
    def authority(self) -> str:
        """`HOST:PORT`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """What a request there must bring."""
        return {"authorization": f"Bearer {self.key}"} if self.key is not None else {}


Place = Path | Address
"""A path is a Unix socket."""


@cache
def tls() -> ssl.SSLContext:
    """Checks certificates by the system's authorities, or those of SSL_CERT_FILE."""
    return ssl.create_default_context()


def client(at: Place, timeout: float) -> httpx.Client:
    """A client of the vLLM there; its paths begin with a slash. `timeout` is in seconds.

    It goes there directly, whatever proxies the environment names.
    """
    if isinstance(at, Path):
        return httpx.Client(base_url="http://engine", transport=httpx.HTTPTransport(uds=str(at)), timeout=timeout)
    unused = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the system's authorities takes 20 ms
    transport = httpx.HTTPTransport(verify=tls() if at.secure else unused)
    return httpx.Client(base_url=at.url, headers=at.headers, transport=transport, timeout=timeout, trust_env=False)


def accepts(at: Place) -> bool:
    """Whether somebody listens. Asked first, because httpx leaves a Unix socket open each time that nobody does."""
    if isinstance(at, Address):
        try:
            socket.create_connection((at.host, at.port), _REACHED_SECONDS).close()
        except OSError:
            return False
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(at))
        except OSError:
            return False
        return True
