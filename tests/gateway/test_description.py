"""The server's description of itself: whole, valid by its own standard, and the same as what the server does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from llmbench import gateway
from llmbench.gateway import Access, Catalogue, Served, body, build, chat, completions
from llmbench.gateway.api import searching
from llmbench.gateway.api.responses import asking
from llmbench.gateway.description import document
from llmbench.gateway.description.answers import CODES
from llmbench.gateway.description.requests import TYPES
from llmbench.gateway.refusal import Refusal
from llmbench.gateway.relay import Upstream
from llmbench.recipe import Variant


def serve(api_key: str | None = None) -> Any:
    catalogue = Catalogue([Served(Variant(name="base"), "base", {})], context=64)
    return build(catalogue, Upstream(httpx.MockTransport(lambda _: httpx.Response(500)), lambda: None), access=Access(api_key))


async def described(api_key: str | None = None) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(serve(api_key)), base_url="http://127.0.0.1") as http:
        if api_key:
            assert (await http.get("/openapi.json")).status_code == 401
        found: dict[str, Any] = (await http.get("/openapi.json", headers=headers)).json()
    return found


async def test_every_route_is_described_and_nothing_else() -> None:
    routes = {
        (route.path.replace(":path", ""), method)
        for route in serve().routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    paths = (await described())["paths"]
    assert {(path, method.upper()) for path, methods in paths.items() for method in methods} == routes


async def test_the_description_knows_who_reads_it() -> None:
    ours, keyed = await described(), await described("k")
    assert ours["paths"]["/v1/models"]["get"]["security"] == []
    assert keyed["paths"]["/v1/models"]["get"]["security"] == [{"key": []}]
    assert keyed["paths"]["/health"]["get"]["security"] == [] and "401" not in keyed["paths"]["/health"]["get"]["responses"]
    fields = ours["components"]["schemas"]["ChatRequest"]["properties"]
    assert fields["model"]["examples"] == ["base"] and (fields["max_tokens"]["minimum"], fields["max_tokens"]["maximum"]) == (
        1,
        64,
    )


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
        for child in value.values():
            yield from references(child)
    elif isinstance(value, list):
        for child in value:
            yield from references(child)


def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

    found = document(64, ["base"], ["pages"], keyed=True)
    for schema in found["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for reference in set(references(found)):
        _, where, kind, name = reference.split("/")
        assert name in found[where][kind]
    operations = [operation["operationId"] for methods in found["paths"].values() for operation in methods.values()]
    assert len(operations) == len(set(operations))


def test_the_description_is_valid_openapi() -> None:
    validator = pytest.importorskip("openapi_spec_validator", reason="pip install openapi-spec-validator")
    validator.validate(document(64, ["base"], ["pages"], keyed=True))


def test_every_code_and_every_kind_of_field_that_the_gateway_has_is_described() -> None:
    folder = Path(gateway.__file__).parent
    sources = [path.read_text(encoding="utf-8") for path in folder.rglob("*.py") if path.parent.name != "description"]
    codes = {code for text in sources for code in re.findall(r'(?:code=|OVERLOADED = |TIMED_OUT = )"([a-z]+_[a-z_]+)"', text)}
    assert codes - CODES.keys() == set() and {"model_not_found", "server_overloaded", "request_timeout"} <= codes
    assert TYPES.keys() == body.KINDS.keys()


HI = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "look"}}
NAMED = {"type": "function", "name": "look"}


@pytest.mark.parametrize(
    ("kind", "fields", "is_valid"),
    [
        ("Completion", {"prompt": "a"}, True),
        ("Completion", {"prompt": ["a", [1, 2]]}, True),
        ("Completion", {"prompt": ""}, False),
        ("Completion", {"prompt": ["a", ""]}, False),
        ("Completion", {"prompt": [2**62]}, False),
        ("Chat", {"messages": HI, "tool_choice": "none"}, True),
        ("Chat", {"messages": HI, "tools": [TOOL], "tool_choice": TOOL}, True),
        ("Chat", {"messages": HI, "tool_choice": TOOL}, False),
        ("Chat", {"messages": HI, "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": None}}}, False),
        ("Store", {"query": "a", "filters": {"type": "eq", "key": "page", "value": 3}}, True),
        ("Store", {"query": "a", "filters": {"type": "or", "filters": [{"type": "in", "key": "page", "value": [3]}]}}, True),
        ("Store", {"query": "a", "filters": {"type": "eq"}}, False),
        ("Store", {"query": "a", "filters": {"type": "and", "filters": []}}, False),
        ("Response", {"input": "Hi"}, True),
        ("Response", {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}], "tools": [NAMED]}, True),
        ("Response", {"input": [{"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"}]}, True),
        ("Response", {"input": [{"type": "reasoning", "summary": []}, *HI], "tool_choice": NAMED}, True),
        ("Response", {"input": [{}]}, False),
        ("Response", {"input": [{"type": "function_call"}]}, False),
        ("Response", {"input": "Hi", "tools": [TOOL]}, False),
        ("Response", {"input": "Hi", "tool_choice": "look"}, False),
    ],
)
def test_the_description_takes_what_the_server_takes(kind: str, fields: dict[str, Any], is_valid: bool) -> None:
    from jsonschema import Draft202012Validator

    schemas = document(64, ["base"], ["pages"], keyed=True)["components"]["schemas"]
    body = fields | ({} if kind == "Store" else {"model": "base"})
    assert Draft202012Validator(schemas[f"{kind}Request"]).is_valid(body) is is_valid
    taken = True
    try:
        PARSE[kind](json.dumps(body).encode())
    except Refusal:
        taken = False
    assert taken is is_valid or fields in VLLMS


PARSE: dict[str, Any] = {
    "Completion": lambda raw: completions.parse(raw, context=64),
    "Chat": lambda raw: chat.parse(raw, context=64),
    "Store": searching.parse_store,
    "Response": lambda raw: asking.parse(raw, context=64),
}
VLLMS = [
    {"prompt": ""}, {"prompt": ["a", ""]}, {"prompt": [2**62]}, {"messages": HI, "tool_choice": TOOL},
    {"messages": HI, "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": None}}},
]  # fmt: skip
"""What vLLM refuses, and not the gateway."""
