"""How an engine that runs elsewhere joins: what each must be and have, and the thread that lets it in and looks after it.

It is asked every other second whether it is well. One that is left out comes back when it answers, has every adapter that is
served, and, where its process is another one, has proven them again.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import httpx

from llmbench import assets
from llmbench.engine import Adapter, Address, Capacity, client, loading, remote
from llmbench.errors import EngineError, LlmbenchError
from llmbench.gateway.balancing import LoadBalancer
from llmbench.gateway.member import PROBE_TIMEOUT, Member, ill, in_words
from llmbench.recipe import ServeRecipe

__all__ = ["LOOK_SECONDS", "LOOP_SECONDS", "Attendant", "Wanted"]

LOOK_SECONDS = 0.2
LOOP_SECONDS = 5.0
"""For the gateway's event loop to do what it is told."""
_PROBE_SECONDS = 2.0
"""Between two looks at an engine that is well."""
_HOLD_SECONDS = 10.0
"""Between two times that an engine is told which adapters this gateway uses; it forgets after a minute."""
_PROBES = 3
"""In a row without an answer, until an engine is left out; one that takes no connection is left out at once."""
_TEXT = "The quick brown fox: 1,234.5 \u00e4\u00f6\u00fc \u4f60\u597d <b>def f(x):</b>\n"
"""Tokenizers differ on it."""


class Wanted:
    """What every engine must be and have to be let in. Who reads or changes the adapters holds `lock`.

    Args:
        recipe: the serving document.
        adapters: what its variants name -> the admitted adapter.
        capacity: how many adapters fit into each engine, and of which rank, where it was started with this document.
    """

    def __init__(self, recipe: ServeRecipe, adapters: Mapping[str, Adapter], capacity: Capacity) -> None:
        self.document: Callable[[], ServeRecipe] = lambda: recipe
        """The serving document as it is now."""
        self.adapters = {adapter.id: adapter for adapter in adapters.values()}
        """What every engine has, by id."""
        self.coming: frozenset[str] = frozenset()
        """Those that are being loaded."""
        self.gateway = uuid.uuid4().hex
        """By which engines know whose adapters they have."""
        self.capacity = capacity
        self.lock = threading.RLock()
        self._agreed: tuple[str, remote.Card, list[int]] | None = None
        """The engine that was the first, its base, and how it reads a text."""

    @property
    def uses(self) -> frozenset[str]:
        """What no other gateway may unload."""
        return self.coming | self.adapters.keys()

    @property
    def context(self) -> int:
        """Tokens that the base takes, once an engine has joined."""
        assert self._agreed is not None
        return self._agreed[1].context

    def agree(self, at: Address, card: remote.Card) -> None:
        """Compares an engine's base with the document's, and with the one of the engine that was the first.

        Raises:
            EngineError: they differ.
        """
        recipe = self.document()
        named = Path(assets.model_folder(recipe.model.model_name_or_path)).name
        if card.base != named:
            raise EngineError(f"{at.url} serves {card.base}, but {recipe.source} names {named}. Start it with this document")
        tokens = remote.token_ids(at, _TEXT)
        with self.lock:
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


class Attendant:
    """Looks after one engine, in threads of its own.

    Args:
        member: the engine.
        wanted: what it must be and have.
        balancer: what gives it requests.
        in_loop: does something in the gateway's event loop.
        say: told what is worth knowing, a line each.
    """

    def __init__(
        self,
        member: Member,
        wanted: Wanted,
        balancer: LoadBalancer,
        in_loop: Callable[[Callable[[], None]], None],
        say: Callable[[str], None],
    ) -> None:
        self.member = member
        self._wanted, self._balancer, self._in_loop, self._say = wanted, balancer, in_loop, say
        self._end, self._left = threading.Event(), threading.Event()
        self._is_joining = False
        self._threads = [
            threading.Thread(target=work, name=member.url, daemon=True) for work in (self._attend, self._keep_hold)
        ]

    def start(self) -> None:
        """Begins to look for it."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """The engine is not let in any more; what it has is held until `join`."""
        with self._wanted.lock:
            self._end.set()

    def join(self) -> None:
        """Waits until the threads have ended, but not for a proof that takes long."""
        self._left.set()
        for thread in self._threads:
            thread.join(PROBE_TIMEOUT + LOOP_SECONDS)

    def out(self, reason: str, *, hangs: bool = False) -> None:
        """Notes that the engine does not answer."""
        self.member.joined = False
        if not self._end.is_set():
            self._in_loop(lambda: self._balancer.eject(self.member.backend, reason, hangs=hangs))

    def _attend(self) -> None:
        """Lets the engine in, and leaves it out, until the end."""
        backend, probed, failed, told = self.member.backend, 0.0, 0, ""
        with client(self.member.address, PROBE_TIMEOUT) as http:
            while not self._end.wait(LOOK_SECONDS):
                now = time.monotonic()
                if not (backend.healthy and self.member.joined):
                    failed = 0
                    if now >= backend.until:
                        told = self._try(told)
                elif now - probed >= _PROBE_SECONDS:
                    problem, probed = ill(http), time.monotonic()
                    failed = failed + 1 if problem is not None else 0
                    if problem is not None and (failed == _PROBES or isinstance(problem, httpx.ConnectError)):
                        self.out(in_words(problem), hangs=isinstance(problem, httpx.TimeoutException))

    def _keep_hold(self) -> None:
        """Tells the engine again and again what is used, and has it unload what gateways that have ended have left."""
        member, wanted = self.member, self._wanted
        while not self._left.wait(_HOLD_SECONDS):
            if not (member.joined or self._is_joining):
                continue
            with suppress(EngineError):
                for id in member.hold(wanted.uses):
                    with wanted.lock:
                        if member.joined and not self._end.is_set() and id not in wanted.uses and member.unload(id, self._say):
                            member.lost = max(0, member.lost - 1)

    def _try(self, told: str) -> str:
        """Lets the engine in if it is as it should be; else why it is not, which is told once."""
        member = self.member
        with self._wanted.lock:
            member.joined = False
        try:
            member.misfit, self._is_joining = None, True
            self._bring()
            return ""
        except Exception as error:  # whatever it is, the engine is looked at again
            if not isinstance(error, loading.NoAnswer):
                member.misfit = error
            reason = " ".join((str(error) if isinstance(error, LlmbenchError) else f"{type(error).__name__}: {error}").split())
            self._in_loop(lambda: self._balancer.eject(member.backend, reason))
            if reason != told and member.misfit is not None and member.tried:  # that it went away has been said
                self._say(f"Engine {member.url} stays out: {reason}")
            return reason
        finally:
            member.tried, self._is_joining = True, False

    def _bring(self) -> None:
        """Makes the engine have what is served, and lets it in.

        Raises:
            EngineError: it does not answer, serves another base, or does not load or prove an adapter.
        """
        member, wanted = self.member, self._wanted
        came_back = member.tried
        wanted.agree(member.address, member.look())
        while not self._end.is_set():
            with wanted.lock:
                adapters, gone = dict(wanted.adapters), set(member.stale)
                member.stale.clear()
            try:
                member.catch_up(adapters, gone, wanted.capacity, self._say)
            except EngineError:
                with wanted.lock:
                    member.stale |= gone
                raise
            unproven = [adapter for id, adapter in adapters.items() if id not in member.proven]
            self._prove(unproven)
            with wanted.lock:
                if self._end.is_set():
                    return
                if wanted.adapters.keys() == adapters.keys() and not member.stale:
                    self._in_loop(lambda: self._balancer.admit(member.backend))
                    member.joined = True
                    break
        if came_back and member.joined:
            self._say(f"Engine {member.url} answers, and is given requests")

    def _prove(self, adapters: list[Adapter]) -> None:
        """Proves adapters; those that the engine had already are loaded again where something differs.

        Raises:
            EngineError: the engine does not answer, or an adapter answers otherwise than it was trained.
        """
        member, document = self.member, self._wanted.document()
        found = [adapter for adapter in adapters if adapter.id not in member.own]
        try:
            member.prove(document, adapters, self._say)
        except EngineError as error:
            if member.ill() is not None or not sum(member.reload(adapter, self._say) for adapter in found):
                raise
            self._say(f"Engine {member.url}: {error} Loaded again what it had already")
            member.prove(document, adapters, self._say)
