"""Engines that run elsewhere: let in once each serves what the others serve and proves it, and looked after from then on.

Each has a thread of its own, which asks it every other second whether it is well. One that is left out comes back when it
answers, has every adapter that is served, and, where its process is another one, has proven them again. Whether it gets
requests is the `LoadBalancer`'s to say.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from llmbench import assets
from llmbench.engine import Adapter, Address, Device, Progress, capacity, client, loading, places, remote, store
from llmbench.errors import EngineError, LlmbenchError
from llmbench.gateway.balancing import LoadBalancer
from llmbench.gateway.member import PROBE_TIMEOUT, Member, ill, in_words
from llmbench.gateway.observing.metrics import Metrics
from llmbench.gateway.turns import Turns
from llmbench.parity import Parity
from llmbench.recipe import ServeRecipe

__all__ = ["Fleet"]

_LOOK_SECONDS = 0.2
_PROBE_SECONDS = 2.0
"""Between two looks at an engine that is well."""
_PROBES = 3
"""In a row without an answer, until an engine is left out; one that takes no connection is left out at once."""
_LOOP_SECONDS = 5.0
_TEXT = "The quick brown fox: 1,234.5 \u00e4\u00f6\u00fc \u4f60\u597d <b>def f(x):</b>\n"
"""Tokenizers differ on it."""
_WORST = ("differs", "inconclusive", "proven")


class Fleet:
    """What the gateway asks of an engine, asked of several.

    Use it as a context manager: entering begins to look for the engines, `wait` blocks until one of them answers.

    Args:
        recipe: the serving document, with `engine.urls`.
        adapters: what its variants name -> the admitted adapter.
        say: told what is worth knowing, a line each.
    """

    def __init__(self, recipe: ServeRecipe, adapters: Mapping[str, Adapter], say: Callable[[str], None]) -> None:
        self.document: Callable[[], ServeRecipe] = lambda: recipe
        """The serving document as it is now."""
        self.adapters = {adapter.id: adapter for adapter in adapters.values()}
        """What every engine has, by id."""
        self.capacity = capacity(recipe, adapters)
        """How many adapters fit into each, and of which rank, where it was started with this document."""
        self.device: Device = "cpu" if recipe.model.device == "cpu" else "cuda"
        """What they are taken to compute on."""
        self.notes: list[str] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        """The gateway's, once it runs."""
        self._say = say
        addresses = [Address.of(url, recipe.engine.api_key) for url in recipe.engine.urls]
        self._members = [Member(address) for address in addresses]
        self.balancer = LoadBalancer([member.backend for member in self._members], say)
        self._agreed: tuple[str, remote.Card, list[int]] | None = None
        """The engine that was the first, its base, and how it reads a text."""
        self._lock = threading.RLock()
        """Around what an engine must have to be let in."""
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []
        self._hold = store.Hold()
        self._begun = time.monotonic()

    def __enter__(self) -> Self:
        for adapter in self.adapters.values():
            self._hold.take(adapter.folder)
        self._say(f"Engines: {', '.join(member.url for member in self._members)}")
        for member in self._members:
            self._threads.append(threading.Thread(target=self._attend, args=(member,), name=member.url, daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(PROBE_TIMEOUT + _LOOP_SECONDS)
        self._hold.release_all()

    def wait(self, progress: Callable[[Progress], None] | None = None) -> None:
        """Blocks until every engine was asked and one of them has joined; `progress` may raise to give up.

        Raises:
            EngineError: one of them cannot be one of these engines as it is, or none has joined within `engine.start_timeout`.
        """
        limit = self.document().engine.start_timeout
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
            time.sleep(_LOOK_SECONDS)
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
        assert self._agreed is not None
        return self._agreed[1].context

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
        each, self.document = places(document(), self.device), document

        def changed() -> None:
            turns.places = each * max(1, len(self.balancer.healthy))  # with none, requests pass and are told so

        metrics.engines(self.balancer.backends.values())
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
        joined = self._joined()
        return remote.token_ids(joined[0].address, text)

    def refuse(self, adapter: Adapter) -> None:
        """Raises EngineError where an adapter can never be loaded into these engines, whatever is unloaded before."""
        if adapter.id not in self.adapters:
            loading.refuse_misfit(adapter, self.capacity)

    def load(self, adapter: Adapter) -> None:
        """Loads an adapter into every engine that has joined; the others load it before they come back.

        Raises:
            EngineError: there is no room for it, or an engine does not take it; none of them has it then.
        """
        self.refuse(adapter)
        with self._lock:
            if adapter.id in self.adapters:
                return
            members = self._joined()
            lost = max(member.lost for member in members)
            loading.refuse_without_slot(adapter, self.capacity, len(self.adapters) + lost)
            self._hold.take(adapter.folder)
            loaded: list[Member] = []
            try:
                for member in members:
                    try:
                        loading.load(member.address, adapter)
                        loaded.append(member)
                        member.stale.discard(adapter.id)
                    except loading.NoAnswer as error:
                        self._out(member, str(error))
                if not loaded:
                    raise EngineError(f"adapter {adapter.source}: no engine answers")
            except EngineError:
                self._hold.release(adapter.folder)
                for member in loaded:
                    with suppress(EngineError):
                        loading.unload(member.address, adapter.id)
                raise
            self.adapters[adapter.id] = adapter

    def unload(self, id: str) -> None:
        """Unloads an adapter that no request uses any more, from every engine; one that is away does it when it comes back.

        Raises:
            EngineError: an engine does not do it; it is asked again when it was away.
        """
        with self._lock:
            adapter = self.adapters.pop(id)
            problem: EngineError | None = None
            for member in self._members:
                member.proven.pop(id, None)
                try:
                    if not member.joined:
                        member.stale.add(id)
                    elif not loading.unload(member.address, id):
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
        for member in self._joined():
            try:
                member.prove(self.document(), [adapter], self._say)
            except EngineError as error:
                if member.ill() is None:
                    raise
                self._out(member, str(error))
        return self._worst(adapter.id)

    def _worst(self, id: str) -> Parity | None:
        verdicts = [member.proven[id] for member in self._members if id in member.proven]
        return min(verdicts, key=lambda verdict: _WORST.index(verdict.state), default=None)

    def _joined(self) -> list[Member]:
        if found := [member for member in self._members if member.joined]:
            return found
        raise EngineError(f"None of the engines answers: {'; '.join(member.backend.reason for member in self._members)}")

    def _attend(self, member: Member) -> None:
        """What an engine's thread does until the end."""
        backend, probed, failed, told = member.backend, 0.0, 0, ""
        with client(member.address, PROBE_TIMEOUT) as http:
            while not self._end.wait(_LOOK_SECONDS):
                now = time.monotonic()
                if not (backend.healthy and member.joined):
                    failed = 0
                    if now >= backend.until:
                        told = self._try(member, told)
                elif now - probed >= _PROBE_SECONDS:
                    problem, probed = ill(http), time.monotonic()
                    failed = failed + 1 if problem is not None else 0
                    if problem is not None and (failed == _PROBES or isinstance(problem, httpx.ConnectError)):
                        self._out(member, in_words(problem), hangs=isinstance(problem, httpx.TimeoutException))

    def _try(self, member: Member, told: str) -> str:
        """Lets an engine in if it is as it should be; else why it is not, which is told once."""
        with self._lock:
            member.joined = False
        try:
            member.misfit = None
            self._bring(member)
            return ""
        except Exception as error:  # whatever it is, the engine is looked at again
            if not isinstance(error, loading.NoAnswer):
                member.misfit = error
            reason = " ".join((str(error) if isinstance(error, LlmbenchError) else f"{type(error).__name__}: {error}").split())
            self._in_loop(lambda: self.balancer.eject(member.backend, reason))
            if reason != told and member.misfit is not None and member.tried:  # that it went away has been said
                self._say(f"Engine {member.url} stays out: {reason}")
            return reason
        finally:
            member.tried = True

    def _bring(self, member: Member) -> None:
        """Makes an engine have what is served, and lets it in.

        Raises:
            EngineError: it does not answer, serves another base, or does not load or prove an adapter.
        """
        came_back = member.tried
        self._agree(member.address, member.look())
        while not self._end.is_set():
            with self._lock:
                wanted, gone = dict(self.adapters), set(member.stale)
                member.stale.clear()
            try:
                member.catch_up(wanted, gone, self.capacity)
            except EngineError:
                with self._lock:
                    member.stale |= gone
                raise
            unproven = [adapter for id, adapter in wanted.items() if id not in member.proven]
            member.prove(self.document(), unproven, self._say)
            with self._lock:
                if self.adapters.keys() == wanted.keys() and not member.stale:
                    self._in_loop(lambda: self.balancer.admit(member.backend))
                    member.joined = True
                    break
        if came_back and member.joined:
            self._say(f"Engine {member.url} answers, and is given requests")

    def _agree(self, at: Address, card: remote.Card) -> None:
        """Compares an engine's base with the document's, and with the one of the engine that was the first.

        Raises:
            EngineError: they differ.
        """
        recipe = self.document()
        named = Path(assets.model_folder(recipe.model.model_name_or_path)).name
        if card.base != named:
            raise EngineError(f"{at.url} serves {card.base}, but {recipe.source} names {named}. Start it with this document")
        tokens = remote.token_ids(at, _TEXT)
        with self._lock:
            if self._agreed is None:
                self._agreed = at.url, card, tokens
            other, agreed, read = self._agreed
        if read != tokens:
            raise EngineError(
                f"{at.url} reads a text as other tokens than {other}: their bases differ. Start both with one document"
            )
        if agreed.context != card.context:
            raise EngineError(
                f"{at.url} takes {card.context:,} tokens, but {other} takes {agreed.context:,}. "
                "Start both with the same engine.max_model_len"
            )

    def _out(self, member: Member, reason: str, *, hangs: bool = False) -> None:
        """Notes that an engine does not answer."""
        member.joined = False
        if not self._end.is_set():
            self._in_loop(lambda: self.balancer.eject(member.backend, reason, hangs=hangs))

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
            done.result(_LOOP_SECONDS)
