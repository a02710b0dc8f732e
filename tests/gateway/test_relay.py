"""What the gateway does with the engine beside handing answers on."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from llmbench.gateway import relay
from llmbench.gateway.refusal import Refusal
from llmbench.gateway.relay import Upstream


class Hanging(httpx.AsyncBaseTransport):
    """An engine that takes requests and never answers."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


async def test_an_engine_that_does_not_say_that_it_is_well_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_HEALTHY", 0.05)
    upstream = Upstream(Hanging(), lambda: None)
    with pytest.raises(Refusal, match="not responding") as refused:
        await upstream.health()
    assert refused.value.status == 503
    upstream.heard = time.monotonic()  # it has just sent something
    await upstream.health()
