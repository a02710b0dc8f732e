"""A chat's answer as a response: its items, its usage, and the citations of a RAG variant's passages."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

__all__ = ["begun", "call_item", "citations", "ended", "id_of", "items_of", "message_item", "reasoning_item", "usage_of"]

_CITATION = re.compile(r"\[(\d{1,4})\]")


def id_of(prefix: str) -> str:
    """A fresh name, such as `resp_...` or `msg_...`."""
    return f"{prefix}_{uuid.uuid4().hex}"


def begun(model: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """A response of which nothing is there yet; `said` is what it repeats of its request."""
    return {
        "id": id_of("resp"),
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [],
        "usage": None,
        **said,
    }


def ended(response: Mapping[str, Any], output: Sequence[Mapping[str, Any]], reason: str | None, usage: Any) -> dict[str, Any]:
    """The response once its answer has ended for a reason, as chats name it."""
    cut = reason in ("length", "content_filter")
    details = {"reason": "max_output_tokens" if reason == "length" else "content_filter"} if cut else None
    status = "incomplete" if cut else "completed"
    return {**response, "status": status, "incomplete_details": details, "output": list(output), "usage": usage_of(usage)}


def items_of(message: Mapping[str, Any], sources: Sequence[Mapping[str, Any]], reason: str | None) -> list[dict[str, Any]]:
    """The items of a whole answer: what was thought, what was said, what was called."""
    items = []
    status = "incomplete" if reason == "length" else "completed"
    thought, text, calls = (
        message.get("reasoning") or message.get("reasoning_content"),
        message.get("content"),
        message.get("tool_calls"),
    )
    if isinstance(thought, str) and thought:
        items.append(reasoning_item(id_of("rs"), thought, "completed" if text or calls else status))
    if text or not (calls or items):
        items.append(message_item(id_of("msg"), text or "", sources, status))
    for call in calls or ():
        function = call.get("function") or {}
        items.append(call_item(id_of("fc"), call.get("id"), function.get("name"), function.get("arguments"), status))
    return items


def reasoning_item(id: str, text: str, status: str) -> dict[str, Any]:
    """What the model thought before it answered."""
    return {
        "id": id,
        "type": "reasoning",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": text}],
        "status": status,
    }


def message_item(id: str, text: str, sources: Sequence[Mapping[str, Any]], status: str) -> dict[str, Any]:
    """What the model said."""
    part = {"type": "output_text", "text": text, "annotations": citations(text, sources), "logprobs": []}
    return {"id": id, "type": "message", "role": "assistant", "status": status, "content": [part]}


def call_item(id: str, call: str | None, name: str | None, arguments: str | None, status: str) -> dict[str, Any]:
    """A function that the model calls."""
    return {
        "id": id,
        "type": "function_call",
        "call_id": call or id_of("call"),
        "name": name or "",
        "arguments": arguments or "",
        "status": status,
    }


def citations(text: str, sources: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The passages that a text cites as [n], each once; `index` is its place in `sources`."""
    numbers = dict.fromkeys(int(found[1]) for found in _CITATION.finditer(text))
    return [
        {
            "type": "file_citation",
            "file_id": str(sources[n - 1].get("source", "")),
            "filename": PurePath(str(sources[n - 1].get("source", ""))).name,
            "index": n - 1,
        }
        for n in numbers
        if 0 < n <= len(sources)
    ]


def usage_of(usage: Any) -> dict[str, Any] | None:
    """A chat's usage in the words of a response."""
    if not isinstance(usage, dict):
        return None
    read, written = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": read + written,
    }
