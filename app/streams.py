"""Several answers at once: one task a side, each on its own clock, and one tick for the page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

from llmbench.endpoint import Delta
from llmbench.errors import LlmbenchError

from .conversation import Turn

__all__ = ["TICK", "merged"]

TICK = 0.1
"""Seconds between two updates of the page: at each token a browser is busy with nothing but redrawing."""

_log = logging.getLogger("llmbench.app")


async def merged(
    streams: Mapping[int, AsyncIterator[Delta]], turns: Mapping[int, Turn], stop: asyncio.Event, *, tick: float = TICK
) -> AsyncGenerator[set[int]]:
    """Fills the turns from their streams and yields, at most once a tick, the sides that changed.

    A side that is slow, hangs or fails changes nothing for the others. When `stop` is set, what still runs is cancelled,
    which closes its connection, and its turn is marked stopped with the text it had.
    """
    changed: set[int] = set()
    news = asyncio.Event()

    async def follow(side: int) -> None:
        turn = turns[side]
        try:
            async for delta in streams[side]:
                turn.take(delta)
                changed.add(side)
                news.set()
        except LlmbenchError as error:
            turn.error = str(error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            _log.exception("the answer of %s was interrupted", turn.model)
            turn.error = f"The answer was interrupted ({type(error).__name__}). See the app's terminal."
        finally:
            turn.stopped = turn.running
            changed.add(side)
            news.set()

    tasks = [asyncio.create_task(follow(side)) for side in streams]
    stopping = asyncio.create_task(stop.wait())
    try:
        while changed or not all(task.done() for task in tasks):
            hearing = asyncio.create_task(news.wait())
            await asyncio.wait({hearing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            hearing.cancel()
            if stop.is_set():
                await _end(tasks)
            news.clear()
            now = set(changed)
            changed.clear()
            if now:
                yield now
                if not all(task.done() for task in tasks):
                    await asyncio.wait({stopping}, timeout=tick)
    finally:
        await _end([*tasks, stopping])


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
