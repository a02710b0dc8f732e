"""Who gets the engine's places, and who waits for how long."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from llmbench.gateway import Catalogue, Served, build
from llmbench.gateway.exchange import Exchange, of_request
from llmbench.gateway.meter import Meter
from llmbench.gateway.refusal import Refusal
from llmbench.gateway.relay import Upstream
from llmbench.gateway.turns import Tier, Turns
from llmbench.recipe import Variant

ASK = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
pytestmark = pytest.mark.anyio


class Asking:
    """Requests that take their turns; `served` is their order."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.served: list[Exchange] = []

    async def ask(self, key: str, *, cost: int = 10, seats: int = 1, tier: Tier = "default") -> Exchange:
        exchange = Exchange("/v1/chat/completions", key=key)
        await self.turns.take(exchange, cost=cost, seats=seats, tier=tier)
        self.served.append(exchange)
        return exchange

    async def later(self, key: str, **how: int | Tier) -> asyncio.Task[Exchange]:
        task = asyncio.create_task(self.ask(key, **how))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        return task

    async def end_all(self) -> None:
        """Ends whatever has a place, until nothing waits."""
        done = 0
        while done < len(self.served):
            end(self.served[done])
            done += 1
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    def keys(self) -> str:
        return "".join(exchange.key for exchange in self.served)


def end(exchange: Exchange) -> None:
    for done in exchange.at_end:
        done()


async def test_nobody_waits_while_there_are_places() -> None:
    asking = Asking(Turns(3, 0))
    for key in "aab":
        await asking.ask(key)
    assert not asking.turns.free
    end(asking.served[0])
    assert asking.turns.free


async def test_a_key_with_many_requests_does_not_keep_another_waiting_for_all_of_them() -> None:
    asking = Asking(Turns(1, 100))
    for _ in range(20):
        await asking.later("a")
    await asking.later("b")
    await asking.end_all()
    assert asking.keys().index("b") <= 2
    assert Counter(asking.keys()) == {"a": 20, "b": 1}


async def test_keys_share_tokens_and_not_requests() -> None:
    asking = Asking(Turns(1, 100))
    for _ in range(30):
        await asking.later("a", cost=30)
        await asking.later("b", cost=10)
    await asking.end_all()
    first = Counter(asking.keys()[:20])
    assert 2 <= first["b"] / first["a"] <= 4


async def test_flex_goes_on_slowly_while_others_wait() -> None:
    asking = Asking(Turns(1, 200))
    for _ in range(20):
        await asking.later("a", tier="flex")
    for _ in range(60):
        await asking.later("b")
    await asking.end_all()
    before_the_last_b = asking.keys()[: asking.keys().rindex("b")]
    assert 4 <= before_the_last_b.count("a") <= 9


async def test_several_answers_take_several_places_and_are_not_passed_by_for_ever() -> None:
    asking = Asking(Turns(2, 100))
    first, second = await asking.ask("a"), await asking.ask("b")
    wide = await asking.later("c", seats=2)
    narrow = await asking.later("d")
    end(first)
    await asyncio.sleep(0)
    assert not wide.done() and not narrow.done()
    end(second)
    assert (await wide).key == "c"
    end(wide.result())
    assert (await narrow).key == "d"


async def test_one_that_asks_for_more_answers_than_there_are_places_gets_all_of_them() -> None:
    asking = Asking(Turns(2, 10))
    end(await asking.ask("a", seats=8))
    assert asking.turns.free


async def test_places_may_come_and_go() -> None:
    asking = Asking(Turns(1, 100))
    first = await asking.ask("a")
    waiting = [await asking.later("b") for _ in range(3)]
    asking.turns.places = 3
    await asyncio.sleep(0)
    assert [one.done() for one in waiting] == [True, True, False]
    wide = await asking.later("c", seats=3)
    asking.turns.places = 1
    for exchange in (first, *(await asyncio.gather(*waiting[:2]))):
        assert not wide.done() and not waiting[2].done()
        end(exchange)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert wide.done() and not waiting[2].done()  # alone, as it has more seats than there are places now
    end(wide.result())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert waiting[2].done() and asking.turns.waiting == 0


async def test_who_leaves_is_not_waited_for() -> None:
    asking = Asking(Turns(1, 10))
    first = await asking.ask("a")
    gone, kept = await asking.later("b"), await asking.later("c")
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert asking.turns.waiting == 1
    end(first)
    end(await kept)
    assert asking.turns.free and asking.keys() == "ac"


async def test_who_leaves_in_the_moment_of_its_turn_gives_the_place_on() -> None:
    asking = Asking(Turns(1, 10))
    first = await asking.ask("a")
    gone, kept = await asking.later("b"), await asking.later("c")
    end(first)  # b has the place now, and has not run yet
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    end(await kept)
    assert asking.turns.free


async def test_a_full_line_is_refused_at_once_with_a_time() -> None:
    asking = Asking(Turns(1, 1))
    await asking.ask("a")
    await asking.later("b")
    with pytest.raises(Refusal) as refused:
        await asking.ask("c")
    assert (refused.value.status, refused.value.code) == (503, "server_overloaded")
    assert refused.value.response().headers["retry-after"] == "1"


async def test_a_request_that_would_wait_for_longer_than_it_may_is_refused_before_it_waits() -> None:
    turns = Turns(1, 10)
    slow = Exchange("/v1/chat/completions")
    await turns.take(slow, cost=1)
    slow.begun -= 60  # its answer took a minute
    end(slow)
    await turns.take(Exchange("/v1/chat/completions"), cost=1)
    with pytest.raises(Refusal, match="estimated wait of 60 s exceeds") as refused:
        await turns.take(Exchange("/v1/chat/completions", deadline=5.0), cost=1)
    assert refused.value.status == 503 and turns.waiting == 0


@pytest.mark.parametrize(
    ("headers", "deadline", "patience"),
    [
        ([], None, None),
        ([(b"x-request-timeout", b"2.5")], 2.5, None),
        ([(b"x-stainless-read-timeout", b"600"), (b"x-request-timeout", b"30")], 30.0, 600.0),
        ([(b"x-request-timeout", b"0")], None, None),
        ([(b"x-request-timeout", b"nan")], None, None),
        ([(b"x-request-timeout", b"-1")], None, None),
        ([(b"x-request-timeout", b"1e9")], None, None),
    ],
)
def test_a_client_says_how_long_it_waits(
    headers: list[tuple[bytes, bytes]], deadline: float | None, patience: float | None
) -> None:
    exchange = of_request({"type": "http", "method": "POST", "path": "/", "headers": headers})
    assert (exchange.deadline, exchange.patience) == (deadline, patience)


@pytest.mark.parametrize(("header", "status"), [("x-stainless-read-timeout", 200), ("x-request-timeout", 504)])
async def test_a_read_timeout_counts_from_the_end_of_a_body_that_is_long_in_coming(
    header: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("llmbench.gateway.exchange.time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))

    async def body() -> AsyncIterator[bytes]:
        now[0] += 20  # seconds on the way
        yield json.dumps(ASK).encode()

    engine = _Slow()
    asyncio.get_running_loop().call_later(0.05, engine.may.set)
    async with _client(engine, Turns(2, 1)) as client:
        headers = {"content-type": "application/json", header: "10"}
        answer = await client.post("/v1/chat/completions", content=body(), headers=headers)
    assert answer.status_code == status


async def test_a_client_that_waits_ten_seconds_for_a_byte_is_given_as_many_from_the_end_of_its_body() -> None:
    exchange = Exchange("/v1/chat/completions", patience=10.0)
    exchange.begun -= 20
    exchange.arrived(1000, 20.0)
    assert exchange.deadline == pytest.approx(30, abs=5)
    exchange = Exchange("/v1/chat/completions", patience=10.0, deadline=25.0)
    exchange.begun -= 20
    exchange.arrived(1000, 20.0)
    assert exchange.deadline == 25


class _Slow(httpx.AsyncBaseTransport):
    """An engine that answers when it is let."""

    def __init__(self) -> None:
        self.may = asyncio.Event()
        self.asked = self.left = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        try:
            await self.may.wait()
        except asyncio.CancelledError:
            self.left += 1
            raise
        return httpx.Response(200, json={"model": "base", "choices": []})


def _client(engine: _Slow, turns: Turns) -> httpx.AsyncClient:
    app = build(Catalogue([Served(Variant(name="m"), "base", {})], context=1024), Upstream(engine, lambda: None), turns=turns)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")


async def test_the_engine_is_given_no_more_than_it_has_places_for() -> None:
    engine, turns = _Slow(), Turns(2, 1)
    async with _client(engine, turns) as client:
        asking = [asyncio.create_task(client.post("/v1/chat/completions", json=ASK)) for _ in range(4)]
        done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = done
        assert refused.result().status_code == 503
        assert refused.result().json()["error"]["code"] == "server_overloaded"
        assert (engine.asked, turns.waiting) == (2, 1)
        engine.may.set()
        answers = await asyncio.gather(*asking)
    assert Counter(answer.status_code for answer in answers) == {200: 3, 503: 1}
    assert engine.asked == 3 and turns.free


async def test_an_answer_that_takes_longer_than_the_client_waits_ends_and_so_does_the_engines_work() -> None:
    engine, turns = _Slow(), Turns(2, 1)
    async with _client(engine, turns) as client:
        answer = await client.post("/v1/chat/completions", json=ASK, headers={"x-request-timeout": "0.05"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "request_timeout")
    assert answer.headers["x-should-retry"] == "false"
    assert engine.left == 1 and turns.free


async def test_a_tier_that_is_none_of_openais_is_refused_by_name() -> None:
    engine = _Slow()
    engine.may.set()
    async with _client(engine, Turns(1, 0)) as client:
        for tier, status in (("flex", 200), ("auto", 200), ("priority", 200), ("cheap", 400), (3, 400)):
            answer = await client.post("/v1/chat/completions", json=ASK | {"service_tier": tier})
            assert answer.status_code == status
        assert answer.json()["error"]["param"] == "service_tier"


async def test_a_request_whose_time_is_over_while_it_waits_never_reaches_the_engine() -> None:
    engine, turns = _Slow(), Turns(1, 5)
    async with _client(engine, turns) as client:
        first = asyncio.create_task(client.post("/v1/chat/completions", json=ASK))
        while not engine.asked:
            await asyncio.sleep(0)
        answer = await client.post("/v1/chat/completions", json=ASK, headers={"x-request-timeout": "0.05"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "request_timeout")
        assert (engine.asked, turns.waiting) == (1, 0)
        engine.may.set()
        assert (await first).status_code == 200
    assert turns.free


async def test_the_time_of_an_answer_does_not_count_its_own_waiting() -> None:
    turns = Turns(1, 10)
    first = Exchange("/v1/chat/completions")
    await turns.take(first, cost=1)
    second = Exchange("/v1/chat/completions")
    waiting = asyncio.create_task(turns.take(second, cost=1))
    await asyncio.sleep(0)
    second.begun -= 300  # it has waited for five minutes
    first.begun = second.begun + 300
    end(first)
    await waiting
    end(second)
    third, patient = Exchange("/v1/chat/completions"), Exchange("/v1/chat/completions", deadline=30.0)
    await turns.take(third, cost=1)
    last = asyncio.create_task(turns.take(patient, cost=1))
    await asyncio.sleep(0)
    assert turns.waiting == 1
    end(third)
    await last


class _Charge:
    """A key's, which notes what it is told."""

    def __init__(self) -> None:
        self.told: list[int] = []

    async def reserve(self, *_: Any) -> None:
        """Grants everything."""

    def used(self, tokens: int) -> None:
        self.told.append(tokens)


async def test_a_client_that_leaves_the_line_has_used_nothing() -> None:
    engine, turns, charge = _Slow(), Turns(1, 5), _Charge()
    await turns.take(Exchange("/v1/chat/completions"), cost=1)
    meter = Meter(Exchange("/v1/chat/completions"), {"charge": charge}, 1024, turns)
    body = {"model": "base", "messages": ASK["messages"], "max_tokens": 100}
    asking = asyncio.create_task(meter.ask(Upstream(engine, lambda: None), "/v1/chat/completions", body))
    await asyncio.sleep(0)
    assert turns.waiting == 1
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert (charge.told, engine.asked, turns.waiting) == ([0], 0, 0)


async def test_a_client_that_reads_slowly_keeps_no_place_when_the_engine_has_finished(tmp_path: Path) -> None:
    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for data in (b'{"model":"base","choices":[{"index":0,"delta":{"content":"Hi"}}]}', b"[DONE]"):
            event = b"data: " + data + b"\n\n"
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(0.01)
        writer.write(b"0\r\n\r\n")
        await reader.read()  # until the gateway closes
        writer.close()
        await writer.wait_closed()
        gone.set()

    gone = asyncio.Event()
    turns, told, reads = Turns(1, 1), list[Exchange](), asyncio.Event()
    upstream = Upstream.at(tmp_path / "engine.sock", lambda: None)
    models = Catalogue([Served(Variant(name="m"), "base", {})], context=1024)
    app = build(models, upstream, turns=turns, sinks=[told.append])
    body: list[bytes] = [json.dumps(ASK | {"stream": True}).encode()]

    async def receive() -> Any:
        if not body:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": body.pop(), "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await reads.wait()

    path, headers = "/v1/chat/completions", [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "raw_path": path.encode()}
    async with asyncio.timeout(30), await asyncio.start_unix_server(engine, tmp_path / "engine.sock"):
        asking = asyncio.create_task(app(scope | {"query_string": b"", "headers": headers}, receive, send))
        while turns.free:
            await asyncio.sleep(0)
        while not turns.free:
            await asyncio.sleep(0)
        assert not told and not asking.done(), "its client has read nothing yet"
        now = time.monotonic()
        reads.set()
        await asking
        await upstream.close()
        await gone.wait()
    assert told[0].begun + told[0].seconds >= now and not told[0].broken
