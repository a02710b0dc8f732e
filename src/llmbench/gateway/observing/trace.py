"""The trace that a request is part of, as W3C Trace Context has it: taken from its caller, or begun here."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Trace", "trace_of"]

_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


@dataclass(frozen=True, slots=True)
class Trace:
    """Where a request stands in a trace: the numbers of the trace (128 bits) and of its spans (64 bits)."""

    id: int
    span: int
    """Of the request here."""
    engine: int
    """Of what the engine is asked for it."""
    parent: int | None
    """Of the caller's span, if the caller named one."""
    sampled: bool

    @property
    def name(self) -> str:
        """The trace's id, 32 hexadecimal digits."""
        return f"{self.id:032x}"

    def traceparent(self) -> str:
        """What the engine is told."""
        return f"00-{self.id:032x}-{self.engine:016x}-{self.sampled:02x}"


def trace_of(headers: Sequence[tuple[bytes, bytes]], share: float) -> Trace:
    """The trace of a request with these headers; without one of its own it gets one, of which this share is sampled."""
    span, engine = random.getrandbits(64) or 1, random.getrandbits(64) or 1
    given = [value for name, value in headers if name == b"traceparent"]
    found = _PARENT.fullmatch(given[0]) if len(given) == 1 else None
    if found is not None and found[1] != b"ff" and not (found[1] == b"00" and found[5]):
        id, parent = int(found[2], 16), int(found[3], 16)
        if id and parent:
            return Trace(id, span, engine, parent, bool(int(found[4], 16) & 1))
    id = random.getrandbits(128) or 1
    return Trace(id, span, engine, None, id % 2**64 < share * 2**64)
