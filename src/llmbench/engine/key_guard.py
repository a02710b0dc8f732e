"""What vLLM's API server answers on a port: the paths that the gateway asks, to whoever has the key and is no web page.

vLLM's own `--api-key` leaves paths such as /invocations, /tokenize and /metrics open (vllm-project/vllm#58144), and its CORS
headers let every web page read answers. Here a request with an `Origin`, as browsers send it, is refused, every path but
/health needs the key, where there is one, and paths that the gateway does not ask are not there.

It also keeps which gateway uses which adapters: several may share an engine, and each tells it every few seconds
(`POST /llmbench/adapters`). What one of them uses, no other unloads; what none uses and a gateway has loaded is nobody's.

A file of its own for the interpreter that has vLLM, which may have no llmbench: `--middleware key_guard.KeyGuard`, beside
`launch.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

ADAPTERS = "/llmbench/adapters"
"""Takes {"gateway": ID, "uses": [ADAPTER, ...]}; answers {"used": [...], "free": [...]}."""
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
GATEWAY = "x-llmbench-gateway"
"""The header of a gateway that loads or unloads an adapter; what another one uses is not unloaded, and the answer is 409."""
LEASE_SECONDS = 60.0
"""After which a silent gateway has ended, or has left this engine out: then it loads what is missing before it asks again."""
PATHS = frozenset(
    {
        ADAPTERS, LOAD, UNLOAD,
        "/health", "/metrics", "/v1/models", "/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize",
    }
)  # fmt: skip
OPEN = "/health"
_LONGEST_BODY, _MOST_NAMES = 200_000, 2_000
_DONE, _MISSING = 200, 404
KEY = "VLLM_API_KEY"
"""The variable of the environment that holds the key, as vLLM's own guard reads it: a command line can be read by others."""


class Leases:
    """Which adapters each gateway uses, and which of the engine's adapters gateways have loaded: in memory, as adapters are.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._uses: dict[str, tuple[float, set[str]]] = {}
        self._loaded: set[str] = set()

    def hold(self, gateway: str, uses: Iterable[str]) -> dict[str, list[str]]:
        """Notes what a gateway uses from now on.

        Returns:
            `used`: what others use; `free`: what was loaded by gateways and none uses any more.
        """
        self._uses[gateway] = self._clock(), set(uses)
        return {"used": sorted(self.used(gateway)), "free": sorted(self._loaded - self.used(None))}

    def used(self, but: str | None) -> set[str]:
        """What gateways use, but for one of them."""
        now = self._clock()
        self._uses = {name: one for name, one in self._uses.items() if now - one[0] < LEASE_SECONDS}
        return {id for name, (_, uses) in self._uses.items() if name != but for id in uses}

    def loaded(self, gateway: str, id: str) -> None:
        """Notes that a gateway has loaded an adapter, which it uses."""
        self._loaded.add(id)
        self._uses[gateway] = self._clock(), self._uses.get(gateway, (0.0, set()))[1] | {id}

    def release(self, gateway: str, id: str) -> bool:
        """Notes that a gateway does not use an adapter any more. Whether no other one does."""
        if gateway in self._uses:
            self._uses[gateway][1].discard(id)
        return id not in self.used(gateway)

    def unloaded(self, id: str) -> None:
        """Notes that the engine has an adapter no more."""
        self._loaded.discard(id)


class KeyGuard:
    """ASGI middleware."""

    def __init__(self, app: Any) -> None:
        self._app = app
        key = os.environ.get(KEY)
        self._wanted = _digest(f"Bearer {key}".encode()) if key else None
        self._leases = Leases()
        self._leaving: dict[str, asyncio.Event] = {}
        """Adapters that are being unloaded, by one request each; set when it has ended."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hands a request on, or refuses it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a WebSocket, which is closed so
        status, message = self._refusal(scope["path"], scope["headers"])
        path = scope["path"].rstrip("/")
        if status:
            await _refuse(send, status, message)
        elif path == ADAPTERS:
            await self._hold(receive, send)
        elif path in (LOAD, UNLOAD):
            await self._change(path == LOAD, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _hold(self, receive: Any, send: Any) -> None:
        told = _object(await _body(receive))
        gateway, uses = told.get("gateway"), told.get("uses")
        if (
            not isinstance(gateway, str)
            or not isinstance(uses, list)
            or len(uses) > _MOST_NAMES
            or not all(isinstance(id, str) for id in uses)
        ):
            await _refuse(send, 400, "A gateway says its name and what it uses.")
            return
        for id in uses:
            await self._gone(id)  # it sees then that it has to load it
        await _answer(send, 200, self._leases.hold(gateway, uses))

    async def _change(self, loads: bool, scope: Any, receive: Any, send: Any) -> None:
        """Hands on a request to load or unload an adapter, and notes what came of it. Who is no gateway may unload any."""
        gateway = next((value.decode("latin-1") for name, value in scope["headers"] if name == GATEWAY.encode()), None)
        raw, status = await _body(receive), 0
        id = _object(raw).get("lora_name")
        left = iter([{"type": "http.request", "body": raw, "more_body": False}])

        async def again() -> Any:
            return next(left, None) or await receive()

        async def seen(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        if not isinstance(id, str):
            await _refuse(send, 400, "lora_name is missing.")
            return
        if loads:
            await self._app(scope, again, seen)
            if status == _DONE and gateway is not None:
                self._leases.loaded(gateway, id)
            return
        await self._gone(id)  # gateways see alike what nobody uses, and may unload it at once
        if gateway is not None and not self._leases.release(gateway, id):
            await _refuse(send, 409, "Another gateway uses this adapter.")
        else:
            event = self._leaving[id] = asyncio.Event()
            try:
                await self._app(scope, again, seen)
                if status in (_DONE, _MISSING):
                    self._leases.unloaded(id)
            finally:
                del self._leaving[id]
                event.set()

    async def _gone(self, id: str) -> None:
        """Waits until no request unloads an adapter."""
        while (event := self._leaving.get(id)) is not None:
            await event.wait()

    def _refusal(self, path: str, headers: list[tuple[bytes, bytes]]) -> tuple[int, str]:
        """A status and its message; 0 where the request may pass."""
        if any(name == b"origin" for name, _ in headers):
            return 403, "This engine answers no web pages."
        if path.rstrip("/") not in PATHS:
            return 404, "There is nothing here. Ask the gateway."
        given = [value for name, value in headers if name == b"authorization"]
        known = len(given) == 1 and self._wanted is not None and hmac.compare_digest(_digest(given[0]), self._wanted)
        if self._wanted is not None and not known and path != OPEN:
            return 401, "Wrong or missing key. The gateway sends engine.api_key of its document."
        return 0, ""


async def _body(receive: Any) -> bytes:
    """That of a request; empty where it is too long or the client has gone."""
    raw, more = b"", True
    while more:
        message = await receive()
        raw += message.get("body", b"")
        more = message.get("more_body", False) and len(raw) <= _LONGEST_BODY
    return raw if len(raw) <= _LONGEST_BODY else b""


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


async def _refuse(send: Any, status: int, message: str) -> None:
    await _answer(send, status, {"error": {"message": message, "type": "invalid_request_error", "code": status}})


async def _answer(send: Any, status: int, value: Any) -> None:
    body = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
