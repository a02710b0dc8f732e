"""The items of a response's input as the messages of a chat."""

from __future__ import annotations

from typing import Any

from llmbench.gateway.chat import MAX_MESSAGES
from llmbench.gateway.refusal import Refusal

__all__ = ["ROLES", "TEXTS", "messages_of"]

ROLES = ("system", "developer", "user", "assistant")
TEXTS = {"input_text": "text", "output_text": "text", "text": "text", "reasoning_text": "text", "refusal": "refusal"}
"""Each kind of a part of text, and the field that holds it."""


def messages_of(given: Any, instructions: str | None) -> list[dict[str, Any]]:
    """A text, or a list of messages, calls, their outputs and earlier reasoning, with the instructions before them.

    Raises:
        Refusal: status 400 with the item that is none of these.
    """
    if isinstance(given, str):
        messages: list[dict[str, Any]] = [{"role": "user", "content": given}]
    elif isinstance(given, list) and 0 < len(given) <= MAX_MESSAGES:
        messages = _of_items(given)
    else:
        raise Refusal(400, f"input must be a text, or a list of 1 to {MAX_MESSAGES:,} items.", param="input")
    if not instructions:
        return messages
    system = [{"type": "text", "text": instructions}]
    if messages and messages[0]["role"] in ("system", "developer"):  # chat templates take one
        return [messages[0] | {"content": [*system, {"type": "text", "text": ""}, *messages[0]["content"]]}, *messages[1:]]
    return [{"role": "system", "content": system}, *messages]


def _of_items(items: list[Any]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    thought = ""
    for i, item in enumerate(items):
        place = f"input[{i}]"
        kind = item.get("type", "message") if isinstance(item, dict) else None
        match kind:
            case "message":
                role = item.get("role")
                if role not in ROLES:
                    raise Refusal(400, f"{place}.role must be one of {', '.join(ROLES)}.", param=place)
                content = _texts(item.get("content"), f"{place}.content")
                messages.append({"role": role, "content": content} | _thinking(role, thought))
                thought = ""
            case "function_call":
                _answering(messages, thought)["tool_calls"].append(_call(item, place))
                thought = ""
            case "function_call_output":
                id = item.get("call_id")
                if not isinstance(id, str):
                    raise Refusal(400, f"{place}.call_id must be a text.", param=place)
                messages.append({"role": "tool", "tool_call_id": id, "content": _texts(item.get("output"), f"{place}.output")})
            case "reasoning":
                thought = "\n".join(part["text"] for part in _texts(item.get("content") or [], f"{place}.content"))
            case _:
                message = f"{place} must be a message, function_call, function_call_output or reasoning, not {kind!r:.40}."
                raise Refusal(400, message, param=place)
    return messages


def _thinking(role: str, thought: str) -> dict[str, str]:
    return {"reasoning": thought} if thought and role == "assistant" else {}


def _answering(messages: list[dict[str, Any]], thought: str) -> dict[str, Any]:
    """The message of an assistant to which a call belongs: the last one, or a new one."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""} | _thinking("assistant", thought))
    messages[-1].setdefault("tool_calls", [])
    return messages[-1]


def _call(item: dict[str, Any], place: str) -> dict[str, Any]:
    for key in ("call_id", "name", "arguments"):
        if not isinstance(item.get(key), str):
            raise Refusal(400, f"{place}.{key} must be a text.", param=place)
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def _texts(content: Any, place: str) -> list[dict[str, str]]:
    """Parts of text as chats have them."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list):
        raise Refusal(400, f"{place} must be a text or a list of parts.", param=place)
    parts = []
    for n, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get(TEXTS[kind]) if isinstance(kind, str) and kind in TEXTS else None
        if not isinstance(text, str):
            message = f"{place}[{n}] must be a part of type input_text or output_text, not {kind!r:.40}."
            raise Refusal(400, message, param=f"{place}[{n}]")
        parts.append({"type": "text", "text": text})
    return parts
