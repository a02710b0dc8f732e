"""The documents as JSON Schema (2020-12), made from their declarations, so that editors complete and check what is written.

A schema accepts every document that `load` accepts, apart from numbers in quotes and 0 and 1 for truth values. It sees the
faults of one place: unknown keys, wrong types, values out of range, sections of another method. What several places say
together, and files that are missing, only `load` sees.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from llmbench.recipe.compare import CompareRecipe
from llmbench.recipe.fields import Document
from llmbench.recipe.methods import SECTIONS
from llmbench.recipe.rag import RagRecipe
from llmbench.recipe.serve import ServeRecipe
from llmbench.recipe.sweep import SweepRecipe
from llmbench.recipe.train import TrainRecipe

__all__ = ["DIALECT", "Kind", "schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Kind = Literal["train", "rag", "serve", "compare", "sweep"]
_MODELS: Mapping[Kind, type[Document]] = {
    "train": TrainRecipe, "rag": RagRecipe, "serve": ServeRecipe, "compare": CompareRecipe, "sweep": SweepRecipe,
}  # fmt: skip
_TOLD_BY = (("space", "sweep"), ("documents", "rag"), ("questions", "compare"), ("variants", "serve"))
"""The key by which a document's kind is told, in the order of `load_any`; a training recipe has none of them."""
_ENVIRONMENT = {
    "type": "string",
    "pattern": r"\$\{env:[A-Za-z_][A-Za-z0-9_]*(,[^}]*)?\}",
    "description": "A variable of the environment.",
}
_INCLUDE = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    "description": "Other documents whose values hold where this one says nothing; sections are joined key by key.",
}


def schema(kind: Kind | None = None) -> dict[str, Any]:
    """The schema of one kind of document, or of all, told apart by the keys that `load_any` goes by."""
    if kind is not None:
        return {"$schema": DIALECT, "$id": f"urn:llmbench:schema:{kind}"} | _of(kind)
    definitions: dict[str, Any] = {}
    for one in get_args(Kind):
        whole = _prefixed(_of(one), f"{one}.")
        definitions |= {f"{one}.{name}": part for name, part in whole.pop("$defs").items()}
        definitions[one] = whole
    chosen: dict[str, Any] = {"$ref": "#/$defs/train"}
    for key, one in reversed(_TOLD_BY):
        chosen = {"if": {"required": [key]}, "then": {"$ref": f"#/$defs/{one}"}, "else": chosen}
    return (
        {"$schema": DIALECT, "$id": "urn:llmbench:schema", "title": "A document of llmbench"} | chosen | {"$defs": definitions}
    )


def _of(kind: Kind) -> dict[str, Any]:
    made: dict[str, Any] = _plain(_MODELS[kind].model_json_schema())
    made["title"] = f"llmbench: {kind}"
    made["properties"]["include"] = _INCLUDE
    definitions = made["$defs"]
    definitions["environment"] = _ENVIRONMENT
    # A document that includes another may leave out what that one has; list items are never joined, and keep what they need.
    needed = _needed(made, {name: part for name, part in definitions.items() if name not in _listed(made)})
    rules = [{"if": {"not": {"required": ["include"]}}, "then": needed}] if needed else []
    if kind == "train":
        rules += [_belongs(section) for section in SECTIONS]
        origins = ("path", "url", "dataset", "lessons")
        definitions["DataSource"]["oneOf"] = [{"required": [origin]} for origin in origins]
    return made | ({"allOf": rules} if rules else {})


def _belongs(section: str) -> dict[str, Any]:
    """A method's section stands with that method alone."""
    given = {"required": [section], "properties": {section: {"type": "object"}}}
    return {"if": given, "then": {"required": ["method"], "properties": {"method": {"const": section}}}}


def _listed(part: Any) -> set[str]:
    """The definitions that stand as items of lists."""
    if isinstance(part, list):
        return {name for one in part for name in _listed(one)}
    if not isinstance(part, dict):
        return set()
    items = part.get("items")
    found = (
        {str(one.get("$ref", "")).removeprefix("#/$defs/") for one in [items, *items.get("anyOf", ())]}
        if isinstance(items, dict)
        else set()
    )
    return found | {name for one in part.values() for name in _listed(one)}


def _needed(part: dict[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Takes `required` out of a section and of the sections in it, as one schema that asks for all of it."""
    found: dict[str, Any] = {}
    inside: dict[str, Any] = {}
    for name, value in part.get("properties", {}).items():
        for reference in [value, *value.get("anyOf", ())]:
            name_of = str(reference.get("$ref", "")).removeprefix("#/$defs/")
            if name_of in definitions and (inner := _needed(definitions[name_of], definitions)):
                inside[name] = inner
    if required := part.pop("required", None):
        found["required"] = required
    return found | ({"properties": inside} if inside else {})


def _plain(part: Any, name: str = "") -> Any:
    """pydantic's schema without what only says a name again, and with what the reader of YAML takes besides.

    A number may stand where text is meant, and a variable of the environment for every value.
    """
    if isinstance(part, list):
        return [_plain(one) for one in part]
    if not isinstance(part, dict):
        return part
    named = name in ("properties", "$defs")  # what follows are names, not keywords
    made = {
        key: _plain(value, "" if named else key)
        for key, value in part.items()
        if named or (key not in ("title", "discriminator", "format") and not (key == "default" and isinstance(value, dict)))
    }
    if named or name in ("default", "enum", "const"):
        return {key: part[key] for key in part} if name in ("default", "enum", "const") else made
    if "description" in made and isinstance(made["description"], str):
        made["description"] = re.sub(r"(?<!\n)\n(?!\n)", " ", made["description"])
    if isinstance(made.get("pattern"), str):
        made["pattern"] = rf"(?:{made['pattern']})|\$\{{env:"
    if made.get("type") == "string" and "enum" not in made and "const" not in made:
        return made | {"type": ["string", "number"]}
    if made.get("type") in ("integer", "number", "boolean") or ("enum" in made and "properties" not in made):
        beside = {key: made.pop(key) for key in ("description", "default") if key in made}
        return beside | {"anyOf": [made, {"$ref": "#/$defs/environment"}]}
    return made


def _prefixed(part: Any, prefix: str) -> Any:
    """A schema with the names of its definitions behind a prefix."""
    if isinstance(part, list):
        return [_prefixed(one, prefix) for one in part]
    if not isinstance(part, dict):
        return part
    return {
        key: value.replace("#/$defs/", f"#/$defs/{prefix}")
        if key == "$ref" and isinstance(value, str)
        else _prefixed(value, prefix)
        for key, value in part.items()
    }
