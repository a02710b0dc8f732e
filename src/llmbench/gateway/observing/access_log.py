"""The access log: one line of JSON for each request, in a file that only its owner can read and that does not grow for ever."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from llmbench import workspace
from llmbench.errors import LlmbenchError
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.observing.backlog import Backlog
from llmbench.gateway.observing.json_lines import JsonLines
from llmbench.gateway.observing.metrics import error_of
from llmbench.recipe import AccessLogSpec

__all__ = ["AccessLog"]


class AccessLog:
    """A sink that writes a line for each request.

    Args:
        spec: which file, and how much of it.
        hide: takes keys out of a text.
        say: called with a line when the file cannot be written.

    Raises:
        LlmbenchError: it cannot be written from the start.
    """

    def __init__(self, spec: AccessLogSpec, hide: Callable[[str], str], say: Callable[[str], None]) -> None:
        self.path = spec.path or workspace.home() / "access.jsonl"
        self._prompts = spec.prompts
        self._lines = JsonLines(self.path, hide=hide, max_bytes=spec.max_bytes, keep=spec.keep)
        try:
            self._lines.create()
        except OSError as error:
            message = (
                f"{self.path}: the access log cannot be written ({error.strerror}). Set gateway.access_log to another file"
            )
            raise LlmbenchError(message) from error
        self.backlog: Backlog[tuple[dict[str, Any], Exchange | None]] = Backlog("access log", self._write, say)

    def __call__(self, exchange: Exchange) -> None:
        """Notes one request."""
        if not self._prompts:
            self.backlog.put((_row(exchange), None))
            return
        self.backlog.put((_row(exchange), exchange), exchange.size())

    def _write(self, entries: list[tuple[dict[str, Any], Exchange | None]]) -> None:
        self._lines.write(row | _said(exchange) for row, exchange in entries)


def _row(exchange: Exchange) -> dict[str, Any]:
    """What is known of a request, but nothing that anybody said."""
    first, retrieval = exchange.first, exchange.retrieval_seconds
    return {
        "time": datetime.fromtimestamp(exchange.at, UTC).isoformat(timespec="milliseconds"),
        "id": exchange.id,
        "trace": exchange.trace.name if exchange.trace is not None else None,
        "method": exchange.method[:20],
        "path": exchange.path[:200],
        "model": exchange.asked,
        "variant": exchange.variant,
        "pipeline": exchange.pipeline,
        "key": exchange.key,
        "status": exchange.status,
        "error": error_of(exchange),
        "stream": exchange.stream,
        "seconds": round(exchange.seconds, 6),
        "queue_seconds": None if exchange.queue_seconds is None else round(exchange.queue_seconds, 6),
        "retrieval_seconds": None if retrieval is None else round(retrieval, 6),
        "engine_seconds": None if exchange.engine_seconds is None else round(exchange.engine_seconds, 6),
        "first_seconds": round(first, 6) if exchange.stream and first is not None else None,
        "input_tokens": exchange.prompt_tokens,
        "output_tokens": exchange.completion_tokens,
        "passages": None if exchange.sources is None else len(exchange.sources),
    }


def _said(exchange: Exchange | None) -> dict[str, Any]:
    if exchange is None:
        return {}
    answer = exchange.said()
    return {"messages": list(exchange.conversation), "answer": None if answer is None else answer.text}
