"""Counts of each variant for Prometheus, under OpenTelemetry's names: vLLM's own name only the base, whatever was asked.

Labels are names of variants, routes and keys, and words of this program: nothing that a client sends becomes one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmbench.gateway.exchange import Exchange
from llmbench.gateway.feedback import Feedback
from llmbench.gateway.observing.answer_check import check_answer

if TYPE_CHECKING:
    from prometheus_client import Counter, Histogram
    from prometheus_client.core import CounterMetricFamily, Metric

    from llmbench.gateway.balancing import Backend
    from llmbench.gateway.relay import Upstream

__all__ = ["OPERATIONS", "Metrics", "error_of"]

OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/rerank": "rerank",
    "/v1/rerank": "rerank",
    "/v2/rerank": "rerank",
    "/v1/search": "retrieval",
    "/tokenize": "tokenize",
    "/detokenize": "detokenize",
}
"""What each path does, in OpenTelemetry's words where it has one (`gen_ai.operation.name`)."""
_DURATION = tuple(0.01 * 2**n for n in range(14))
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_EACH = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = tuple(float(4**n) for n in range(14))
"""Upper bounds that OpenTelemetry recommends, in seconds and tokens."""
_WAIT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_VOTED = ("chat", "text_completion")
"""What can be voted on."""
_SCORES = tuple(n / 10 for n in range(11))
_ENGINE = b"vllm:"


@dataclass(frozen=True, slots=True)
class _Series:
    """Where the requests of one kind are counted; looked up once, as a lookup costs as much as all that is then counted."""

    requests: Counter
    seconds: Histogram
    first: Histogram
    each: Histogram
    input: Histogram
    output: Histogram
    input_total: Counter
    output_total: Counter
    queue: Histogram


class Metrics:
    """Everything that /metrics says.

    Args:
        running: how many requests are being answered.
    """

    def __init__(self, running: Callable[[], int]) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = CollectorRegistry()
        self._known: dict[tuple[Any, ...], _Series] = {}
        self._lost: dict[str, Callable[[], int]] = {}

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(name, help, labels, registry=self._registry)

        def histogram(name: str, help: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, help, labels, buckets=buckets, registry=self._registry)

        shared = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model", "key")
        Gauge("llmbench_requests_running", "Requests that are being answered.", registry=self._registry).set_function(running)
        self._requests = counter(
            "llmbench_requests", "Requests answered, by model, name of the key and HTTP status.", "model", "key", "status"
        )
        self._tokens = counter(
            "llmbench_tokens",
            "Tokens of answers that name them: streams do so for named keys, and with stream_options.include_usage.",
            "model", "key", "type",
        )  # fmt: skip
        self._seconds = histogram(
            "gen_ai_server_request_duration_seconds",
            "From a request's head to the last byte of its answer.",
            _DURATION, *shared, "error_type",
        )  # fmt: skip
        self._first = histogram(
            "gen_ai_server_time_to_first_token_seconds", "To the first piece of a streamed answer.", _FIRST, *shared
        )
        self._each = histogram(
            "gen_ai_server_time_per_output_token_seconds", "Per token after the first, of streamed answers.", _EACH, *shared
        )
        self._usage = histogram("gen_ai_client_token_usage", "Tokens per request.", _TOKENS, *shared, "gen_ai_token_type")
        self._queue = histogram(
            "llmbench_queue_seconds",
            "Waiting for a place at the engine.",
            _WAIT, "model", "key",
        )  # fmt: skip
        self._retrieval = histogram("llmbench_retrieval_seconds", "Searching documents for a request.", _WAIT, "model", "key")
        self._passages = counter("llmbench_passages", "Passages put before questions.", "model", "key")
        self._judged = counter("llmbench_grounded_answers", "Complete answers with passages.", "model", "key")
        self._abstentions = counter(
            "llmbench_abstentions", "Complete answers that say their passages do not answer.", "model", "key"
        )
        self._citations = counter(
            "llmbench_citations",
            "Citations in complete answers; valid=false: no such passage was given.",
            "model",
            "key",
            "valid",
        )
        self._votes = counter("llmbench_votes", "Answers that were voted on; the first vote counts.", "model", "key", "vote")
        self._scores = histogram("llmbench_judge_score", "Scores of answers by a judge, 0 to 1.", _SCORES, "model", "key")
        self._registry.register(_Lost(self._lost))
        self._shadowed = _Shadowed()
        self._registry.register(self._shadowed)

    def lost(self, what: str, count: Callable[[], int]) -> None:
        """Counts what a log could not keep, such as `access_log`, from now on."""
        self._lost[what] = count

    def engines(self, backends: Callable[[], Collection[Backend]]) -> None:
        """Counts what the engines that run elsewhere now are given, from now on."""
        self._registry.register(_Engines(backends))

    def shadowed(self, listing: Callable[[], list[dict[str, Any]]]) -> None:
        """Counts what became of the questions for shadows, as `Shadows.listing` tells it, from now on."""
        self._shadowed.listing = listing

    def tell(self, exchange: Exchange) -> None:
        """Counts one question, under its variant or pipeline and the name of its key; both are empty where none was named."""
        if exchange.method != "POST":  # looking at /health or at the models asks nobody
            return
        kind = (exchange.path, exchange.asked, exchange.model, exchange.key, exchange.status, exchange.error, exchange.broken)
        series = self._known.get(kind) if exchange.path in OPERATIONS else None
        if series is None:
            if exchange.path not in OPERATIONS:
                self._requests.labels(exchange.model, exchange.key, str(exchange.status)).inc()
                return
            series = self._known[kind] = self._series(exchange)
        series.requests.inc()
        series.seconds.observe(exchange.seconds)
        if exchange.prompt_tokens:
            series.input.observe(exchange.prompt_tokens)
            series.input_total.inc(exchange.prompt_tokens)
        if exchange.completion_tokens:
            series.output.observe(exchange.completion_tokens)
            series.output_total.inc(exchange.completion_tokens)
        if exchange.queue_seconds is not None:
            series.queue.observe(exchange.queue_seconds)
        if exchange.stream and exchange.first is not None and exchange.status == 200:
            series.first.observe(exchange.first)
            if (count := exchange.completion_tokens or 0) > 1 and not exchange.broken:
                series.each.observe((exchange.seconds - exchange.first) / (count - 1))
        if exchange.sources is not None:
            self._tell_grounded(exchange)

    def tell_feedback(self, feedback: Feedback) -> None:
        """Counts a vote or a score, under the variant and the key of its request; one that replaces another is not counted."""
        if feedback.repeated:
            return
        own = (feedback.request.variant, feedback.request.key)
        if feedback.metric == "vote":
            self._votes.labels(*own, "up" if feedback.value else "down").inc()
        else:
            self._scores.labels(*own).observe(feedback.value)

    def text(self) -> bytes:
        """Everything so far, in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)

    async def with_engine(self, upstream: Upstream) -> bytes:
        """As `text`, with the engine's own series after it where it answers soon enough."""
        import anyio

        engine = await upstream.metrics()
        return await anyio.to_thread.run_sync(lambda: self.text() + of_engine(engine))

    def _series(self, exchange: Exchange) -> _Series:
        shared = (OPERATIONS[exchange.path], "llmbench", exchange.asked, exchange.model, exchange.key)
        own = (exchange.model, exchange.key)
        if OPERATIONS[exchange.path] in _VOTED and exchange.model and exchange.status == 200:
            for vote in ("up", "down"):  # from zero on: Prometheus sees no increase in the first value of a series
                self._votes.labels(*own, vote)
        return _Series(
            self._requests.labels(*own, str(exchange.status)),
            self._seconds.labels(*shared, error_of(exchange) or ""),
            self._first.labels(*shared),
            self._each.labels(*shared),
            self._usage.labels(*shared, "input"),
            self._usage.labels(*shared, "output"),
            self._tokens.labels(*own, "input"),
            self._tokens.labels(*own, "output"),
            self._queue.labels(*own),
        )

    def _tell_grounded(self, exchange: Exchange) -> None:
        own = (exchange.model, exchange.key)
        if exchange.retrieval_seconds is not None:
            self._retrieval.labels(*own).observe(exchange.retrieval_seconds)
        self._passages.labels(*own).inc(len(exchange.sources or ()))
        if (found := check_answer(exchange)) is not None:
            self._judged.labels(*own).inc()
            self._abstentions.labels(*own).inc(found.abstains)
            self._citations.labels(*own, "true").inc(found.valid)
            self._citations.labels(*own, "false").inc(found.invalid)


class _Lost:
    """What logs could not keep, as a series each."""

    def __init__(self, counts: dict[str, Callable[[], int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterable[CounterMetricFamily]:
        from prometheus_client.core import CounterMetricFamily

        help = "Requests that a log could not keep: its queue was full, or writing failed."
        family = CounterMetricFamily("llmbench_records_dropped", help, labels=["log"])
        for name, count in self._counts.items():
            family.add_metric([name], count())
        yield family


class _Engines:
    """Engines that run elsewhere: whether each is given requests, how many it is computing, and how the others ended."""

    def __init__(self, backends: Callable[[], Collection[Backend]]) -> None:
        self._backends = backends

    def collect(self) -> Iterable[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        up = GaugeMetricFamily("llmbench_engine_up", "Whether an engine is given requests.", labels=["engine_url"])
        running = GaugeMetricFamily("llmbench_engine_requests_running", "Answers it is computing.", labels=["engine_url"])
        ended = CounterMetricFamily(
            "llmbench_engine_requests",
            "Requests of an engine: answered, refused (4xx), failed (5xx), unreachable (no answer came), broken (it ended too "
            "early), cancelled (nobody waited any longer).",
            labels=["engine_url", "outcome"],
        )
        for backend in self._backends():
            up.add_metric([backend.name], backend.healthy)
            running.add_metric([backend.name], backend.running)
            for outcome, count in list(backend.outcomes.items()):
                ended.add_metric([backend.name, outcome], count)
        yield from (up, running, ended)


class _Shadowed:
    """What became of the questions for shadows, as a series each."""

    listing: Callable[[], list[dict[str, Any]]] = list

    def collect(self) -> Iterable[CounterMetricFamily]:
        from prometheus_client.core import CounterMetricFamily

        help = "Questions for shadows of routes, by outcome: busy and full were not asked."
        family = CounterMetricFamily("llmbench_shadow_requests", help, labels=["route", "model", "outcome"])
        for row in self.listing():
            route, model = row["route"], row["variant"]
            for outcome in sorted(row.keys() - {"route", "variant"}):
                family.add_metric([route, model, outcome], row[outcome])
        yield family


def error_of(exchange: Exchange) -> str | None:
    """Why a request failed, in one word: its error's code, else its status, `incomplete` for an answer that broke off."""
    if exchange.error is not None:
        return exchange.error
    if exchange.status >= 400:
        return str(exchange.status)
    return "incomplete" if exchange.broken else None


def of_engine(text: bytes) -> bytes:
    """vLLM's own series out of its /metrics, as they are; what else its process counts stays there."""
    starts = (_ENGINE, b"# HELP " + _ENGINE, b"# TYPE " + _ENGINE)
    return b"".join(line for line in text.splitlines(keepends=True) if line.startswith(starts))
