"""The description of the whole server, as OpenAPI 3.1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llmbench import borrowed
from llmbench.gateway.body import JSON, MAX_DEPTH
from llmbench.gateway.chat import MAX_BODY
from llmbench.gateway.description import requests
from llmbench.gateway.description.answers import ANSWERS, STATUSES

__all__ = ["document"]

_EVERYWHERE = (421, 431, 500)
_WITH_KEY = (401, 429, 503)
_WITH_BODY = (400, 404, 408, 413, 415)
_BY_ENGINE = (422, 502, 504)


@dataclass(frozen=True)
class _Operation:
    """One method of a path. `request` and `answer` are names of schemas; without an answer it is a plain text."""

    path: str
    method: Literal["get", "post"]
    does: str
    answer: str | None
    request: str | None = None
    streams: bool = False
    needs_key: bool = True
    errors: tuple[int, ...] = ()


_OPERATIONS = (
    _Operation("/v1/chat/completions", "post", "Ask a variant.", "ChatCompletion", "ChatRequest", True, errors=_BY_ENGINE),
    _Operation(
        "/v1/completions", "post", "Let a variant's model continue a text, or score one.", "Completion", "CompletionRequest",
        True, errors=_BY_ENGINE,
    ),
    _Operation("/v1/responses", "post", "Ask a variant.", "Response", "ResponseRequest", True, errors=_BY_ENGINE),
    _Operation("/v1/embeddings", "post", "Vectors of texts.", "Embeddings", "EmbeddingRequest", errors=(504,)),
    *(
        _Operation(f"{root}/rerank", "post", "Texts by how well they answer.", "Ranking", "RerankRequest", errors=(504,))
        for root in ("", "/v1", "/v2")
    ),
    _Operation("/v1/search", "post", "Passages of a pipeline's documents.", "Passages", "SearchRequest", errors=(504,)),
    _Operation(
        "/v1/vector_stores/{name}/search", "post", "The same in OpenAI's form.", "StorePage", "StoreRequest", errors=(504,)
    ),
    _Operation("/v1/feedback", "post", "Vote on an answer, or score it.", "Feedback", "FeedbackRequest"),
    _Operation("/v1/models", "get", "The variants.", "Models"),
    _Operation("/v1/models/{name}", "get", "A variant.", "Model", errors=(404,)),
    _Operation("/tokenize", "post", "The tokens of a text.", "Tokens", "TokenizeRequest", errors=_BY_ENGINE),
    _Operation("/detokenize", "post", "The text of tokens.", "Text", "DetokenizeRequest", errors=_BY_ENGINE),
    _Operation("/health", "get", "Is the engine there?", "Health", needs_key=False, errors=(503,)),
    _Operation("/ready", "get", "Does it serve a variant?", "Health", needs_key=False, errors=(503,)),
    _Operation("/metrics", "get", "Counts for Prometheus.", None, errors=(403,)),
    _Operation("/openapi.json", "get", "This description.", "Description"),
)  # fmt: skip


def document(context: int, models: Sequence[str], pipelines: Sequence[str], *, keyed: bool) -> JSON:
    """The description.

    Args:
        context: tokens that the model takes, prompt and answer together.
        models: the variants and routes that the reader may ask.
        pipelines: and the RAG pipelines.
        keyed: whether requests need a key.
    """
    model = {"type": "string", "description": "A variant, from /v1/models.", "examples": list(models)}
    pipeline = {"type": "string", "description": "A RAG pipeline, or a variant that has one.", "examples": list(pipelines)}
    schemas = {
        "ChatRequest": requests.chat_request(context, model),
        "CompletionRequest": requests.completion_request(context, model),
        "TokenizeRequest": requests.tokenize_request(model),
        "DetokenizeRequest": requests.detokenize_request(model),
        "EmbeddingRequest": requests.embedding_request(pipeline),
        "RerankRequest": requests.rerank_request(pipeline),
        "ResponseRequest": requests.response_request(context, model),
        "SearchRequest": requests.search_request(pipeline),
        "StoreRequest": requests.store_request(),
        "FeedbackRequest": requests.feedback_request(),
        "Description": {"type": "object", "description": "OpenAPI 3.1."},
    }
    paths: JSON = {}
    for operation in _OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation, keyed)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "llmbench",
            "version": borrowed.version("llmbench") or "unknown",
            "description": f"A body has at most {MAX_BODY:,} bytes and {MAX_DEPTH} levels, and no key twice.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas | ANSWERS,
            "responses": {str(status): _answer(means, "Error") for status, means in STATUSES.items()},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


_LAST = {"Response": "Events up to `response.completed`, `response.incomplete` or `response.failed`."}
"""How the stream of an answer ends, where not with [DONE]."""


def _described(operation: _Operation, keyed: bool) -> JSON:
    needs_key = operation.needs_key and keyed
    errors = {*_EVERYWHERE, *operation.errors, *(_WITH_KEY if needs_key else ()), *(_WITH_BODY if operation.request else ())}
    if operation.request:
        errors |= {429, 503}
    found: JSON = {
        "summary": operation.does,
        "operationId": f"{operation.method}{operation.path.replace('/', '_').translate(str.maketrans('', '', '{}.'))}",
        "security": [{"key": []}] if needs_key else [],
        "responses": {"200": _answer("The answer.", operation.answer, streams=operation.streams)}
        | {str(status): {"$ref": f"#/components/responses/{status}"} for status in sorted(errors)},
    }
    if operation.request:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": _schema(operation.request)}}}
    if "{name}" in operation.path:
        found["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    return found


def _answer(means: str, schema: str | None, *, streams: bool = False) -> JSON:
    content: JSON = (
        {"application/json": {"schema": _schema(schema)}} if schema else {"text/plain": {"schema": {"type": "string"}}}
    )
    if streams:
        content["text/event-stream"] = {"schema": {"description": _LAST.get(schema or "", "Events up to `data: [DONE]`.")}}
    return {"description": means, "content": content}


def _schema(name: str) -> JSON:
    return {"$ref": f"#/components/schemas/{name}"}
