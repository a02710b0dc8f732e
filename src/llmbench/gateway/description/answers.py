"""The schemas of answers, and the errors with their codes."""

from __future__ import annotations

from llmbench.gateway.body import JSON

__all__ = ["ANSWERS", "CODES", "STATUSES"]

_TEXT, _WHOLE = {"type": "string"}, {"type": "integer"}
_MAYBE_TEXT = {"type": ["string", "null"]}

CODES = {
    "context_length_exceeded": "The messages are longer than the model's context.",
    "engine_error": "The engine failed at this request.",
    "engine_unavailable": "The engine does not run, or is being started again.",
    "insufficient_quota": "The key's tokens of the day are used up.",
    "invalid_api_key": "The key is missing, wrong, revoked or expired.",
    "keys_unavailable": "The file of keys cannot be read or written.",
    "method_not_allowed": "The path takes another method.",
    "model_not_found": "There is no such variant for this key.",
    "model_not_supported": "The model cannot do this: it has no pipeline, its pipeline no reranker, or it is a pipeline alone.",
    "not_ready": "No variant is served yet.",
    "not_allowed": "A named key may not read this.",
    "not_found": "There is no such path.",
    "rate_limit_exceeded": "Too much at once. Retry-After says when to ask again.",
    "request_not_found": "No request of this id that can be voted on was answered to this key.",
    "request_timeout": "The client's own deadline has passed.",
    "retrieval_unavailable": "The index of the variant's pipeline cannot be searched.",
    "server_overloaded": "Too many requests wait for the engine.",
    "server_stopping": "The server is stopping.",
    "unknown_parameter": "The request has a field that this server does not know.",
}
"""What `error.code` says; where it is null, the status and the message say all."""

STATUSES = {
    400: "The request is wrong; `param` names the field.",
    401: "The key is missing or wrong.",
    403: "A named key may not read this.",
    404: "There is no such variant, or no such answer, for this key.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body is not JSON in UTF-8, or is compressed.",
    421: "This server does not answer to that host name.",
    422: "The engine cannot process the request.",
    429: "A limit of the key or of the server is reached.",
    431: "The headers are too large.",
    500: "The gateway failed; its log says how.",
    502: "The engine failed at this request.",
    503: "The engine, the index or the key file is unavailable, or too many requests wait.",
    504: "The answer took longer than the client waits.",
}
"""The errors by their status."""

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong and what next, in one line."},
                "type": {
                    "enum": [
                        "invalid_request_error", "authentication_error", "not_found_error", "rate_limit_error", "server_error",
                    ]
                },
                "param": {"type": ["string", "null"], "description": "The field of the request that it is about."},
                "code": {
                    "enum": [*CODES, None],
                    "description": "\n".join(f"- `{code}`: {meaning}" for code, meaning in CODES.items()),
                },
            },
        }
    },
}  # fmt: skip
_USAGE = {
    "type": ["object", "null"],
    "properties": dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), _WHOLE),
}
_SOURCE = {
    "type": "object",
    "required": ["n", "text"],
    "properties": {"n": _WHOLE, "text": _TEXT, "title": _MAYBE_TEXT, "score": {"type": ["number", "null"]}},
}


def _completion(kind: str, choice: JSON) -> JSON:
    every = {"index": _WHOLE, "finish_reason": _MAYBE_TEXT, "logprobs": {"type": ["object", "null"]}, **choice}
    return {
        "type": "object",
        "required": ["model", "choices"],
        "properties": {
            "id": _TEXT,
            "object": {"const": kind},
            "created": _WHOLE,
            "model": {"type": "string", "description": "The variant that answered."},
            "choices": {"type": "array", "items": {"type": "object", "required": ["index", *choice], "properties": every}},
            "usage": _USAGE,
            "sources": {"type": "array", "items": _SOURCE, "description": "The passages given to a variant with a pipeline."},
        },
    }


def _listed(name: str, fields: dict[str, JSON]) -> JSON:
    item = {"type": "object", "required": list(fields), "properties": fields}
    return {"type": "object", "required": [name], "properties": {name: {"type": "array", "items": item}, "usage": _USAGE}}


_MESSAGE = {
    "type": "object",
    "required": ["role"],
    "properties": {
        "role": {"const": "assistant"},
        "content": _MAYBE_TEXT,
        "reasoning": _MAYBE_TEXT,
        "tool_calls": {"type": ["array", "null"], "items": {"type": "object"}},
    },
}
_MODEL = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {"id": _TEXT, "object": {"const": "model"}, "created": _WHOLE, "owned_by": _TEXT, "description": _MAYBE_TEXT},
}
ANSWERS: dict[str, JSON] = {
    "Error": _ERROR,
    "ChatCompletion": _completion("chat.completion", {"message": _MESSAGE}),
    "Completion": _completion("text_completion", {"text": _TEXT}),
    "Model": _MODEL,
    "Models": {
        "type": "object",
        "required": ["object", "data"],
        "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}}},
    },
    "Tokens": {
        "type": "object",
        "required": ["count", "tokens"],
        "properties": {
            "count": _WHOLE,
            "max_model_len": _WHOLE,
            "tokens": {"type": "array", "items": _WHOLE},
            "token_strs": {"type": ["array", "null"], "items": _TEXT},
        },
    },
    "Text": {"type": "object", "required": ["prompt"], "properties": {"prompt": _TEXT}},
    "Embeddings": _listed(
        "data",
        {"index": _WHOLE, "embedding": {"type": ["array", "string"], "items": {"type": "number"}}},
    ),
    "Ranking": _listed("results", {"index": _WHOLE, "relevance_score": {"type": "number"}}),
    "Passages": _listed("hits", {"n": _WHOLE, "text": _TEXT}),
    "StorePage": _listed("data", {"file_id": _TEXT, "score": {"type": "number"}}),
    "Response": {
        "type": "object",
        "required": ["id", "object", "status", "model", "output"],
        "properties": {
            "id": _TEXT,
            "object": {"const": "response"},
            "status": {"enum": ["completed", "incomplete"]},
            "model": _TEXT,
            "output": {"type": "array", "items": {"type": "object", "required": ["type"], "properties": {"type": _TEXT}}},
            "usage": {"type": ["object", "null"]},
        },
    },
    "Feedback": {
        "type": "object",
        "required": ["object", "request_id", "metric", "value", "replaced"],
        "properties": {
            "object": {"const": "feedback"},
            "request_id": _TEXT,
            "metric": {"enum": ["vote", "judge"]},
            "value": {"type": ["boolean", "number"]},
            "replaced": {"type": "boolean", "description": "Whether the same was given before. The first counts."},
        },
    },
    "Health": {
        "type": "object",
        "required": ["status"],
        "properties": {
            "status": _TEXT,
            "models": {"type": "array", "items": _TEXT, "description": "The variants, for whoever has the key."},
        },
    },
}
"""The schemas of answers, by name."""
