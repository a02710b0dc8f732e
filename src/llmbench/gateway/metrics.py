"""Counts of each variant for Prometheus: vLLM's own figures name the base alone, whichever adapter was asked."""

from __future__ import annotations

from typing import Any

__all__ = ["Metrics"]

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
"""Upper bounds of the histogram's buckets."""


class Metrics:
    """Requests by variant and status, tokens, and the seconds until the last byte of an answer."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = CollectorRegistry()
        self.running = Gauge("llmbench_requests_running", "Requests that are being answered.", registry=self._registry)
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

    def answered(self, model: str, key: str, status: int, seconds: float) -> None:
        """Counts one request. `model` is a variant, or empty where none was named; so is `key`, the name of a key."""
        self._requests.labels(model, key, str(status)).inc()
        self._seconds.labels(model).observe(seconds)

    def used(self, model: str, key: str, usage: Any) -> None:
        """Counts the tokens that an answer's `usage` names, if it has one."""
        if isinstance(usage, dict):
            for kind, field in (("input", "prompt_tokens"), ("output", "completion_tokens")):
                count = usage.get(field)
                if type(count) is int and count > 0:
                    self._tokens.labels(model, key, kind).inc(count)

    def text(self) -> bytes:
        """Everything so far, in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)
