"""The trace that a request is part of, as W3C Trace Context has it: taken from its caller, or begun here."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Trace", "Traced"]

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


class Traced:
    """Gives each question a trace, in `scope["state"]["trace"]`, and its answer the header `x-trace-id`.

    Args:
        app: what answers.
        share: of the questions without a trace of their own that are sampled; others follow their caller.
    """

    def __init__(self, app: ASGIApp, *, share: float) -> None:
        self._app = app
        self._share = share

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands a request on."""
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        trace = _of(scope["headers"], self._share)
        scope.setdefault("state", {})["trace"] = trace
        header = (b"x-trace-id", trace.name.encode())

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], header]
            await send(message)

        await self._app(scope, receive, sent)


def _of(headers: list[tuple[bytes, bytes]], share: float) -> Trace:
    span, engine = random.getrandbits(64) or 1, random.getrandbits(64) or 1
    given = [value for name, value in headers if name == b"traceparent"]
    found = _PARENT.fullmatch(given[0]) if len(given) == 1 else None
    if found is not None and found[1] != b"ff" and not (found[1] == b"00" and found[5]):
        id, parent = int(found[2], 16), int(found[3], 16)
        if id and parent:
            return Trace(id, span, engine, parent, bool(int(found[4], 16) & 1))
    id = random.getrandbits(128) or 1
    return Trace(id, span, engine, None, id % 2**64 < share * 2**64)
