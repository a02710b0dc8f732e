"""Traces, received by a collector that speaks OTLP over HTTP."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.gateway.observing.conftest import ObservedEngine, ask, client, observed

from llmbench.gateway import Access
from llmbench.gateway.observing.spans import Spans
from llmbench.recipe import TracesSpec

pytestmark = pytest.mark.anyio
CHAT = "/v1/chat/completions"
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Span = dict[str, Any]


@contextmanager
def collector() -> Iterator[tuple[str, list[Span]]]:
    """Its address, and the spans that it has received."""
    spans: list[Span] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            for resource in request.resource_spans:
                service = {one.key: one.value.string_value for one in resource.resource.attributes}["service.name"]
                spans.extend(_span(one, service) for scope in resource.scope_spans for one in scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", spans
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _span(one: Any, service: str) -> Span:
    values = {attribute.key: getattr(attribute.value, attribute.value.WhichOneof("value")) for attribute in one.attributes}
    return {
        "name": one.name, "service": service, "kind": one.kind, "failed": one.status.code == 2, "attributes": values,
        "trace": one.trace_id.hex(), "id": one.span_id.hex(), "parent": one.parent_span_id.hex(),
        "start": one.start_time_unix_nano, "end": one.end_time_unix_nano,
    }  # fmt: skip


async def traced(
    engine: ObservedEngine, *bodies: dict[str, Any], prompts: bool = False, share: float = 1.0, **headers: str
) -> tuple[list[Any], list[Span]]:
    """The answers, and the spans that a collector has in the end."""
    with collector() as (address, received):
        spec = TracesSpec(endpoint=address, prompts=prompts, share=share)
        with Spans(spec, Access().hide, pytest.fail) as spans:
            async with client(observed(engine, sinks=[spans], traced=share, keeps=prompts)) as http:
                answers = [await http.post(CHAT, json=body, headers=headers) for body in bodies]
    return answers, received


async def test_a_request_has_spans_of_itself_its_retrieval_and_the_engine_within_its_callers_trace() -> None:
    engine = ObservedEngine()
    (answer,), spans = await traced(engine, ask("pages", stream=True), traceparent=CALLER)
    request, retrieval, asked = spans
    assert [span["name"] for span in spans] == ["chat pages", "retrieval pages", "chat pages"]
    assert {span["trace"] for span in spans} == {"0af7651916cd43dd8448eb211c80319c"} == {answer.headers["x-trace-id"]}
    assert request["parent"] == "b7ad6b7169203331" and retrieval["parent"] == asked["parent"] == request["id"]
    assert len({span["id"] for span in spans}) == 3 and all(span["service"] == "llmbench" for span in spans)
    assert request["start"] <= retrieval["start"] <= retrieval["end"] <= asked["start"] <= asked["end"] <= request["end"]
    assert request["attributes"].items() >= {
        "gen_ai.operation.name": "chat", "gen_ai.request.model": "pages", "gen_ai.response.model": "pages",
        "http.response.status_code": 200, "llmbench.request.id": answer.headers["x-request-id"],
    }.items()  # fmt: skip
    assert retrieval["attributes"].items() >= {"gen_ai.data_source.id": "pages", "llmbench.passages": 2}.items()
    assert asked["attributes"]["gen_ai.provider.name"] == "vllm"
    assert engine.headers[-1]["traceparent"] == f"00-{request['trace']}-{asked['id']}-01"


async def test_nothing_that_was_said_is_in_a_span_unless_the_document_asks_for_it() -> None:
    for prompts in (False, True):
        _, spans = await traced(ObservedEngine(), ask("pages"), prompts=prompts)
        text = json.dumps(spans)
        assert ("What colour" in text, "lamp is red" in text) == (prompts, prompts)
    said = json.loads(spans[0]["attributes"]["gen_ai.output.messages"])
    part = {"type": "text", "content": "The lamp is red [1]."}
    assert said == [{"role": "assistant", "parts": [part], "finish_reason": "stop"}]
    assert spans[1]["attributes"]["gen_ai.retrieval.query.text"] == "What colour is the lamp?"


async def test_errors_are_named_and_the_server_s_own_mark_the_span() -> None:
    _, (request, _) = await traced(ObservedEngine(status=500), ask())
    assert request["failed"] and request["attributes"]["error.type"] == "engine_error"
    _, (request,) = await traced(ObservedEngine(), ask("other"))
    assert not request["failed"] and request["attributes"]["error.type"] == "model_not_found"
    assert request["name"] == "chat"


@pytest.mark.parametrize(
    "given",
    [
        "",
        "00-0-1-01",
        CALLER.upper(),
        f"ff{CALLER[2:]}",
        f"{CALLER}-more",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"{CALLER[:36]}{'0' * 16}-01",
    ],
)
async def test_a_header_that_is_none_begins_a_new_trace(given: str) -> None:
    (answer,), (request, _) = await traced(ObservedEngine(), ask(), traceparent=given)
    assert request["parent"] == "" and request["trace"] == answer.headers["x-trace-id"] != CALLER[3:35]


async def test_a_caller_decides_whether_its_trace_is_sampled_and_the_share_the_others() -> None:
    engine = ObservedEngine()
    _, spans = await traced(engine, ask(), traceparent=f"{CALLER[:-2]}00")
    assert spans == [] and engine.headers[-1]["traceparent"].endswith("-00")
    assert (await traced(engine, ask(), share=0.0))[1] == []
    assert len((await traced(engine, ask(), share=0.0, traceparent=CALLER))[1]) == 2


async def test_without_traces_no_header_comes_or_goes_and_the_engine_gets_none_of_a_client_s() -> None:
    engine = ObservedEngine()
    async with client(observed(engine)) as http:
        answer = await http.post(
            CHAT, json=ask(), headers={"traceparent": CALLER, "X-Vllm-Priority": "-9", "tracestate": "a=b"}
        )
    assert "x-trace-id" not in answer.headers
    others: dict[str, Any] = {"x-vllm-priority": "-9", "tracestate": "a=b", "x-session-id": "s"}
    await traced(engine, ask(), **others)
    for headers in engine.headers:
        assert not {"x-vllm-priority", "tracestate", "x-session-id", "authorization"} & headers.keys()
    assert ["traceparent" in headers for headers in engine.headers] == [False, True]


async def test_a_collector_that_is_not_there_is_said_once_and_requests_are_answered() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        said: list[str] = []
        with Spans(TracesSpec(endpoint=address), Access().hide, said.append) as spans:
            async with client(observed(ObservedEngine(), sinks=[spans], traced=1.0)) as http:
                assert [(await http.post(CHAT, json=ask())).status_code for _ in range(3)] == [200] * 3
        spans.backlog.close(20)
    assert spans.backlog.dropped == 3
    assert len(said) == 1 and f"no collector takes them at {address}" in said[0]
