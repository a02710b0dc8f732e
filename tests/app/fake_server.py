"""An OpenAI-compatible server with models of different speeds: the one-method seam under the app's own tests.

The real gateway stands behind the same page in test_browser.py.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

HOSTILE = (
    "<script>window.harmed='script'</script><img src=x onerror=\"window.harmed='img'\"> "
    "[press](javascript:window.harmed='link') ![pixel](http://203.0.113.9/pixel.png) <svg onload=\"window.harmed='svg'\"> "
    "<iframe srcdoc=\"<script>parent.harmed='frame'</script>\"></iframe> [file](file:///etc/passwd) ${window.harmed='js'} "
    "{{value}} `</code><script>window.harmed='code'</script>` [1]"
)
SOURCES = [
    {"n": 1, "source": "products/belvi-camera.md", "title": "Belvi camera", "start": 0, "end": 90, "score": 0.8123,
     "text": "The weight of the Belvi camera is 240 grams. It costs 81 crowns. The warranty lasts 24 months."},
    {"n": 2, "source": "products/dormisen-camera.md", "title": "Dormisen camera <b>bold</b>", "start": 0, "end": 60, "score": 0.6021,
     "text": "The Dormisen camera weighs 310 grams.<script>window.harmed='passage'</script>"},
    {"n": 3, "source": "policies/refund-policy.md", "title": "Refund policy", "start": 0, "end": 80, "score": 0.3310,
     "text": "A refund takes 14 days. The shop keeps the receipt for 2 years."},
]  # fmt: skip


class Server:
    """Models `fast`, `slow-rag`, `hostile`, `hangs` and `fails`; it remembers the requests it was sent."""

    models = ("fast", "slow", "hostile", "hangs", "fails", "slow-rag")

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.base_url = ""

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/models", self._list), Route("/v1/chat/completions", self._chat, methods=["POST"])])

    async def _list(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        if body["model"] == "fails":
            return JSONResponse({"error": {"message": "the engine <b>died</b>"}}, status_code=503)
        return StreamingResponse(self._events(body), media_type="text/event-stream")

    async def _events(self, body: dict[str, Any]) -> AsyncIterator[str]:
        model, question = body["model"], body["messages"][-1]["content"]
        if model.endswith("rag"):
            yield _event({"choices": [], "sources": SOURCES})
        if model == "hangs":
            yield _event({"choices": [{"delta": {"content": "Let me think"}}]})
            await asyncio.sleep(3600)
        words = _answer(model, question).split(" ")
        for word in words:
            yield _event({"choices": [{"delta": {"content": word + " "}}]})
            await asyncio.sleep(0.15 if model.startswith("slow") else 0.01)
        yield _event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        yield _event({"choices": [], "usage": {"prompt_tokens": 96, "completion_tokens": len(words)}})
        yield "data: [DONE]\n\n"


def _answer(model: str, question: str) -> str:
    if model == "hostile":
        return HOSTILE
    if model.endswith("rag"):
        return "The **Belvi camera** weighs 240 grams [1]. The Dormisen camera is heavier, at 310 grams, so take the Belvi [2]."
    return f"You asked: {question} I would say that it weighs as much as any camera does, which is not very much at all."


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


@contextmanager
def serving() -> Iterator[Server]:
    """The server on a free port of this machine."""
    fake = Server()
    server = uvicorn.Server(uvicorn.Config(fake.app(), host="127.0.0.1", port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    fake.base_url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    try:
        yield fake
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
