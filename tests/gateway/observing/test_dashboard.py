"""The dashboard for Grafana: it can be imported, and asks for nothing that the server does not count."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.gateway.observing.conftest import ObservedEngine, ask, client, observed

from llmbench.engine import Address
from llmbench.gateway.balancing import Backend
from llmbench.gateway.feedback import Feedbacks
from llmbench.gateway.observing.metrics import Metrics

pytestmark = pytest.mark.anyio
DASHBOARD: dict[str, Any] = json.loads(
    (Path(__file__).parents[3] / "docs" / "dashboards" / "llmbench.json").read_text(encoding="utf-8")
)
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]] + [
    one["query"]["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"
]
SERIES = re.compile(r"\b(?:gen_ai_(?:server|client)|llmbench|vllm:)\w*(?:\{([^}]*)\})?")
LABEL = re.compile(r"(\w+)(?:=~|!=|=)")


async def counted() -> dict[str, set[str]]:
    """The labels of every series, after requests of each kind."""
    engine, metrics = ObservedEngine("It is red [1], or blue [7]."), Metrics(lambda: 0)
    metrics.lost("access_log", lambda: 0)
    metrics.shadowed(lambda: [{"route": "support", "variant": "plain", "answered": 1}])
    backend = Backend(Address("10.0.0.2", 8001))
    backend.outcomes["failed"] = 1
    metrics.engines(lambda: [backend])
    feedbacks = Feedbacks([metrics.tell_feedback])
    async with client(observed(engine, metrics=metrics, feedbacks=feedbacks)) as http:
        usage: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
        for body in (ask(), ask(**usage), ask("pages"), ask("pages", **usage), ask("other")):
            id = (await http.post("/v1/chat/completions", json=body)).headers["x-request-id"]
            for fields in ({"value": True}, {"metric": "judge", "value": 0.5}):
                await http.post("/v1/feedback", json={"request_id": id} | fields)
        text = (await http.get("/metrics")).text
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


async def test_every_query_asks_for_series_and_labels_that_exist() -> None:
    known = await counted()
    asked = 0
    for query in QUERIES:
        for match in SERIES.finditer(query):
            name = match[0].partition("{")[0]
            assert name in known, f"{name} in {query}"
            assert set(LABEL.findall(match[1] or "")) <= known[name], query
            asked += 1
        for labels in re.findall(r"by \(([^)]*)\)", query):
            names = {label.strip() for label in labels.split(",")}
            assert names <= set().union(*(known[match[0].partition("{")[0]] for match in SERIES.finditer(query))), query
    assert asked >= len(QUERIES)


async def test_every_series_of_the_gateway_is_on_a_panel() -> None:
    queries = " ".join(QUERIES)
    missing = {
        name
        for name in await counted()
        if name.startswith(("gen_ai_", "llmbench_")) and not name.endswith("_created")
        if re.sub(r"_(bucket|sum|count)$", "", name) not in queries
    }
    assert missing == set()


def test_it_can_be_imported_with_any_prometheus() -> None:
    assert DASHBOARD["schemaVersion"] >= 39 and DASHBOARD["uid"] and "__inputs" not in DASHBOARD  # Grafana 11
    variables = {one["name"]: one["type"] for one in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "variant": "query", "key": "query"}
    for panel in PANELS:
        assert panel["description"] and panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])
    assert set(re.findall(r"\$(\w+)", " ".join(QUERIES))) == {"variant", "key", "__rate_interval"}
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_no_panel_covers_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken and all(0 <= x < 24 for x, _ in cells)
        taken |= cells
