"""Several engines behind one gateway, on real ports: who gets a request, who is left out, and what is asked again."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from tests.gateway.vllms import Vllm, running

from llmbench.engine import Address
from llmbench.gateway import balancing
from llmbench.gateway.affinity import beginning_of, ranked
from llmbench.gateway.balancing import Backend, LoadBalancer
from llmbench.gateway.events import Events
from llmbench.gateway.refusal import Refusal
from llmbench.gateway.relay import Upstream
from llmbench.gateway.transport import PouredStream


class Balanced:
    """Engines, and the gateway's way to them."""

    def __init__(self, engines: list[Vllm]) -> None:
        self.engines = engines
        self.said: list[str] = []
        self.balancer = LoadBalancer([Backend(Address.of(engine.url)) for engine in engines], self.said.append)
        self.upstream = Upstream.over(self.balancer)
        for backend in self.balancer.backends.values():
            self.balancer.admit(backend)

    async def ask(self, text: str, model: str = "base") -> int:
        """The port of the engine that answers."""
        data = await self.upstream.read(await self.upstream.ask("/v1/chat/completions", body(text, model)))
        return int(data["port"])

    def backend(self, engine: Vllm) -> Backend:
        return self.balancer.backends[engine.url]

    def of(self, engine: Vllm) -> str:
        """A text that this engine should have."""
        for number in range(1000):
            if self.chosen(f"text {number}") is engine:
                return f"text {number}"
        raise AssertionError("unreachable")

    def chosen(self, text: str) -> Vllm:
        first = ranked(beginning_of(body(text)), [engine.url for engine in self.engines])[0]
        return next(engine for engine in self.engines if engine.url == first)


def body(text: str, model: str = "base", *, stream: bool = False) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], "stream": stream}


@pytest.fixture
async def two() -> AsyncIterator[Balanced]:
    with running(2) as engines:
        made = Balanced(engines)
        yield made
        await made.balancer.aclose()
        await asyncio.sleep(0)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.005)


async def test_requests_that_begin_alike_go_to_one_engine_and_others_are_spread() -> None:
    with running(3) as engines:
        made = Balanced(engines)
        for number in range(40):
            ports = {await made.ask(f"text {number}") for _ in range(2)}
            assert ports == {made.chosen(f"text {number}").port}
        assert all(len(engine.asked) > 8 for engine in engines)
        await made.balancer.aclose()


async def test_no_engine_takes_more_than_its_share_of_running_requests() -> None:
    with running(3) as engines:
        made = Balanced(engines)
        for engine in engines:
            engine.holds.clear()
        tasks = []
        for count in range(1, 241):
            tasks.append(asyncio.create_task(made.ask("the same text")))
            await until(lambda count=count: sum(len(engine.asked) for engine in engines) == count)  # type: ignore[misc]
            most = math.ceil(count / 3 + max(count / 12, 2 * math.sqrt(count / 3)))
            assert max(backend.running for backend in made.balancer.backends.values()) <= most
        first = made.backend(made.chosen("the same text"))
        assert first.running == 100 == 1.25 * 240 / 3  # all that it may have
        for engine in engines:
            engine.holds.set()
        await asyncio.gather(*tasks)
        assert [backend.running for backend in made.balancer.backends.values()] == [0, 0, 0]
        await made.balancer.aclose()


async def test_an_engine_that_takes_no_connection_is_left_out_at_once_and_its_requests_are_answered(two: Balanced) -> None:
    first, second = two.engines
    texts = [two.of(first), two.of(second)]
    first.stop()
    assert [await two.ask(text) for text in texts] == [second.port] * 2
    assert not two.backend(first).healthy and two.backend(second).healthy
    assert two.said == [line for line in two.said if f"Engine {first.url} is left out: ConnectError" in line] and two.said
    assert two.said[0].endswith("1 of 2 answer")


async def test_a_request_that_nobody_began_to_answer_is_asked_once_more_elsewhere(two: Balanced) -> None:
    first, second = two.engines
    text = two.of(first)
    first.drops = 1
    assert await two.ask(text) == second.port
    assert await two.ask(text) == first.port
    first.drops = second.drops = 2  # each on a kept connection, and on a new one
    with pytest.raises(Refusal) as refused:
        await two.ask(text)
    assert refused.value.status == 503
    assert (len(first.asked), len(second.asked)) == (4, 3)


async def stream(two: Balanced, text: str, begun: asyncio.Event | None = None, *, poured: bool = False) -> bytes:
    response = await two.upstream.ask("/v1/chat/completions", body(text, stream=True))
    found = b""

    def take(piece: bytes) -> bool:
        nonlocal found
        found += piece
        if begun is not None:
            begun.set()
        return True

    events = Events(two.upstream, engine_name="base", name="m", sources=None, used=lambda *_: None)
    try:
        assert isinstance(response.stream, PouredStream)
        if poured:
            try:
                assert await response.stream.pour(lambda piece: take(events.take(piece)))
                take(events.end())
            except httpx.HTTPError as error:
                take(events.broken(error))
        else:
            async for piece in events.pulled(aiter(response.stream)):
                take(piece)
    finally:
        await response.aclose()
    return found


async def test_a_stream_that_ends_behind_its_head_is_asked_for_elsewhere(two: Balanced) -> None:
    """vLLM sends the head before it computes anything."""
    first, second = two.engines
    first.heads = 1
    found = await stream(two, two.of(first))
    assert str(second.port).encode() in found and b"[DONE]" in found and b"error" not in found
    assert two.backend(first).outcomes == {"unreachable": 1} and two.backend(first).running == 0


@pytest.mark.parametrize("poured", [False, True])
async def test_an_answer_that_has_begun_is_never_asked_for_again(two: Balanced, poured: bool) -> None:
    first, second = two.engines
    text = two.of(first)
    first.breaks = 1
    found = await stream(two, text, poured=poured)
    assert str(first.port).encode() in found and b"engine_unavailable" in found
    assert (len(first.asked), len(second.asked)) == (1, 0)
    assert two.backend(first).outcomes == {"broken": 1} and two.backend(first).running == 0


@pytest.mark.parametrize("poured", [False, True])
async def test_broken_answers_in_a_row_leave_an_engine_out_and_an_answer_between_them_does_not(
    two: Balanced, poured: bool
) -> None:
    first = two.engines[0]
    text = two.of(first)
    for breaks in (2, 0, 2, 0):
        first.breaks = breaks
        for _ in range(breaks or 1):
            await stream(two, text, poured=poured)
    assert two.backend(first).healthy
    first.breaks = 3
    for _ in range(3):
        await stream(two, text, poured=poured)
    assert not two.backend(first).healthy
    assert "3 failures in a row" in two.said[0]


async def test_an_engine_that_fails_where_another_answers_is_left_out(two: Balanced) -> None:
    first, second = two.engines
    text = two.of(first)
    first.status = 500
    assert [await two.ask(text) for _ in range(3)] == [second.port] * 3
    assert not two.backend(first).healthy
    why = f"3 failures in a row, the last: it answered 500 where {second.url} answers"
    assert two.said == [f"Engine {first.url} is left out: {why}. 1 of 2 answer"]


@pytest.mark.parametrize("fails", ["status", "heads"])
async def test_whoever_waits_for_the_end_of_an_answer_is_told_of_the_one_that_is_given(two: Balanced, fails: str) -> None:
    first, second = two.engines
    text = two.of(first)
    setattr(first, fails, 500 if fails == "status" else 1)
    second.holds.clear()
    done = list[int]()
    asked = body(text, stream=True)
    response = await two.upstream.ask("/v1/chat/completions", asked, done=lambda: done.append(len(second.asked)))
    assert done == []
    second.holds.set()
    await response.aread()
    assert done == [1]


async def test_a_request_that_makes_every_engine_fail_leaves_none_out(two: Balanced) -> None:
    for engine in two.engines:
        engine.status = 500
    for _ in range(5):
        with pytest.raises(Refusal, match="The engine answered 500: it failed"):
            await two.ask("a bad one")
    assert len(two.balancer.healthy) == 2 and not two.said


async def test_an_engine_without_an_adapter_that_another_has_is_left_out_at_once(two: Balanced) -> None:
    first, second = two.engines
    second.loaded.add("a1")
    texts = [f"text {number}" for number in range(20)]
    assert {await two.ask(text, "a1") for text in texts} == {second.port}
    assert not two.backend(first).healthy and "answered 404" in two.said[0]


async def test_without_any_engine_requests_are_told_to_come_later(two: Balanced) -> None:
    for engine in two.engines:
        engine.stop()
    for _ in range(2):
        with pytest.raises(Refusal) as refused:
            await two.ask("Hello")
    assert (refused.value.status, refused.value.response().headers["retry-after"]) == (503, "5")
    assert refused.value.message == "None of the 2 engines is available."
    with pytest.raises(Refusal):
        await two.upstream.health()


async def test_answers_that_are_cut_off_are_not_asked_for_elsewhere(two: Balanced) -> None:
    for engine in two.engines:
        engine.holds.clear()
        engine.loaded.add("a1")
    asked = [asyncio.create_task(two.ask(f"text {n}", model)) for n in range(8) for model in ("base", "a1")]
    await until(lambda: sum(len(engine.asked) for engine in two.engines) == 16)
    await two.upstream.cut("It was removed.", model="a1")
    await until(lambda: sum(task.done() for task in asked) == 8)
    for engine in two.engines:
        engine.holds.set()
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert [str(one) for one in results[1::2]] == ["It was removed."] * 8
    assert all(isinstance(one, int) for one in results[::2])
    assert sum(len(engine.asked) for engine in two.engines) == 16
    assert len(two.balancer.healthy) == 2 and not two.said


async def test_a_client_that_leaves_gives_back_the_engines_place(two: Balanced) -> None:
    for engine in two.engines:
        engine.holds.clear()
    begun = asyncio.Event()
    tasks = [asyncio.create_task(two.ask("Hello")), asyncio.create_task(stream(two, "Hello", begun))]
    await begun.wait()
    await until(lambda: sum(len(engine.asked) for engine in two.engines) == 2)
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await until(lambda: all(backend.running == 0 for backend in two.balancer.backends.values()))
    assert sum(backend.outcomes["cancelled"] for backend in two.balancer.backends.values()) >= 1


async def test_an_engine_is_left_out_for_longer_each_time(two: Balanced, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, pauses = two.backend(two.engines[0]), []
    for _ in range(8):
        two.balancer.eject(backend, "it failed")
        pauses.append(backend.pause)
        two.balancer.admit(backend)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    monkeypatch.setattr(balancing, "_CALM", -1.0)
    two.balancer.eject(backend, "it failed")
    assert backend.pause == 1


async def test_tokens_are_counted_by_whichever_engine_is_well(two: Balanced) -> None:
    assert await two.upstream.tokens({"model": "base", "prompt": "Hello"}) == 3
    two.engines[0].stop()
    for _ in range(3):
        assert await two.upstream.tokens({"model": "base", "prompt": "Hello"}) == 3
    await two.upstream.health()
    assert not any(backend.outcomes.total() for backend in two.balancer.backends.values())


async def test_each_engines_own_counts_have_its_name(two: Balanced) -> None:
    await two.ask("Hello")
    lines = (await two.upstream.metrics()).decode().splitlines()
    assert lines.count("# TYPE vllm:prompt_tokens counter") == 1
    at = lines.index("# TYPE vllm:prompt_tokens counter")
    for engine, line in zip(two.engines, lines[at + 1 : at + 3], strict=True):
        assert line == f'vllm:prompt_tokens_total{{engine_url="{engine.url}",engine="0",model_name="base"}} {len(engine.asked)}'
    two.engines[0].stop()
    assert two.engines[1].url in (await two.upstream.metrics()).decode()
