"""Limits of named keys: what is reserved, what is settled, and that nothing exceeds them, whatever ends a request."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from tests.gateway.redis_server import Server

from llmbench import sqlite_file
from llmbench.gateway import Catalogue, Served, build
from llmbench.gateway import ledger as ledgers
from llmbench.gateway.charge import Charge, Waiting
from llmbench.gateway.keys import Key, KeyStore
from llmbench.gateway.ledger import Grant, Ledger
from llmbench.gateway.quota import DAY, Account, Excess, Limits, duration
from llmbench.gateway.redis_book import RedisBook
from llmbench.gateway.refusal import Refusal
from llmbench.gateway.relay import Upstream
from llmbench.recipe import Sampling, Variant

NOON = 20_000 * DAY + DAY / 2
ASK = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
BOUND = 512 + 16 + len(json.dumps(ASK["messages"])[1:-1]) + 20
"""Tokens that ASK may take before anything is counted."""


class Clock:
    """Noon of some day, until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class Counting(httpx.AsyncBaseTransport):
    """An engine whose answers take what they say: 30 tokens for a prompt and 12 for an answer, in pieces where it streams."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.counted = 0
        self.used: Any = {"prompt_tokens": 30, "completion_tokens": 12}
        self.failing: Callable[[], httpx.Response] | None = None
        self.broken = False
        self.release: asyncio.Event | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if request.url.path == "/tokenize":
            self.counted += 1
            return httpx.Response(200, json={"count": 30})
        self.bodies.append(body)
        if self.release is not None:
            await self.release.wait()
        if self.failing is not None:
            return self.failing()
        if body["stream"]:
            return httpx.Response(200, stream=Events(self, body))
        return httpx.Response(200, json={"model": "e", "choices": [{"index": 0}], "usage": self.used})


class Events(httpx.AsyncByteStream):
    """A stream as vLLM sends it: its usage in an event of its own, where it is asked for."""

    def __init__(self, engine: Counting, body: dict[str, Any]) -> None:
        self.engine, self.body = engine, body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        options = self.body.get("stream_options") or {}
        so_far = {"usage": {"prompt_tokens": 30, "completion_tokens": 1}} if options.get("continuous_usage_stats") else {}
        for text in "abc":
            yield event({"choices": [{"index": 0, "delta": {"content": text}}], **so_far})
            await asyncio.sleep(0)
        if self.engine.broken:
            raise httpx.ReadError("gone")
        last = event({"choices": [], "usage": self.engine.used}) if options.get("include_usage") else b""
        yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + last + b"data: [DONE]\n\n"


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps({"model": "e", **data}, separators=(",", ":")).encode() + b"\n\n"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def engine() -> Counting:
    return Counting()


class House:
    """A key file, a ledger over it, and a gateway for one key."""

    def __init__(self, path: Path, clock: Clock, engine: Counting, redis: Server | None) -> None:
        self.store, self.clock, self.engine, self.redis = KeyStore(path), clock, engine, redis
        self.ledger: Ledger | None = None
        self.key = ""

    def open(self, **limits: int) -> httpx.AsyncClient:
        self.key = self.store.new("alice", limits=Limits(**limits))
        self.ledger = self.gateway()
        return self.client()

    def gateway(self) -> Ledger:
        """The ledger of one more gateway."""
        book = None if self.redis is None else RedisBook(self.redis.url, clock=self.clock)
        return Ledger(self.store.path, self.clock, book)

    def account(self) -> Account:
        """What is in the book."""
        if self.redis is None:
            found = self.store.account("alice")
        else:
            reader = RedisBook(self.redis.url, clock=self.clock)
            found = reader.account("alice")
            reader.close()
        assert found is not None
        return found

    def client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app()), base_url="http://127.0.0.1", headers=headers)

    def app(self) -> Starlette:
        models = [Served(Variant(name="m", sampling=Sampling(max_tokens=100)), "e", {})]
        return build(Catalogue(models, context=4096), Upstream(self.engine, lambda: None), ledger=self.ledger)

    def named(self) -> Key:
        return self.store.named("alice")

    def spent(self) -> Account:
        """What is in the book once everything that was settled is written."""
        assert self.ledger is not None
        end = time.monotonic() + 30
        while not self.ledger.is_written() and time.monotonic() < end:
            time.sleep(0.01)
        return self.account()

    def close(self) -> None:
        if self.ledger is not None:
            self.ledger.close()
        self.store.close()


@pytest.fixture(params=["sqlite", "redis"])
def house(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock, engine: Counting) -> Iterator[House]:
    redis = request.getfixturevalue("redis") if request.param == "redis" else None
    house = House(tmp_path / "keys.sqlite", clock, engine, redis)
    yield house
    house.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0121, "13ms"), (0.5, "500ms"), (1, "1s"), (1.2, "2s"), (60, "1m0s"), (359.5, "6m0s"), (3600, "1h0m0s"),
     (86_399, "23h59m59s")],
)  # fmt: skip
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize("seed", range(5))
def test_a_bucket_gives_at_most_its_limit_and_nearly_all_of_it(seed: int) -> None:
    """Requests whose answers take a part of what was reserved, more of them than the limit allows, for two hours."""
    chance, limits = random.Random(seed), Limits(tokens_per_minute=6000)
    account, now, spent, running = Account(), NOON, 0, list[tuple[float, int, int, int]]()
    for _ in range(20_000):
        now += chance.expovariate(3)
        account.advance(limits, now)
        for end in [one for one in running if one[0] <= now]:
            running.remove(end)
            account.give_back(end[1] - end[2], end[3])
            spent += end[2]
        most = chance.randint(50, 800)
        if account.excess(limits, most) is None:
            account.take(most)
            running.append((now + chance.uniform(0.1, 20), most, chance.randint(10, most), account.day))
        reserved = sum(one[1] for one in running)
        assert spent + reserved <= 6000 + 6000 * (now - NOON) / 60 + 1e-3
    assert spent >= 0.95 * 6000 * (now - NOON) / 60


def test_requests_flow_back_evenly() -> None:
    limits, account = Limits(requests_per_minute=6), Account()
    account.advance(limits, NOON)
    for _ in range(6):
        assert account.excess(limits, 0) is None
        account.take(0)
    excess = account.excess(limits, 0)
    assert excess is not None and excess.limit == "requests" and excess.wait == pytest.approx(10)
    account.advance(limits, NOON + 9.9)
    assert account.excess(limits, 0) is not None
    account.advance(limits, NOON + 10)
    assert account.excess(limits, 0) is None


def test_a_limit_that_changes_applies_to_what_has_been_spent() -> None:
    account = Account()
    account.advance(Limits(requests_per_minute=10), NOON)
    account.take(0, requests=10)
    assert account.excess(Limits(requests_per_minute=20), 0) is None
    excess = account.excess(Limits(requests_per_minute=5), 0)
    assert excess is not None and excess.wait == pytest.approx(72)
    account.advance(Limits(), NOON)
    assert account.excess(Limits(requests_per_minute=5), 0) is None, "without a limit nothing is missing from a bucket"


def test_a_day_ends_at_midnight_of_utc_and_a_clock_that_is_put_back_does_not_give_it_again() -> None:
    limits, account = Limits(tokens_per_day=100), Account()
    account.advance(limits, NOON)
    account.take(100)
    assert account.excess(limits, 1) == Excess("day", DAY / 2, 0)
    account.advance(limits, NOON + DAY / 2 - 0.001)
    assert account.excess(limits, 1) is not None
    account.advance(limits, NOON + DAY / 2)
    account.take(60)
    account.advance(limits, NOON + DAY / 2 - 1)
    assert account.day_tokens == 60
    account.give_back(100, account.day - 1)
    assert account.day_tokens == 60, "what comes back from yesterday is not today's"


def test_a_days_tokens_that_running_answers_may_give_back_are_worth_waiting_for() -> None:
    limits, account = Limits(tokens_per_day=100), Account()
    account.advance(limits, NOON)
    account.take(90)
    account.held = 80
    assert account.excess(limits, 50) == Excess("day", 1.0, 10)
    account.held = 10
    assert account.excess(limits, 50) == Excess("day", DAY / 2, 10)


async def test_two_hundred_at_once_on_a_limit_for_ten(house: House, engine: Counting) -> None:
    async with house.open(requests_per_minute=10) as http:
        answers = await asyncio.gather(*(http.post("/v1/chat/completions", json=ASK) for _ in range(200)))
        assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 190
        house.clock.now += 6
        assert [(await http.post("/v1/chat/completions", json=ASK)).status_code for _ in range(2)] == [200, 429]
    assert len(engine.bodies) == 11 and house.spent().day_requests == 11


@pytest.mark.parametrize("limit", ["tokens_per_day", "tokens_per_minute"])
async def test_what_is_reserved_never_exceeds_a_limit_and_what_is_used_is_settled(
    house: House, engine: Counting, limit: str
) -> None:
    engine.release = asyncio.Event()
    async with house.open(**{limit: 500}) as http:
        running = [asyncio.create_task(http.post("/v1/chat/completions", json=ASK)) for _ in range(200)]
        while sum(task.done() for task in running) < 190:
            await asyncio.sleep(0.01)
        reserved = house.spent()
        assert len(engine.bodies) == reserved.open == 10 and reserved.held == reserved.day_tokens == 500  # 30 + 20 each
        engine.release.set()
        assert sorted([(await task).status_code for task in running]) == [200] * 10 + [429] * 190
        assert (await http.post("/v1/chat/completions", json=ASK)).status_code == 200, "420 of 500 are used"
    spent = house.spent()
    assert (spent.open, spent.held, spent.day_tokens) == (0, 0, 11 * 42)


async def test_the_variants_own_max_tokens_are_reserved_where_the_client_names_none(house: House, engine: Counting) -> None:
    engine.release = asyncio.Event()
    async with house.open(tokens_per_day=10_000) as http:
        body = {"model": "m", "messages": ASK["messages"]}
        asked: list[dict[str, Any]] = [body, body | {"n": 3, "temperature": 1}, body | {"max_completion_tokens": 7}]
        for extra, tokens in zip(asked, (100, 300, 7), strict=True):
            task = asyncio.create_task(http.post("/v1/chat/completions", json=extra))
            while len(engine.bodies) <= asked.index(extra):
                await asyncio.sleep(0.01)
            assert house.spent().held - BOUND + 20 == tokens
            engine.release.set()
            assert (await task).status_code == 200
            engine.release.clear()
    assert engine.bodies[0]["max_tokens"] == 100


async def test_the_engine_counts_a_prompt_only_where_its_bytes_do_not_fit(house: House, engine: Counting) -> None:
    async with house.open(tokens_per_minute=BOUND) as http:
        for path, body, counted in (
            ("/v1/chat/completions", ASK, 0),
            ("/v1/chat/completions", ASK, 1),
            ("/v1/completions", {"model": "m", "prompt": "Hi", "max_tokens": 20}, 1),
            ("/v1/completions", {"model": "m", "prompt": ["x" * 1000, [1, 2]], "max_tokens": 20}, 2),
            ("/v1/completions", {"model": "m", "prompt": [1] * 9, "max_tokens": 20}, 2),
        ):
            assert (await http.post(path, json=body)).status_code == 200
            assert engine.counted == counted
        before = len(engine.bodies)
        big = await http.post("/v1/completions", json={"model": "m", "prompt": [1] * 1000, "max_tokens": 20})
        assert big.status_code == 429 and big.headers["x-should-retry"] == "false" and "retry-after" not in big.headers
        assert "may take 1,020" in big.json()["error"]["message"] and len(engine.bodies) == before
        longer = await http.post("/v1/chat/completions", json=ASK | {"max_tokens": 4000})
        assert longer.status_code == 429 and engine.counted == 2, "the answer alone is too long, so nothing is counted"


async def test_streams_are_counted_and_look_to_the_client_as_without(house: House, engine: Counting) -> None:
    async with house.open(tokens_per_day=100_000) as http:
        texts = {}
        for name, options in (("plain", None), ("asked", {"include_usage": True}), ("not", {"include_usage": False})):
            body = ASK | {"stream": True} | ({"stream_options": options} if options is not None else {})
            texts[name] = (await http.post("/v1/chat/completions", json=body)).text
            text = (await http.post("/v1/completions", json={"model": "m", "prompt": "Hi", "max_tokens": 20, **{
                key: value for key, value in body.items() if key.startswith("stream")}})).text  # fmt: skip
            assert text == texts[name]
    assert all(body["stream_options"]["include_usage"] is True for body in engine.bodies)
    assert "usage" not in texts["plain"] and texts["plain"] == texts["not"]
    last = event({"choices": [], "usage": engine.used}).replace(b'"model":"e"', b'"model":"m"').decode()
    assert texts["asked"].replace(last, "") == texts["plain"] and last in texts["asked"]
    assert house.spent().day_tokens == 6 * 42


async def leaving(app: Starlette, key: str, body: dict[str, Any], *, after: bytes) -> None:
    """Asks and disconnects once a piece of the answer has come."""
    seen, content = asyncio.Event(), json.dumps(body).encode()
    waiting = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop()
        await seen.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if after in message.get("body", b""):
            seen.set()
            await asyncio.sleep(0.05)

    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "method": "POST", "path": "/v1/chat/completions", "raw_path": b"/v1/chat/completions",
        "headers": headers, "query_string": b"", "http_version": "1.1", "scheme": "http", "root_path": "",
        "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1), "asgi": {"version": "3.0", "spec_version": "2.3"},
    }  # fmt: skip
    await app(scope, receive, send)


async def test_a_stream_whose_client_leaves_stays_spent_until_its_usage_is_known(house: House) -> None:
    house.open(tokens_per_day=100_000)
    app, stream = house.app(), ASK | {"stream": True}
    await leaving(app, house.key, stream, after=b'"content":"a"')
    assert house.spent().day_tokens == BOUND and house.spent().open == 0
    partial = stream | {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    await leaving(app, house.key, partial, after=b'"content":"a"')
    assert house.spent().day_tokens == 2 * BOUND, "a usage of the answer so far settles nothing"
    await leaving(app, house.key, stream, after=b"[DONE]")
    assert house.spent().day_tokens == 2 * BOUND + 42


@pytest.mark.parametrize(
    ("failing", "spent"),
    [
        (lambda: httpx.Response(400, json={"error": {"message": "no"}}), 0),
        (lambda: httpx.Response(429, json={"error": {"message": "busy"}}), 0),
        (lambda: httpx.Response(500, json={"error": {"message": "ouch"}}), BOUND),
        (lambda: httpx.Response(200, content=b"<html>"), BOUND),
        (lambda: httpx.Response(200, json={"choices": []}), BOUND),
        (lambda: httpx.Response(200, json={"choices": [], "usage": {"prompt_tokens": -5, "completion_tokens": 2}}), BOUND),
        (lambda: httpx.Response(200, json={"choices": [], "usage": {"prompt_tokens": "5"}}), BOUND),
        (lambda: httpx.Response(200, json={"choices": [], "usage": {"prompt_tokens": 9}}), 9),
    ],
)
async def test_what_failed_costs_nothing_where_nothing_was_computed_and_else_what_was_reserved(
    house: House, engine: Counting, failing: Callable[[], httpx.Response], spent: int
) -> None:
    engine.failing = failing
    async with house.open(tokens_per_day=100_000) as http:
        await http.post("/v1/chat/completions", json=ASK)
    found = house.spent()
    assert (found.day_tokens, found.open, found.held, found.day_requests) == (spent, 0, 0, 1)


@pytest.mark.parametrize(("error", "spent"), [(httpx.ConnectError("gone"), 0), (httpx.ReadError("gone"), BOUND)])
async def test_an_engine_that_is_gone_before_it_was_asked_costs_nothing(
    house: House, engine: Counting, error: Exception, spent: int
) -> None:
    def failing() -> httpx.Response:
        raise error

    engine.failing = failing
    async with house.open(tokens_per_day=100_000) as http:
        assert (await http.post("/v1/chat/completions", json=ASK)).status_code == 503
    assert house.spent().day_tokens == spent


async def test_a_stream_that_the_engine_breaks_off_stays_spent(house: House, engine: Counting) -> None:
    engine.broken = True
    async with house.open(tokens_per_day=100_000) as http:
        assert "error" in (await http.post("/v1/chat/completions", json=ASK | {"stream": True})).text
    assert house.spent().day_tokens == BOUND


async def test_an_answer_that_took_more_than_was_reserved_is_charged_in_full(house: House, engine: Counting) -> None:
    engine.used = {"prompt_tokens": 900, "completion_tokens": 20}
    async with house.open(tokens_per_minute=2000) as http:
        answer = await http.post("/v1/chat/completions", json=ASK)
        assert answer.status_code == 200
        assert house.spent().day_tokens == 920
        assert (await http.get("/v1/models")).headers["x-ratelimit-remaining-tokens"] == "1080"


async def test_requests_at_once_are_bounded_and_free_their_place(house: House, engine: Counting) -> None:
    engine.release = asyncio.Event()
    async with house.open(concurrent=2) as http:
        running = [asyncio.create_task(http.post("/v1/chat/completions", json=ASK | {"stream": i > 0})) for i in range(2)]
        while len(engine.bodies) < 2:
            await asyncio.sleep(0.01)
        for _ in range(3):
            refused = await http.post("/v1/chat/completions", json=ASK)
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
            assert "2 requests at once" in refused.json()["error"]["message"]
        engine.release.set()
        assert [(await task).status_code for task in running] == [200, 200]
        assert (await http.post("/v1/chat/completions", json=ASK)).status_code == 200


async def test_a_request_that_was_granted_this_moment_counts_once(house: House) -> None:
    house.open(concurrent=2)
    ledger, key, waiting = house.ledger, house.named(), Waiting()
    assert ledger is not None
    first, second, third = (Charge(ledger, key, waiting) for _ in range(3))
    assert first.begin() is None
    task = asyncio.create_task(first.reserve(1, 10, None))
    await asyncio.sleep(0)
    while (seen := ledger.seen("alice")) is None or not seen.open:
        time.sleep(0.001)  # granted by the thread, and the event loop has not heard of it
    assert second.begin() is None
    refused = third.begin()
    assert refused is not None and refused.status == 429
    await task
    for charge in (first, second, third):
        charge.close()
    assert waiting["alice"] == 0


async def test_bad_requests_count_as_requests(house: House, engine: Counting) -> None:
    async with house.open(requests_per_minute=3) as http:
        answers = [await http.post("/v1/chat/completions", json=body) for body in ({}, ASK | {"model": "nope"}, ASK, ASK)]
        assert [answer.status_code for answer in answers] == [400, 404, 200, 429]
        assert (await http.get("/v1/models")).status_code == 200, "looking costs nothing"
    assert len(engine.bodies) == 1


async def test_every_answer_says_what_is_left(house: House) -> None:
    async with house.open(requests_per_minute=60, tokens_per_minute=6000, tokens_per_day=60_000) as http:

        async def left(answer: httpx.Response) -> list[str]:
            names = [f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")]
            return [answer.headers[name] for name in names]

        assert await left(await http.get("/v1/models")) == ["60", "60", "0s", "6000", "6000", "0s"]
        assert await left(await http.get("/nowhere")) == ["60", "60", "0s", "6000", "6000", "0s"]
        answer = await http.post("/v1/chat/completions", json=ASK)
        reset = duration(BOUND / 100)
        assert await left(answer) == ["60", "59", "1s", "6000", str(6000 - BOUND), reset]
        assert house.spent().day_tokens == 42
        assert await left(await http.get("/v1/models")) == ["60", "59", "1s", "6000", "5958", "420ms"]
        house.clock.now += 0.21
        assert (await left(await http.post("/v1/chat/completions", json={})))[1] == "59"


async def test_the_headers_of_a_days_tokens_say_when_it_ends(house: House, engine: Counting) -> None:
    async with house.open(tokens_per_day=BOUND + 50) as http:
        assert (await http.post("/v1/chat/completions", json=ASK)).status_code == 200
        assert house.spent().day_tokens == 42
        engine.used = {"prompt_tokens": BOUND, "completion_tokens": 8}
        assert (await http.post("/v1/chat/completions", json=ASK)).status_code == 200
        assert house.spent().day_tokens == BOUND + 50
        refused = await http.post("/v1/chat/completions", json=ASK)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (429, "insufficient_quota") and "00:00 UTC" in error["message"]
        assert (refused.headers["x-should-retry"], refused.headers["retry-after"]) == ("false", str(DAY // 2))
        assert (refused.headers["x-ratelimit-remaining-tokens"], refused.headers["x-ratelimit-reset-tokens"]) == (
            "0",
            "12h0m0s",
        )
        house.clock.now += DAY / 2
        assert (await http.post("/v1/chat/completions", json=ASK)).status_code == 200


async def test_a_key_without_limits_is_counted_and_carries_no_headers(house: House) -> None:
    async with house.open() as http:
        answer = await http.post("/v1/chat/completions", json=ASK)
        await http.post("/v1/chat/completions", json=ASK | {"stream": True})
        assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
    found = house.spent()
    assert (found.day_requests, found.day_tokens) == (2, 84)


async def test_openais_client_waits_as_long_as_it_is_told_and_gives_up_where_waiting_does_not_help(
    tmp_path: Path, engine: Counting
) -> None:
    import openai

    class Recorded(httpx.AsyncClient):
        statuses: list[int]

        async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
            response = await super().send(request, **options)
            self.statuses.append(response.status_code)
            return response

    store = KeyStore(tmp_path / "keys.sqlite")
    fast, poor = store.new("fast", limits=Limits(requests_per_minute=60)), store.new("poor", limits=Limits(tokens_per_day=10))
    store.close()
    start, lost = time.time(), None  # the clock stands while the first come, so that a slow machine refills nothing meanwhile
    with Ledger(tmp_path / "keys.sqlite", lambda: start if lost is None else time.time() - lost) as ledger:
        models = [Served(Variant(name="m"), "e", {})]
        app = build(Catalogue(models, context=4096), Upstream(engine, lambda: None), ledger=ledger)
        async with Recorded(transport=httpx.ASGITransport(app)) as http:
            http.statuses = []

            async def ask(key: str) -> None:
                given: Any = http
                client = openai.AsyncOpenAI(base_url="http://127.0.0.1/v1", api_key=key, http_client=given, max_retries=3)
                await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}], max_tokens=5)

            for _ in range(60):
                await ask(fast)
            lost, begun = time.time() - start, time.monotonic()
            for _ in range(2):
                await ask(fast)
            assert set(http.statuses) == {200, 429} and http.statuses.count(200) == 62
            assert time.monotonic() - begun > 0.5, "it has waited and not asked at once"
            http.statuses = []
            with pytest.raises(openai.RateLimitError) as caught:
                await ask(poor)
            assert caught.value.code == "insufficient_quota" and http.statuses == [429]


async def test_what_a_killed_gateway_had_reserved_stays_spent_and_its_requests_no_longer_run(
    house: House, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "BEAT", 0.0)
    house.store.new("alice", limits=Limits(concurrent=2, tokens_per_day=100))
    key = house.named()
    dead, alive = house.gateway(), house.gateway()
    assert all([isinstance(await dead.reserve(key, 40), Grant) for _ in range(2)])
    assert await alive.reserve(key, 1) == Excess("concurrent", 1.0)
    with dead._wake:  # it no longer writes, as after kill -9
        clock.now += 60
        end = time.monotonic() + 30
        while isinstance(found := await alive.reserve(key, 20), Excess) and time.monotonic() < end:
            await asyncio.sleep(0.02)
            clock.now += 5  # it may have been writing that it lives when the clock was put forward
        assert isinstance(found, Grant)
        account = house.account()
        assert (account.day_tokens, account.open, account.held) == (100, 1, 20)
    alive.close()
    dead.close()


async def test_two_gateways_with_one_book_agree(house: House, clock: Clock) -> None:
    house.store.new("alice", limits=Limits(requests_per_minute=50, tokens_per_day=1000))
    key = house.named()
    with house.gateway() as one, house.gateway() as other:
        for _ in range(3):
            found = await asyncio.gather(*(ledger.reserve(key, 10) for _ in range(40) for ledger in (one, other)))
            grants = [answer for answer in found if isinstance(answer, Grant)]
            assert len(grants) == 50
            for number, answer in enumerate(found):
                if isinstance(answer, Grant):
                    (one, other)[number % 2].settle(answer, 5)
            end = time.monotonic() + 30
            while not (one.is_written() and other.is_written()) and time.monotonic() < end:
                await asyncio.sleep(0.01)
            clock.now += 60
    account = house.account()
    assert (account.day_tokens, account.day_requests, account.open) == (3 * 50 * 5, 150, 0)


async def test_two_hundred_at_once_at_two_gateways_on_a_limit_for_ten(house: House, engine: Counting, clock: Clock) -> None:
    one = house.open(requests_per_minute=10)
    first, house.ledger = house.ledger, house.gateway()
    assert first is not None
    with first:
        async with one, house.client() as other:
            sent = (http.post("/v1/chat/completions", json=ASK) for _ in range(100) for http in (one, other))
            answers = await asyncio.gather(*sent)
            assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 190
            clock.now += 6
            sent = (http.post("/v1/chat/completions", json=ASK) for _ in range(5) for http in (one, other))
            assert [answer.status_code for answer in await asyncio.gather(*sent)].count(200) == 1
    assert len(engine.bodies) == 11 and house.spent().day_requests == 11


async def test_two_gateways_spend_nearly_all_of_a_limit_and_never_more(house: House, clock: Clock) -> None:
    house.store.new("alice", limits=Limits(tokens_per_day=20_000))
    key, chance, used = house.named(), random.Random(0), 0

    async def client(ledger: Ledger) -> None:
        nonlocal used
        while True:
            most = chance.randint(20, 200)
            granted = await ledger.reserve(key, most)
            if isinstance(granted, Excess):
                if granted.wait > 1:
                    return
                await asyncio.sleep(0.02)
                continue
            await asyncio.sleep(chance.uniform(0, 0.02))
            spent = chance.randint(10, most)
            used += spent
            ledger.settle(granted, spent)

    with house.gateway() as one, house.gateway() as other:
        await asyncio.gather(*(client(ledger) for _ in range(16) for ledger in (one, other)))
    account = house.account()
    assert (account.day_tokens, account.open, account.held) == (used, 0, 0)
    assert 0.95 * 20_000 <= used <= 20_000


async def test_a_client_that_leaves_while_its_reservation_is_written_gets_it_back(house: House) -> None:
    house.open(tokens_per_day=1000)
    ledger, key = house.ledger, house.named()
    assert ledger is not None
    tasks = [asyncio.create_task(ledger.reserve(key, 10)) for _ in range(20)]
    await asyncio.sleep(0)
    for task in tasks[:10]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, Grant) for one in done] == [False] * 10 + [True] * 10
    assert isinstance(await ledger.reserve(key, 1), Grant)
    end = time.monotonic() + 30
    while house.spent().open != 11 and time.monotonic() < end:
        await asyncio.sleep(0.01)
    assert (house.spent().open, house.spent().day_tokens) == (11, 101)


@pytest.mark.parametrize("house", ["sqlite"], indirect=True)  # test_redis_book.py has the like for Redis
async def test_while_the_file_cannot_be_written_nothing_is_handed_on_and_nothing_is_lost(
    house: House, engine: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "_PATIENCE", 0.05)
    async with house.open(tokens_per_day=100_000) as http:
        engine.release = asyncio.Event()
        running = asyncio.create_task(http.post("/v1/chat/completions", json=ASK))
        while not engine.bodies:
            await asyncio.sleep(0.01)
        other = sqlite3.connect(house.store.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        refused = await http.post("/v1/chat/completions", json=ASK)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "keys_unavailable")
        assert len(engine.bodies) == 1
        engine.release.set()
        assert (await running).status_code == 200
        await asyncio.sleep(0.2)
        other.execute("ROLLBACK")
        other.close()
        assert (await http.post("/v1/chat/completions", json=ASK)).status_code == 200
    found = house.spent()
    assert (found.day_tokens, found.open) == (84, 0)


async def test_a_ledger_that_is_closed_takes_nothing_more_and_has_written_all(house: House) -> None:
    house.open(tokens_per_day=1000)
    ledger, key = house.ledger, house.named()
    assert ledger is not None
    grant = await ledger.reserve(key, 100)
    assert isinstance(grant, Grant)
    ledger.settle(grant, 7)
    ledger.close()
    account = house.account()
    assert (account.day_tokens, account.open) == (7, 0)
    with pytest.raises(Refusal, match="stopping"):
        await ledger.reserve(key, 1)
    house.ledger = None


async def test_the_event_loop_never_waits_for_the_disk(house: House) -> None:
    house.open(tokens_per_day=1_000_000)
    ledger, key = house.ledger, house.named()
    assert ledger is not None
    threads: set[int] = set()
    write = ledger._write

    def spied(*arguments: Any, **options: Any) -> None:
        threads.add(threading.get_ident())
        write(*arguments, **options)

    ledger._write = spied  # type: ignore[method-assign]
    await asyncio.gather(*(ledger.reserve(key, 1) for _ in range(50)))
    assert threads and threading.get_ident() not in threads
