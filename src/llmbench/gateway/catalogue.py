"""The variants that are served now: a table that never changes, and is replaced whole when a variant comes or goes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from llmbench.errors import LlmbenchError
from llmbench.gateway.grounding import Grounding
from llmbench.recipe import Variant

__all__ = ["Catalogue", "Offer", "Served", "refuse_clash"]


class _Requests:
    """Those that one variant is answering."""

    running = 0


@dataclass(frozen=True)
class Served:
    """A variant as it is served. `engine_name` is what vLLM calls its model, `card` what /v1/models says beside its name."""

    variant: Variant
    engine_name: str
    card: dict[str, Any]
    grounding: Grounding | None = None
    stops: tuple[int, ...] = ()
    """Tokens at which its answers end, besides those of the base."""
    created: int = field(default_factory=lambda: int(time.time()))
    """Seconds since 1970."""
    requests: _Requests = field(default_factory=_Requests, compare=False, repr=False)
    """Only the gateway's own thread counts here; others read."""

    @property
    def fingerprint(self) -> str:
        """What is added to the engine's fingerprint, which is the same for the base and every adapter; may be empty."""
        return str(self.card.get("fingerprint", ""))[:8]

    def ends(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """What asks the engine to stop there, unless the client asked it not to stop."""
        return {"stop_token_ids": list(self.stops)} if self.stops and not fields.get("ignore_eos") else {}


@dataclass(frozen=True)
class Offer:
    """What is served at one time, by name: the variants, their pipelines, and what /v1/models says of both."""

    known: Mapping[str, Served]
    cards: Mapping[str, dict[str, Any]]
    pipelines: Mapping[str, Served] = field(default_factory=dict)
    """A variant that has the pipeline: of several pipelines of one name, the first variant's."""


class Catalogue:
    """The present offer. `context` is the tokens that the base takes.

    One thread changes it while another looks names up: an offer is replaced, never changed. No variant has the name of
    another one's pipeline; what would bring one raises LlmbenchError.
    """

    def __init__(self, models: Iterable[Served], *, context: int) -> None:
        self.context = context
        self._set({served.variant.name: served for served in models})

    def take(self, name: str) -> Served | None:
        """The variant of this name, with one more request that it is answering; None where there is none.

        After `put` or `drop` has returned, a variant that they took away gets no request any more: one that looked it up
        before has been counted by then, or looks again.
        """
        while (served := self.now.known.get(name)) is not None:
            served.requests.running += 1
            if self.now.known.get(name) is served:
                return served
            served.requests.running -= 1
        return None

    def take_pipeline(self, name: str) -> Served | None:
        """A variant whose pipeline has this name, or the variant of this name where it has one, as `take` gives it."""
        while True:
            offer = self.now
            served = offer.pipelines.get(name) or offer.known.get(name)
            if served is None or served.grounding is None:
                return None
            if (taken := self.take(served.variant.name)) is served:
                return taken
            if taken is not None:  # changed this moment
                taken.requests.running -= 1

    def put(self, served: Served) -> Served | None:
        """Offers a variant, in the place of one of the same name, which is given back."""
        before = self.now.known.get(served.variant.name)
        self._set({**self.now.known, served.variant.name: served})
        return before

    def drop(self, name: str) -> Served:
        """Offers a variant no longer.

        Raises:
            KeyError: there is none of this name.
        """
        known = dict(self.now.known)
        gone = known.pop(name)
        self._set(known)
        return gone

    def _set(self, known: dict[str, Served]) -> None:
        of = {name: served.grounding.name if served.grounding is not None else None for name, served in known.items()}
        refuse_clash(of)
        pipelines: dict[str, Served] = {}
        for name, pipeline in of.items():
            if pipeline is not None:
                pipelines.setdefault(pipeline, known[name])
        cards = {name: self._card(name, served) for name, served in known.items()}
        for name, served in pipelines.items():
            assert served.grounding is not None
            if name not in known:
                cards[name] = _head(name, served, "pipeline") | dict(served.grounding.card)
        self.now = Offer(known, cards, pipelines)

    def _card(self, name: str, served: Served) -> dict[str, Any]:
        return _head(name, served, "chat") | {"max_model_len": self.context} | served.card


def _head(name: str, served: Served, kind: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": served.created, "owned_by": "llmbench", "kind": kind}


def refuse_clash(pipelines: Mapping[str, str | None]) -> None:
    """Refuses a variant or a route that has the name of another one's pipeline, as clients ask for all by name.

    A variant may have the name of its own pipeline: asked to write it answers, and asked to embed or search its pipeline does.

    Args:
        pipelines: the name of each variant's pipeline, by the variant's name; None for a route.

    Raises:
        LlmbenchError: there is one.
    """
    for variant, pipeline in pipelines.items():
        if pipeline is not None and pipelines.get(pipeline, pipeline) != pipeline:
            raise LlmbenchError(
                f"model {pipeline} has the name of {variant}'s RAG pipeline, and clients ask for both by name. Rename the model"
            )
