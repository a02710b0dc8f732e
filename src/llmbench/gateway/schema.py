"""What a JSON schema of a client may ask of the engine, which makes a grammar of it.

xgrammar 0.2.8 follows groups of a pattern and chains of references by recursion, without a bound: one request with 100,000
parentheses, or with a chain of 20,000 references, ended vLLM and every answer with it. A schema that no finite value fits
ends in its internal error. And a grammar's cost grows faster than its schema: 300, 500 and 1,000 optional properties of one
object took 0.7, 2.2 and 10 s, names of 120,000 characters in all 9 s, 600 strings with a `format` 2.2 s.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from llmbench.gateway.body import JSON
from llmbench.gateway.refusal import Refusal

__all__ = ["FORMATS", "check", "check_format", "check_tools"]

_MAX_DEPTH = 32
_MAX_SCHEMAS = 2_000
_MAX_OPTIONAL = 500
"""Optional properties of one object."""
_MAX_VALUES = 1_000
"""Values of all `enum` together."""
_MAX_TEXT = 50_000
"""Characters of property names, values and patterns together."""
_MAX_PATTERN = 2_000
_MAX_FORMATS = 200
"""Strings with a `format`, each of which is a pattern of its own."""
FORMATS = ("text", "json_object", "json_schema")
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
_SINGLE = ("additionalProperties", "items", "propertyNames", "unevaluatedProperties", "unevaluatedItems")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")


def check_format(form: JSON) -> None:
    """Refuses a `response_format` that the engine cannot keep to."""
    if form.get("type") not in FORMATS:
        raise Refusal(400, f"response_format.type must be one of {', '.join(FORMATS)}.", param="response_format")
    _bound_depth(form, "response_format")
    if form["type"] == "json_schema":
        held = form.get("json_schema")
        if not isinstance(held, dict) or not isinstance(held.get("name"), str) or not isinstance(held.get("schema"), dict):
            message = "response_format.json_schema must be an object with a name and a schema, which is an object."
            raise Refusal(400, message, param="response_format")
        check(held["schema"], "response_format.json_schema.schema", "response_format")


def check_tools(tools: list[Any], choice: Any) -> None:
    """Refuses tools whose parameters would cost the engine too much, or, where it is to write a call, cannot be written."""
    _bound_depth(tools, "tools")
    for i, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        schema = function.get("parameters") if isinstance(function, dict) else None
        if isinstance(function, dict) and isinstance(schema, dict):
            forced = choice == "required" or isinstance(choice, dict) or function.get("strict") is True
            check(schema, f"tools[{i}].function.parameters", "tools", kept=forced)


def check(schema: JSON, where: str, param: str, *, kept: bool = True) -> None:
    """Refuses a schema that is larger than the engine should be given, or that it cannot keep to.

    Args:
        schema: nested 32 levels deep at most.
        where: its place in the request, for the message.
        param: the field of the request.
        kept: whether the answer must fit it; else only its size counts.

    Raises:
        Refusal: status 400 with the place of the fault.
    """
    text = values = formats = 0
    seen: dict[int, tuple[str, JSON]] = {}
    left: list[tuple[str, Any]] = [(where, schema)]
    while left:
        place, node = left.pop()
        if id(node) in seen or not isinstance(node, dict):
            continue
        seen[id(node)] = (place, node)
        text, values = text + _text(node, place, param), values + len(_list(node, "enum"))
        formats += "format" in node
        found = [(f"{place}.{part}", child) for part, child in _children(node)]
        if kept and (fault := _fault(node, found)):
            raise Refusal(400, f"{place}{fault}.", param=param)
        if isinstance(node.get("$ref"), str):
            target = _target(schema, node["$ref"])
            if kept and not isinstance(target, (dict, bool)):
                message = (
                    f"{place}.$ref points to nothing ({node['$ref']!r:.100}). Use references within the schema, such as "
                    f"#/$defs/NAME."
                )
                raise Refusal(400, message, param=param)
            found.append((where + node["$ref"].removeprefix("#").replace("/", "."), target))
        left += reversed(found)
        for count, most, what in (
            (len(seen), _MAX_SCHEMAS, "schemas"), (values, _MAX_VALUES, "values of enum"),
            (text, _MAX_TEXT, "characters of names, values and patterns"), (formats, _MAX_FORMATS, "formats"),
        ):  # fmt: skip
            if count > most:
                raise Refusal(400, f"{where} has more than {most:,} {what}.", param=param)
    if kept:
        _refuse_endless(list(seen.values()), schema, param)


def _bound_depth(value: Any, name: str) -> None:
    """Refuses what is nested too deep, without recursion."""
    depth, level = 0, [value]
    while level:
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        depth += 1
    if depth > _MAX_DEPTH:
        raise Refusal(400, f"{name} is nested deeper than {_MAX_DEPTH}.", param=name)


def _text(node: JSON, place: str, param: str) -> int:
    """How many characters of a schema the grammar spells out."""
    properties = _object(node, "properties")
    optional = len(properties) - len({name for name in _list(node, "required") if isinstance(name, str)} & properties.keys())
    if optional > _MAX_OPTIONAL:
        raise Refusal(400, f"{place} has more than {_MAX_OPTIONAL} optional properties.", param=param)
    patterns = [str(node["pattern"])] if "pattern" in node else []
    patterns += _object(node, "patternProperties")
    if any(len(pattern) > _MAX_PATTERN for pattern in patterns):
        raise Refusal(400, f"{place} has a pattern of more than {_MAX_PATTERN:,} characters.", param=param)
    values = [node[key] for key in ("enum", "const") if key in node]
    return sum(map(len, [*patterns, *properties])) + sum(len(json.dumps(value, ensure_ascii=False)) for value in values)


def _fault(node: JSON, below: list[tuple[str, Any]]) -> str | None:
    """What is wrong with a schema by itself, said after its place; what xgrammar says well is left to it."""
    for key in _COUNTS:
        count = node.get(key, 0)
        whole = isinstance(count, int) or (isinstance(count, float) and count.is_integer())
        if isinstance(count, bool) or not whole or not 0 <= count < 2**31:
            return f".{key} must be a whole number from 0 to {2**31 - 1}"
    if any(node.get(key) == [] for key in _LISTED):
        return " has an empty " + next(key for key in _LISTED if node.get(key) == [])
    odd = next((place for place, child in below if not isinstance(child, (dict, bool))), None)
    if odd is not None:
        return f" is not a schema: {odd} must be an object, true or false"
    if node.get("additionalProperties") is False and not _object(node, "patternProperties"):
        lacking = next((str(name) for name in _list(node, "required") if name not in _object(node, "properties")), None)
        return None if lacking is None else f" requires {lacking!r:.100}, but neither defines nor allows it"
    return None


def _children(node: JSON) -> Iterator[tuple[str, Any]]:
    """The schemas right below one, each with its path from there."""
    for key in _NAMED:
        yield from ((f"{key}.{name[:40]}", child) for name, child in _object(node, key).items())
    for key in _SINGLE:
        if key in node:
            yield key, node[key]
    for key in _LISTED:
        yield from ((f"{key}[{i}]", child) for i, child in enumerate(_list(node, key)))


def _target(root: JSON, reference: str) -> Any:
    """What a reference leads to, by plain keys, as xgrammar follows it; None for nothing."""
    found: Any = root
    if reference.split("/")[0] != "#":
        return None
    for key in reference.split("/")[1:]:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _refuse_endless(found: list[tuple[str, JSON]], root: JSON, param: str) -> None:
    """Refuses a schema whose values would have to hold themselves, so that none is ever complete.

    The least fixed point: a schema has a value when each group of schemas that it needs has a member that has one.
    """
    waiting: dict[int, int] = {}
    asking: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for _, node in found:
        groups = [group for group in _needed(node, root) if not any(member is True for member in group)]
        waiting[id(node)] = len(groups)
        for number, group in enumerate(groups):
            for member in group:
                asking[id(member)].append((id(node), number))
    ready = [one for one, count in waiting.items() if not count]
    met: set[tuple[int, int]] = set()
    while ready:
        for asker in asking[ready.pop()]:
            if asker not in met:
                met.add(asker)
                waiting[asker[0]] -= 1
                if not waiting[asker[0]]:
                    ready.append(asker[0])
    endless = next((place for place, node in found if waiting[id(node)]), None)
    if endless is not None:
        raise Refusal(
            400, f"{endless} can never be satisfied by a finite value: it always requires another of itself.", param=param
        )


def _needed(node: JSON, root: JSON) -> list[list[Any]]:
    """Groups of schemas of which each must have a member with a value, for this one to have a value."""
    groups: list[list[Any]] = [_list(node, key) for key in ("anyOf", "oneOf") if _list(node, key)]
    groups += [[child] for child in _list(node, "allOf")]
    if isinstance(node.get("$ref"), str):
        groups.append([_target(root, node["$ref"])])
    properties = _object(node, "properties")
    if node.get("type") == "object":
        groups += [[properties[name]] for name in _list(node, "required") if isinstance(name, str) and name in properties]
    least = node.get("minItems", 0)
    if node.get("type") == "array" and isinstance(least, (int, float)) and least > 0:
        first = _list(node, "prefixItems")
        groups += [[child] for child in first]
        if least > len(first) and isinstance(node.get("items"), (dict, bool)):
            groups.append([node["items"]])
    return groups


def _object(node: JSON, key: str) -> JSON:
    value = node.get(key)
    return value if isinstance(value, dict) else {}


def _list(node: JSON, key: str) -> list[Any]:
    value = node.get(key)
    return value if isinstance(value, list) else []
