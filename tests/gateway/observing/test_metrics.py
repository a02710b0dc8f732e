"""What /metrics says of each kind of request."""

from __future__ import annotations

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.gateway.observing.conftest import ObservedEngine, ask, client, observed

pytestmark = pytest.mark.anyio
CHAT = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "llmbench",
    "gen_ai_request_model": "plain",
    "gen_ai_response_model": "plain",
    "key": "",
}


def value(text: str, name: str, **labels: str) -> float | None:
    """The sum of a series' samples that have these labels; None where there is none."""
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return sum(found) if found else None


async def counted(engine: ObservedEngine, *bodies: dict[str, object], path: str = "/v1/chat/completions") -> str:
    async with client(observed(engine)) as http:
        for body in bodies:
            await http.post(path, json=body)
        return (await http.get("/metrics")).text


async def test_a_whole_answer_is_counted_in_opentelemetry_s_names() -> None:
    text = await counted(ObservedEngine(), ask())
    assert value(text, "gen_ai_server_request_duration_seconds_count", error_type="", **CHAT) == 1
    assert value(text, "gen_ai_client_token_usage_sum", gen_ai_token_type="input", **CHAT) == 7
    assert value(text, "gen_ai_client_token_usage_sum", gen_ai_token_type="output", **CHAT) == 3
    assert value(text, "llmbench_tokens_total", model="plain", type="output") == 3
    assert value(text, "llmbench_queue_seconds_count", model="plain") == 1
    assert value(text, "gen_ai_server_time_to_first_token_seconds_count", **CHAT) == 0
    assert value(text, "llmbench_passages_total") is None


async def test_a_stream_has_a_first_token_and_a_time_per_token() -> None:
    text = await counted(ObservedEngine(), ask(stream=True, stream_options={"include_usage": True}))
    assert value(text, "gen_ai_server_time_to_first_token_seconds_count", **CHAT) == 1
    assert value(text, "gen_ai_server_time_per_output_token_seconds_count", **CHAT) == 1


async def test_a_stream_that_broke_off_is_an_error_and_has_no_time_per_token() -> None:
    text = await counted(ObservedEngine(broken=True), ask(stream=True))
    assert value(text, "gen_ai_server_request_duration_seconds_count", error_type="incomplete") == 1
    assert value(text, "gen_ai_server_time_per_output_token_seconds_count", **CHAT) == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_passages_citations_and_abstentions_of_an_answer_are_counted(stream: bool) -> None:
    engine = ObservedEngine("It is red [1], or blue [2, 7].")
    async with client(observed(engine)) as http:
        await http.post("/v1/chat/completions", json=ask("pages", stream=stream))
        engine.text = "The colour is not stated in the handbook."
        await http.post("/v1/chat/completions", json=ask("pages", stream=stream))
        text = (await http.get("/metrics")).text
    assert value(text, "llmbench_passages_total", model="pages") == 4
    assert value(text, "llmbench_grounded_answers_total", model="pages") == 2
    assert value(text, "llmbench_abstentions_total", model="pages") == 1
    assert value(text, "llmbench_citations_total", model="pages", valid="true") == 2
    assert value(text, "llmbench_citations_total", model="pages", valid="false") == 1
    assert value(text, "llmbench_retrieval_seconds_count", model="pages") == 2


async def test_an_answer_that_broke_off_is_not_judged() -> None:
    text = await counted(ObservedEngine("It is red [9].", broken=True), ask("pages", stream=True))
    assert value(text, "llmbench_passages_total", model="pages") == 2
    assert value(text, "llmbench_grounded_answers_total") is None


async def test_errors_are_counted_by_kind() -> None:
    text = await counted(ObservedEngine(status=500), ask(), ask("other"), ask(n=0))
    for kind in ("engine_error", "model_not_found", "400"):
        assert value(text, "gen_ai_server_request_duration_seconds_count", error_type=kind) == 1, kind


async def test_nothing_that_a_client_makes_up_becomes_a_label() -> None:
    async with client(observed(ObservedEngine())) as http:
        for i in range(3):
            await http.post("/v1/chat/completions", json=ask(f"made-up-{i}", user=f"made-up-{i}"))
            await http.post(f"/v1/made-up-{i}", json={})
        text = (await http.get("/metrics")).text
    assert "made-up" not in text


async def test_the_engine_s_own_series_follow_and_nothing_else_of_its_process() -> None:
    text = await counted(ObservedEngine(), ask())
    assert value(text, "vllm:num_requests_running", engine="0") == 2
    assert value(text, "vllm:kv_cache_usage_perc") == 0.25
    assert "python_gc" not in text
    assert not any(line.startswith("vllm:") for line in (await counted(ObservedEngine(counts=_slow))).splitlines())


def _slow() -> httpx.Response:
    raise httpx.ReadTimeout("slow")


async def test_metrics_answer_while_the_engine_does_not() -> None:
    text = await counted(ObservedEngine(counts=_slow), ask())
    assert value(text, "llmbench_requests_total", model="plain", status="200") == 1
    assert "vllm:" not in text
