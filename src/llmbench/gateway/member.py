"""One of the engines that run elsewhere, and what makes it have what the others have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import httpx

from llmbench.engine import Adapter, Address, Capacity, client, loading, remote
from llmbench.errors import EngineError
from llmbench.gateway.balancing import Backend
from llmbench.gateway.proving import prove_adapters, prove_served_base
from llmbench.parity import Parity
from llmbench.recipe import ServeRecipe

__all__ = ["PROBE_TIMEOUT", "Member", "ill", "in_words"]

PROBE_TIMEOUT = 5.0
"""Seconds in which an engine must say that it is well."""


class Member:
    """One engine, as its thread knows it."""

    def __init__(self, address: Address, gateway: str) -> None:
        self.address = address
        self._gateway = gateway
        self.backend = Backend(address)
        self.joined = False
        """Whether it has all adapters, and is given each change of them."""
        self.tried = False
        self.misfit: Exception | None = None
        """Why it cannot be one of these engines, as it is."""
        self.stale: set[str] = set()
        """Adapters to unload: they went while it was out."""
        self.proven: dict[str, Parity] = {}
        """The verdict on each adapter that its process has proven."""
        self.lost = 0
        """Slots of adapters that it unloaded without freeing them, or that others have loaded."""
        self.own: set[str] = set()
        """Adapters that this gateway has loaded into its process."""
        self._shared: remote.Shared | None = None
        self._named: set[str] = set()
        """Adapters of which it was said that nobody is known to use them."""
        self._base_proven = False
        self._started: float | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return self.address.url

    def ill(self) -> httpx.HTTPError | None:
        """Why it is not well; None where it is."""
        with client(self.address, PROBE_TIMEOUT) as http:
            return ill(http)

    def look(self) -> remote.Card:
        """What it serves. Where its process is another one than before, nothing of it is proven.

        Raises:
            NoAnswer: it does not answer, or is not well.
            EngineError: it refuses the key, or is no engine of a gateway.
        """
        if (problem := self.ill()) is not None:
            raise loading.NoAnswer(f"{self.url} does not answer ({in_words(problem)})")
        card, started = remote.card(self.address), remote.started_at(self.address)
        if started is None or started != self._started:
            self.proven, self._base_proven = {}, False
            self.own, self._named = set(), set()
        self._started = started
        return card

    def hold(self, uses: Iterable[str]) -> frozenset[str]:
        """Says which adapters this gateway uses. What gateways that have ended have left there is given back.

        Raises:
            NoAnswer: it does not answer.
        """
        shared = remote.hold(self.address, self._gateway, {*uses, *self.own})
        # Where several processes answer, none says when it started, and each knows a part of what is used.
        self._shared = shared if self._started is not None else None
        return self._shared.free if self._shared is not None else frozenset()

    def catch_up(
        self, wanted: Mapping[str, Adapter], gone: Iterable[str], capacity: Capacity, say: Callable[[str], None]
    ) -> None:
        """Loads the adapters that it lacks, and unloads those that are gone, and those of gateways that have ended.

        What it has already is taken over, whoever has loaded it: an id names the content, and what is not proven yet is proven.

        Raises:
            EngineError: it does not do it.
        """
        left = self.hold(wanted)  # before looking, so that nobody takes away what is found
        has = remote.card(self.address).adapters
        self.own &= has
        going = ((left | set(gone)) & has) - wanted.keys()
        freed = {id for id in going if self.unload(id, say)}
        self.lost = len(has - wanted.keys() - freed)
        self._name(has - wanted.keys() - going, say)
        for id in wanted.keys() - has:
            loading.refuse_without_slot(wanted[id], capacity, len(wanted.keys() & has) + self.lost)
            self.load(wanted[id])
            self.proven.pop(id, None)

    def load(self, adapter: Adapter) -> None:
        """Loads an adapter that it does not have.

        Raises:
            EngineError: it does not do it.
        """
        loading.load(self.address, adapter, self._gateway)
        self.own.add(adapter.id)

    def unload(self, id: str, say: Callable[[str], None]) -> bool:
        """Unloads an adapter, unless another gateway uses it. Whether its slot is free.

        Where that cannot be known, only what this gateway has loaded itself is unloaded.

        Raises:
            EngineError: it does not do it.
        """
        if self._shared is None and id not in self.own:
            self._name({id}, say)
            return False
        is_own = id in self.own
        try:
            freed = loading.unload(self.address, id, self._gateway)
        except loading.Used:
            freed = False
        self.own.discard(id)
        self.proven.pop(id, None)
        if freed and not is_own and self._shared is not None and id in self._shared.free:
            say(f"Engine {self.url}: unloaded adapter {id}, which a gateway that has ended had loaded")
        return freed

    def reload(self, adapter: Adapter, say: Callable[[str], None]) -> bool:
        """Loads an adapter again that it has from somebody else; whether it did, as another gateway may use it.

        Raises:
            EngineError: it does not do it.
        """
        if not self.unload(adapter.id, say):
            return False
        self.load(adapter)
        return True

    def leave(self, say: Callable[[str], None]) -> None:
        """Unloads what this gateway has loaded there and no other one uses, and says that it uses nothing any more."""
        if self.ill() is None:
            with suppress(EngineError):
                for id in list(self.own):
                    self.unload(id, say)
                self.hold(())

    def _name(self, ids: Iterable[str], say: Callable[[str], None]) -> None:
        """Says once which adapters nobody is known to use, and what unloads one."""
        known = self._shared.used if self._shared is not None else frozenset()
        if new := sorted(set(ids) - known - self._named):
            self._named |= set(new)
            key = ' -H "Authorization: Bearer $ENGINE_KEY"' if self.address.key is not None else ""
            say(
                f"Engine {self.url} has adapters that this gateway does not serve and did not load: {', '.join(new)}. "
                f"Each takes a place of engine.max_adapters. If nobody uses one: curl {self.url}{loading.UNLOAD}{key} "
                f"-H 'Content-Type: application/json' -d '{{\"lora_name\": \"{new[0]}\"}}'"
            )

    def prove(self, recipe: ServeRecipe, adapters: Iterable[Adapter], say: Callable[[str], None]) -> None:
        """Proves adapters, and once the base; a line each.

        Raises:
            EngineError: one answers otherwise than it was trained, and the document requires proof.
        """
        if recipe.parity == "off":
            return
        if not self._base_proven:
            prove_served_base(recipe, self.address, say, on=f" on {self.url}")
            self._base_proven = True
        self.proven |= prove_adapters(recipe, self.address, adapters, None, say, on=f" on {self.url}")


def ill(http: httpx.Client) -> httpx.HTTPError | None:
    """Why the vLLM that a client reaches is not well; None where it is."""
    try:
        http.get("/health").raise_for_status()
    except httpx.HTTPError as error:
        return error
    return None


def in_words(problem: httpx.HTTPError) -> str:
    """Why an engine is not well, without its address."""
    if isinstance(problem, httpx.HTTPStatusError):
        return f"its /health answers {problem.response.status_code}"
    return f"{type(problem).__name__}: {problem}"
