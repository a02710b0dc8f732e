"""The routes that are offered now: a table that never changes, and is replaced whole, as the catalogue's is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from llmbench.errors import LlmbenchError
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.traffic.assignment import arm_of, unit_of
from llmbench.recipe import RouteSpec

__all__ = ["Route", "Routes"]


@dataclass(frozen=True)
class Route:
    """A name and how its requests are divided now, which a rollout may have changed from what the document says."""

    spec: RouteSpec
    weights: Mapping[str, float]
    """By variant."""
    experiment: str
    """Under which units are drawn."""
    reads: bool = False
    """Whether what is answered is read, so that its bytes are kept."""
    created: int = field(default_factory=lambda: int(time.time()))
    """Seconds since 1970."""

    @classmethod
    def of(cls, spec: RouteSpec) -> Route:
        """As the document says."""
        return cls(spec, spec.variants, spec.name, spec.shadow is not None)

    @property
    def shares(self) -> dict[str, float]:
        """Variant -> percent."""
        total = sum(self.weights.values())
        return {variant: 100 * weight / total for variant, weight in self.weights.items()}

    @property
    def uses(self) -> set[str]:
        """The variants that must stay: those of the document, and those to which a rollout gives requests."""
        return self._named | {variant for variant, weight in self.weights.items() if weight > 0}

    @property
    def _named(self) -> set[str]:
        shadow = {self.spec.shadow.variant} if self.spec.shadow is not None else set()
        return {*self.spec.variants} | shadow

    def refuse_removal(self, variant: str) -> None:
        """Raises LlmbenchError where this variant must stay."""
        name = self.spec.name
        if variant in self._named:
            raise LlmbenchError(f"{variant} is used by the route {name}. Change that in the document, and reload it, first")
        if variant in self.uses:
            raise LlmbenchError(
                f"{variant} answers requests of the route {name} by a rollout. "
                f"Abort it (llmbench rollout abort {name}), or name {variant} in the document's route and reload it"
            )

    def card(self) -> dict[str, Any]:
        """What /v1/models says of it."""
        shares = {variant: share for variant, share in self.shares.items() if share > 0}
        among = ", ".join(f"{variant} {share:.3g} %" for variant, share in shares.items())
        return {
            "id": self.spec.name,
            "object": "model",
            "created": self.created,
            "owned_by": "llmbench",
            "variants": [{"name": variant, "share": round(share, 4)} for variant, share in shares.items()],
            "sticky": self.spec.sticky,
            "description": self.spec.description or f"route to {among}",
        }


class Routes:
    """The present routes. Any thread may look; changes come one after another."""

    def __init__(self, specs: Iterable[RouteSpec] = ()) -> None:
        self._lock = threading.Lock()
        self.held: Callable[[str], str | None] = lambda _: None
        """Why a route of this name may not be changed now; None where it may."""
        self.tried: Callable[[str], str | None] = lambda _: None
        """The route on which a variant takes part in a rollout; None where it does on none."""
        self.shadowed: Callable[[], list[dict[str, Any]]] = list
        """What became of the questions for the routes' shadows, as `Shadows.listing` tells it."""
        self.now: Mapping[str, Route] = {spec.name: Route.of(spec) for spec in specs}

    def differences(self, specs: Iterable[RouteSpec]) -> tuple[list[str], list[str], list[str]]:
        """The names of the routes that a document adds, changes and removes."""
        before, after = {name: route.spec for name, route in self.now.items()}, {spec.name: spec for spec in specs}
        changed = [name for name in after if name in before and after[name] != before[name]]
        return [name for name in after if name not in before], changed, [name for name in before if name not in after]

    def variant(self, exchange: Exchange, opening: Callable[[], str | None]) -> str:
        """The variant that what an exchange asked for leads to: itself, or a route's for its unit, which is noted.

        Args:
            exchange: one whose `asked`, `user` and `key` are known.
            opening: gives what its conversation begins with.
        """
        route = self.now.get(exchange.asked)
        if route is None:
            return exchange.asked
        spec = route.spec
        known = None if spec.sticky == "none" or (spec.sticky == "user" and (exchange.user or exchange.key)) else opening()
        exchange.unit = unit_of(spec.sticky, user=exchange.user, key=exchange.key, opening=known, request=exchange.id)
        exchange.arm = arm_of(route.experiment, exchange.unit, route.weights)
        exchange.keeps = exchange.keeps or route.reads
        return exchange.arm

    def divide(self, name: str, weights: Mapping[str, float], *, experiment: str, reads: bool) -> None:
        """Divides a route's requests in another way, from the next one on."""
        with self._lock:
            changed = replace(self.now[name], weights=dict(weights), experiment=experiment, reads=reads)
            self.now = {**self.now, name: changed}

    def put(self, spec: RouteSpec) -> None:
        """Offers a route as a document says, in the place of one of the same name.

        Where the document divides it as before, it stays divided as a rollout has left it.

        Raises:
            LlmbenchError: it may not be changed now.
        """
        self._refuse_change(spec.name)
        with self._lock:
            made, before = Route.of(spec), self.now.get(spec.name)
            if before is not None:
                made = replace(made, created=before.created)
                if before.spec.variants == spec.variants:
                    made = replace(made, weights=before.weights, experiment=before.experiment)
            self.now = {**self.now, spec.name: made}

    def drop(self, name: str) -> None:
        """Offers a route no longer.

        Raises:
            LlmbenchError: it may not be changed now.
        """
        self._refuse_change(name)
        with self._lock:
            self.now = {other: route for other, route in self.now.items() if other != name}

    def refuse_removal(self, variant: str) -> None:
        """Raises LlmbenchError where a route needs this variant."""
        for route in self.now.values():
            route.refuse_removal(variant)

    def _refuse_change(self, name: str) -> None:
        if reason := self.held(name):
            raise LlmbenchError(reason)
