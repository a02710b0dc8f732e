"""Counts of each variant for Prometheus: vLLM's own figures name the base alone, whichever adapter was asked."""

from __future__ import annotations

from collections.abc import Callable

from llmbench.gateway.exchange import Exchange

__all__ = ["Metrics"]

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""Upper bounds of the histogram's buckets."""


class Metrics:
    """Requests by variant and status, tokens, and the seconds until the last byte of an answer.

    Args:
        running: how many requests are being answered.
    """

    def __init__(self, running: Callable[[], int]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = CollectorRegistry()
        gauge = Gauge("llmbench_requests_running", "Requests that are being answered.", registry=self._registry)
        gauge.set_function(running)
        self._requests = Counter(
            "llmbench_requests",
            "Requests answered, by model, name of the key and HTTP status.",
            ["model", "key", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "llmbench_request_seconds",
            "Seconds from a request's head to the last byte of its answer.",
            ["model"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._tokens = Counter(
            "llmbench_tokens",
            "Tokens of answers that name them: streams do so for named keys, and with stream_options.include_usage.",
            ["model", "key", "type"],
            registry=self._registry,
        )

    def tell(self, exchange: Exchange) -> None:
        """Counts one request, under its variant and the name of its key; both are empty where none was named."""
        self._requests.labels(exchange.variant, exchange.key, str(exchange.status)).inc()
        self._seconds.labels(exchange.variant).observe(exchange.seconds)
        for kind, count in (("input", exchange.prompt_tokens), ("output", exchange.completion_tokens)):
            if count:
                self._tokens.labels(exchange.variant, exchange.key, kind).inc(count)

    def text(self) -> bytes:
        """Everything so far, in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)
