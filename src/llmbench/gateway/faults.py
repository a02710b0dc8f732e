"""The engine's own errors as ours: a client's mistake stays one, "later" stays later, everything else is the server's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import httpx

from llmbench.gateway.refusal import Refusal

__all__ = ["refusal_of"]

_PASSED_ON = (400, 413, 422, 429, 503, 504)
"""Statuses of the engine that mean the same to the client."""
_LONGEST = 500
"""Characters of a message, which may repeat what was sent."""
_FAULT = re.compile(r"'loc': (?:\(([^)]*)\)|'([^']*)'), 'msg': (?:'((?:[^'\\]|\\.)*)'|\"([^\"]*)\")")
"""A fault of pydantic's as vLLM prints it: its place is a tuple of parts, or one text with dots between them."""
_PARAMETER = re.compile(r"\s*\(parameter=([\w.]+)(?:, value=.*)?\)$", re.DOTALL)
_GRAMMAR = re.compile(r"Failed to transform json schema into a grammar: (?:\[[\d:]+\] )?(?:\S+:\d+: )?(.*)", re.DOTALL)
_UNKNOWN = "contains features not supported by xgrammar"
_RARE = (
    "multipleOf", "uniqueItems", "contains", "minContains", "maxContains", "format", "pattern", "propertyNames",
    "patternProperties", "allOf",
)  # fmt: skip
"""Keywords that vLLM lets xgrammar have in some places or combinations only, or not at all."""


def refusal_of(response: httpx.Response, asked: Mapping[str, Any]) -> Refusal:
    """What the client is told of an error with which the engine answered the request `asked`."""
    try:
        error = response.json()["error"]
        message, param = str(error["message"]), error.get("param")
    except (ValueError, KeyError, TypeError):
        message, param = response.text, None
    message, field = _one_line(message, asked)
    if response.status_code in _PASSED_ON:
        given = str(param).removeprefix("body.") if param is not None else field
        return Refusal(response.status_code, message, param=given, retry_after=response.headers.get("retry-after"))
    return Refusal(502, f"The engine answered {response.status_code}: {message}", code="engine_error")


def _one_line(message: str, asked: Mapping[str, Any]) -> tuple[str, str | None]:
    """vLLM's words in one line, and the field of the request that they are about where they name it."""
    if (fault := _FAULT.search(message)) is not None:
        place = [
            part.strip(" '\"")
            for part in (fault[1].split(",") if fault[1] is not None else fault[2].split("."))
            if part.strip()
        ]
        field = ".".join(part for part in place if part != "body") or "body"
        return f"{field}: {fault[3] or fault[4]}"[:_LONGEST], field
    if (grammar := _GRAMMAR.search(message)) is not None or _UNKNOWN in message:
        field = "response_format" if "response_format" in asked else "tools"
        why = grammar[1] if grammar is not None else _not_kept(asked.get(field))
        return " ".join(f"{field}: {why}".split())[:_LONGEST], field
    if "--enable-auto-tool-choice" in message or "--tool-call-parser" in message:
        message = (
            "This server was started without tool calls, as no parser is known for the model's chat template. Its owner can "
            "name one of vLLM's in the serving document: engine.tool_parser, such as hermes for Qwen"
        )
    named, first = _PARAMETER.search(message), next(iter(message.split(maxsplit=1)), "")
    about = named[1] if named is not None else first if first in asked else None
    return " ".join(_PARAMETER.sub("", message).split())[:_LONGEST], about


def _not_kept(schema: Any) -> str:
    """vLLM does not say which keyword it is that xgrammar cannot keep to; these of them are there."""
    text = json.dumps(schema)
    rare = [word for word in _RARE if f'"{word}":' in text]
    named = ", ".join(rare) or "a keyword that xgrammar does not support"
    return (
        f"the schema uses a feature that this server cannot enforce: {named}. Leave it out, and validate the answer yourself."
    )
