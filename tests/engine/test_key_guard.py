"""What an engine on a port answers, and to whom."""

from __future__ import annotations

from typing import Any

import pytest

from llmbench.engine.key_guard import KEY, KeyGuard


async def status(path: str, headers: dict[str, str] | None = None, *, kind: str = "http") -> int:
    """That of a request; 200 where it reaches the application behind the guard."""
    sent: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": kind, "path": path, "headers": [(k.encode(), v.encode()) for k, v in (headers or {}).items()]}
    await KeyGuard(app)(scope, None, send)
    return int(sent[0]["status"]) if sent else 0


PATHS = ["/v1/models", "/v1/chat/completions", "/tokenize", "/metrics", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"]


@pytest.mark.parametrize("path", PATHS)
async def test_each_path_of_the_gateway_needs_the_key(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "sesame")
    assert await status(path) == 401
    assert await status(path, {"authorization": "Bearer sesam"}) == 401
    assert await status(path, {"authorization": "Bearer sesame"}) == 200
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
