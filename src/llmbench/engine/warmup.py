"""Requests that take long the first time they are made of a vLLM: it compiles, or loads a backend, while everybody waits."""

from __future__ import annotations

from typing import Any

import httpx

from llmbench.engine.address import Place, client

__all__ = ["REQUESTS", "ask"]

_SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}
_HELLO = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 2, "seed": 0}

REQUESTS: dict[str, dict[str, Any]] = {
    "answering once, with logprobs": _HELLO | {"logprobs": True, "top_logprobs": 2, "temperature": 0.7, "top_p": 0.9},
    "answering once, in JSON": _HELLO
    | {"temperature": 0, "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": _SCHEMA}}},
}
"""What is being done -> the body of a chat request."""


def ask(at: Place, body: dict[str, Any], timeout: float) -> str | None:
    """Makes one request of an engine; why it failed, in one line, or None."""
    try:
        with client(at, timeout) as http:
            response = http.post("/v1/chat/completions", json=body)
    except httpx.HTTPError as error:
        return f"{type(error).__name__}: {error}"
    return None if response.is_success else f"it answered {response.status_code} ({' '.join(response.text.split())[:200]})"
