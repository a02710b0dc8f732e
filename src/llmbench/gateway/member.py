"""One of the engines that run elsewhere, and what makes it have what the others have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import httpx

from llmbench.engine import Adapter, Address, Capacity, client, loading, remote
from llmbench.gateway.balancing import Backend
from llmbench.gateway.proving import prove_adapters, prove_served_base
from llmbench.parity import Parity
from llmbench.recipe import ServeRecipe

__all__ = ["PROBE_TIMEOUT", "Member", "ill", "in_words"]

PROBE_TIMEOUT = 5.0
"""Seconds in which an engine must say that it is well."""


class Member:
    """One engine, as its thread knows it."""

    def __init__(self, address: Address) -> None:
        self.address = address
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
        self._started = started
        return card

    def catch_up(self, wanted: Mapping[str, Adapter], gone: Iterable[str], capacity: Capacity) -> None:
        """Loads the adapters that it lacks, and unloads those that are gone.

        Raises:
            EngineError: it does not do it.
        """
        has = remote.card(self.address).adapters
        going = (set(gone) & has) - wanted.keys()
        for id in going:
            loading.unload(self.address, id)
        self.lost = len(has - wanted.keys() - going)
        for id in wanted.keys() - has:
            loading.refuse_without_slot(wanted[id], capacity, len(wanted.keys() & has) + self.lost)
            loading.load(self.address, wanted[id])
            self.proven.pop(id, None)

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
