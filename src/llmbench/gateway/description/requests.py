"""The schemas of requests, from the tables that check them. A field that is null counts as absent, so each may be null."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbench.gateway import chat, completions
from llmbench.gateway.api import embeddings, feedback, rerank, searching, tokens
from llmbench.gateway.api.responses import asking, items
from llmbench.gateway.body import JSON
from llmbench.gateway.schema import FORMATS
from llmbench.recipe import MAX_STOPS

__all__ = [
    "TYPES", "chat_request", "completion_request", "detokenize_request", "embedding_request", "feedback_request", "object_of",
    "rerank_request", "response_request", "search_request", "store_request", "tokenize_request", "typed",
]  # fmt: skip

TYPES: Mapping[str, JSON] = {
    "a number": {"type": "number"},
    "a whole number": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "true or false": {"type": "boolean"},
    "a text": {"type": "string"},
    "an object": {"type": "object"},
    "a list": {"type": "array"},
    "a text or a list of texts": {"type": ["string", "array"], "items": {"type": "string"}},
    "a text or an object": {"type": ["string", "object"]},
}
"""A schema for each kind that `body.check_type` knows."""

_TEXT, _NULL = {"type": "string"}, {"type": "null"}
_ID = {"type": "integer", "minimum": 0, "exclusiveMaximum": tokens.LARGEST}
_IDS = {"type": "array", "minItems": 1, "items": _ID}
_SAYING: JSON = {"type": "string", "pattern": r"[^\s\x1c-\x1f\x85]"}
"""A text that is not blank, as Python has it: five characters more are white space there than in the standard of patterns."""
_WRITTEN = {"type": "string", "minLength": 1}
_FUNCTION = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": _TEXT,
        "description": {"type": ["string", "null"]},
        "parameters": {"type": ["object", "null"], "description": "A JSON schema."},
    },
}
_FORMAT = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"enum": list(FORMATS)}},
    "if": {"properties": {"type": {"const": "json_schema"}}},
    "then": {
        "required": ["json_schema"],
        "properties": {
            "json_schema": {
                "type": "object",
                "required": ["name", "schema"],
                "properties": {"name": _TEXT, "schema": {"type": "object", "description": "A JSON schema."}},
            }
        },
    },
}
_NAMED_TOOL = {
    "type": "object",
    "required": ["type", "function"],
    "properties": {
        "type": {"const": "function"},
        "function": {"type": "object", "required": ["name"], "properties": {"name": _WRITTEN}},
    },
}
_COMPARISON: JSON = {
    "type": "object",
    "required": ["type", "key", "value"],
    "properties": {
        "type": {"enum": list(searching.COMPARE)},
        "key": {"type": "string", "pattern": r"^[^$]", "description": "The name of a field."},
        "value": {"type": ["string", "number", "boolean", "array"]},
    },
    "additionalProperties": False,
}


def _join(*parts: JSON) -> JSON:
    filters = {"type": "array", "minItems": 1, "items": {"anyOf": list(parts)}}
    properties = {"type": {"enum": list(searching.JOIN)}, "filters": filters}
    return {"type": "object", "required": ["type", "filters"], "properties": properties, "additionalProperties": False}


_NARROWER: Mapping[str, JSON] = {
    # vLLM's own bounds, which it checks itself
    "temperature": {"minimum": 0, "maximum": 2},
    "top_p": {"exclusiveMinimum": 0, "maximum": 1},
    "top_k": {"minimum": -1, "description": "0 and -1 take every token."},
    "min_p": {"minimum": 0, "maximum": 1},
    "presence_penalty": {"minimum": -2, "maximum": 2},
    "frequency_penalty": {"minimum": -2, "maximum": 2},
    "repetition_penalty": {"exclusiveMinimum": 0},
    "min_tokens": {"minimum": 0},
    "stop": {"minLength": 1, "items": {"type": "string", "minLength": 1}, "maxItems": MAX_STOPS},
    "stream_options": {
        "properties": {
            "include_usage": {"type": ["boolean", "null"]}, "continuous_usage_stats": {"type": ["boolean", "null"]},
        },
        "description": "Has an effect where stream is true.",
    },
    "tools": {"minItems": 1, "items": {"type": "object", "required": ["function"], "properties": {"function": _FUNCTION}}},
    "tool_choice": {"anyOf": [{"enum": ["none", "auto", "required", None]}, _NAMED_TOOL]},
    # bounds of the gateway
    "filters": {
        "anyOf": [_COMPARISON, _join(_COMPARISON, _join({"type": "object"})), {"type": "null"}],
        "description": "OpenAI's: `eq` and the like with `key` and `value`, or `and` and `or` with a list of `filters`.",
    },
    "response_format": {**_FORMAT, "type": ["object", "null"]},
    "logit_bias": {"propertyNames": {"pattern": "^[0-9]+$"}, "additionalProperties": {"type": "number"}},
    "reasoning_effort": {"enum": [*chat.EFFORTS, None]},
    "chat_template_kwargs": {
        "propertyNames": {"pattern": r"^[^\W\d]\w*$", "not": {"enum": sorted(chat.NO_VARIABLE)}},
        "additionalProperties": {"type": ["boolean", "number", "string", "null"]},
        "description": "Variables of the model's chat template.",
    },
}  # fmt: skip
_UNUSED: Mapping[str, JSON] = {
    "verbosity": {"enum": ["medium", None]},
    "modalities": {"enum": [["text"], None]},
    **{name: {"description": "Has no effect here."} for name in sorted(chat.WITHOUT_EFFECT)},
}
_PART = {
    "anyOf": [
        {"type": "object", "required": ["type", kind], "properties": {"type": {"const": kind}, kind: _TEXT}}
        for kind in ("text", "refusal")
    ]
}
_CONTENT = {"anyOf": [_TEXT, {"type": "array", "items": _PART}]}
_CALL = {
    "type": "object",
    "required": ["function"],
    "properties": {
        "function": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": _TEXT, "arguments": {"type": ["string", "null"], "description": "JSON."}},
        }
    },
}
_MESSAGE = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"enum": list(chat.ROLES)},
        "name": {"type": ["string", "null"]},
        "tool_call_id": {"type": ["string", "null"]},
        "tool_calls": {"type": ["array", "null"], "items": _CALL},
        "function_call": _NULL,
    },
    "if": {"properties": {"role": {"const": "assistant"}}},
    "then": {"properties": {"content": {"anyOf": [*_CONTENT["anyOf"], _NULL]}}},
    "else": {"required": ["content"], "properties": {"content": _CONTENT}},
}


def _typed(kind: str, **fields: JSON) -> JSON:
    """An object of a `type` that has these fields, and maybe others."""
    properties = {"type": {"const": kind}} | fields
    return {"type": "object", "required": list(properties), "properties": properties}


_PARTS: JSON = {
    "anyOf": [
        _TEXT,
        {"type": "array", "items": {"anyOf": [_typed(kind, **{field: _TEXT}) for kind, field in items.TEXTS.items()]}},
    ]
}
_ITEMS: list[JSON] = [
    {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"type": {"const": "message"}, "role": {"enum": list(items.ROLES)}, "content": _PARTS},
    },
    _typed("function_call", call_id=_TEXT, name=_TEXT, arguments=_TEXT),
    _typed("function_call_output", call_id=_TEXT, output=_PARTS),
    _typed("reasoning", content={"anyOf": [*_PARTS["anyOf"], _NULL]}) | {"required": ["type"]},
]
"""What a response's input consists of."""


def object_of(fields: Mapping[str, JSON], required: tuple[str, ...], **more: Any) -> JSON:
    """An object that has these fields and no others."""
    return {"type": "object", "required": list(required), "properties": dict(fields), "additionalProperties": False, **more}


def typed(kinds: Mapping[str, str | None], ranges: Mapping[str, tuple[int, int]]) -> dict[str, JSON]:
    """A schema for each field.

    Args:
        kinds: what each must be, as `body.check_type` names it.
        ranges: the lowest and the highest of those that are bounded.
    """
    found = {}
    for name, kind in kinds.items():
        if kind is None:  # whoever takes it says itself what it is
            continue
        types = TYPES[kind]["type"]
        null = {"type": [*([types] if isinstance(types, str) else types), "null"]}
        ends = dict(zip(("minimum", "maximum"), ranges[name], strict=True)) if name in ranges else {}
        found[name] = TYPES[kind] | null | _NARROWER.get(name, {}) | ends
    return found


def chat_request(context: int, model: JSON) -> JSON:
    """What /v1/chat/completions takes; `context` is the tokens that the model takes, `model` the schema of its name."""
    messages = {"type": "array", "minItems": 1, "maxItems": chat.MAX_MESSAGES, "items": _MESSAGE}
    own = {"model": model, "messages": messages, "stream": {"type": ["boolean", "null"], "default": False}}
    chosen = {"properties": {"tool_choice": {"not": {"enum": ["none", None]}}}, "required": ["tool_choice"]}
    among = {"properties": {"tools": {"type": "array"}}, "required": ["tools"]}
    fields = typed(chat.FIELDS, chat.bounds(context)) | _others()
    return object_of(own | fields, ("model", "messages"), **{"if": chosen, "then": among})


def completion_request(context: int, model: JSON) -> JSON:
    """What /v1/completions takes."""
    prompt = {
        "anyOf": [
            _WRITTEN,
            _IDS,
            {"type": "array", "minItems": 1, "maxItems": completions.MAX_PROMPTS, "items": {"anyOf": [_WRITTEN, _IDS]}},
        ]
    }
    own = {
        "model": model, "prompt": prompt, "stream": {"type": ["boolean", "null"], "default": False},
        "best_of": {"enum": [1, None]}, "suffix": {"enum": ["", None]},
    }  # fmt: skip
    fields = typed(completions.FIELDS, completions.bounds(context, echo=True))
    continued = {"properties": {"max_tokens": {"type": ["integer", "null"], "minimum": 1}}}
    scored = {"properties": {"echo": {"const": True}}, "required": ["echo"]}
    return object_of(own | fields | _others(), ("model", "prompt"), anyOf=[continued, scored])


def tokenize_request(model: JSON) -> JSON:
    """What /tokenize takes."""
    switches = {name: {"type": ["boolean", "null"]} for name in ("add_special_tokens", "return_token_strs")}
    return object_of({"model": model, "prompt": _TEXT, **switches}, ("model", "prompt"))


def detokenize_request(model: JSON) -> JSON:
    """What /detokenize takes."""
    ids = {"type": "array", "items": _ID}
    return object_of({"model": model, "tokens": ids}, ("model", "tokens"))


def embedding_request(model: JSON) -> JSON:
    """What /v1/embeddings takes."""
    several = {"type": "array", "minItems": 1, "maxItems": embeddings.MOST, "items": _SAYING}
    own = {
        "model": model, "input": {"anyOf": [_SAYING, several]}, "encoding_format": {"enum": ["float", "base64", None]},
        "input_type": {"enum": ["query", "document", None], "description": "Whose prefix the texts are given."},
    }  # fmt: skip
    return object_of(typed(embeddings.KINDS, {"dimensions": (1, 2**31)}) | own, ("model", "input"))


def rerank_request(model: JSON) -> JSON:
    """What /v1/rerank takes."""
    documents = {
        "type": "array",
        "minItems": 1,
        "maxItems": rerank.MOST,
        "items": {"anyOf": [_TEXT, object_of({"text": _TEXT}, ("text",))]},
    }
    own: dict[str, JSON] = {"model": model, "query": _SAYING, "documents": documents}
    return object_of(typed(rerank.KINDS, {"top_n": (1, 2**31)}) | own, ("model", "query", "documents"))


def search_request(model: JSON) -> JSON:
    """What /v1/search takes."""
    own: dict[str, JSON] = {"model": model, "query": _SAYING}
    return object_of(typed(searching.KINDS, {"top_k": (1, searching.MOST)}) | own, ("model", "query"))


def store_request() -> JSON:
    """What /v1/vector_stores/NAME/search takes."""
    several = {"type": "array", "minItems": 1, "maxItems": searching.MOST_QUERIES, "items": _SAYING}
    own: dict[str, JSON] = {"query": {"anyOf": [_SAYING, several]}, "rewrite_query": {"enum": [False, None]}}
    return object_of(typed(searching.STORE_KINDS, {"max_num_results": (1, searching.MOST_RESULTS)}) | own, ("query",))


def feedback_request() -> JSON:
    """What /v1/feedback takes."""
    own: dict[str, JSON] = {
        "request_id": {"type": "string", "description": "The x-request-id of the answer."},
        "metric": {"enum": [*feedback.METRICS, None], "default": "vote"},
        "value": {"type": ["boolean", "number"]},
        "comment": {"type": ["string", "null"], "maxLength": feedback.LONGEST},
    }
    judged = {"properties": {"metric": {"const": "judge"}}, "required": ["metric"]}
    score = {"properties": {"value": {"type": "number", "minimum": 0, "maximum": 1}}}
    vote = {"properties": {"value": {"type": "boolean"}}}
    return object_of(own, ("request_id", "value"), **{"if": judged, "then": score, "else": vote})


def response_request(context: int, model: JSON) -> JSON:
    """What /v1/responses takes."""
    only: dict[str, JSON] = {
        "store": {"enum": [False, None]}, "background": {"enum": [False, None]}, "include": {"enum": [[], None]},
        "stream_options": object_of({"include_obfuscation": {}}, (), type=["object", "null"]),
        "truncation": {"enum": ["disabled", None]}, "service_tier": {"enum": [*chat.TIERS, None]},
    }  # fmt: skip
    own: dict[str, JSON] = {
        "model": model,
        "input": {"type": ["string", "array"], "minItems": 1, "maxItems": chat.MAX_MESSAGES, "items": {"anyOf": _ITEMS}},
        "tool_choice": {"anyOf": [{"enum": ["none", "auto", "required", None]}, _typed("function", name=_TEXT)]},
        "tools": {"type": ["array", "null"], "items": _typed("function", name=_WRITTEN)},
    }
    return object_of(typed(asking.KINDS, {"max_output_tokens": (1, context)}) | only | own, ("model", "input"))


def _others() -> dict[str, JSON]:
    return {"service_tier": {"enum": [*chat.TIERS, None], "description": "flex lets other requests go first."}, **_UNUSED}
