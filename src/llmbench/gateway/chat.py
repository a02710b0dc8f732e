"""What a chat request may say. Only the fields listed here reach vLLM; any other is refused by name.

So nobody sends the server a chat template, a path or a URL to fetch, and a mistyped field is noticed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from llmbench.endpoint import Message
from llmbench.gateway.refusal import Refusal
from llmbench.recipe import Sampling

__all__ = ["MAX_BODY", "ChatRequest", "parse", "with_defaults", "with_system"]

MAX_BODY = 1_000_000
"""Bytes of a request."""

_MAX_MESSAGES = 1000
_MAX_N = 8
_MAX_STOP = 16
_MAX_LOGPROBS = 20
_MAX_SCHEMA_DEPTH = 32

_SAMPLING = ("temperature", "top_p", "seed", "stop")
_FIELDS = {
    "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "stop", "seed",
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias",
    "logprobs", "top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls", "ignore_eos", "min_tokens",
}  # fmt: skip
_WITHOUT_EFFECT = {"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"}
"""OpenAI's own bookkeeping, which clients send unasked; it stays here."""
_MESSAGE_FIELDS = {"role", "content", "name", "tool_calls", "tool_call_id"}
_ROLES = ("system", "developer", "user", "assistant", "tool")
_FORMATS = ("text", "json_object", "json_schema")


@dataclass(frozen=True)
class ChatRequest:
    """A checked request: `messages` hold plain text, `fields` is the rest of what vLLM gets."""

    model: str
    messages: list[Message]
    stream: bool
    fields: dict[str, Any]


def parse(raw: bytes, *, context: int) -> ChatRequest:
    """Checks the body of a chat request.

    Args:
        raw: the body, at most MAX_BODY bytes.
        context: tokens that the model takes.

    Raises:
        Refusal: status 400 with the field that is wrong.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refusal(400, "The body is not JSON.") from None
    if not isinstance(body, dict):
        raise Refusal(400, "The body is not a JSON object.")
    fields = {key: value for key, value in body.items() if value is not None and key not in _WITHOUT_EFFECT}
    for key in fields:
        if key not in _FIELDS:
            raise Refusal(400, f"{key} is not accepted here.", param=key, code="unknown_parameter")
    model, messages, stream = fields.pop("model", None), fields.pop("messages", None), fields.pop("stream", False)
    if not isinstance(model, str):
        raise Refusal(400, "model is missing: name one that /v1/models lists.", param="model")
    if not isinstance(messages, list) or not 0 < len(messages) <= _MAX_MESSAGES:
        raise Refusal(400, f"messages must be a list of 1 to {_MAX_MESSAGES} messages.", param="messages")
    if not isinstance(stream, bool):
        raise Refusal(400, "stream must be true or false.", param="stream")
    if not stream:
        fields.pop("stream_options", None)
    _check_limits(fields, context)
    return ChatRequest(model, [_message(message, i) for i, message in enumerate(messages)], stream, fields)


def with_defaults(fields: dict[str, Any], sampling: Sampling) -> dict[str, Any]:
    """Fills in the variant's sampling where the client said nothing."""
    defaults = {key: value for key in _SAMPLING if (value := getattr(sampling, key)) not in (None, [])}
    if "max_tokens" not in fields and "max_completion_tokens" not in fields:
        defaults["max_tokens"] = sampling.max_tokens
    return defaults | fields


def with_system(messages: list[Message], system: str | None) -> list[Message]:
    """Puts the variant's system text first, joined with the client's own where there is one."""
    if not system:
        return messages
    if messages and messages[0]["role"] in ("system", "developer"):
        return [messages[0] | {"content": f"{system}\n\n{messages[0]['content']}"}, *messages[1:]]
    return [{"role": "system", "content": system}, *messages]


def _check_limits(fields: dict[str, Any], context: int) -> None:
    for key, highest in (
        ("max_tokens", context),
        ("max_completion_tokens", context),
        ("n", _MAX_N),
        ("top_logprobs", _MAX_LOGPROBS),
    ):
        value = fields.get(key)
        lowest = 0 if key == "top_logprobs" else 1
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest):
            raise Refusal(400, f"{key} must be a whole number from {lowest} to {highest}, not {value!r:.40}.", param=key)
    stop = fields.get("stop", [])
    if isinstance(stop, list) and len(stop) > _MAX_STOP:
        raise Refusal(400, f"stop takes at most {_MAX_STOP} texts.", param="stop")
    form = fields.get("response_format")
    if form is not None and (not isinstance(form, dict) or form.get("type") not in _FORMATS):
        raise Refusal(400, f"response_format.type must be one of {', '.join(_FORMATS)}.", param="response_format")
    for key in ("response_format", "tools"):
        if _depth(fields.get(key)) > _MAX_SCHEMA_DEPTH:
            raise Refusal(400, f"{key} is nested deeper than {_MAX_SCHEMA_DEPTH}.", param=key)


def _depth(value: Any) -> int:
    """How deep lists and objects are nested, without recursion."""
    depth, level = 0, [value]
    while level:
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        depth += 1
    return depth


def _message(message: Any, i: int) -> Message:
    """One message with its parts of text joined; images, sounds and files are refused."""
    where = f"messages[{i}]"
    if not isinstance(message, dict) or message.get("role") not in _ROLES:
        raise Refusal(400, f"{where}.role must be one of {', '.join(_ROLES)}.", param=where)
    result = {key: value for key, value in message.items() if value is not None}
    for key in result:
        if key not in _MESSAGE_FIELDS and result[key] != []:
            raise Refusal(400, f"{where}.{key} is not accepted here.", param=f"{where}.{key}", code="unknown_parameter")
    result = {key: value for key, value in result.items() if key in _MESSAGE_FIELDS}
    content = result.get("content", "" if result.get("tool_calls") else None)
    if isinstance(content, list):
        if not all(
            isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in content
        ):
            raise Refusal(400, f"{where}.content: only parts of type text are accepted.", param=f"{where}.content")
        content = "\n".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise Refusal(400, f"{where}.content must be text.", param=f"{where}.content")
    return result | {"content": content}
