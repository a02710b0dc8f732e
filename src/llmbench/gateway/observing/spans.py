"""Spans of each request, in OpenTelemetry's terms for generative AI, sent to a collector as OTLP over HTTP by a thread.

They are made after the last byte from the times that were noted: a request that is traced waits for nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llmbench.errors import MissingPackage
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.observing.backlog import Backlog
from llmbench.gateway.observing.metrics import OPERATIONS, error_of
from llmbench.gateway.observing.trace import Trace
from llmbench.message import text_of
from llmbench.recipe import TracesSpec

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = ["Spans"]

_TIMEOUT = 5.0
"""Seconds that a collector may take for a batch, all tries together."""
_CLOSING = 2.0
_MOST = 2048
_NANO = 1_000_000_000
_LOGGER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
Attributes = Mapping[str, Any]


class Spans:
    """A sink that sends the spans of each request that is sampled: the request, its retrieval, and what the engine was asked.

    Args:
        spec: which collector, and whether spans hold what was said.
        hide: takes keys out of a text.
        say: called with a line when the collector takes nothing.

    Raises:
        MissingPackage: OpenTelemetry is not installed.
    """

    def __init__(self, spec: TracesSpec, hide: Callable[[str], str], say: Callable[[str], None]) -> None:
        self._spec, self._hide = spec, hide
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError as error:
            raise MissingPackage("serve", "opentelemetry-exporter-otlp-proto-http", "traces") from error
        logging.getLogger(_LOGGER).setLevel(logging.CRITICAL)  # it tells of every batch; once is enough, and is said below
        self._exporter: SpanExporter = OTLPSpanExporter(_traces_url(spec.endpoint), timeout=_TIMEOUT)
        self._where = spec.endpoint or "OTEL_EXPORTER_OTLP_ENDPOINT, or http://localhost:4318 without it"
        self._maker = _Maker()
        self.backlog = Backlog[Exchange]("traces", self._write, say, most=_MOST)

    def __call__(self, exchange: Exchange) -> None:
        """Takes one request."""
        if exchange.trace is not None and exchange.trace.sampled:
            self.backlog.put(exchange, exchange.size())

    def __enter__(self) -> Spans:
        return self

    def __exit__(self, *_: object) -> None:
        self.backlog.close(_CLOSING)
        self._exporter.shutdown()

    def _write(self, exchanges: list[Exchange]) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult

        for exchange in exchanges:
            assert exchange.trace is not None
            for name, kind, span, parent, times, attributes in self._of(exchange, exchange.trace):
                hidden = {
                    key: self._hide(value) if isinstance(value, str) else value
                    for key, value in attributes.items()
                    if value is not None
                }
                failed = exchange.status >= 500 or exchange.broken
                self._maker.make(name, kind, (exchange.trace.id, span, parent), times, hidden, failed=failed)
        spans = self._maker.taken()
        if spans and self._exporter.export(spans) is not SpanExportResult.SUCCESS:
            raise ConnectionError(f"no collector takes them at {self._where}")

    def _of(self, exchange: Exchange, trace: Trace) -> Iterator[tuple[str, str, int, int | None, tuple[int, int], Attributes]]:
        """Name, kind, number, parent, start and end in nanoseconds since 1970, and attributes of each span."""
        operation = OPERATIONS.get(exchange.path, "other")
        end = exchange.seconds
        spoken = self._spoken(exchange) if self._spec.prompts else {}
        yield (
            f"{operation} {exchange.asked}".strip(), "SERVER", trace.span, trace.parent, _times(exchange, 0.0, end),
            _request(exchange, operation) | spoken,
        )  # fmt: skip
        if exchange.retrieval_at is not None and exchange.retrieval_seconds is not None:
            until = exchange.retrieval_at + exchange.retrieval_seconds
            found = {
                "gen_ai.operation.name": "retrieval",
                "gen_ai.provider.name": "llmbench",
                "gen_ai.data_source.id": exchange.pipeline,
                "llmbench.passages": len(exchange.sources or ()),
            }
            number = trace.span ^ trace.engine or 1
            said = self._searched(exchange) if self._spec.prompts else {}
            times = _times(exchange, exchange.retrieval_at, until)
            yield f"retrieval {exchange.pipeline}", "INTERNAL", number, trace.span, times, found | said
        if exchange.engine_at is not None:
            until = end if exchange.stream or exchange.engine_seconds is None else exchange.engine_at + exchange.engine_seconds
            asked = {
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "vllm",
                "gen_ai.request.model": exchange.variant,
                "gen_ai.usage.input_tokens": exchange.prompt_tokens,
                "gen_ai.usage.output_tokens": exchange.completion_tokens,
            }
            times = _times(exchange, exchange.engine_at, until)
            yield f"{operation} {exchange.variant}", "CLIENT", trace.engine, trace.span, times, asked

    def _spoken(self, exchange: Exchange) -> dict[str, Any]:
        """What was asked and answered, in the form of OpenTelemetry's messages."""
        asked = [_message(message["role"], text_of(message)) for message in exchange.conversation]
        found: dict[str, Any] = {"gen_ai.input.messages": json.dumps(asked, ensure_ascii=False)}
        if (answer := exchange.said()) is not None:
            told = _message("assistant", answer.text) | {"finish_reason": answer.finish_reason}
            found["gen_ai.output.messages"] = json.dumps([told], ensure_ascii=False)
        return found

    def _searched(self, exchange: Exchange) -> dict[str, Any]:
        question = next((text_of(one) for one in reversed(exchange.conversation) if one["role"] == "user"), None)
        documents = [{"id": str(one.get("source")), "score": one.get("score")} for one in exchange.sources or ()]
        return {
            "gen_ai.retrieval.query.text": question,
            "gen_ai.retrieval.documents": json.dumps(documents, ensure_ascii=False),
        }


class _Maker:
    """Makes spans that have ended, with numbers that were given before."""

    def __init__(self) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
        from opentelemetry.sdk.trace.id_generator import IdGenerator
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        made: list[ReadableSpan] = []
        numbers = [0, 0]

        class _Given(IdGenerator):
            def generate_trace_id(self) -> int:
                return numbers[0]

            def generate_span_id(self) -> int:
                return numbers[1]

        class _Kept(SpanProcessor):
            def on_end(self, span: ReadableSpan) -> None:
                made.append(span)

        resource = Resource.create()  # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES
        if str(resource.attributes.get("service.name")).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "llmbench"}))
        provider: TracerProvider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False, id_generator=_Given()
        )
        provider.add_span_processor(_Kept())
        self._made, self._numbers = made, numbers
        self._tracer = provider.get_tracer("llmbench.gateway")

    def make(
        self, name: str, kind: str, ids: tuple[int, int, int | None], times: tuple[int, int], given: Attributes, *, failed: bool
    ) -> None:
        """One span; `ids` are those of its trace, of itself and of its parent."""
        from opentelemetry import trace
        from opentelemetry.context import Context

        self._numbers[:] = ids[:2]
        context = Context()
        if ids[2] is not None:
            above = trace.SpanContext(ids[0], ids[2], is_remote=kind == "SERVER", trace_flags=trace.TraceFlags(1))
            context = trace.set_span_in_context(trace.NonRecordingSpan(above), context)
        span = self._tracer.start_span(name, context, trace.SpanKind[kind], dict(given), start_time=times[0])
        if failed:
            span.set_status(trace.StatusCode.ERROR)
        span.end(times[1])

    def taken(self) -> Sequence[ReadableSpan]:
        """Those made so far, which are then forgotten."""
        found, self._made[:] = list(self._made), []
        return found


def _request(exchange: Exchange, operation: str) -> dict[str, Any]:
    first = exchange.first if exchange.stream else None
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "llmbench",
        "gen_ai.request.model": exchange.asked or None,
        "gen_ai.response.model": exchange.model or None,
        "gen_ai.usage.input_tokens": exchange.prompt_tokens,
        "gen_ai.usage.output_tokens": exchange.completion_tokens,
        "http.request.method": "POST",
        "http.route": exchange.path if exchange.path in OPERATIONS else None,
        "http.response.status_code": exchange.status,
        "error.type": error_of(exchange),
        "llmbench.request.id": exchange.id,
        "llmbench.key": exchange.key or None,
        "llmbench.time_to_first_token": first,
    }


def _message(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}


def _times(exchange: Exchange, start: float, end: float) -> tuple[int, int]:
    return int((exchange.at + start) * _NANO), int((exchange.at + end) * _NANO)


def _traces_url(endpoint: str | None) -> str | None:
    """The address for spans at a collector that is named without a path; None where the environment names it."""
    if endpoint is None or urlsplit(endpoint).path not in ("", "/"):
        return endpoint
    return f"{endpoint.rstrip('/')}/v1/traces"
