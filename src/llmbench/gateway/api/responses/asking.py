"""The body of a request for a response, as the request of a chat. Nothing is stored, so each request holds its conversation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from llmbench.gateway import chat
from llmbench.gateway.api.fields import model_of, of_body, refuse
from llmbench.gateway.api.responses.items import messages_of
from llmbench.gateway.refusal import Refusal

__all__ = ["KINDS", "ResponseRequest", "parse"]

KINDS = {
    "model": "a text", "input": None, "instructions": "a text", "max_output_tokens": "a whole number",
    "temperature": "a number", "top_p": "a number", "text": "an object", "tools": "a list",
    "tool_choice": "a text or an object", "parallel_tool_calls": "true or false", "reasoning": "an object",
    "stream": "true or false", "stream_options": "an object", "metadata": "an object", "user": "a text",
    "store": "true or false", "background": "true or false", "include": "a list", "truncation": "a text",
    "service_tier": "a text", "safety_identifier": "a text", "prompt_cache_key": "a text",
}  # fmt: skip
_STATELESS = "this server keeps no responses; send the whole conversation as input"
_ELSEWHERE = {
    "previous_response_id": _STATELESS,
    "conversation": _STATELESS,
    "prompt": "this server keeps no prompts; send instructions",
    "max_tokens": "say max_output_tokens",
    "max_completion_tokens": "say max_output_tokens",
    "messages": "say input",
    "response_format": "say text.format",
    "reasoning_effort": "say reasoning.effort",
    "stop": "the Responses API has none; ask /v1/chat/completions",
    "top_logprobs": "ask /v1/chat/completions with logprobs",
    "max_tool_calls": "this server calls no tools itself",
    "reasoning.summary": "reasoning is given in full, where the model's parser finds it",
    "reasoning.generate_summary": "reasoning is given in full, where the model's parser finds it",
}
_NOTHING: dict[str, Any] = {"store": False, "background": False, "include": [], "truncation": "disabled"}
"""Fields of which only the value that asks for nothing is taken."""
_WHY = {
    "store": _STATELESS,
    "background": "the answer comes with the request; stream it instead",
    "include": "an answer holds all that this server knows",
    "truncation": "a conversation that is too long is refused, so that no message is left out silently",
}
_OURS = [
    (re.compile(theirs), ours)
    for theirs, ours in (
        (r"^response_format(\.json_schema)?", "text.format"), (r"^(tools\[\d+\])\.function", r"\1"),
        (r"^max_completion_tokens", "max_output_tokens"), (r"^reasoning_effort", "reasoning.effort"), (r"^messages", "input"),
    )
]  # fmt: skip
"""How a chat's field begins, and what a response calls it."""


@dataclass(frozen=True)
class ResponseRequest:
    """A checked request: the chat that it is, and what the response repeats of it."""

    chat: chat.ChatRequest
    said: dict[str, Any]


def parse(raw: bytes, *, context: int) -> ResponseRequest:
    """Checks the body of a request for a response.

    Args:
        raw: the body.
        context: tokens that the model takes.

    Raises:
        Refusal: status 400 with the field that is wrong.
    """
    fields = of_body(raw, KINDS, _ELSEWHERE)
    for key, nothing in _NOTHING.items():
        if fields.get(key, nothing) != nothing:
            raise Refusal(400, f"{key} is not accepted here: {_WHY[key]}.", param=key)
    refuse(fields.get("stream_options", {}), {"include_obfuscation"}, {}, "stream_options.")
    body: dict[str, Any] = {"model": model_of(fields), "messages": messages_of(fields.get("input"), fields.get("instructions"))}
    for key in ("temperature", "top_p", "parallel_tool_calls", "stream", "user", "service_tier", "safety_identifier"):
        if key in fields:
            body[key] = fields[key]
    if "max_output_tokens" in fields:
        body["max_completion_tokens"] = fields["max_output_tokens"]
    if fields.get("stream"):
        body["stream_options"] = {"include_usage": True}
    reasoning = {key: value for key, value in fields.get("reasoning", {}).items() if value is not None}
    refuse(reasoning, {"effort"}, _ELSEWHERE, "reasoning.")
    if "effort" in reasoning:
        body["reasoning_effort"] = reasoning["effort"]
    body |= _format(fields.get("text", {})) | _tools(fields)
    try:
        return ResponseRequest(chat.checked(body, context=context), _said(fields))
    except Refusal as refusal:
        raise in_our_words(refusal) from refusal


def _format(text: dict[str, Any]) -> dict[str, Any]:
    given = {key: value for key, value in text.items() if value is not None}
    refuse(given, {"format", "verbosity"}, {}, "text.")
    if given.get("verbosity", "medium") != "medium":
        raise Refusal(400, "text.verbosity is not accepted here: leave it out, or send 'medium'.", param="text.verbosity")
    form = given.get("format", {"type": "text"})
    if not isinstance(form, dict):
        raise Refusal(400, "text.format must be an object.", param="text.format")
    if form.get("type") != "json_schema":
        return {} if form.get("type") == "text" else {"response_format": form}
    return {"response_format": {"type": "json_schema", "json_schema": {k: v for k, v in form.items() if k != "type"}}}


def _tools(fields: dict[str, Any]) -> dict[str, Any]:
    """Tools and the choice among them, as chats have them."""
    found: dict[str, Any] = {}
    for i, tool in enumerate(fields.get("tools", [])):
        if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("name"), str):
            message = f"tools[{i}] must be a function with a name: this server has no tools of its own."
            raise Refusal(400, message, param=f"tools[{i}]")
        function = {key: value for key, value in tool.items() if key != "type" and value is not None}
        refuse(function, {"name", "description", "parameters", "strict"}, {}, f"tools[{i}].")
        found.setdefault("tools", []).append({"type": "function", "function": function})
    choice = fields.get("tool_choice")
    if isinstance(choice, dict):
        if choice.get("type") != "function" or not isinstance(choice.get("name"), str):
            message = "tool_choice must be auto, none, required, or a function with its name."
            raise Refusal(400, message, param="tool_choice")
        choice = {"type": "function", "function": {"name": choice["name"]}}
    elif choice not in (None, "auto", "none", "required"):
        raise Refusal(400, f"tool_choice must be auto, none or required, not {choice!r:.40}.", param="tool_choice")
    if choice is not None and "tools" in found:  # what is chosen among none says nothing
        found["tool_choice"] = choice
    return found


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    """What a response repeats of its request."""
    text = fields.get("text", {})
    return {
        "instructions": fields.get("instructions"),
        "max_output_tokens": fields.get("max_output_tokens"),
        "metadata": fields.get("metadata", {}),
        "parallel_tool_calls": fields.get("parallel_tool_calls", True),
        "previous_response_id": None,
        "reasoning": {"effort": fields.get("reasoning", {}).get("effort"), "summary": None},
        "store": False,
        "temperature": fields.get("temperature"),
        "text": {"format": text.get("format") or {"type": "text"}},
        "tool_choice": fields.get("tool_choice", "auto"),
        "tools": fields.get("tools", []),
        "top_p": fields.get("top_p"),
        "truncation": "disabled",
        "user": fields.get("user"),
    }


def in_our_words(refusal: Refusal) -> Refusal:
    """A refusal of the chat with the names of a response's fields where it begins with a chat's. It stays the same object."""
    for theirs, ours in _OURS:
        if refusal.param is not None:
            refusal.param = theirs.sub(ours, refusal.param)
        refusal.message = theirs.sub(ours, refusal.message)
    return refusal
