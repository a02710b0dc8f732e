"""What it costs to see what the gateway does: processor time that each observer adds to a request.

    python benchmarks/gateway_observing.py [--requests 5000] [--rounds 5]

A request that was answered is told to one observer at a time, as the gateway tells it after the last byte. Processor time is
that of all threads, until what was told is written; the collector of the traces is another process, which reads and forgets.
Each figure is the lowest and the highest of the rounds, in milliseconds a request.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from llmbench.gateway.exchange import Exchange, Sink
from llmbench.gateway.guard import Access
from llmbench.gateway.observing.backlog import Backlog
from llmbench.gateway.observing.metrics import Metrics
from llmbench.gateway.observing.opened import observed
from llmbench.gateway.observing.trace import Trace
from llmbench.recipe import GatewaySpec

PIECES = 32
SOURCES = [{"n": n, "source": f"page-{n}.md", "text": "The lamp above the door is red. " * 20} for n in range(1, 5)]
COLLECTOR = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"])); self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True); server.serve_forever()
"""


def exchange(*, stream: bool, grounded: bool) -> Exchange:
    """A request that was answered in 60 tokens."""
    one = Exchange(
        "/v1/chat/completions", "r", "alice", Trace(2**100 + 1, 3, 5, None, True), asked="m", variant="m", status=200
    )
    one.conversation = [{"role": "user", "content": "What colour is the lamp above the door? " * 5}]
    one.stream, one.engine_at, one.engine_seconds, one.first, one.seconds = stream, 0.002, 0.05, 0.06, 1.2
    one.prompt_tokens, one.completion_tokens = 400, 60
    if grounded:
        one.sources, one.pipeline, one.retrieval_at, one.retrieval_seconds = SOURCES, "pages", 0.001, 0.02
    one.body = [_whole()] if not stream else [*(_piece(n) for n in range(PIECES)), b"data: [DONE]\n\n"]
    return one


def _whole() -> bytes:
    message = {"role": "assistant", "content": "The lamp is red [1]. " * 10}
    return json.dumps({"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()


def _piece(number: int) -> bytes:
    choice = {"index": 0, "delta": {"content": " red [1]"}, "logprobs": None, "finish_reason": "stop" if number > 30 else None}
    event = {"id": "chatcmpl-1234", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def main() -> None:
    """Prints a row for each observer."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--requests", type=int, default=5000)
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    columns = ["", "whole answer", "whole, with passages", "stream of 32", "stream of 32, with passages"]
    print(f"| {' | '.join(columns)} |\n| {' | '.join(['---'] * len(columns))} |")
    kinds = [exchange(stream=stream, grounded=grounded) for stream in (False, True) for grounded in (False, True)]
    with collector() as address, tempfile.TemporaryDirectory() as folder:
        capture = {"consent": "opt-out", "path": f"{folder}/capture.sqlite"}
        rows: dict[str, dict[str, Any]] = {
            "metrics": {},
            "access log": {"access_log": f"{folder}/access.jsonl"},
            "access log with prompts": {"access_log": {"path": f"{folder}/prompts.jsonl", "prompts": True}},
            "traces, all sampled": {"traces": address},
            "traces, one in twenty": {"traces": {"endpoint": address, "share": 0.05}},
            "capture, one in ten": {"capture": capture},
            "capture, all": {"capture": capture | {"share": 1.0}},
        }
        for name, spec in rows.items():
            cells = []
            for kind in kinds:
                _measured(spec, kind, 50, name)  # imports and caches
                found = [_measured(spec, kind, options.requests, name) for _ in range(options.rounds)]
                cells.append(f"{min(found):.3f} to {max(found):.3f}")
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _measured(spec: dict[str, Any], kind: Exchange, count: int, name: str) -> float:
    """Milliseconds of processor time for each request."""
    metrics = Metrics(lambda: 0)
    sampled = 0.05 if "twenty" in name else 1.0
    told = [
        replace(
            kind, id=f"r-{n}", user=f"user {n}", body=list(kind.body),
            trace=Trace(2**100 + n, 3 + n, 5, None, n % 100 < 100 * sampled),
        )
        for n in range(count)
    ]  # fmt: skip
    options: dict[str, Any] = {"hide": Access("a-key-of-the-owner").hide, "say": print}
    with observed(GatewaySpec.model_validate(spec), metrics, **options) as observers:
        sinks: list[Sink] = list(observers.sinks) or [metrics.tell]
        begun = time.process_time()
        for number, one in enumerate(told):
            for sink in sinks:
                sink(one)
            if number % 500 == 499:
                _wait(sinks)
        _wait(sinks)
        spent = time.process_time() - begun
    lost = sum(_of(sink, lambda backlog: backlog.dropped) for sink in sinks)
    assert lost == 0, f"{name} lost {lost}"
    return 1000 * spent / count


def _wait(sinks: list[Sink]) -> None:
    """Until everything is written."""
    while any(_of(sink, lambda backlog: len(backlog._waiting)) for sink in sinks):
        time.sleep(0.05)


def _of(sink: Sink, ask: Callable[[Backlog[Any]], int]) -> int:
    backlog = getattr(sink, "backlog", None)
    return 0 if backlog is None else ask(backlog)


@contextmanager
def collector() -> Iterator[str]:
    """The address of a collector that forgets, in another process."""
    process = subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    main()
