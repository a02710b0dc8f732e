"""What an engine on a port answers, and to whom."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llmbench.engine.key_guard import ADAPTERS, GATEWAY, KEY, LEASE_SECONDS, LOAD, UNLOAD, KeyGuard, Leases


async def status(path: str, headers: dict[str, str] | None = None, *, kind: str = "http") -> int:
    """That of a request; 200 where it reaches the application behind the guard."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b'{"lora_name": "a1"}', "more_body": False}

    scope = {"type": kind, "path": path, "headers": [(k.encode(), v.encode()) for k, v in (headers or {}).items()]}
    await KeyGuard(app)(scope, receive, send)
    return int(sent[0]["status"]) if sent else 0


PATHS = [
    ADAPTERS,
    "/v1/models",
    "/v1/chat/completions",
    "/tokenize",
    "/metrics",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
]


@pytest.mark.parametrize("path", PATHS)
async def test_each_path_of_the_gateway_needs_the_key(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sesame")
    assert await status(path) == 401
    assert await status(path, {"authorization": "Bearer sesam"}) == 401
    assert await status(path, {"authorization": "Bearer sesame"}) == (200 if path != ADAPTERS else 400)
    assert await status(path, {"authorization": "Bearer sesame", "origin": "http://page"}) == 403


async def test_whether_it_is_well_is_told_to_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sesame")
    assert await status("/health") == 200


@pytest.mark.parametrize("path", ["/invocations", "/v1/responses", "/docs", "/sleep", "/v1/models/../../invocations", "/"])
async def test_what_the_gateway_does_not_ask_is_not_there(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sesame")
    assert await status(path, {"authorization": "Bearer sesame"}) == 404


async def test_without_a_key_everybody_but_a_web_page_may_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert await status("/v1/models") == 200
    assert await status("/v1/models", {"origin": "http://page"}) == 403
    assert await status("/v1/realtime", kind="websocket") == 0


class Vllm:
    """An application that knows adapters, behind a guard."""

    def __init__(self) -> None:
        self.has: set[str] = set()
        self.asked: list[tuple[str, bytes]] = []
        self.works = asyncio.Event()
        self.works.set()
        self.status = 200
        self.guard = KeyGuard(self._answer)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        raw, more = b"", True
        while more:
            message = await receive()
            raw, more = raw + message["body"], message["more_body"]
        self.asked.append((scope["path"], raw))
        await self.works.wait()
        if self.status == 200:
            name = json.loads(raw)["lora_name"]
            (self.has.add if scope["path"] == LOAD else self.has.discard)(name)
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def ask(self, path: str, body: Any, gateway: str | None = None) -> tuple[int, Any]:
        """The status and the value of an answer to a body that comes in two pieces."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        left = iter([(raw[:3], True), (raw[3:], False)])
        sent: list[dict[str, Any]] = []

        async def receive() -> Any:
            piece, more = next(left)
            return {"type": "http.request", "body": piece, "more_body": more}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(GATEWAY.encode(), gateway.encode())] if gateway is not None else []
        await self.guard({"type": "http", "path": path, "headers": headers}, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])

    async def hold(self, gateway: str, *uses: str) -> Any:
        return (await self.ask(ADAPTERS, {"gateway": gateway, "uses": list(uses)}))[1]


async def test_what_another_gateway_uses_is_not_unloaded() -> None:
    vllm = Vllm()
    assert (await vllm.ask(LOAD, {"lora_name": "a1", "lora_path": "/a1"}, "one"))[0] == 200
    assert vllm.asked == [(LOAD, b'{"lora_name": "a1", "lora_path": "/a1"}')]
    assert await vllm.hold("two", "a1") == {"used": ["a1"], "free": []}
    status, told = await vllm.ask(UNLOAD, {"lora_name": "a1"}, "one")
    assert (status, told["error"]["message"]) == (409, "Another gateway uses this adapter.") and vllm.has == {"a1"}
    assert (await vllm.ask(UNLOAD, {"lora_name": "a1"}, "two"))[0] == 200 and vllm.has == set()
    assert await vllm.hold("three") == {"used": [], "free": []}


async def test_a_person_may_unload_whatever_is_there() -> None:
    vllm = Vllm()
    await vllm.ask(LOAD, {"lora_name": "a1"}, "one")
    assert (await vllm.ask(UNLOAD, {"lora_name": "a1"}))[0] == 200 and vllm.has == set()
    assert await vllm.hold("one") == {"used": [], "free": []}


async def test_what_vllm_did_not_load_is_no_adapter_that_a_gateway_has_left() -> None:
    vllm = Vllm()
    vllm.status = 404
    assert (await vllm.ask(LOAD, {"lora_name": "a1"}, "one"))[0] == 404
    assert await vllm.hold("one") == {"used": [], "free": []}


async def test_who_begins_to_use_an_adapter_that_is_being_unloaded_is_answered_when_it_is_gone() -> None:
    vllm = Vllm()
    await vllm.ask(LOAD, {"lora_name": "a1"}, "one")
    vllm.works.clear()
    unloading = asyncio.create_task(vllm.ask(UNLOAD, {"lora_name": "a1"}, "one"))
    while len(vllm.asked) < 2:
        await asyncio.sleep(0)
    holding = asyncio.create_task(vllm.hold("two", "a1"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not holding.done()
    vllm.works.set()
    assert (await unloading)[0] == 200 and (await holding) == {"used": [], "free": []} and vllm.has == set()


async def test_two_who_unload_the_same_adapter_at_once_leave_nobody_waiting() -> None:
    vllm = Vllm()
    await vllm.ask(LOAD, {"lora_name": "a1"}, "one")
    await vllm.hold("one")
    vllm.works.clear()
    both = [asyncio.create_task(vllm.ask(UNLOAD, {"lora_name": "a1"}, name)) for name in ("one", "two")]
    for _ in range(20):
        await asyncio.sleep(0)
    holding = asyncio.create_task(vllm.hold("three", "a1"))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not holding.done()
    vllm.works.set()
    answers = await asyncio.wait_for(asyncio.gather(*both), 10)
    assert {status for status, _ in answers} <= {200, 409} and vllm.has == set()
    assert await asyncio.wait_for(holding, 10) == {"used": [], "free": []}


@pytest.mark.parametrize(
    "body", [b"", b"[" * 100_000, b"[]", {"gateway": "one"}, {"gateway": 1, "uses": []}, {"gateway": "", "uses": [1]}]
)
async def test_what_no_gateway_says_is_refused(body: Any) -> None:
    assert (await Vllm().ask(ADAPTERS, body))[0] == 400


def test_a_gateway_that_is_silent_for_a_minute_uses_nothing_any_more() -> None:
    now = [0.0]
    leases = Leases(lambda: now[0])
    leases.loaded("one", "a1")
    leases.hold("two", ["a1", "b1"])
    assert leases.hold("three", []) == {"used": ["a1", "b1"], "free": []}
    now[0] = LEASE_SECONDS - 1
    leases.hold("two", ["b1"])
    assert leases.hold("three", []) == {"used": ["a1", "b1"], "free": []}
    now[0] = LEASE_SECONDS
    assert leases.hold("three", []) == {"used": ["b1"], "free": ["a1"]}, "b1 was loaded by nobody that said so"
    assert leases.hold("three", ["a1"])["free"] == []
