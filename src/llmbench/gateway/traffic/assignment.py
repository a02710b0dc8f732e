"""Which variant a unit of a route belongs to: drawn by hashing, so that nothing is remembered and every server agrees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from math import log

from llmbench.message import Message
from llmbench.recipe import Sticky

__all__ = ["arm_of", "opening_of", "unit_of"]


def unit_of(sticky: Sticky, *, user: str | None, key: str, opening: str | None, request: str) -> str:
    """What is kept with one variant, as a hash: 16 hexadecimal digits.

    Args:
        sticky: the route's.
        user: the request's `user`.
        key: the name of its key; empty without one.
        opening: what the conversation begins with (`opening_of`); None where a request has none.
        request: the request's id, which is a unit of its own where nothing else is known.
    """
    match sticky:
        case "user" if user:
            what = ("user", user)
        case "user" if key:
            what = ("key", key)
        case "user" | "conversation" if opening is not None:
            what = ("conversation", opening)
        case _:
            what = ("request", request)
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def opening_of(messages: Sequence[Message]) -> str:
    """What a conversation begins with, up to its first message of the user, which stays the same while it goes on."""
    first = next((i for i, message in enumerate(messages) if message["role"] == "user"), len(messages) - 1)
    return json.dumps(messages[: first + 1], sort_keys=True)


def arm_of(experiment: str, unit: str, weights: Mapping[str, float]) -> str:
    """The variant of a unit; each with its weight's share, independent from one experiment to another.

    Each variant draws -ln(u) / weight with a u of its own for this unit, and the least wins: the first of several clocks that
    ring at those rates. A weight that grows against the others can only win units, and takes them from whoever has them: none
    moves between two others, whatever the number and order of variants (weighted rendezvous hashing; Thaler and Ravishankar
    1998, with the exponential draws of Efraimidis and Spirakis 2006).

    Args:
        experiment: a name; the same unit is drawn again under another one.
        unit: from `unit_of`.
        weights: by variant; at least one is above 0.
    """
    live = {variant: weight for variant, weight in weights.items() if weight > 0}
    if len(live) == 1:
        return next(iter(live))
    return min(live, key=lambda variant: _draw(experiment, unit, variant) / live[variant])


def _draw(experiment: str, unit: str, variant: str) -> float:
    """-ln(u), u even in (0, 1)."""
    digest = hashlib.sha256(f"{experiment}\0{unit}\0{variant}".encode()).digest()
    return -log((int.from_bytes(digest[:7]) + 0.5) / 2**56)
