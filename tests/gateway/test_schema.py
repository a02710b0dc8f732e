"""Schemas that would end vLLM, keep it busy, or fit no value are refused before they reach it."""

from __future__ import annotations

from typing import Any

import pytest

from llmbench.gateway import schema
from llmbench.gateway.refusal import Refusal

TEXT = {"type": "string"}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            "required": ["value", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
LINKED = {
    "$defs": {
        "item": {
            "type": "object",
            "properties": {"next": {"anyOf": [{"$ref": "#/$defs/item"}, {"type": "null"}]}},
            "required": ["next"],
        }
    },
    "$ref": "#/$defs/item",
}


def chain(length: int) -> dict[str, Any]:
    held: dict[str, Any] = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(length)}
    return {"$defs": held | {f"d{length}": TEXT}, "$ref": "#/$defs/d0"}


def flat(count: int, required: int = 0) -> dict[str, Any]:
    names = [f"p{i}" for i in range(count)]
    return {"type": "object", "properties": {name: {"type": "integer"} for name in names}, "required": names[:required]}


def form(of: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "a", "schema": of}}


@pytest.mark.parametrize(
    "fits",
    [
        {}, TEXT, TREE, LINKED, chain(500), flat(500), flat(1000, required=1000),
        {"$ref": "#/properties/a", "properties": {"a": TEXT}},
        {"type": "array", "items": {"$ref": "#"}}, {"type": ["string", "null"]}, {"enum": list(range(1000))},
        {"type": "string", "pattern": "^(a|b)+$", "description": "x" * 100_000}, {"type": "string", "minLength": 5.0},
        {"type": "object", "properties": {"pattern": TEXT, "$ref": TEXT, "enum": TEXT}, "additionalProperties": False},
        {"anyOf": [{"type": "array", "items": False, "maxItems": 0}, {"$ref": "#"}]},
        {"type": "object", "properties": {"a": True}, "required": ["a"]},
    ],
)  # fmt: skip
def test_schemas_that_people_send_are_accepted(fits: dict[str, Any]) -> None:
    schema.check_format(form(fits))
    schema.check_tools([{"type": "function", "function": {"name": "f", "parameters": fits}}], "required")


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ({"type": "string", "pattern": "(" * 100_000 + "x" + ")" * 100_000}, "a pattern of more than 2,000"),
        ({"type": "object", "patternProperties": {"(" * 3000: TEXT}}, "a pattern of more than 2,000"),
        (chain(20_000), "more than 2,000 schemas"),
        ({"type": "array", "prefixItems": [{} for _ in range(3000)]}, "more than 2,000 schemas"),
        (flat(501), "more than 500 optional properties"),
        ({"enum": list(range(1001))}, "more than 1,000 values"),
        ({"anyOf": [{"enum": list(range(600))}, {"enum": list(range(600))}]}, "more than 1,000 values"),
        ({"const": "a" * 60_000}, "more than 50,000 characters"),
        ({"type": "array", "prefixItems": [TEXT | {"format": "email"} for _ in range(201)]}, "more than 200 formats"),
        ({"type": "object", "properties": {"a" * 60_000: {}}}, "more than 50,000 characters"),
        ({"extra": {"enum": list(range(2000))}, "$ref": "#/extra"}, "more than 1,000 values"),
    ],
)
@pytest.mark.parametrize("tools", [False, True])
def test_what_would_end_the_engine_or_keep_it_busy_is_refused(of: dict[str, Any], words: str, tools: bool) -> None:
    with pytest.raises(Refusal, match=words) as caught:
        if tools:
            schema.check_tools([{"type": "function", "function": {"name": "f", "parameters": of}}], None)
        else:
            schema.check_format(form(of))
    assert (caught.value.status, caught.value.param) == (400, "tools" if tools else "response_format")
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("of", "words"),
    [
        ({"$ref": "#"}, "schema can never be satisfied"),
        (
            {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
            "can never be satisfied",
        ),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, "can never be satisfied"),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "can never be satisfied"),
        ({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}, "can never be satisfied"),
        (
            {"type": "object", "properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": {"x": {"$ref": "#/$defs/x"}}},
            r"schema\.(properties\.a|\$defs\.x) can never be satisfied",
        ),
        ({"$ref": "#/$defs/none"}, r"\$ref points to nothing \('#/\$defs/none'\)"),
        ({"$ref": "http://example.com/a.json"}, "points to nothing"),
        ({"$ref": "#abc"}, "points to nothing"),
        ({"type": "string", "minLength": -1}, r"schema\.minLength must be a whole number from 0"),
        ({"type": "array", "items": {"type": "string", "maxLength": "5"}}, r"schema\.items\.maxLength must be a whole number"),
        ({"type": "object", "properties": {"a": 5}}, r"schema\.properties\.a must be an object"),
        ({"anyOf": []}, "an empty anyOf"),
        (
            {"type": "object", "properties": {"a": TEXT}, "required": ["b"], "additionalProperties": False},
            "requires 'b', but neither defines nor allows it",
        ),
    ],
)  # fmt: skip
def test_what_no_answer_can_fit_is_refused_with_its_place(of: dict[str, Any], words: str) -> None:
    with pytest.raises(Refusal, match=words) as caught:
        schema.check_format(form(of))
    assert caught.value.param == "response_format"
    tool = [{"type": "function", "function": {"name": "f", "parameters": of}}]
    schema.check_tools(tool, "auto")  # the model writes what it likes, and only the size counts
    for choice in ("required", {"type": "function", "function": {"name": "f"}}):
        with pytest.raises(Refusal, match=r"tools\[0\]\.function\.parameters") as caught:
            schema.check_tools(tool, choice)
        assert caught.value.param == "tools"


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": None}, {"type": "structural_tag"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": []},
        {"type": "json_schema", "json_schema": {"name": "a"}}, form(True), form([]), form("x"), form(None),
        {"type": "json_schema", "json_schema": {"name": 5, "schema": {}}},
    ],
)  # fmt: skip
def test_a_response_format_of_the_wrong_form_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Refusal, match="response_format") as caught:
        schema.check_format(wrong)
    assert (caught.value.status, caught.value.param) == (400, "response_format")


def test_odd_tools_are_left_to_the_engine() -> None:
    schema.check_tools([5, {}, {"function": 3}, {"function": {"name": 5, "parameters": "x"}}], "none")
