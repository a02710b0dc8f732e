"""A key appears in nothing that is written or answered, wherever a client sends it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.gateway.observing.conftest import ObservedEngine, ask, client, observed
from tests.gateway.observing.test_traces import collector

from llmbench.gateway import Access
from llmbench.gateway.keys import KeyStore
from llmbench.gateway.ledger import Ledger
from llmbench.gateway.limit import Open
from llmbench.gateway.observing.metrics import Metrics
from llmbench.gateway.observing.opened import observed as opened
from llmbench.recipe import GatewaySpec

pytestmark = pytest.mark.anyio
OWNER = "owner-key-4f9c2b7e1d"
CHAT = "/v1/chat/completions"


def requests(key: str) -> list[tuple[str, str, dict[str, Any] | bytes, dict[str, str]]]:
    """Method, path, body and headers of requests that carry a key in every place that a client can write in."""
    message = [{"role": "user", "content": f"my key is {key}, keep it"}]
    return [
        ("POST", CHAT, ask(key), {}),
        ("POST", CHAT, ask(f"{'x' * 60}{key}"), {}),
        ("POST", CHAT, ask(user=key), {}),
        ("POST", CHAT, ask("pages", messages=message, user=key), {}),
        ("POST", CHAT, ask(messages=message, stream=True), {}),
        ("POST", CHAT, ask(messages=[{"role": key, "content": key}]), {}),
        ("POST", CHAT, ask() | {key: 1}, {}),
        ("POST", CHAT, ask(temperature=key, stop=[key] * 20), {}),
        ("POST", CHAT, ask(response_format={"type": key}), {}),
        ("POST", CHAT, key.encode(), {}),
        ("POST", "/v1/completions", {"model": key, "prompt": key}, {}),
        ("POST", "/tokenize", {"model": key, "prompt": key}, {}),
        ("POST", f"/v1/{key}", {}, {}),
        ("GET", f"/v1/models/{key}", {}, {}),
        ("GET", f"/{'y' * 60}{key}", {}, {}),
        ("POST", CHAT, ask(), {"content-type": f"application/json; charset={key}"}),
        ("POST", CHAT, ask(), {"content-encoding": key}),
        ("POST", CHAT, ask(), {"host": key}),
        ("POST", CHAT, ask(), {"x-request-id": key, "traceparent": key, "x-session-id": key, "x-api-key": key, "cookie": key}),
    ]


async def test_no_key_is_in_any_log_metric_trace_record_or_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(0)
    caplog.set_level("WARNING", "httpx")  # the client of this test logs the addresses that it asks
    store = KeyStore(tmp_path / "keys.sqlite")
    named = store.new("alice")
    store.close()
    raw: list[bytes] = []
    read: Callable[[bytes], ExportTraceServiceRequest] = ExportTraceServiceRequest.FromString

    def noted(data: bytes) -> ExportTraceServiceRequest:
        raw.append(data)
        return read(data)

    monkeypatch.setattr(ExportTraceServiceRequest, "FromString", noted)
    answers: list[str] = []
    access, open, said = Access(OWNER, frozenset({"127.0.0.1"})), Open(10), list[str]()
    metrics = Metrics(lambda: open.count)
    with collector() as (address, spans), Ledger(tmp_path / "keys.sqlite") as ledger:
        spec = GatewaySpec.model_validate({
            "access_log": {"path": str(tmp_path / "access.jsonl"), "prompts": True},
            "traces": {"endpoint": address, "prompts": True},
            "capture": {"consent": "opt-out", "share": 1.0, "path": str(tmp_path / "capture.sqlite"), "redact": False},
        })  # fmt: skip
        with opened(spec, metrics, hide=access.hide, say=said.append) as observers:
            app = observed(
                ObservedEngine(), access=access, open=open, ledger=ledger, sinks=observers.sinks, metrics=metrics,
                keeps=observers.keeps, traced=observers.traced,
            )  # fmt: skip
            for secret in (OWNER, named):
                for authorization in (secret, "someone-elses-wrong-key"):
                    async with client(app, authorization) as http:
                        for method, path, body, headers in requests(secret):
                            content = body if isinstance(body, bytes) else json.dumps(body).encode()
                            given = {"content-type": "application/json"} | headers
                            answer = await http.request(method, path, content=content, headers=given)
                            answers.append(answer.text if answer.status_code != 200 else "")
            async with client(app, OWNER) as http:
                answers.append((await http.get("/metrics")).text)
    for name in ("access.jsonl", "capture.sqlite"):
        assert (tmp_path / name).stat().st_size > 1000
    assert len(spans) > 20 and any("my key is [key]" in str(span) for span in spans)
    out = capfd.readouterr()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir() if not path.name.startswith("keys."))
    everything = "\n".join(
        [*answers, *said, caplog.text, out.out, out.err, (written + b"".join(raw)).decode("utf-8", "replace")]
    )
    for secret in (OWNER, named.rpartition("-")[2], named[18:]):
        for part in (secret, secret[:12]):
            at = everything.find(part)
            assert at < 0, everything[max(0, at - 200) : at + 80]
