"""What a row means: the six formats of training rows, told by their columns, and each as one of three things to tokenise."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from llmbench.data.files import Row, kind
from llmbench.data.json_rows import parse
from llmbench.errors import DataError
from llmbench.recipe import DataSource
from llmbench.recipe.data import Format

__all__ = ["READS", "BadRow", "Chat", "Text", "Tokens", "converted", "detect"]

ROLES = ("system", "developer", "user", "assistant", "tool")
_MASKS = ("labels", "completion_mask", "assistant_masks")
_COLUMNS: dict[Format, tuple[str, ...]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "alpaca": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
    "tokenized": ("input_ids", "labels"),
    "text": ("text",),
}
_BESIDE_TEXT = {"text", "id", "meta", "metadata", "url", "source", "title", "timestamp", "date", "language", "lang"}
"""Columns that may stand beside `text` without a doubt about what it is."""
_PROMPTS = ("prompt", "question", "query", "text", "input", "instruction", "sentence", "document", "source", "context")
_COMPLETIONS = ("completion", "answer", "response", "output", "long_answer", "label", "category", "target", "summary", "sql")
_FROM = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant", "model": "assistant",
    "system": "system", "function_call": "call", "tool_call": "call", "observation": "tool", "tool": "tool",
    "function_response": "tool",
}  # fmt: skip
_KEYS = ("role", "content", "tool_calls", "tool_call_id", "name", "reasoning_content", "thinking", "weight")
_NO_TEXT = re.compile("[\x00\ufdd0\ufdd1\ud800-\udfff]")


class BadRow(ValueError):
    """A row that cannot be used: a fixed phrase to count by, and the words for this row."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Chat:
    """Turns to be written by the chat template, and the tools that the assistant may call."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A document, learned whole."""

    text: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids, and for each the id to learn there, or -100."""

    ids: list[int]
    labels: list[int]


def detect(row: Row, source: DataSource) -> Format:
    """The format of a source by its first row.

    Raises:
        DataError: it has none, or more than one; the message shows the row and the line to write.
    """
    have = {key for key, value in row.values.items() if value is not None}
    if source.format is not None:
        missing = [name for name in _COLUMNS[source.format] if name not in have]
        if missing == ["labels"] and have & set(_MASKS):
            missing = []
        if missing:
            raise DataError(f"{row.place}: format: {source.format} needs {' and '.join(missing)}; {_seen(row)}.")
        return source.format
    if {"chosen", "rejected"} <= have:
        raise DataError(f"{row.place}: {_seen(row)}. It looks like preferences, which method: dpo, orpo or reward trains on.")
    found = [name for name, columns in _COLUMNS.items() if name not in ("text", "tokenized") and have >= set(columns)]
    if "input_ids" in have and have & set(_MASKS):
        found.append("tokenized")
    if not found and "text" in have and row.values.keys() <= _BESIDE_TEXT:
        found = ["text"]
    if isinstance(row.values.get("label"), bool) and found:
        raise DataError(
            f"{row.place}: {_seen(row)}. It looks like answers marked good and bad, which method: kto trains on. "
            f"To learn from all of them, write format: {found[0]} beside its path."
        )
    if len(found) > 1:
        raise DataError(f"{row.place}: {_seen(row)}. It fits {' and '.join(found)}: write format: {found[0]} beside its path.")
    if not found:
        raise DataError(f"{row.place}: {_seen(row)}; {READS}. {_nearly(row, have)}")
    return found[0]


READS = "llmbench reads `messages`, or `prompt` and `completion`, `conversations`, `instruction` and `output`, or `text`"


def _nearly(row: Row, have: set[str]) -> str:
    """What an unknown row nearly is, and the line that makes it so."""
    lower = {name.lower(): name for name in row.values}
    prompt = next((lower[name] for name in _PROMPTS if name in lower), None)
    completion = next((lower[name] for name in _COMPLETIONS if name in lower and lower[name] != prompt), None)
    if prompt and completion:
        line = ", ".join(f"{a}: {b}" for a, b in (("prompt", prompt), ("completion", completion)) if a != b)
        also = ", or format: text to learn the text alone" if "text" in have else ""
        return f"It looks like prompt_completion; write columns: {{{line}}} beside its path{also}."
    near = []
    for name, columns in _COLUMNS.items():
        missing = [column for column in columns if column not in have]
        if len(missing) < len(columns):
            near.append(f"{name} without its {' and '.join(missing)}" if missing else f"{name} (write format: {name})")
    if "output" in have or "instruction" in have:
        near.sort(key=lambda text: not text.startswith("alpaca"))
    if near:
        return f"It looks like {' or '.join(near)}."
    return "Name yours with columns: {prompt: ..., completion: ...}."


def _seen(row: Row) -> str:
    """The columns of a row and its beginning."""
    text = json.dumps(row.values, ensure_ascii=False, default=str)
    text = re.sub(r"\s+", " ", text)
    short = text if len(text) <= 160 else f"{text[:157]}..."
    return f"columns are {', '.join(map(str, row.values)) or 'none'} (first row: {short})"


def converted(values: dict[str, Any], format: Format) -> Chat | Text | Tokens:
    """What a row of a format holds.

    Raises:
        BadRow: what is wrong with it.
    """
    missing = [name for name in _COLUMNS[format] if values.get(name) is None]
    if missing and not (format == "tokenized" and missing == ["labels"]):
        raise BadRow("a column is missing", f"{' and '.join(missing)} missing, which format {format} needs")
    match format:
        case "messages":
            return _chat(_messages(values["messages"], "messages"), values)
        case "sharegpt":
            return _chat(_system(values) + _shared(values["conversations"]), values)
        case "alpaca":
            return _chat(_system(values) + _instruction(values), values)
        case "prompt_completion":
            turns = _side(values["prompt"], "prompt", "user") + _side(values["completion"], "completion", "assistant")
            return _chat(_system(values) + turns, values)
        case "text":
            return Text(_text(values["text"], "text"))
        case "tokenized":
            return _tokens(values)


def _chat(turns: list[dict[str, Any]], values: dict[str, Any]) -> Chat:
    """Turns that hold something to learn, with the row's tools."""
    if not any(turn["role"] == "assistant" for turn in turns):
        raise BadRow("no assistant turn", "no assistant turn, so there is nothing to learn from this row")
    for number, turn in enumerate(turns, 1):
        said = turn["content"] or turn.get("reasoning_content") or turn.get("thinking") or ""
        if turn["role"] == "assistant" and not said.strip() and not turn.get("tool_calls"):
            raise BadRow("an assistant turn is empty", f"the assistant's turn {number} is empty, which would teach silence")
    return Chat(turns, _tools(values.get("tools")))


def _system(values: dict[str, Any]) -> list[dict[str, Any]]:
    system = values.get("system")
    return [{"role": "system", "content": _text(system, "system")}] if system else []


def _instruction(values: dict[str, Any]) -> list[dict[str, Any]]:
    """An Alpaca row: earlier turns, the instruction with its input below it, and the output."""
    turns = []
    history = values.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise BadRow("wrong type", "history should be a list of [question, answer] pairs")
    for i, (question, answer) in enumerate(history):
        turns.append({"role": "user", "content": _text(question, f"history[{i}]")})
        turns.append({"role": "assistant", "content": _text(answer, f"history[{i}]")})
    asked = _text(values["instruction"], "instruction")
    if values.get("input"):
        asked = f"{asked}\n{_text(values['input'], 'input')}"
    return [
        *turns,
        {"role": "user", "content": asked},
        {"role": "assistant", "content": _text(values["output"], "output")},
    ]


def _side(value: Any, name: str, role: str) -> list[dict[str, Any]]:
    """A prompt or completion: text is one turn, a list is turns already."""
    if isinstance(value, list):
        return _messages(value, name)
    if not isinstance(value, str):
        raise BadRow("wrong type", f"{name} should be text or a list of messages, not {kind(value)}")
    return [{"role": role, "content": _text(value, name)}]


def _messages(value: Any, name: str) -> list[dict[str, Any]]:
    """OpenAI's messages, checked, with only the keys that are set."""
    if not isinstance(value, list):
        hint = " (in CSV: a JSON string that starts with `[{`)" if isinstance(value, str) else ""
        raise BadRow("wrong type", f"{name} should be a list of {{role, content}}, not {kind(value)}{hint}")
    if not value:
        raise BadRow("no assistant turn", f"{name} is an empty list")
    turns = []
    for i, message in enumerate(value):
        here = f"{name}[{i}]"
        if not isinstance(message, dict):
            raise BadRow("wrong type", f"{here} should be {{role, content}}, not {kind(message)}")
        if "from" in message and "value" in message:
            raise BadRow("wrong type", f"{here} has from/value (ShareGPT); write columns: {{conversations: {name}}}")
        turns.append(_message({key: item for key, item in message.items() if item is not None}, here))
    return turns


def _message(message: dict[str, Any], here: str) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise BadRow("unknown role", f"{here}.role should be one of {', '.join(ROLES)}, not {role!r}")
    others = [str(key) for key in message if key not in _KEYS and message[key] not in ([], {}, "")]
    if others:
        raise BadRow("unknown keys", f"{here} has {', '.join(others)}, which llmbench cannot train on; remove it")
    turn: dict[str, Any] = {"role": role, "content": None}
    if message.get("tool_calls"):
        turn["tool_calls"] = _calls(message["tool_calls"], f"{here}.tool_calls")
    if isinstance(content, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in content):
        content = "".join(_text(part.get("text"), f"{here}.content") for part in content)
    if content is not None or "tool_calls" not in turn:
        turn["content"] = _text(content, f"{here}.content")
    for key in ("reasoning_content", "thinking", "name", "tool_call_id"):
        if key in message:
            turn[key] = _text(message[key], f"{here}.{key}")
    if "weight" in message:
        if message["weight"] not in (0, 1):
            raise BadRow("wrong type", f"{here}.weight should be 0 (do not learn this turn) or 1, not {message['weight']!r}")
        turn["weight"] = int(message["weight"])
    return turn


def _shared(value: Any) -> list[dict[str, Any]]:
    """ShareGPT's from/value as turns; a function call becomes a tool call."""
    if not isinstance(value, list) or not value:
        raise BadRow("wrong type", f"conversations should be a list of {{from, value}}, not {kind(value)}")
    turns: list[dict[str, Any]] = []
    for i, message in enumerate(value):
        here = f"conversations[{i}]"
        if isinstance(message, dict) and "role" in message:
            raise BadRow("wrong type", f"{here} has role/content; write columns: {{messages: conversations}}")
        if not isinstance(message, dict) or "value" not in message:
            raise BadRow("wrong type", f"{here} should be {{from, value}}, not {kind(message)}")
        role = _FROM.get(str(message.get("from")).lower())
        text = _text(message["value"], f"{here}.value")
        if role is None:
            known = ", ".join(_FROM)
            raise BadRow("unknown role", f"{here}.from should be one of {known}, not {message.get('from')!r}")
        if role == "call":
            calls = _parsed(text, f"{here}.value")
            turn = {"role": "assistant", "content": None}
            turns.append(turn | {"tool_calls": _calls(calls if isinstance(calls, list) else [calls], here)})
        else:
            turns.append({"role": role, "content": text})
    return turns


def _calls(value: Any, here: str) -> list[dict[str, Any]]:
    """Tool calls in OpenAI's form, the arguments as an object."""
    if not isinstance(value, list):
        raise BadRow("wrong type", f"{here} should be a list, not {kind(value)}")
    result = []
    for call in value:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise BadRow("wrong type", f"{here}: a call is {{name, arguments}} or {{function: {{name, arguments}}}}")
        arguments = function.get("arguments") or {}
        if isinstance(arguments, str):
            arguments = _parsed(arguments, f"{here}: the arguments of {function['name']}")
        made = {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
        result.append(made | ({"id": call["id"]} if isinstance(call.get("id"), str) else {}))
    return result


def _tools(value: Any) -> list[dict[str, Any]] | None:
    """Tool definitions in OpenAI's form; a column of JSON text is read."""
    if isinstance(value, str):
        value = _parsed(value, "tools") if value.strip() else None
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise BadRow("wrong type", f"tools should be a list of definitions, not {kind(value)}")
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in value]


def _parsed(text: str, here: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise BadRow("not valid JSON", f"{here}: not valid JSON: {error}") from error


def _tokens(values: dict[str, Any]) -> Tokens:
    """Token ids with their labels, or with a mask of what is learned."""
    ids = _numbers(values["input_ids"], "input_ids")
    name = next((name for name in _MASKS if values.get(name) is not None), None)
    if name is None:
        raise BadRow("a column is missing", f"{', '.join(_MASKS)}: one of them is needed beside input_ids")
    marks = _numbers(values[name], name)
    if len(marks) != len(ids):
        raise BadRow("wrong type", f"{name} has {len(marks):,} numbers and input_ids {len(ids):,}")
    if name == "labels":
        return Tokens(ids, marks)
    return Tokens(ids, [token if mark else -100 for token, mark in zip(ids, marks, strict=True)])


def _numbers(value: Any, name: str) -> list[int]:
    if not isinstance(value, list) or not all(type(item) is int and -100 <= item < 2**31 for item in value):
        raise BadRow("wrong type", f"{name} should be a list of whole numbers")
    return value


def _text(value: Any, name: str) -> str:
    """Text that a tokenizer can take."""
    if not isinstance(value, str):
        raise BadRow("wrong type", f"{name} should be text, not {kind(value)}")
    found = _NO_TEXT.search(value)
    if found:
        what = "a NUL character" if found[0] == "\0" else f"U+{ord(found[0]):04X}, which is half of a character or none"
        raise BadRow("a character that is no text", f"{name} holds {what}; remove it")
    return value
