"""vLLM's stream as its client gets it, event by event as it comes, under the variant's name and with its sources."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from llmbench.gateway.relay import Upstream

__all__ = ["Events"]

_FINGERPRINT = b'"system_fingerprint":"'
_FINGERPRINTED = re.compile(b"(" + _FINGERPRINT + rb'[^"]*)')


class Events:
    """The server-sent events of one stream. The first piece of the answer is given the sources; the others pass as bytes.

    In all of them the name is replaced. Inside JSON text every quote is escaped, so `"model":"..."` with bare quotes is the
    field and never something a model wrote. A comment (`: keep-alive`) may come at any time and passes too.

    Args:
        upstream: where the stream comes from; is told that the engine lives, and says why a stream broke off.
        engine_name: the model's name at the engine.
        name: the one that the client asked for.
        sources: the passages; None for a variant without documents.
        used: is told the usage once, at the end, and whether it is that of the whole answer; None where the stream names none.
        hide_usage: keeps the event that names it from the client, who has not asked for it.
        fingerprint: the variant's, which the engine's own is followed by.
    """

    def __init__(
        self,
        upstream: Upstream,
        *,
        engine_name: str,
        name: str,
        sources: Sequence[dict[str, Any]] | None,
        used: Callable[[Any, bool], None],
        hide_usage: bool = False,
        fingerprint: str = "",
    ) -> None:
        self._upstream, self._engine_name = upstream, engine_name
        self._field = re.compile(rb'"model":\s*"' + re.escape(engine_name.encode()) + b'"')
        self._named = b'"model":' + json.dumps(name).encode()
        self._sources, self._waits_for_sources = sources, sources is not None
        self._used, self._hides_usage = used, hide_usage
        self._fingerprint = fingerprint.encode()
        self._buffer = self._last = b""
        self._usage: Any = None  # where every event names it (continuous_usage_stats), it is that of the answer so far
        self._complete = False

    def take(self, piece: bytes) -> bytes:
        """The events that are whole with this piece of the stream; empty where none is."""
        self._upstream.heard = time.monotonic()
        if self._buffer:
            piece = self._buffer + piece
        if b"\r" in piece:  # in JSON text it is escaped, so here it only ends lines
            piece = piece.replace(b"\r\n", b"\n")
        whole, separator, self._buffer = piece.rpartition(b"\n\n")
        if not separator:
            return b""
        if b'"usage":{' in whole:
            found, last_of_all = _usage(whole)
            self._usage = found or self._usage
            if last_of_all and not self._complete:
                self._complete = True
                self._used(self._usage, True)  # now, as a client may leave with the last event
            whole = _without_usage(whole) if last_of_all and self._hides_usage else whole
        whole = self._last = self._field.sub(self._named, whole)
        if self._fingerprint and _FINGERPRINT in whole:
            whole = _FINGERPRINTED.sub(rb"\1-" + self._fingerprint, whole)
        if self._waits_for_sources:  # after the names: a passage may have a "model" of its own
            whole, self._waits_for_sources = _with_sources(whole, self._sources)
        return whole + separator if whole else b""

    def end(self) -> bytes:
        """What remains at the end of the stream: half an event, and an error where it ended too early."""
        rest, self._buffer = self._buffer, b""
        if rest:
            rest = self._last = self._field.sub(self._named, rest)
        if b"[DONE]" in self._last or b'"error"' in self._last:
            return rest
        return rest + (b"\n\n" if rest else b"") + self.broken(httpx.RemoteProtocolError("the answer ended too early"))

    def broken(self, error: httpx.HTTPError) -> bytes:
        """The last event of a stream that broke off."""
        return self._upstream.broke_off(error, self._engine_name)

    def close(self) -> None:
        """Tells the usage as far as it is known, where the stream has not named it at its end."""
        if not self._complete:
            self._complete = True
            self._used(self._usage, False)

    async def pulled(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """The events of a stream that is read piece by piece."""
        try:
            async for piece in pieces:
                if whole := self.take(piece):
                    yield whole
            if rest := self.end():
                yield rest
        except httpx.HTTPError as error:
            yield self.broken(error)
        finally:
            self.close()


def _usage(events: bytes) -> tuple[Any, bool]:
    """The last usage that some events name, and whether its event says nothing else, as that of a whole answer does."""
    found, complete = None, False
    for line in events.split(b"\n"):
        if b'"usage":{' in line:
            with suppress(ValueError, AttributeError):
                data = json.loads(line.removeprefix(b"data:"))
                found, complete = data.get("usage"), data.get("choices") == []
    return found, complete


def _without_usage(events: bytes) -> bytes:
    """Some events but the one that names the usage of the whole answer."""
    return b"\n\n".join(event for event in events.split(b"\n\n") if not _usage(event)[1])


def _with_sources(events: bytes, sources: Sequence[dict[str, Any]] | None) -> tuple[bytes, bool]:
    """Some events with the sources in the first that is a piece of the answer, and whether there was none."""
    lines = events.split(b"\n")
    for i, line in enumerate(lines):
        if not line.startswith(b"data:"):  # a comment, or an event's name or number
            continue
        try:
            data = json.loads(line.removeprefix(b"data:"))
        except ValueError:  # [DONE]
            continue
        if isinstance(data, dict) and "choices" in data:
            data["sources"] = list(sources or ())
            lines[i] = b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
            return b"\n".join(lines), False
    return events, True
