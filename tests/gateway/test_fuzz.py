"""Requests at random over real sockets: nothing unlisted reaches the engine, and every answer is one that is described.

The requests are those of benchmarks/fuzz_gateway.py, which can be run against any server; a seed makes always the same.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from llmbench.gateway import Access, Catalogue, Served, build, listening
from llmbench.gateway.limit import Open
from llmbench.gateway.relay import Upstream
from llmbench.recipe import ServeRecipe, Variant

PROGRAMS = Path(__file__).resolve().parents[2] / "benchmarks"
HEADERS = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-length", "content-type"}
BOTH = {
    "model", "stream", "stream_options", "max_tokens", "n", "stop", "seed", "temperature", "top_p", "top_k", "min_p",
    "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "response_format", "ignore_eos", "min_tokens",
    "logprobs", "stop_token_ids",
}  # fmt: skip
FIELDS = {
    "/v1/chat/completions": BOTH | {
        "messages", "max_completion_tokens", "top_logprobs", "tools", "tool_choice", "parallel_tool_calls", "reasoning_effort",
        "chat_template_kwargs",
    },
    "/v1/completions": BOTH | {"prompt", "echo"},
    "/tokenize": {"model", "prompt", "add_special_tokens", "return_token_strs"},
    "/detokenize": {"model", "tokens"},
    "/health": set(),
    "/metrics": set(),
}  # fmt: skip
"""What the engine may be sent on each path, written out once more: a field that is added to the gateway is added here."""
MESSAGE = {"role", "content", "name", "tool_calls", "tool_call_id", "reasoning"}
RANGES = {
    "temperature": (0, 2), "top_p": (1e-300, 1), "top_k": (-1, 2**63), "min_p": (0, 1), "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2), "repetition_penalty": (1e-300, 1e309), "min_tokens": (0, 16),
}  # fmt: skip
"""What vLLM's SamplingParams takes."""
ELSEWHERE = {
    "n", "min_tokens", "response_format", "tools", "tool_choice", "stop", "prompt", "logit_bias", "stream_options", "model",
    "input", "text", "reasoning", "filters", "ranking_options", "name",
}  # fmt: skip
"""What a valid request may still be refused for: fields that depend on each other, or hold schemas."""


class Stream(httpx.AsyncByteStream):
    """A body that is read as it comes."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.content


class CheckingEngine(httpx.AsyncBaseTransport):
    """Answers as vLLM does, notes whatever it should not have been sent, and refuses what vLLM's own models would."""

    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.asked = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        path, body = request.url.raw_path.decode(), json.loads(request.content or b"{}")
        odd = [name for name in request.headers if name not in HEADERS]
        odd += [] if path in FIELDS else [path]
        odd += [name for name in body if name not in FIELDS.get(path, set()) or body[name] is None]
        odd += [name for message in body.get("messages", ()) for name in message if name not in MESSAGE]
        odd += [name for name in body.get("chat_template_kwargs", {}) if "template" in name or name in ("tools", "messages")]
        odd += [str(type(message["content"])) for message in body.get("messages", ()) if type(message["content"]) is not str]
        self.wrong += [f"{path}: {name} {request.content[:500]!r}" for name in odd]
        if (refused := _refused(body)) is not None:
            error = {"message": f"{refused} is out of range", "type": "BadRequestError", "param": refused, "code": 400}
            return httpx.Response(400, json={"error": error})
        return _answer(path, body)


def _refused(body: Mapping[str, Any]) -> str | None:
    """The first field that vLLM's request models do not take."""
    for name, (lowest, highest) in RANGES.items():
        if not lowest <= body.get(name, lowest) <= highest:
            return name
    stop, choice = body.get("stop", "x"), body.get("tool_choice", "auto")
    options = body.get("stream_options", {})
    if any(type(options.get(name, False)) not in (bool, type(None)) for name in ("include_usage", "continuous_usage_stats")):
        return "stream_options"
    if "" in ([stop] if isinstance(stop, str) else stop):
        return "stop"
    if choice not in ("none", "auto", "required") and not (
        isinstance(choice, dict) and choice.get("type") == "function" and "name" in (choice.get("function") or {})
    ):
        return "tool_choice"
    if body.get("tools") == []:
        return "tools"
    for tool in body.get("tools", ()):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            return "tools"
        if not isinstance(function.get("parameters") or {}, dict) or not isinstance(function.get("description") or "", str):
            return "tools"
    return None


def _answer(path: str, body: Mapping[str, Any]) -> httpx.Response:
    if path in ("/health", "/metrics"):
        return httpx.Response(200, text="")
    if path == "/detokenize":
        return httpx.Response(200, json={"prompt": "a"})
    if path == "/tokenize":
        return httpx.Response(200, json={"count": 1, "max_model_len": 64, "tokens": [1], "token_strs": None})
    chat = path == "/v1/chat/completions"
    said = {"message": {"role": "assistant", "content": "Hi"}} if chat else {"text": "Hi"}
    data = {"id": "1", "object": "chat.completion" if chat else "text_completion", "created": 1, "model": body.get("model")}
    data |= {"choices": [{"index": 0, "finish_reason": "stop", "logprobs": None, **said}], "usage": {"prompt_tokens": 1}}
    if body.get("stream"):
        return httpx.Response(200, stream=Stream(b"data: " + json.dumps(data).encode() + b"\n\ndata: [DONE]\n\n"))
    return httpx.Response(200, json=data)


@pytest.fixture(scope="module")
def program() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PROGRAMS)
        return importlib.import_module("fuzz_gateway")


@pytest.fixture
def served() -> Iterator[tuple[str, CheckingEngine]]:
    """A gateway on a port of its own, and the engine behind it."""
    document = ServeRecipe.model_validate({"variants": [{"name": "base"}], "gateway": {"port": 0}})
    engine, open = CheckingEngine(), Open(100)
    upstream = Upstream(engine, lambda: None)
    catalogue = Catalogue([Served(Variant(name="base"), "base", {}, stops=(2,))], context=64)
    app = build(catalogue, upstream, access=Access(None, listening.hosts(document.gateway)), open=open)
    with listening.listener_of(document) as listener, listening.answering(app, listener, document, upstream, open, None):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", engine


@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_no_request_reaches_the_engine_unchecked_or_is_answered_otherwise_than_described(
    program: ModuleType, served: tuple[str, CheckingEngine], count: int
) -> None:
    url, engine = served
    report = program.fuzz(url, count=count, seed=count)
    assert (report.faults, engine.wrong) == ([], [])
    assert report.statuses[200] > count / 8 and report.statuses[400] > count / 20 and engine.asked > count / 8
    assert [
        one for one in report.differences if one.taken or (one.param or "").split(".")[0].split("[")[0] not in ELSEWHERE
    ] == []
