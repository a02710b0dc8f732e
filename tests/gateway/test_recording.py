"""The record of a request: one for each, whoever answers it, and told once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Message

from llmbench.gateway import Access, Catalogue, Served, build
from llmbench.gateway.exchange import Exchange, Sink
from llmbench.gateway.keys import KeyStore
from llmbench.gateway.ledger import Ledger
from llmbench.gateway.limit import Open
from llmbench.gateway.observing.metrics import Metrics
from llmbench.gateway.quota import Limits
from llmbench.gateway.relay import Upstream
from llmbench.recipe import Variant

pytestmark = pytest.mark.anyio
CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


class _Whole(httpx.AsyncBaseTransport):
    """Answers at once; `fails` raises what no engine's transport raises."""

    fails = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.fails:
            raise RuntimeError("nobody expects this")
        choice = {"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
        return httpx.Response(200, json={"model": "base", "choices": [choice]})


class House:
    """A gateway with two named keys, of which `spent` has no request left, and one that may have one answer open."""

    def __init__(self, path: Path, told: Sink) -> None:
        store = KeyStore(path)
        self.alice, self.spent = store.new("alice"), store.new("spent", limits=Limits(requests_per_minute=1))
        store.close()
        self.ledger, self.engine, self.open = Ledger(path), _Whole(), Open(1)
        self.metrics = Metrics(lambda: self.open.count)
        self.app = build(
            Catalogue([Served(Variant(name="m"), "base", {})], context=1024), Upstream(self.engine, lambda: None),
            access=Access("the-owner's-key", frozenset({"127.0.0.1"})), ledger=self.ledger, open=self.open, sinks=[told],
            metrics=self.metrics, traced=1.0,
        )  # fmt: skip

    async def ask(self, method: str, path: str, key: str, body: Any = None, **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            given = {"Authorization": f"Bearer {key}"} | headers
            return await client.request(method, path, json=body, headers=given)


@pytest.fixture
def told() -> list[Exchange]:
    return []


@pytest.fixture
def house(tmp_path: Path, told: list[Exchange]) -> Iterator[House]:
    house = House(tmp_path / "keys.sqlite", told.append)
    yield house
    house.ledger.close()


async def answered(house: House, case: str) -> tuple[httpx.Response, str | None]:
    """The answer to one kind of request, and the name of its key."""
    match case:
        case "answered":
            return await house.ask("POST", CHAT, house.alice, ASK), "alice"
        case "looked at":
            return await house.ask("GET", "/v1/models", house.alice), "alice"
        case "without a key":
            return await house.ask("GET", "/health", "x"), ""
        case "another host":
            return await house.ask("POST", CHAT, house.alice, ASK, Host="evil.example"), ""
        case "a wrong key":
            return await house.ask("POST", CHAT, "llmb-000000000000-wrong", ASK), ""
        case "a wrong key for a look":
            return await house.ask("GET", "/v1/models", "wrong"), ""
        case "too many headers":
            return await house.ask("GET", "/v1/models", house.alice, **{f"x-{n}": "1" for n in range(200)}), ""
        case "a key's limit":
            await house.ask("POST", CHAT, house.spent, ASK)
            return await house.ask("POST", CHAT, house.spent, ASK), "spent"
        case "the server's limit":
            house.open.count = 1
            return await house.ask("POST", CHAT, house.alice, ASK), "alice"
        case "no such path":
            return await house.ask("POST", "/v1/images", house.alice, ASK), "alice"
        case "another method":
            return await house.ask("GET", CHAT, house.alice), "alice"
        case "an unknown model":
            return await house.ask("POST", CHAT, house.alice, ASK | {"model": "gpt"}), "alice"
        case "a failure of ours":
            house.engine.fails = True
            return await house.ask("POST", CHAT, house.alice, ASK), "alice"
    raise AssertionError(case)


@pytest.mark.parametrize(
    ("case", "status", "error"),
    [
        ("answered", 200, None),
        ("looked at", 200, None),
        ("without a key", 200, None),
        ("another host", 421, None),
        ("a wrong key", 401, "invalid_api_key"),
        ("a wrong key for a look", 401, "invalid_api_key"),
        ("too many headers", 431, None),
        ("a key's limit", 429, "rate_limit_exceeded"),
        ("the server's limit", 429, "rate_limit_exceeded"),
        ("no such path", 404, None),
        ("another method", 405, None),
        ("an unknown model", 404, "model_not_found"),
        ("a failure of ours", 500, None),
    ],
)
async def test_every_request_is_told_once_with_what_its_answer_says(
    house: House, told: list[Exchange], case: str, status: int, error: str | None
) -> None:
    answer, key = await answered(house, case)
    exchange = told.pop()
    assert [one.status for one in told] == ([200] if case == "a key's limit" else [])
    assert (answer.status_code, exchange.status, exchange.error, exchange.key) == (status, status, error, key)
    assert (exchange.method, exchange.path) == (answer.request.method, answer.request.url.path)
    assert answer.headers["x-request-id"] == exchange.id and len(exchange.id) == 32
    assert float(answer.headers["x-llmbench-overhead-ms"]) >= 0 and "accept;dur=" in answer.headers["server-timing"]
    assert exchange.seconds > 0 and not exchange.broken
    trace = exchange.trace.name if exchange.trace is not None else None
    assert answer.headers.get("x-trace-id") == trace and (trace is not None) == (exchange.method == "POST")


async def test_a_refusal_is_given_the_id_that_its_client_chose(house: House, told: list[Exchange]) -> None:
    answer = await house.ask("POST", CHAT, "wrong", ASK, **{"x-request-id": "order-7"})
    assert answer.status_code == 401 and answer.headers["x-request-id"] == told[0].id == "order-7"


async def test_a_refused_request_is_told_with_the_time_that_its_key_took(
    house: House, told: list[Exchange], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("llmbench.gateway.exchange.time.monotonic", lambda: float(next(clock)))
    answer = await house.ask("POST", CHAT, "wrong", ASK)
    parts = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert float(parts["accept"]) >= 1000 and told[0].seconds > told[0].accept_seconds >= 1


async def test_metrics_count_questions_and_not_those_who_look(house: House) -> None:
    for method, path, key in (("GET", "/v1/models", house.alice), ("GET", "/v1/models", "wrong"), ("POST", CHAT, "wrong")):
        await house.ask(method, path, key, ASK if method == "POST" else None)
    counted = [line for line in house.metrics.text().decode().splitlines() if line.startswith("llmbench_requests_total")]
    assert counted == ['llmbench_requests_total{key="",model="",status="401"} 1.0']


async def test_a_client_that_leaves_is_told_with_an_answer_that_broke_off(house: House, told: list[Exchange]) -> None:
    messages: list[Message] = [
        {"type": "http.request", "body": json.dumps(ASK).encode(), "more_body": True}, {"type": "http.disconnect"},
    ]  # fmt: skip
    headers = [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {house.alice}".encode())]
    headers.append((b"content-type", b"application/json"))
    scope = {"type": "http", "method": "POST", "path": CHAT, "raw_path": CHAT.encode(), "query_string": b"", "headers": headers}

    async def receive() -> Message:
        return messages.pop(0)

    async def send(_: Message) -> None:
        raise OSError("the connection is closed")

    with pytest.raises(OSError, match="closed"):
        await house.app(scope | {"http_version": "1.1", "server": ("127.0.0.1", 80)}, receive, send)
    assert [(one.status, one.broken, one.key) for one in told] == [(499, True, "alice")]
