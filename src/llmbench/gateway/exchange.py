"""One request and its answer, as it is filled in on its way through the gateway, and who is told of it at its end."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import Message, Scope

    from llmbench import message
    from llmbench.gateway.observing.trace import Trace

__all__ = ["Answered", "Exchange", "Sink", "of_request"]

_WHOLE_TIMEOUT, _READ_TIMEOUT = b"x-request-timeout", b"x-stainless-read-timeout"
"""Headers that say how many seconds a client waits: from the head of its request, and, as OpenAI's clients say unasked, for the
next byte of the answer, which their HTTP library counts from the last byte that it has sent."""
_SECONDS = re.compile(rb"\d{1,6}(\.\d{1,20})?")
_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True)
class Answered:
    """What a model answered: its text, why it ended (None: it was broken off) and whether it called a tool."""

    text: str
    finish_reason: str | None
    calls_tools: bool = False


@dataclass(slots=True)
class Exchange:
    """A request from its head to the last byte of its answer. Times are seconds since `begun`, unless said otherwise."""

    path: str
    id: str = ""
    """The client's `x-request-id`, or a fresh one; it stands in the answer's header."""
    key: str = ""
    """Name of the key; empty without one."""
    trace: Trace | None = None
    """The trace that a question is part of; None where questions are not traced."""
    begun: float = field(default_factory=time.monotonic)
    """By the monotonic clock."""
    at: float = field(default_factory=time.time)
    """Seconds since 1970."""
    method: str = "POST"
    asked: str = ""
    """What the client named as `model`: a variant, a route or a pipeline."""
    variant: str = ""
    """The variant that answers; empty where none was found, and where a pipeline is asked for itself."""
    arm: str | None = None
    """Of a route: the variant that the client's share gave; None for a variant that was asked by its name."""
    unit: str | None = None
    """What a route keeps together, such as a user; None without a route."""
    user: str | None = None
    """The body's `user`, as far as the request has one."""
    consents: bool | None = None
    """What the client's `x-llmbench-capture` says of keeping this request; None where there is none."""
    conversation: Sequence[message.Message] = ()
    """What was asked, before passages."""
    status: int = 500
    error: str | None = None
    """The code of a refusal, such as `rate_limit_exceeded`."""
    stream: bool = False
    broken: bool = False
    """Whether the answer ended before it was complete: the client left, or the engine failed."""
    deadline: float | None = None
    """When the answer must have begun, and one that is not streamed have ended; None: whenever it can."""
    patience: float | None = None
    """Seconds for which the client waits for a byte once it has sent its request; None: for ever."""
    accept_seconds: float = 0.0
    """From its head to the handler: other requests that were read with it, and its key."""
    body_seconds: float = 0.0
    """How long the client took to send the body."""
    body_bytes: int = 0
    """How long the body is, as far as it has come."""
    queue_seconds: float | None = None
    """How long it waited for a place at the engine."""
    pipeline: str | None = None
    """The pipeline that is asked for vectors, scores or passages, or that searches for a variant; None where none is."""
    retrieval_at: float | None = None
    """When searching began."""
    retrieval_seconds: float | None = None
    """How long passages were searched for; None without documents."""
    engine_at: float | None = None
    """When the request was handed to the engine."""
    engine_seconds: float | None = None
    """From there to the head of the engine's answer; for one that is not streamed, to its end."""
    first: float | None = None
    """When the first piece of the answer left; only a stream has one that says how fast the model begins."""
    seconds: float = 0.0
    """When the last byte left."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    sources: Sequence[dict[str, Any]] | None = None
    """The passages; None for a variant without documents."""
    keeps: bool = False
    """Whether some sink reads what was answered; the bytes are kept only then."""
    body: list[bytes] = field(default_factory=list)
    """The answer as it was sent, where it is kept."""
    at_end: list[Callable[[], None]] = field(default_factory=list)
    """What is done when the engine has finished with it, such as giving back its place there."""
    _said: tuple[Answered | None] | None = field(default=None, init=False, repr=False)

    @property
    def model(self) -> str:
        """Under which name it is counted: the variant that answers or, where a pipeline is asked for itself, the pipeline."""
        return self.variant or self.pipeline or ""

    def elapsed(self) -> float:
        """Seconds since `begun`."""
        return time.monotonic() - self.begun

    def split(self) -> dict[str, float]:
        """Seconds until now by what they went to; together they are `elapsed()`. `checks` is what remains."""
        engine, now = self.engine_seconds, self.elapsed()
        if engine is None and self.engine_at is not None:  # it refused, or failed
            engine = now - self.engine_at
        parts = {
            "accept": self.accept_seconds,
            "body": self.body_seconds,
            "retrieval": self.retrieval_seconds or 0.0,
            "queue": self.queue_seconds or 0.0,
            "engine": engine or 0.0,
        }
        return {"checks": max(0.0, now - sum(parts.values()))} | parts

    def timing(self) -> list[tuple[bytes, bytes]]:
        """The headers that say so in milliseconds: what it took beside the engine and the client, and the parts."""
        parts = {name: 1000 * seconds for name, seconds in self.split().items()}
        overhead = parts["accept"] + parts["checks"] + parts["retrieval"]
        named = ", ".join(f"{name};dur={milliseconds:.2f}" for name, milliseconds in parts.items())
        return [(b"x-llmbench-overhead-ms", b"%.2f" % overhead), (b"server-timing", named.encode())]

    def size(self) -> int:
        """About how many bytes it holds: of the request as it was sent, of the passages, and of the answer where it is kept."""
        passages = sum(len(str(source.get("text", "")).encode("utf-8", "replace")) for source in self.sources or ())
        return self.body_bytes + passages + sum(map(len, self.body))

    def end(self) -> None:
        """Gives back what it has taken, such as its place at the engine; nothing more where it has been called before."""
        while self.at_end:
            self.at_end.pop()()

    def arrived(self, size: int, seconds: float) -> None:
        """Notes the body: its bytes and how long it took. A client that waits for the next byte waits from now on."""
        self.body_bytes, self.body_seconds = size, seconds
        if self.patience is not None:
            until = self.elapsed() + self.patience
            self.deadline = until if self.deadline is None else min(until, self.deadline)

    def answered(self) -> None:
        """Notes that the engine's answer has begun, or is there."""
        if self.engine_at is not None:
            self.engine_seconds = self.elapsed() - self.engine_at

    def sent(self, message: Message) -> None:
        """Notes a message of the answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif piece := message.get("body"):
            self.sent_piece(piece)

    def sent_piece(self, piece: bytes) -> None:
        """Notes a piece of the answer's body."""
        if self.first is None:
            self.first = self.elapsed()
        if self.stream:
            self.broken = self.broken or b'data: {"error"' in piece or b"event: response.failed\n" in piece
        if self.keeps:
            self.body.append(piece)

    def used(self, usage: Any) -> None:
        """Notes the tokens that an answer's `usage` names."""
        if isinstance(usage, dict):
            for name in ("prompt_tokens", "completion_tokens"):
                if type(count := usage.get(name)) is int and count >= 0:
                    setattr(self, name, count)

    def said(self) -> Answered | None:
        """What was answered first, where the bytes were kept and are an answer of a model.

        Asked for after the last byte: several sinks want it, and it is read once.
        """
        if self._said is None:
            self._said = (self._read(),)
        return self._said[0]

    def _read(self) -> Answered | None:
        if self.status != 200 or not self.body:
            return None
        raw = b"".join(self.body)
        if self.path == "/v1/responses":
            return _of_response(raw)
        return _of_stream(raw) if self.stream else _of_object(raw)


Sink = Callable[[Exchange], None]
"""Is told of each exchange after its last byte; called in the event loop, so it may not block."""


def of_request(scope: Scope) -> Exchange:
    """The exchange that a request begins."""
    given, consents = b"", None
    waits: dict[bytes, float] = {}
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = given or value
        elif name == b"x-llmbench-capture":
            consents = consents is not False and value.strip().lower() == b"yes"  # whatever else it says is a no
        elif name in (_WHOLE_TIMEOUT, _READ_TIMEOUT) and _SECONDS.fullmatch(value) and (seconds := float(value)) > 0:
            waits[name] = min(seconds, waits.get(name, seconds))
    id = given.decode() if _ID.fullmatch(given) else os.urandom(16).hex()
    now = time.monotonic()
    begun = scope.get("state", {}).get("received", now)
    return Exchange(
        scope["path"],
        id,
        begun=begun,
        at=time.time() - (now - begun),
        method=scope["method"],
        deadline=waits.get(_WHOLE_TIMEOUT),
        patience=waits.get(_READ_TIMEOUT),
        consents=consents,
    )


def _of_object(raw: bytes) -> Answered | None:
    with suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        choice = json.loads(raw)["choices"][0]
        message = choice.get("message") or {"content": choice.get("text")}
        return Answered(message.get("content") or "", choice.get("finish_reason"), bool(message.get("tool_calls")))
    return None


def _of_response(raw: bytes) -> Answered | None:
    """A response: the whole document, or what the last event of its stream holds."""
    with suppress(ValueError, LookupError, TypeError, AttributeError, RecursionError):
        data = json.loads(raw.rstrip().rpartition(b"\ndata: ")[2])
        data = data.get("response", data)
        text = "".join(part["text"] for item in data["output"] if item["type"] == "message" for part in item["content"])
        reason = {"completed": "stop", "incomplete": "length"}.get(data["status"])
        return Answered(text, reason, any(item["type"] == "function_call" for item in data["output"]))
    return None


def _of_stream(raw: bytes) -> Answered | None:
    text: list[str] = []
    reason, calls = None, False
    for choice in _choices(raw):
        delta = choice.get("delta") or {"content": choice.get("text")}
        text.append(delta.get("content") or "")
        reason = choice.get("finish_reason") or reason
        calls = calls or bool(delta.get("tool_calls"))
    return Answered("".join(text), reason, calls)


def _choices(raw: bytes) -> Iterator[dict[str, Any]]:
    """The pieces of the first answer in a stream."""
    events = [line[5:] for line in raw.split(b"\n") if line.startswith(b"data:") and line[5:].strip() != b"[DONE]"]
    try:
        values = json.loads(b"[" + b",".join(events) + b"]")  # at once: 32 events in a third of the time
    except (ValueError, RecursionError):  # one that was cut off
        values = [_value(event) for event in events]
    with suppress(AttributeError, TypeError):
        for value in values:
            for one in value.get("choices", ()) if value else ():
                if not one.get("index"):
                    yield one


def _value(event: bytes) -> Any:
    with suppress(ValueError, RecursionError):
        return json.loads(event)
    return None
