"""A chat's stream as the events of a response: an item opens with its first piece, and is closed by the next or by the end."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from llmbench.gateway.api.responses.object import call_item, citations, ended, id_of, message_item, reasoning_item

__all__ = ["of_response"]

Event = tuple[str, dict[str, Any]]


async def of_response(pieces: AsyncIterator[bytes], response: dict[str, Any]) -> AsyncGenerator[bytes]:
    """The events, numbered; comments pass.

    Args:
        pieces: a chat's server-sent events, whole ones in each piece.
        response: as it stands before its first item.
    """
    answer, number = _Answer(response), 0

    def written(events: Iterable[Event]) -> bytes:
        nonlocal number
        lines = []
        for kind, data in events:
            body = json.dumps({"type": kind, "sequence_number": number, **data}, ensure_ascii=False, separators=(",", ":"))
            lines.append(f"event: {kind}\ndata: {body}\n\n")
            number += 1
        return "".join(lines).encode("utf-8", "replace")

    begun = False
    async for piece in pieces:
        for line in piece.split(b"\n"):
            if line.startswith(b":"):
                yield line + b"\n\n"
            elif line.startswith(b"data:"):
                opening = () if begun else answer.begin()  # with the first piece, so that the first byte says when it came
                begun = True
                if text := written(chain(opening, answer.take(_read(line[5:])))):
                    yield text
    yield written(chain(() if begun else answer.begin(), answer.end()))


def _read(data: bytes) -> Any:
    """What an event holds; None for the last, and for one that the engine did not finish."""
    try:
        return json.loads(data)
    except ValueError:
        return None


class _Answer:
    """The response so far, and the item that is open."""

    def __init__(self, response: dict[str, Any]) -> None:
        self._response = response
        self._output: list[dict[str, Any]] = []
        self._sources: Sequence[Mapping[str, Any]] = ()
        self._open: dict[str, Any] | None = None
        self._text: list[str] = []
        self._called: int | None = None
        self._reason: str | None = None
        self._usage: Any = None
        self._failed = False

    def begin(self) -> Iterator[Event]:
        """What comes before anything is known."""
        yield "response.created", {"response": dict(self._response)}
        yield "response.in_progress", {"response": dict(self._response)}

    def take(self, data: Any) -> Iterator[Event]:
        """The events of one event of the chat."""
        if self._failed or not isinstance(data, dict):
            return
        if error := data.get("error"):
            yield from self._fail(error)
            return
        if data.get("sources") is not None:
            self._sources = data["sources"]
            self._response = self._response | {"sources": data["sources"]}
        self._usage = data.get("usage") or self._usage
        for choice in data.get("choices") or ():
            delta = choice.get("delta") or {}
            if thought := delta.get("reasoning") or delta.get("reasoning_content"):
                yield from self._more("reasoning", thought)
            if text := delta.get("content"):
                yield from self._more("message", text)
            for call in delta.get("tool_calls") or ():
                yield from self._call(call)
            self._reason = choice.get("finish_reason") or self._reason

    def end(self) -> Iterator[Event]:
        """What comes after the last piece."""
        if self._failed:
            return
        if self._open is None and not self._output:
            yield from self._start(message_item(id_of("msg"), "", (), "in_progress"))
        yield from self._close("incomplete" if self._reason == "length" else "completed")
        self._response = ended(self._response, self._output, self._reason, self._usage)
        yield f"response.{self._response['status']}", {"response": self._response}

    def _fail(self, error: Any) -> Iterator[Event]:
        self._failed = True
        message = str(error.get("message")) if isinstance(error, dict) else str(error)
        code = (error.get("code") if isinstance(error, dict) else None) or "server_error"
        output = [*self._output, *([self._whole("incomplete")] if self._open is not None else [])]
        failed = {"status": "failed", "error": {"code": code, "message": message}, "output": output}
        yield "response.failed", {"response": self._response | failed}

    def _more(self, kind: str, text: str) -> Iterator[Event]:
        """More of what is thought or said."""
        if self._open is None or self._open["type"] != kind:
            yield from self._close("completed")
            new = reasoning_item(id_of("rs"), "", "in_progress") if kind == "reasoning" else None
            yield from self._start(new or message_item(id_of("msg"), "", (), "in_progress"))
        self._text.append(text)
        name = "response.reasoning_text.delta" if kind == "reasoning" else "response.output_text.delta"
        yield name, self._part() | {"delta": text} | ({} if kind == "reasoning" else {"logprobs": []})

    def _call(self, call: Mapping[str, Any]) -> Iterator[Event]:
        """More of a function's call; one with another number is another call."""
        function, number = call.get("function") or {}, call.get("index")
        if self._open is None or self._open["type"] != "function_call" or number != self._called:
            yield from self._close("completed")
            self._called = number
            yield from self._start(call_item(id_of("fc"), call.get("id"), function.get("name"), "", "in_progress"))
        if piece := function.get("arguments"):
            self._text.append(piece)
            yield "response.function_call_arguments.delta", self._place() | {"delta": piece}

    def _start(self, item: dict[str, Any]) -> Iterator[Event]:
        self._open, self._text = item, []
        parts = item.get("content", [])
        shown = item | {"content": []} if parts else item
        yield "response.output_item.added", {"output_index": len(self._output), "item": shown}
        if parts:
            yield "response.content_part.added", self._part() | {"part": parts[0]}

    def _close(self, status: str) -> Iterator[Event]:
        if self._open is None:
            return
        item, text = self._whole(status), "".join(self._text)
        match item["type"]:
            case "function_call":
                yield "response.function_call_arguments.done", self._place() | {"name": item["name"], "arguments": text}
            case "reasoning":
                yield "response.reasoning_text.done", self._part() | {"text": text}
                yield "response.content_part.done", self._part() | {"part": item["content"][0]}
            case _:
                for i, one in enumerate(citations(text, self._sources)):
                    yield "response.output_text.annotation.added", self._part() | {"annotation_index": i, "annotation": one}
                yield "response.output_text.done", self._part() | {"text": text, "logprobs": []}
                yield "response.content_part.done", self._part() | {"part": item["content"][0]}
        yield "response.output_item.done", {"output_index": len(self._output), "item": item}
        self._output.append(item)
        self._open = None

    def _whole(self, status: str) -> dict[str, Any]:
        """The open item with all its text."""
        assert self._open is not None
        item, text = self._open, "".join(self._text)
        match item["type"]:
            case "function_call":
                return call_item(item["id"], item["call_id"], item["name"], text, status)
            case "reasoning":
                return reasoning_item(item["id"], text, status)
        return message_item(item["id"], text, self._sources, status)

    def _place(self) -> dict[str, Any]:
        assert self._open is not None
        return {"item_id": self._open["id"], "output_index": len(self._output)}

    def _part(self) -> dict[str, Any]:
        return self._place() | {"content_index": 0}
