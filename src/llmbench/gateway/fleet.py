"""Engines that run elsewhere, as one: let in once each serves what the others serve and proves it (`gateway.joining`), and
given each change of the adapters. Whether one gets requests is the `LoadBalancer`'s to say.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from llmbench.engine import Adapter, Address, Device, Progress, capacity, loading, places, remote, store
from llmbench.errors import EngineError
from llmbench.gateway.balancing import LoadBalancer
from llmbench.gateway.joining import LOOK_SECONDS, LOOP_SECONDS, Attendant, Wanted
from llmbench.gateway.member import Member
from llmbench.gateway.observing.metrics import Metrics
from llmbench.gateway.turns import Turns
from llmbench.parity import Parity
from llmbench.recipe import ServeRecipe

__all__ = ["Fleet"]

_WORST = ("differs", "inconclusive", "proven")
T = TypeVar("T")


class Fleet:
    """What the gateway asks of an engine, asked of several.

    Use it as a context manager: entering begins to look for the engines, `wait` blocks until one of them answers.

    Args:
        recipe: the serving document, with `engine.urls`.
        adapters: what its variants name -> the admitted adapter.
        say: told what is worth knowing, a line each.
    """

    def __init__(self, recipe: ServeRecipe, adapters: Mapping[str, Adapter], say: Callable[[str], None]) -> None:
        self._wanted = Wanted(recipe, adapters, capacity(recipe, adapters))
        self.device: Device = "cpu" if recipe.model.device == "cpu" else "cuda"
        """What they are taken to compute on."""
        self.notes: list[str] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        """The gateway's, once it runs."""
        self._say = say
        members = [Member(Address.of(url, recipe.engine.api_key), self._wanted.gateway) for url in recipe.engine.urls]
        self.balancer = LoadBalancer([member.backend for member in members], say)
        self._attendants = tuple(map(self._attendant, members))
        """One for each engine. The tuple is replaced whole, as other threads read it."""
        self._hold = store.Hold()
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        for adapter in self.adapters.values():
            self._hold.take(adapter.folder)
        self._say(f"Engines: {', '.join(self.urls)}")
        for attendant in self._attendants:
            attendant.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for attendant in self._attendants:
            attendant.end()
        for attendant in self._attendants:
            attendant.join()
        self._hold.release_all()

    @property
    def adapters(self) -> dict[str, Adapter]:
        """What every engine has, by id."""
        return self._wanted.adapters

    @property
    def urls(self) -> list[str]:
        """Where the engines are."""
        return [member.url for member in self._members]

    @property
    def _members(self) -> list[Member]:
        return [attendant.member for attendant in self._attendants]

    def _attendant(self, member: Member) -> Attendant:
        return Attendant(member, self._wanted, self.balancer, self._in_loop, self._say)

    def wait(self, progress: Callable[[Progress], None] | None = None) -> None:
        """Blocks until every engine was asked and one of them has joined; `progress` may raise to give up.

        Raises:
            EngineError: one of them cannot be one of these engines as it is, or none has joined within `engine.start_timeout`.
        """
        limit = self._wanted.document().engine.start_timeout
        while not (all(member.tried for member in self._members) and any(member.joined for member in self._members)):
            if progress is not None:
                progress(Progress(self.seconds, self._phase()))
            if misfit := next((member.misfit for member in self._members if member.misfit is not None), None):
                raise misfit
            if self.seconds > limit:
                reasons = "; ".join(member.backend.reason for member in self._members if not member.joined)
                raise EngineError(
                    f"No engine answered within {limit:g} s: {reasons}. Start one with --engine-only, or correct engine.urls"
                )
            time.sleep(LOOK_SECONDS)
        if misfit := next((member.misfit for member in self._members if member.misfit is not None), None):
            raise misfit
        for member in self._members:
            if not member.joined:
                self._say(f"Going on without {member.url}, which joins when it comes: {member.backend.reason}")

    def _phase(self) -> str:
        left = [member.url for member in self._members if not member.joined]
        return f"asking {', '.join(left)}"

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self._begun

    @property
    def context(self) -> int:
        """Tokens that the base takes, once an engine has joined."""
        return self._wanted.context

    @property
    def problem(self) -> str | None:
        """Why no request can be answered, in one line; None while one can."""
        return self.balancer.problem

    @property
    def proofs(self) -> dict[str, Parity]:
        """The worst verdict of all engines on each certified adapter, by its id."""
        found: dict[str, Parity] = {}
        for id in self.adapters:
            if (worst := self._worst(id)) is not None:
                found[id] = worst
        return found

    def attach(
        self, loop: asyncio.AbstractEventLoop, turns: Turns, metrics: Metrics, document: Callable[[], ServeRecipe]
    ) -> None:
        """Goes on inside a gateway that answers in this loop: its places are those of the engines that are well."""
        each, self._wanted.document = places(document(), self.device), document

        def changed() -> None:
            turns.places = each * max(1, len(self.balancer.healthy))  # with none, requests pass and are told so

        metrics.engines(lambda: self.balancer.backends.values())
        self.balancer.changed = changed
        self.loop = loop
        self._in_loop(changed)

    def listing(self) -> list[dict[str, Any]]:
        """How each engine stands."""
        return [member.backend.row() for member in self._members]

    def token_ids(self, text: str) -> list[int]:
        """The tokens of a text, as the engine that joined first makes them.

        Raises:
            EngineError: it does not say.
        """
        return remote.token_ids(self._joined()[0].member.address, text)

    def refuse(self, adapter: Adapter) -> None:
        """Raises EngineError where an adapter can never be loaded into these engines, whatever is unloaded before."""
        if adapter.id not in self.adapters:
            loading.refuse_misfit(adapter, self._wanted.capacity)

    def load(self, adapter: Adapter) -> None:
        """Loads an adapter into every engine that has joined; the others load it before they come back.

        Raises:
            EngineError: there is no room for it, or an engine does not take it; none of them has it then.
        """
        self.refuse(adapter)
        with self._wanted.lock:
            if adapter.id in self.adapters:
                return
            self._hold.take(adapter.folder)
            self._wanted.coming = frozenset({adapter.id})
            loaded: list[Member] = []
            try:
                lacking = self._lacking(adapter)
                for attendant in lacking:
                    try:
                        attendant.member.load(adapter)
                        loaded.append(attendant.member)
                        attendant.member.stale.discard(adapter.id)
                    except loading.NoAnswer as error:
                        attendant.out(str(error))
                if lacking and not loaded:
                    raise EngineError(f"adapter {adapter.source}: no engine answers")
            except EngineError:
                self._hold.release(adapter.folder)
                for member in loaded:
                    with suppress(EngineError):
                        member.unload(adapter.id, self._say)
                raise
            finally:
                self._wanted.coming = frozenset()
            self.adapters[adapter.id] = adapter

    def _lacking(self, adapter: Adapter) -> list[Attendant]:
        """The joined engines that do not have an adapter; those that have it from another gateway keep it for this one too.

        Raises:
            EngineError: one of them has no room for it, or none answers.
        """
        lacking = []
        for attendant in self._joined():
            member = attendant.member
            try:
                member.hold(self._wanted.uses)
                has = remote.card(member.address).adapters
            except loading.NoAnswer as error:
                attendant.out(str(error))
                continue
            if adapter.id in has:
                member.lost = max(0, member.lost - 1)
                continue
            loading.refuse_without_slot(adapter, self._wanted.capacity, len(self.adapters) + member.lost)
            lacking.append(attendant)
        self._joined()
        return lacking

    def unload(self, id: str) -> None:
        """Unloads an adapter that no request uses any more, from every engine; one that is away does it when it comes back.

        Raises:
            EngineError: an engine does not do it; it is asked again when it was away.
        """
        with self._wanted.lock:
            adapter = self.adapters.pop(id)
            problem: EngineError | None = None
            for member in self._members:
                member.proven.pop(id, None)
                try:
                    if not member.joined:
                        member.stale.add(id)
                    elif not member.unload(id, self._say):
                        member.lost += 1
                except EngineError as error:
                    member.stale.add(id)
                    problem = EngineError(f"{member.url}: {error}")
            self._hold.release(adapter.folder)
        if problem is not None:
            raise problem

    def prove(self, adapter: Adapter) -> Parity | None:
        """The worst verdict of all engines on an adapter that they have; None where it has no certificate.

        Raises:
            EngineError: one of them does not answer the probes.
        """
        for attendant in self._joined():
            try:
                attendant.member.prove(self._wanted.document(), [adapter], self._say)
            except EngineError as error:
                if attendant.member.ill() is None:
                    raise
                attendant.out(str(error))
        return self._worst(adapter.id)

    def _worst(self, id: str) -> Parity | None:
        verdicts = [member.proven[id] for member in self._members if id in member.proven]
        return min(verdicts, key=lambda verdict: _WORST.index(verdict.state), default=None)

    def _joined(self) -> list[Attendant]:
        if found := [attendant for attendant in self._attendants if attendant.member.joined]:
            return found
        raise EngineError(f"None of the engines answers: {'; '.join(member.backend.reason for member in self._members)}")

    def add(self, url: str) -> str | None:
        """Looks after one more engine, which gets requests once it has every adapter and has proven them.

        Returns:
            Why it does not answer, where it does not yet: it joins when it comes. None where it has joined.

        Raises:
            EngineError: it cannot be one of these engines; nothing has changed then.
        """
        at = Address.of(url, self._wanted.document().engine.api_key)
        attendant = self._attendant(Member(at, self._wanted.gateway))
        member = attendant.member
        self._in_loop(lambda: self.balancer.include(member.backend))
        self._attendants = (*self._attendants, attendant)
        attendant.start()
        while not member.tried:
            time.sleep(LOOK_SECONDS)
        if member.misfit is not None:
            self._drop(attendant)
            raise EngineError(member.backend.reason)
        if member.joined:
            self._say(f"Engine {url} has joined, and is given requests")
        return None if member.joined else member.backend.reason

    def remove(self, url: str, drain: float) -> int:
        """Gives an engine no more requests, lets its answers end, and looks after it no longer.

        Args:
            url: one of `urls`.
            drain: seconds for its answers to end. Those that have not begun by then are asked of another engine; the others end
                with an error.

        Returns:
            How many ended with an error.

        Raises:
            EngineError: no other engine answers.
        """
        attendant = next(one for one in self._attendants if one.member.url == url)
        backend = attendant.member.backend
        if backend.healthy and len(self.balancer.healthy) == 1:
            raise EngineError(f"{url} is the only engine that answers. Start another one first")
        attendant.end()
        self._in_loop(lambda: self.balancer.retire(backend))
        end = time.monotonic() + drain
        while backend.running and time.monotonic() < end:
            time.sleep(LOOK_SECONDS / 4)
        cut = self._drop(attendant)
        self._say(
            f"Engine {url} is no longer asked" + (f"; cut off {cut} answers that took longer than {drain:g} s" if cut else "")
        )
        return cut

    def _drop(self, attendant: Attendant) -> int:
        """Forgets an engine; how many of its answers were cut off."""
        attendant.end()
        attendant.join()
        cut = self._run(self.balancer.drop(attendant.member.backend))
        attendant.member.leave(self._say)
        self._attendants = tuple(one for one in self._attendants if one is not attendant)
        return cut

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """What comes of something in the gateway's event loop; in one of its own while there is none."""
        if self.loop is None:
            return asyncio.run(work)
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(LOOP_SECONDS)

    def _in_loop(self, work: Callable[[], None]) -> None:
        """Does something in the gateway's event loop, and waits for it; at once while there is none."""
        if (loop := self.loop) is None:
            work()
            return
        done: Future[None] = Future()

        def do() -> None:
            work()
            done.set_result(None)

        with suppress(RuntimeError, TimeoutError):  # it has ended
            loop.call_soon_threadsafe(do)
            done.result(LOOP_SECONDS)
