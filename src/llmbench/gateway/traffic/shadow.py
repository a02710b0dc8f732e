"""A variant that is asked what another one was asked, after the client has its answer, and whose answers go to a file only.

It costs the caller nothing: it is charged to no key, counted in no metric and observed by no rollout, and it gives way. It is
not asked while the server is busy, it is cut off when that becomes so, and vLLM takes any other request before it.

    LLMBENCH_HOME/shadows/SERVER/ROUTE.jsonl    a line for each: what was asked, both answers, seconds, sources; no key
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench.gateway.catalogue import Catalogue
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.limit import Open
from llmbench.gateway.meter import Meter
from llmbench.gateway.observing.json_lines import JsonLines
from llmbench.gateway.refusal import Refusal
from llmbench.gateway.traffic.routes import Routes
from llmbench.gateway.turns import Turns
from llmbench.recipe import ShadowSpec

if TYPE_CHECKING:
    from llmbench.gateway.answering import Answering
    from llmbench.gateway.chat import ChatRequest

__all__ = ["OUTCOMES", "Shadows"]

OUTCOMES = ("answered", "failed", "cut_off", "busy", "full")
"""What becomes of a question: answered, failed, cut off as the server became busy; or not asked, as the server was busy, or as
many questions as may be asked at once were."""

_PRIORITY = 100
"""vLLM takes lower ones first; clients' requests have 0."""
_LOOK_SECONDS = 0.1
_MOST_BYTES = 100_000_000
"""Of a file, before a new one is begun; one earlier stays."""


class Shadows:
    """Asks shadows, in the gateway's event loop.

    Args:
        routes: which name them.
        folder: where answers are recorded.
        ranks: whether the engine schedules by priority.
        hide: takes keys of this server out of a text.
    """

    def __init__(self, routes: Routes, folder: Path, *, ranks: bool, hide: Callable[[str], str]) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        """By route, variant and what became of a question: one of `OUTCOMES`."""
        self._routes = routes
        routes.shadowed = self.listing
        self._folder = folder
        self._ranks = ranks
        self._hide = hide
        self._kept: dict[int, ChatRequest] = {}
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._writing = threading.Lock()  # two of a route may be answered at once, and one may begin a new file

    def attach(self, answering: Answering, models: Catalogue, open: Open, turns: Turns) -> None:
        """Tells it how to ask, whom, and how busy the server and the engine are."""
        self._answering, self._models, self._open, self._turns = answering, models, open, turns

    def keep(self, exchange: Exchange, question: ChatRequest) -> None:
        """Keeps a question until it is answered, if a shadow shall be asked it too."""
        route = self._routes.now.get(exchange.asked)
        if route is not None and (spec := route.spec.shadow) is not None and random.random() * 100 < spec.share:
            self._kept[id(exchange)] = question

    def told(self, exchange: Exchange) -> None:
        """Asks a shadow what was just answered well; a sink."""
        question = self._kept.pop(id(exchange), None)
        route = self._routes.now.get(exchange.asked)
        if question is None or route is None or (spec := route.spec.shadow) is None:
            return
        if exchange.status != 200 or exchange.broken or exchange.variant == spec.variant or exchange.consents is False:
            return
        if self._open.count > spec.busy or not self._turns.free:
            self._count(exchange, spec, "busy")
        elif sum(name == exchange.asked for name in self._tasks.values()) >= spec.concurrent:
            self._count(exchange, spec, "full")
        else:
            task = asyncio.get_running_loop().create_task(self._ask(exchange, question, spec))
            self._tasks[task] = exchange.asked
            task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def listing(self) -> list[dict[str, Any]]:
        """`route`, `variant` and the counts of `OUTCOMES`, for each shadow that a route has or has had; any thread may ask."""
        counts = dict(self.counts)
        now = [(name, route.spec.shadow.variant) for name, route in self._routes.now.items() if route.spec.shadow is not None]
        pairs = dict.fromkeys([*now, *((route, variant) for route, variant, _ in counts)])
        return [
            {"route": route, "variant": variant} | {one: counts.get((route, variant, one), 0) for one in OUTCOMES}
            for route, variant in pairs
        ]

    async def close(self) -> None:
        """Cuts off what is being asked."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _count(self, exchange: Exchange, spec: ShadowSpec, outcome: str) -> None:
        self.counts[exchange.asked, spec.variant, outcome] += 1

    async def _ask(self, exchange: Exchange, question: ChatRequest, spec: ShadowSpec) -> None:
        served = self._models.take(spec.variant)
        if served is None:
            return
        fields = {name: value for name, value in question.fields.items() if name != "stream_options"}
        if self._ranks:
            fields["priority"] = _PRIORITY
        mine = Exchange(exchange.path, exchange.id, asked=spec.variant, variant=spec.variant)
        meter = Meter(mine, {}, self._models.context, self._turns, "flex")
        work = asyncio.ensure_future(self._answering.chat(served, replace(question, stream=False, fields=fields), mine, meter))
        try:
            while not (await asyncio.wait({work}, timeout=_LOOK_SECONDS))[0]:
                if self._open.count > spec.busy or self._turns.waiting:
                    self._count(exchange, spec, "cut_off")
                    return
            mine.seconds = mine.elapsed()
            try:
                response = work.result()
            except Exception as error:  # nobody waits for it, and its file says what it was
                self._count(exchange, spec, "failed")
                reason = error.message if isinstance(error, Refusal) else f"{type(error).__name__}: {error}"
                await self._record(exchange, mine, {"error": reason})
                return
            mine.status, mine.body = response.status_code, [bytes(response.body)]
            said = mine.said()
            self._count(exchange, spec, "answered")
            await self._record(exchange, mine, {"text": said.text if said else None, "error": None})
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await work
            mine.end()
            served.requests.running -= 1

    async def _record(self, exchange: Exchange, mine: Exchange, what: dict[str, Any]) -> None:
        said = exchange.said()
        line = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(exchange.at)),
            "id": exchange.id,
            "conversation": list(exchange.conversation),
            "variant": exchange.variant,
            "text": said.text if said is not None else None,
            "seconds": round(exchange.seconds, 4),
            "sources": exchange.sources,
            "shadow": {"variant": mine.variant, "seconds": round(mine.seconds, 4), "sources": mine.sources} | what,
        }
        lines = JsonLines(self._folder / f"{exchange.asked}.jsonl", hide=self._hide, max_bytes=_MOST_BYTES, keep=1)

        def append() -> None:
            with self._writing:
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                lines.write([line])

        with suppress(OSError):  # a full disk must not end in the log for each request
            await asyncio.to_thread(append)
