"""Routes through the application, and as a document's reload changes them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from tests.gateway.conftest import Bench

from llmbench.errors import LlmbenchError
from llmbench.gateway import Catalogue, Served, build
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.relay import Upstream
from llmbench.gateway.traffic import Routes
from llmbench.recipe import RouteSpec, ServeRecipe, Variant

pytestmark = pytest.mark.anyio
SPLIT = RouteSpec(name="support", variants={"one": 50, "two": 50})


class _Engine(httpx.AsyncBaseTransport):
    """Says which of its models was asked."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if body.get("stream"):
            return httpx.Response(200, stream=_Stream(body["model"]))
        choice = {"message": {"role": "assistant", "content": body["model"]}, "finish_reason": "stop"}
        return httpx.Response(200, json={"model": body["model"], "choices": [choice]})


class _Stream(httpx.AsyncByteStream):
    def __init__(self, model: str) -> None:
        self.model = model

    async def __aiter__(self) -> AsyncIterator[bytes]:
        choice = {"index": 0, "delta": {"content": self.model}, "finish_reason": "stop"}
        yield b"data: " + json.dumps({"model": self.model, "choices": [choice]}).encode() + b"\n\ndata: [DONE]\n\n"


class Server:
    """Two variants, routes over them, and what a sink was told."""

    def __init__(self, *specs: RouteSpec) -> None:
        self.told: list[Exchange] = []
        self.routes = Routes(specs)
        models = [Served(Variant(name="one"), "m1", {}), Served(Variant(name="two"), "m2", {})]
        self.catalogue = Catalogue(models, context=1024)
        app = build(self.catalogue, Upstream(_Engine(), lambda: None), sinks=[self.told.append], routes=self.routes)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")

    async def ask(self, model: str, **more: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]} | more
        return await self.http.post("/v1/chat/completions", json=body)


async def test_a_route_answers_under_its_own_name_and_says_which_variant_did() -> None:
    server = Server(SPLIT)
    seen = set()
    for i in range(20):
        answer = await server.ask("support", user=f"user {i}")
        variant = answer.headers["x-llmbench-variant"]
        assert answer.json()["model"] == "support"
        assert answer.json()["choices"][0]["message"]["content"] == {"one": "m1", "two": "m2"}[variant]
        exchange = server.told[-1]
        assert (exchange.asked, exchange.variant, exchange.arm) == ("support", variant, variant)
        seen.add(variant)
    assert seen == {"one", "two"}
    stream = await server.ask("support", user="user 1", stream=True)
    assert '"model":"support"' in stream.text and stream.headers["x-llmbench-variant"]


async def test_a_user_keeps_one_variant_and_a_variant_is_asked_by_its_name_as_before() -> None:
    server = Server(SPLIT)
    assert len({(await server.ask("support", user="ann")).headers["x-llmbench-variant"] for _ in range(8)}) == 1
    answer = await server.ask("two")
    assert (answer.json()["model"], answer.headers["x-llmbench-variant"]) == ("two", "two")
    assert (server.told[-1].arm, server.told[-1].unit) == (None, None)


async def test_completions_and_tokens_take_routes_too() -> None:
    server = Server(RouteSpec(name="support", variants={"one": 0, "two": 1}, sticky="conversation"))
    answer = await server.http.post("/v1/completions", json={"model": "support", "prompt": "Hi"})
    assert answer.headers["x-llmbench-variant"] == "two" and server.told[-1].unit
    answer = await server.http.post("/tokenize", json={"model": "support", "prompt": "Hi"})
    assert answer.headers["x-llmbench-variant"] == "two"


async def test_models_list_routes_with_their_shares() -> None:
    server = Server(RouteSpec(name="support", variants={"one": 3, "two": 1}))
    listed = (await server.http.get("/v1/models")).json()["data"]
    assert [card["id"] for card in listed] == ["one", "two", "support"]
    assert listed[2]["variants"] == [{"name": "one", "share": 75.0}, {"name": "two", "share": 25.0}]
    assert (await server.http.get("/v1/models/support")).json() == listed[2]
    assert "support" in (await server.ask("nobody")).json()["error"]["message"]


async def test_a_refused_request_is_no_variants() -> None:
    server = Server(SPLIT)
    answer = await server.ask("nobody")
    assert answer.status_code == 404 and "x-llmbench-variant" not in answer.headers


async def test_requests_are_divided_anew_from_the_next_one_on() -> None:
    server = Server(RouteSpec(name="support", variants={"one": 1}))
    assert (await server.ask("support", user="ann")).headers["x-llmbench-variant"] == "one"
    server.routes.divide("support", {"two": 1.0}, experiment="support", reads=True)
    assert (await server.ask("support", user="ann")).headers["x-llmbench-variant"] == "two"
    assert server.told[-1].said() is not None


@pytest.mark.parametrize(
    ("routes", "said"),
    [
        ([{"name": "base", "variants": {"base": 1}}], "a variant is named base too"),
        ([{"name": "r", "variants": {"base": 1}}, {"name": "r", "variants": {"base": 1}}], "another route is named r too"),
        ([{"name": "r", "variants": {"other": 1}}], "there is no variant other"),
        ([{"name": "r", "variants": {"base": 1}, "shadow": {"variant": "other"}}], "there is no variant other"),
        ([{"name": "r", "variants": {"base": 0}}], "all weights are 0"),
        ([{"name": "r", "variants": {}}], "at least 1"),
        ([{"name": "r", "variants": {"base": 1}, "rollout": {"plan": [5, 1, 100]}}], "plan must climb to 100"),
        ([{"name": "r", "variants": {"base": 1}, "guardrails": {"seconds": None, "required": ["seconds"]}}], "is left out"),
        ([{"name": "r", "variants": {"base": 1}, "guardrails": {"required": ["speed"]}}], "'speed' is no guard-rail"),
    ],
)
def test_a_route_that_cannot_be_is_refused(routes: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ServeRecipe.model_validate({"variants": [{"name": "base"}], "routes": routes})


def test_a_reload_adds_changes_and_removes_routes(bench: Bench) -> None:
    deployment = bench.deployment
    plan = deployment.reload(bench.recipe(routes=[{"name": "support", "variants": {"base": 1, "first": 1}}]))
    assert (plan.routes_added, plan.refused) == (["support"], {})
    plan = deployment.reload(bench.recipe(routes=[{"name": "support", "variants": {"base": 3, "first": 1}}]))
    assert plan.routes_changed == ["support"]
    assert deployment.routes.now["support"].shares == {"base": 75.0, "first": 25.0}
    plan = deployment.reload(bench.recipe())
    assert plan.routes_removed == ["support"] and deployment.routes.now == {}


def test_a_variant_that_a_route_uses_stays(bench: Bench) -> None:
    routes = [{"name": "support", "variants": {"base": 1, "first": 0}}]
    bench.deployment.reload(bench.recipe(routes=routes))
    before = bench.state()
    with pytest.raises(LlmbenchError, match=r"first is used by the route support"):
        bench.deployment.remove("first")
    assert bench.state() == before
    plan = bench.deployment.reload(bench.recipe(variants=[{"name": "base"}]))
    assert (plan.routes_removed, plan.removed, plan.refused) == (["support"], ["first"], {})


def test_a_route_and_its_new_variant_come_together(bench: Bench) -> None:
    variants = [{"name": "base"}, {"name": "new", "adapter": "run-2"}]
    plan = bench.deployment.reload(bench.recipe(variants=variants, routes=[{"name": "r", "variants": {"base": 1, "new": 1}}]))
    assert (plan.added, plan.removed, plan.routes_added) == (["new"], ["first"], ["r"])
    bench.engine.refused.add("run-3")
    variants = [{"name": "base"}, {"name": "bad", "adapter": "run-3"}]
    plan = bench.deployment.reload(bench.recipe(variants=variants, routes=[{"name": "r", "variants": {"bad": 1}}]))
    assert plan.refused.keys() == {"bad", "new", "r"} and "there is no variant bad" in plan.refused["r"]
    assert bench.deployment.routes.now["r"].uses == {"base", "new"}
    with pytest.raises(LlmbenchError, match="There is a route named r"):
        bench.deployment.add(Variant(name="r"))


def test_a_route_that_may_not_change_now_stays(bench: Bench, tmp_path: Path) -> None:
    bench.deployment.reload(bench.recipe(routes=[{"name": "support", "variants": {"base": 1}}]))
    bench.deployment.routes.held = lambda name: f"{name} is busy"
    plan = bench.deployment.reload(bench.recipe())
    assert (plan.routes_removed, plan.refused) == ([], {"support": "support is busy"})
    assert not plan.complete


def test_a_reload_that_divides_as_before_keeps_what_a_rollout_has_decided(bench: Bench) -> None:
    route = {"name": "support", "variants": {"base": 80, "first": 20}}
    bench.deployment.reload(bench.recipe(routes=[route]))
    bench.deployment.routes.divide("support", {"base": 100, "first": 0}, experiment="support", reads=False)
    plan = bench.deployment.reload(bench.recipe(routes=[route | {"description": "for customers"}]))
    assert plan.routes_changed == ["support"]
    assert bench.deployment.routes.now["support"].shares == {"base": 100, "first": 0}
    assert bench.deployment.routes.now["support"].card()["description"] == "for customers"
    bench.deployment.reload(bench.recipe(routes=[route | {"variants": {"base": 50, "first": 50}}]))
    assert bench.deployment.routes.now["support"].shares == {"base": 50, "first": 50}


def test_a_variant_in_a_rollout_is_not_replaced(bench: Bench) -> None:
    bench.deployment.routes.tried = lambda name: "support" if name == "first" else None
    changed = [{"name": "base"}, {"name": "first", "adapter": "run-2"}]
    plan = bench.deployment.reload(bench.recipe(variants=changed))
    assert plan.changed == [] and "llmbench rollout abort support" in plan.refused["first"]
    bench.deployment.routes.tried = lambda name: None
    assert bench.deployment.reload(bench.recipe(variants=changed)).changed == ["first"]
