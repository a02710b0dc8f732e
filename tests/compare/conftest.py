"""A hand-written endpoint and a small question file that the comparison's tests share."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmbench import recipe
from llmbench.endpoint import Delta, Message, Reply
from llmbench.errors import EndpointError
from llmbench.message import text_of
from llmbench.recipe import CompareRecipe

PAGE = {
    "n": 1,
    "source": "handbook/kettle.md",
    "title": "Kettle",
    "start": 0,
    "end": 9,
    "score": 0.9,
    "text": "It weighs 300 grams.",
}


class FakeEndpoint:
    """Answers at once from a function of (variant, question); counts what it is asked."""

    def __init__(self, answer: Callable[[str, str], str], entries: list[dict[str, Any]]) -> None:
        self.answer, self.entries = answer, entries
        self.asked: list[tuple[str, str]] = []
        self.conversations: list[list[Message]] = []
        self.running = self.most = 0

    async def listing(self) -> list[dict[str, Any]]:
        return self.entries

    async def stream(self, messages: Sequence[Message], model: str, *, max_tokens: int | None = None) -> AsyncIterator[Delta]:
        question = text_of(messages[-1])
        self.asked.append((model, question))
        self.conversations.append(list(messages))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            text = self.answer(model, question)
        finally:
            self.running -= 1
        sources = (PAGE,) if model.endswith("rag") else ()
        yield Delta(text=text)
        yield Delta(
            reply=Reply(text, model, latency=0.5, first_token=0.1, prompt_tokens=9, completion_tokens=4, sources=sources)
        )


GRID: list[dict[str, Any]] = [
    {"id": "base", "adapter": None, "rag": None},
    {"id": "base-rag", "adapter": None, "rag": "handbook"},
    {"id": "adapter", "adapter": {"name": "handbook", "id": "a1"}, "rag": None},
    {"id": "adapter-rag", "adapter": {"name": "handbook", "id": "a1"}, "rag": "handbook"},
]


def say(variant: str, question: str) -> str:
    """What a 2x2 of models would say: only adapter and RAG together do the whole job."""
    if question.startswith("Who"):
        return "The handbook does not say." if variant == "adapter-rag" else "It was Ada."
    return {"base-rag": "It weighs 300 grams.", "adapter-rag": "It weighs 300 grams [1]."}.get(
        variant, "It weighs 9 grams [1]."
    )


@pytest.fixture
def fake() -> FakeEndpoint:
    return FakeEndpoint(say, [dict(entry) for entry in GRID])


@pytest.fixture
def flaky() -> Callable[[str], FakeEndpoint]:
    """An endpoint that fails for questions that contain a word."""

    def make(word: str) -> FakeEndpoint:
        def answer(variant: str, question: str) -> str:
            if word in question:
                raise EndpointError("http://127.0.0.1:1/v1 answered 500: out of memory", status=500)
            return say(variant, question)

        return FakeEndpoint(answer, [dict(entry) for entry in GRID])

    return make


@pytest.fixture
def document(tmp_path: Path) -> Callable[..., CompareRecipe]:
    """Writes questions (12 answerable, 4 not) and a recipe over them; takes overrides."""
    rows: list[dict[str, Any]] = [
        {"id": f"q{i}", "question": f"How heavy is kettle {i}?", "answer": "It weighs 300 grams.", "value": "300 grams",
         "source": "kettle.md", "answerable": True, "split": "test"}
        for i in range(12)
    ]  # fmt: skip
    rows += [{"id": f"u{i}", "question": f"Who made kettle {i}?", "answerable": False, "split": "test"} for i in range(4)]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    file = tmp_path / "compare.yaml"
    file.write_text(
        "name: kettles\nquestions: {path: questions.jsonl}\nvariants: [base, base-rag, adapter, adapter-rag]\n"
        "statistics: {resamples: 500}\n",
        encoding="utf-8",
    )

    def load(*overrides: str) -> CompareRecipe:
        return recipe.load(file, CompareRecipe, overrides)

    return load


class _Handler(BaseHTTPRequestHandler):
    """Just enough of the OpenAI API, streamed, for the command line to be run against real HTTP."""

    delay = 0.0
    asked: list[str] = []

    def do_GET(self) -> None:
        self._send(json.dumps({"data": GRID}), "application/json")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append(body["model"])
        time.sleep(self.delay)
        text = say(body["model"], body["messages"][-1]["content"])
        events = [
            *([{"sources": [PAGE], "choices": []}] if body["model"].endswith("rag") else []),
            {"choices": [{"delta": {"content": text}}]},
            {"choices": [{"delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}},
        ]
        self._send("".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n", "text/event-stream")

    def _send(self, text: str, kind: str) -> None:
        data = text.encode()
        with suppress(OSError):  # The client was killed.
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@dataclass
class Server:
    """A running server of the handler above."""

    base_url: str
    handler: type[_Handler]


@pytest.fixture
def server() -> Iterator[Server]:
    handler = type("Handler", (_Handler,), {"asked": [], "delay": 0.0})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield Server(f"http://127.0.0.1:{http.server_address[1]}/v1", handler)
    http.shutdown()
    http.server_close()
    thread.join()
