"""An application that is observed, over an engine that answers whole, in pieces, not at all, and with what it counts itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.applications import Starlette

from llmbench.gateway import Access, Catalogue, Grounding, Served, build
from llmbench.gateway.relay import Upstream
from llmbench.recipe import Variant

USAGE = {"prompt_tokens": 7, "completion_tokens": 3}
ENGINE_COUNTS = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="base"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="base"} 1.0
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 9.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="base"} 0.25
"""


def event(values: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"model": "base"} | values, separators=(",", ":")).encode() + b"\n\n"


class Pieces(httpx.AsyncByteStream):
    """A stream of an answer, word by word; `broken` leaves out its end."""

    def __init__(self, text: str, *, broken: bool = False) -> None:
        self.words, self.broken = text.split(" "), broken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for i, word in enumerate(self.words):
            last = i == len(self.words) - 1 and not self.broken
            delta = {"content": word if i == 0 else f" {word}"}
            yield event({"choices": [{"index": 0, "delta": delta, "finish_reason": "stop" if last else None}]})
        if self.broken:
            raise httpx.ReadError("gone")
        yield event({"choices": [], "usage": USAGE}) + b"data: [DONE]\n\n"


@dataclass
class ObservedEngine(httpx.AsyncBaseTransport):
    """Says `text`, and keeps the headers that it was asked with."""

    text: str = "The lamp is red [1]."
    counts: Callable[[], httpx.Response] = lambda: httpx.Response(200, content=ENGINE_COUNTS)
    broken: bool = False
    status: int = 200
    headers: list[dict[str, str]] = field(default_factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return self.counts()
        self.headers.append(dict(request.headers))
        if self.status != 200:
            return httpx.Response(self.status, json={"error": {"message": "no"}})
        if request.url.path == "/tokenize":
            return httpx.Response(200, json={"count": 9, "tokens": []})
        if json.loads(request.content).get("stream"):
            return httpx.Response(200, stream=Pieces(self.text, broken=self.broken))
        choice = {"index": 0, "message": {"role": "assistant", "content": self.text}, "finish_reason": "stop"}
        return httpx.Response(200, json={"model": "base", "choices": [choice], "usage": USAGE})


@dataclass(frozen=True)
class _Found:
    messages: Sequence[Any]
    sources: Sequence[dict[str, Any]]


class Pages:
    """Finds the same two passages for every question."""

    def ground(self, messages: Sequence[Any], **_: Any) -> _Found:
        text = f"[1] The lamp is red.\n[2] The door is blue.\n\n{messages[-1]['content']}"
        sources = [{"n": 1, "source": "lamp.md", "text": "The lamp is red."}, {"n": 2, "source": "door.md", "text": "Blue."}]
        return _Found([*messages[:-1], {"role": "user", "content": text}], sources)

    def close(self) -> None:
        pass


def observed(engine: ObservedEngine, *, api_key: str | None = None, **options: Any) -> Starlette:
    """Variants `plain` and `pages`; `options` are those of `build`."""
    models = [
        Served(Variant(name="plain"), "base", {}),
        Served(Variant(name="pages"), "base", {}, Grounding("pages", Pages)),
    ]
    options.setdefault("access", Access(api_key))
    return build(Catalogue(models, context=1024), Upstream(engine, lambda: None), **options)


def client(app: Starlette, key: str | None = None) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1", headers=headers)


def ask(model: str = "plain", **fields: Any) -> dict[str, Any]:
    """The body of a question."""
    return {"model": model, "messages": [{"role": "user", "content": "What colour is the lamp?"}]} | fields
