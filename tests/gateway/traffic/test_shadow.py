"""A shadow is asked what a route's variant was asked, answers to a file, and stays out of everybody's way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmbench.engine import by_priority
from llmbench.gateway import Access, Catalogue, Served, build
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.keys import KeyStore
from llmbench.gateway.ledger import Ledger
from llmbench.gateway.limit import Open
from llmbench.gateway.quota import Limits
from llmbench.gateway.relay import Upstream
from llmbench.gateway.traffic import Routes
from llmbench.gateway.traffic.shadow import Shadows
from llmbench.recipe import RouteSpec, ServeRecipe, Variant

pytestmark = pytest.mark.anyio


class _Engine(httpx.AsyncBaseTransport):
    """Says which model was asked; model `m2` answers once `go` is set, or an error where it is `failing`."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.go = asyncio.Event()
        self.go.set()
        self.failing = False
        self.echo = ""
        self.ended = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":  # /metrics asks the engine for its own series
            return httpx.Response(404)
        body = json.loads(request.content)
        self.bodies.append(body)
        if body["model"] == "m2":
            try:
                await self.go.wait()
            finally:
                self.ended += 1
            if self.failing:
                return httpx.Response(500, json={"error": {"message": f"no{self.echo}"}})
        usage = {"prompt_tokens": 3, "completion_tokens": 2}
        if body.get("stream"):
            choice = {"index": 0, "delta": {"content": "Hi from m1"}, "finish_reason": "stop"}
            return httpx.Response(200, stream=_Stream({"choices": [choice]}))
        choice = {"message": {"role": "assistant", "content": f"Hi from {body['model']}{self.echo}"}, "finish_reason": "stop"}
        return httpx.Response(200, json={"model": body["model"], "choices": [choice], "usage": usage})


class _Stream(httpx.AsyncByteStream):
    def __init__(self, event: dict[str, Any]) -> None:
        self.event = event

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"data: " + json.dumps(self.event).encode() + b"\n\ndata: [DONE]\n\n"


class Server:
    """The route `support` to `one`, whose shadow is `two`."""

    def __init__(
        self, folder: Path, *, ledger: Ledger | None = None, access: Access | None = None, ranks: bool = True, **shadow: Any
    ) -> None:
        spec = {"name": "support", "variants": {"one": 1}, "shadow": {"variant": "two", "share": 100} | shadow}
        self.engine, self.open, self.folder = _Engine(), Open(100), folder
        self.told: list[Exchange] = []
        self.routes = Routes([RouteSpec.model_validate(spec)])
        self.shadows = Shadows(self.routes, folder, ranks=ranks, hide=(access or Access()).hide)
        self.models = Catalogue(
            [Served(Variant(name=name), model, {}) for name, model in (("one", "m1"), ("two", "m2"))], context=64
        )
        upstream = Upstream(self.engine, lambda: None)
        app = build(
            self.models,
            upstream,
            open=self.open,
            sinks=[self.told.append],
            routes=self.routes,
            shadows=self.shadows,
            ledger=ledger,
            access=access,
        )
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")

    async def ask(
        self, model: str = "support", key: str = "", headers: dict[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Who?"}]} | more
        headers = (headers or {}) | ({"Authorization": f"Bearer {key}"} if key else {})
        return await self.http.post("/v1/chat/completions", json=body, headers=headers)

    async def idle(self) -> None:
        """Waits until no shadow is being asked."""
        while self.shadows._tasks:
            await asyncio.sleep(0.01)

    def lines(self) -> list[dict[str, Any]]:
        path = self.folder / "support.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@asynccontextmanager
async def served(folder: Path, **options: Any) -> AsyncIterator[Server]:
    server = Server(folder, **options)
    try:
        yield server
    finally:
        server.engine.go.set()
        await server.shadows.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_shadow_s_answer_goes_to_a_file_and_to_nobody(tmp_path: Path, stream: bool) -> None:
    async with served(tmp_path) as server:
        options: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
        answer = await server.ask(stream=stream, temperature=0.5, **options)
        assert "Hi from m1" in answer.text and "m2" not in answer.text and answer.headers["x-llmbench-variant"] == "one"
        await server.idle()
        (line,) = server.lines()
        assert (line["variant"], line["text"]) == ("one", "Hi from m1")
        assert (line["shadow"]["variant"], line["shadow"]["text"], line["shadow"]["error"]) == ("two", "Hi from m2", None)
        assert line["conversation"] == [{"role": "user", "content": "Who?"}]
        asked = server.engine.bodies[1]
        assert (asked["temperature"], asked["stream"], asked["priority"]) == (0.5, False, 100)
        assert "priority" not in server.engine.bodies[0] and "stream_options" not in asked
        assert (tmp_path / "support.jsonl").stat().st_mode & 0o077 == 0


async def test_no_key_reaches_the_file_wherever_a_client_or_a_model_writes_it(tmp_path: Path) -> None:
    owner, home = "owner-key-4f9c2b7e1d", tmp_path / "shadows"
    named = KeyStore(tmp_path / "keys.sqlite").new("alice")
    with Ledger(tmp_path / "keys.sqlite") as ledger:
        async with served(home, ledger=ledger, access=Access(owner)) as server:
            for secret in (owner, named):
                server.engine.echo = f" and {secret}"
                said = [{"role": "user", "content": f"my key is {secret} for now"}]
                answer = await server.ask(key=secret, messages=said, user=secret, headers={"x-request-id": secret})
                assert answer.status_code == 200 and secret in answer.text
                await server.idle()
                server.engine.failing = True
                await server.ask(key=secret, messages=said)
                await server.idle()
                server.engine.failing = False
            assert len(server.lines()) == 4
    written = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file()).decode()
    assert written.count("my key is [key] for now") == 4 and "Hi from m2 and [key]" in written
    for secret in (owner, named):
        assert secret not in written and secret[:18] not in written


async def test_metrics_count_what_became_of_its_questions_by_route_and_variant(tmp_path: Path) -> None:
    async with served(tmp_path, busy=1) as server:
        await server.ask()
        await server.idle()
        server.open.count = 3
        await server.ask()
        server.open.count = 0
        text = (await server.http.get("/metrics")).text.splitlines()
        counted = [line for line in text if line.startswith("llmbench_shadow_requests_total")]
        labels = 'model="two",outcome="{}",route="support"'
        want = {"answered": 1, "failed": 0, "cut_off": 0, "busy": 1, "full": 0}
        assert set(counted) == {
            f"llmbench_shadow_requests_total{{{labels.format(name)}}} {number}.0" for name, number in want.items()
        }
        assert server.routes.shadowed() == [{"route": "support", "variant": "two"} | want]


async def test_a_large_file_is_begun_anew_and_the_one_before_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbench.gateway.traffic.shadow._MOST_BYTES", 1000)
    async with served(tmp_path) as server:
        for number in range(9):
            await server.ask(messages=[{"role": "user", "content": f"{number}" * 300}])
            await server.idle()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["support.jsonl", "support.jsonl.1"]
    assert all(one.stat().st_size < 1000 for one in tmp_path.iterdir())


async def test_it_counts_for_no_metric_but_its_own_no_sink_and_no_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.sqlite"
    key = KeyStore(path).new("alice", limits=Limits(tokens_per_day=100_000))
    with Ledger(path) as ledger:
        async with served(tmp_path, ledger=ledger, access=Access("owner")) as server:
            answer = await server.ask(key=key)
            assert answer.status_code == 200
            await server.idle()
            assert server.lines()[0]["shadow"]["text"] == "Hi from m2"
            assert [exchange.variant for exchange in server.told] == ["one"]
            metrics = (await server.http.get("/metrics", headers={"Authorization": "Bearer owner"})).text
            own = [line for line in metrics.splitlines() if 'model="two"' in line]
            assert 'model="one"' in metrics and all(line.startswith("llmbench_shadow_requests_total{") for line in own)
            while ledger.is_settling("alice"):
                await asyncio.sleep(0.01)
            account = ledger.seen("alice")
            assert account is not None and account.day_tokens == 5  # of the prompt and the answer, once


async def test_it_is_asked_at_its_own_bounded_pace(tmp_path: Path) -> None:
    async with served(tmp_path, concurrent=2) as server:
        server.engine.go.clear()
        for _ in range(5):
            assert (await server.ask()).status_code == 200
        assert server.shadows.counts["support", "two", "full"] == 3 and len(server.shadows._tasks) == 2
        server.engine.go.set()
        await server.idle()
        assert len(server.lines()) == 2 and server.models.now.known["two"].requests.running == 0


async def test_it_is_not_asked_and_is_cut_off_while_the_server_is_busy(tmp_path: Path) -> None:
    async with served(tmp_path, busy=1) as server:
        server.open.count = 3
        await server.ask()
        assert server.shadows.counts["support", "two", "busy"] == 1 and len(server.engine.bodies) == 1
        server.open.count = 0
        server.engine.go.clear()
        await server.ask()
        while len(server.engine.bodies) < 3:
            await asyncio.sleep(0.01)
        server.open.count = 5
        await server.idle()
        assert server.shadows.counts["support", "two", "cut_off"] == 1 and server.engine.ended == 1
        assert server.lines() == [] and server.models.now.known["two"].requests.running == 0


async def test_a_shadow_that_fails_is_recorded_and_harms_nobody(tmp_path: Path) -> None:
    async with served(tmp_path, ranks=False) as server:
        server.engine.failing = True
        assert (await server.ask()).status_code == 200
        await server.idle()
        assert (
            "The engine answered 500" in server.lines()[0]["shadow"]["error"]
            and server.shadows.counts["support", "two", "failed"] == 1
        )
        assert "priority" not in server.engine.bodies[1]


async def test_only_a_route_s_good_answers_of_another_variant_are_asked_again(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        await server.ask("one")
        await server.ask("nobody")
        await server.ask(temperature="hot")
        server.routes.divide("support", {"two": 1.0}, experiment="support", reads=True)
        await server.ask()
        await server.idle()
        assert len(server.engine.bodies) == 2 and server.lines() == [] and server.shadows._kept == {}


def test_the_engine_ranks_requests_where_a_route_has_a_shadow_or_its_owner_says_so() -> None:
    route = {"name": "r", "variants": {"base": 1}}
    shadow = [route | {"shadow": {"variant": "base"}}]
    for routes, arguments, expected in (
        ([route], [], False),
        (shadow, [], True),
        (shadow, ["--scheduling-policy", "fcfs"], False),
        ([route], ["--scheduling_policy=priority"], True),
    ):
        document = {"variants": [{"name": "base"}], "routes": routes, "engine": {"extra_args": arguments}}
        assert by_priority(ServeRecipe.model_validate(document)) is expected
