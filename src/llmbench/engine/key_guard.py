"""What vLLM's API server answers on a port: the paths that the gateway asks, to whoever has the key and is no web page.

vLLM's own `--api-key` leaves paths such as /invocations, /tokenize and /metrics open (vllm-project/vllm#58144), and its CORS
headers let every web page read answers. Here a request with an `Origin`, as browsers send it, is refused, every path but
/health needs the key, where there is one, and paths that the gateway does not ask are not there.

A file of its own for the interpreter that has vLLM, which may have no llmbench: `--middleware key_guard.KeyGuard`, beside
`launch.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from typing import Any

PATHS = frozenset(
    {
        "/health", "/metrics", "/v1/models", "/v1/chat/completions", "/v1/completions", "/tokenize", "/detokenize",
        "/v1/load_lora_adapter", "/v1/unload_lora_adapter",
    }
)  # fmt: skip
OPEN = "/health"
KEY = "VLLM_API_KEY"
"""The variable of the environment that holds the key, as vLLM's own guard reads it: a command line can be read by others."""


class KeyGuard:
    """ASGI middleware."""

    def __init__(self, app: Any) -> None:
        self._app = app
        key = os.environ.get(KEY)
        self._wanted = _digest(f"Bearer {key}".encode()) if key else None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hands a request on, or refuses it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a WebSocket, which is closed so
        status, message = self._refusal(scope["path"], scope["headers"])
        if not status:
            await self._app(scope, receive, send)
            return
        body = json.dumps({"error": {"message": message, "type": "invalid_request_error", "code": status}}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

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


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
