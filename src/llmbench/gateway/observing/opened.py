"""What the serving document asks to be written about requests, open while the server runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from llmbench.gateway.exchange import Sink
from llmbench.gateway.feedback import FeedbackSink
from llmbench.gateway.observing.access_log import AccessLog
from llmbench.gateway.observing.capture import Capture
from llmbench.gateway.observing.metrics import Metrics
from llmbench.gateway.observing.spans import Spans
from llmbench.recipe import GatewaySpec

__all__ = ["Observers", "observed"]


@dataclass(frozen=True)
class Observers:
    """Who is told of each request; `keeps`: whether one of them reads what was answered."""

    sinks: Sequence[Sink]
    keeps: bool
    feedback: Sequence[FeedbackSink] = ()
    """Who is told of votes and scores."""
    traced: float | None = None
    """The share of requests without a trace of their own that are traced; None: no request is."""


@contextmanager
def observed(
    spec: GatewaySpec, metrics: Metrics, *, hide: Callable[[str], str], say: Callable[[str], None]
) -> Iterator[Observers]:
    """The observers of the gateway's section until the block ends; what they have not written then is written.

    Args:
        spec: the section.
        metrics: counts what they lose.
        hide: takes keys out of a text.
        say: called with a line when one of them cannot write.

    Raises:
        LlmbenchError: a file cannot be written.
    """
    sinks: list[Sink] = []
    feedback: list[FeedbackSink] = [metrics.tell_feedback]
    keeps = False
    with ExitStack() as stack:
        if spec.access_log is not None:
            log = AccessLog(spec.access_log, hide, say)
            stack.enter_context(log.backlog)
            metrics.lost("access_log", lambda: log.backlog.dropped)
            sinks.append(log)
            keeps = spec.access_log.prompts
        if spec.traces is not None:
            spans = stack.enter_context(Spans(spec.traces, hide, say))
            metrics.lost("traces", lambda: spans.backlog.dropped)
            sinks.append(spans)
            keeps = keeps or spec.traces.prompts
        if spec.capture is not None:
            capture = stack.enter_context(Capture(spec.capture, hide, say))
            metrics.lost("capture", lambda: capture.backlog.dropped)
            sinks.append(capture)
            feedback.append(capture.told_feedback)
            keeps = True
        yield Observers(sinks, keeps, feedback, spec.traces.share if spec.traces is not None else None)
