"""Captured conversations: a share of those whose clients agree, without keys and personal data, for a limited time.

What is monitored, voted on and made into training data later comes from here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from llmbench.gateway.exchange import Exchange
from llmbench.gateway.feedback import Feedback
from llmbench.gateway.observing.backlog import Backlog
from llmbench.gateway.observing.records import CapturedRequest, CaptureStore, default_path
from llmbench.message import text_of
from llmbench.recipe import CaptureSpec

__all__ = ["Capture"]

_MOST = 2000
_PRUNE_SECONDS = 3600.0


class Capture:
    """A sink that keeps conversations.

    Args:
        spec: whose, how large a share of them, where and how long.
        hide: takes keys of this server out of a text.
        say: called with a line when the file cannot be written.

    Raises:
        LlmbenchError: the file cannot be used.
    """

    def __init__(self, spec: CaptureSpec, hide: Callable[[str], str], say: Callable[[str], None]) -> None:
        self._spec, self._hide = spec, hide
        self._store = CaptureStore(spec.path or default_path())
        self._prune()
        self.backlog = Backlog[Exchange | Feedback](
            "capture", self._write, say, idle=self._prune, every=_PRUNE_SECONDS, most=_MOST
        )

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.backlog.close()
        self._store.close()

    def __call__(self, exchange: Exchange) -> None:
        """Keeps one request with its answer, if it may and its conversation is among the sampled ones."""
        if exchange.status != 200 or not exchange.conversation or not self._may(exchange):
            return
        if self._store.number(*_conversation(exchange)) < self._spec.share * 2**64:
            self.backlog.put(exchange, exchange.size())

    def told_feedback(self, feedback: Feedback) -> None:
        """Adds a vote or a score to the record of its request, where there is one, in place of an earlier one."""
        self.backlog.put(feedback, len(feedback.comment or ""))

    def _may(self, exchange: Exchange) -> bool:
        if self._spec.keys is not None and exchange.key not in self._spec.keys:
            return False
        return exchange.consents is True or (exchange.consents is None and self._spec.consent == "opt-out")

    def _write(self, entries: list[Exchange | Feedback]) -> None:
        records = [self._record(one) for one in entries if isinstance(one, Exchange)]
        self._store.add([record for record in records if record is not None])
        for one in entries:  # after its request, which came before it
            if isinstance(one, Feedback):
                id, comment = self._hide(one.request.id), self._clean(one.comment)
                self._store.mark(id, one.request.key, one.metric, one.value, comment)

    def _prune(self) -> None:
        self._store.prune(self._spec.days)

    def _record(self, exchange: Exchange) -> CapturedRequest | None:
        answer = exchange.said()
        if answer is None:
            return None
        first = exchange.first if exchange.stream else None
        return CapturedRequest(
            request=self._hide(exchange.id),
            at=exchange.at,
            conversation=f"{self._store.number(*_conversation(exchange)):016x}",
            user=self._store.user(exchange.user) if exchange.user is not None else None,
            key=exchange.key,
            asked=exchange.asked,
            variant=exchange.variant,
            messages=self._json(list(exchange.conversation)),
            sources=self._json(list(exchange.sources)) if exchange.sources is not None else None,
            answer=self._clean(answer.text),
            finish_reason=answer.finish_reason,
            complete=not exchange.broken,
            redacted=self._spec.redact,
            input_tokens=exchange.prompt_tokens,
            output_tokens=exchange.completion_tokens,
            seconds=exchange.seconds,
            first_seconds=first,
            retrieval_seconds=exchange.retrieval_seconds,
            engine_seconds=exchange.engine_seconds,
            trace=exchange.trace.name if exchange.trace is not None else None,
        )

    def _json(self, value: Any) -> str:
        return json.dumps(self._clean(value), ensure_ascii=False)

    def _clean(self, value: Any) -> Any:
        """A value whose texts hold no keys of this server and, where the document wants it, no other secrets."""
        match value:
            case str():
                from llmbench.data import secrets

                whole = value.encode("utf-8", "replace").decode()  # half a character has no place in a file
                return secrets.redacted(self._hide(whole)) if self._spec.redact else self._hide(whole)
            case list():
                return [self._clean(one) for one in value]
            case dict():
                return {self._clean(key): self._clean(one) for key, one in value.items()}
        return value


def _conversation(exchange: Exchange) -> tuple[str, ...]:
    """What all requests of a conversation share: what a route keeps together, else its user, else its first question."""
    if (unit := exchange.unit or exchange.user) is not None:
        return ("unit", exchange.key, unit)
    first = next((text_of(one) for one in exchange.conversation if one["role"] == "user"), "")
    return ("question", exchange.key, first)
