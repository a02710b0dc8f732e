"""Who may ask the app for what: this machine's own page, and the few routes that the page needs.

Gradio brings routes for files, uploads, proxies, recordings and an API. The app needs none of them, so it has none.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["POLICY", "Door"]

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""The browser itself refuses every address but the app's own. Gradio's templates need inline scripts and eval."""

_PAGES = frozenset({"/", "/favicon.ico", "/manifest.json", "/theme.css", "/config", "/robots.txt", "/gradio_api/theme.css"})
_FOLDERS = ("/assets/", "/static/", "/svelte/", "/gradio_api/heartbeat/")
_CALLS = frozenset(
    {"/gradio_api/queue/join", "/gradio_api/queue/data", "/gradio_api/cancel", "/gradio_api/reset",
     "/gradio_api/startup-events", "/gradio_api/app_id"}
)  # fmt: skip


class Door:
    """ASGI middleware: an allowlist of routes, same-origin requests only, and the content policy on every answer.

    Gradio itself looks at the server over `/gradio_api/startup-events` when it starts.
    """

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str]) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers 403 to strangers and 404 to routes that the page does not need."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = POLICY
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
            await send(message)

        await self.app(scope, receive, with_policy)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host.rsplit(":", 1)[0] not in self.hosts:  # a name that was bound to this address: DNS rebinding
            return PlainTextResponse("This app is only available on the machine it runs on.", status_code=403)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:  # another site's page, or `null`
            return PlainTextResponse("Requests from other sites are refused.", status_code=403)
        path: str = scope["path"]
        if path in _PAGES or path in _CALLS or (path.startswith(_FOLDERS) and ".." not in path):
            return None
        return PlainTextResponse("Not found", status_code=404)
