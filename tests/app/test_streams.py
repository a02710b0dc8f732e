"""Several answers at once: each side keeps its own clock."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from types import ModuleType
from typing import Any

import pytest

from llmbench.endpoint import Delta, Reply
from llmbench.errors import EndpointError


@pytest.fixture
def streams(program: ModuleType) -> Any:
    return importlib.import_module("llmbench_app.streams")


@pytest.fixture
def turn(program: ModuleType) -> Any:
    return importlib.import_module("llmbench_app.conversation").Turn


async def says(*words: str, gate: asyncio.Event | None = None, error: Exception | None = None) -> AsyncIterator[Delta]:
    """A stream that waits at the gate before its first word."""
    if gate is not None:
        await gate.wait()
    for word in words:
        yield Delta(text=word)
    if error is not None:
        raise error
    yield Delta(reply=Reply(text="".join(words), model="m", latency=1.0))


async def test_a_slow_side_does_not_hold_a_fast_one(streams: Any, turn: Any) -> None:
    gate, turns = asyncio.Event(), {0: turn("q", "slow"), 1: turn("q", "fast")}
    sources = {0: says("late", gate=gate), 1: says("a", "b")}
    async with aclosing(streams.merged(sources, turns, asyncio.Event(), tick=0)) as ticks:
        async for changed in ticks:
            if not turns[1].running:
                break
            assert changed == {1}
        assert turns[1].reply.text == "ab"
        assert turns[0].running and turns[0].text == ""
        gate.set()
        assert {side async for changed in ticks for side in changed} >= {0}
    assert turns[0].reply.text == "late"


async def test_words_between_two_ticks_are_one_update(streams: Any, turn: Any) -> None:
    turns = {0: turn("q", "m")}
    words = [str(n) for n in range(200)]
    updates = [turns[0].text async for _ in streams.merged({0: says(*words)}, turns, asyncio.Event())]
    assert updates[-1] == "".join(words)
    assert len(updates) < 20


async def test_an_error_ends_its_own_side_only(streams: Any, turn: Any) -> None:
    turns = {0: turn("q", "m"), 1: turn("q", "n"), 2: turn("q", "o")}
    sources = {0: says("a", error=EndpointError("the engine died")), 1: says("b"), 2: says("c", error=ZeroDivisionError())}
    async for _ in streams.merged(sources, turns, asyncio.Event(), tick=0):
        pass
    assert (turns[0].text, turns[0].error, turns[0].stopped) == ("a", "the engine died", False)
    assert turns[1].reply.text == "b"
    assert "ZeroDivisionError" in turns[2].error


async def test_stop_keeps_what_was_said_and_closes_the_stream(streams: Any, turn: Any) -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[Delta]:
        try:
            yield Delta(text="so far")
            await asyncio.Event().wait()
        finally:
            closed.set()

    turns, stop = {0: turn("q", "m"), 1: turn("q", "n")}, asyncio.Event()
    async for _ in streams.merged({0: endless(), 1: says("done")}, turns, stop, tick=0):
        if turns[0].text and not turns[1].running:
            stop.set()
    assert turns[0].stopped and turns[0].text == "so far"
    assert not turns[1].stopped
    await asyncio.wait_for(closed.wait(), 10)


async def test_leaving_the_page_cancels_what_still_runs(streams: Any, turn: Any) -> None:
    turns = {0: turn("q", "m"), 1: turn("q", "n")}
    before = asyncio.all_tasks()
    sources = {0: says("never", gate=asyncio.Event()), 1: says("b")}
    async with aclosing(streams.merged(sources, turns, asyncio.Event(), tick=0)) as ticks:
        await anext(ticks)
    assert asyncio.all_tasks() == before
    assert turns[0].stopped
