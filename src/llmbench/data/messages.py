"""Turns as rows write them (OpenAI's messages, ShareGPT's from/value, and what their users add) -> turns of one form.

A turn has `role` and `content` (text, or None beside tool calls), and where the row says so `reasoning_content`, `tool_calls`,
`tool_call_id`, `name` and `weight` (0: this turn is not learned).
"""

from __future__ import annotations

import re
from typing import Any

from llmbench.data.files import kind
from llmbench.data.json_rows import parse

__all__ = ["BadRow", "answering", "dense", "message", "messages", "shared", "text", "tools", "transcript", "without_reasoning"]

Turn = dict[str, Any]

ROLES = ("system", "developer", "user", "assistant", "tool")
_FROM = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "assistant": "assistant", "model": "assistant",
    "bing": "assistant", "system": "system", "developer": "developer", "function_call": "call", "tool_call": "call",
    "observation": "tool", "tool": "tool", "function_response": "tool", "tool_response": "tool",
}  # fmt: skip
_THINKING = ("reasoning_content", "reasoning", "thinking")
_LEARNED = ("weight", "train", "training", "loss")
"""What says of one turn whether it is learned: OpenAI's weight, axolotl's train and training, ms-swift's loss."""
_KEYS = ("role", "content", "tool_calls", "function_call", "tool_call_id", "name", "reasoning_details", *_THINKING, *_LEARNED)
_CALL_KEYS = {"id", "type", "index", "function", "name", "arguments", "parameters"}
_SPOKEN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):[ ]?")
_NO_TEXT = re.compile("[\x00\ufdd0\ufdd1\ud800-\udfff]")


class BadRow(ValueError):
    """A row that cannot be used: a fixed phrase to count by, and the words for this row."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def dense(value: Any) -> Any:
    """A row of Parquet or Arrow without the keys that are null inside its objects.

    An object's keys there are those of all rows together, and null where another row had one: `{"city": "Oslo", "zip": null}`.
    A null of the row's own cannot be told from these. Nulls in lists stay.
    """
    if isinstance(value, dict):
        return {key: dense(item) for key, item in value.items() if item is not None}
    return [dense(item) for item in value] if isinstance(value, list) else value


def messages(value: Any, name: str) -> list[Turn]:
    """OpenAI's messages, checked, with only the keys that are set.

    Raises:
        BadRow: what is wrong with them.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _parsed(value, name)
    if not isinstance(value, list):
        hint = " (in CSV: a JSON string that starts with `[{`)" if isinstance(value, str) else ""
        raise BadRow("wrong type", f"{name} should be a list of {{role, content}}, not {kind(value)}{hint}")
    if not value:
        raise BadRow("no assistant turn", f"{name} is an empty list")
    turns = []
    for i, one in enumerate(value):
        here = f"{name}[{i}]"
        if not isinstance(one, dict):
            raise BadRow("wrong type", f"{here} should be {{role, content}}, not {kind(one)}")
        if "from" in one and "value" in one:
            raise BadRow("wrong type", f"{here} has from/value (ShareGPT); write columns: {{conversations: {name}}}")
        turns.append(message({key: item for key, item in one.items() if item is not None}, here))
    return turns


def message(given: Turn, here: str) -> Turn:
    """One of OpenAI's messages, checked.

    Raises:
        BadRow: what is wrong with it.
    """
    role, content = given.get("role"), given.get("content")
    if role == "function":  # as OpenAI had it before there were tools
        role = "tool"
    if role not in ROLES:
        raise BadRow("unknown role", f"{here}.role should be one of {', '.join(ROLES)}, not {role!r}")
    others = [str(key) for key in given if key not in _KEYS and given[key] not in ([], {}, "")]
    if others:
        raise BadRow("unknown keys", f"{here} has {', '.join(others)}, which llmbench cannot train on; remove it")
    turn: Turn = {"role": role, "content": None}
    called = given.get("tool_calls") or ([given["function_call"]] if given.get("function_call") else None)
    if called:
        if role != "assistant":
            raise BadRow("wrong type", f"{here} has tool_calls, and its role is {role}; only the assistant calls tools")
        turn["tool_calls"] = _calls(called, f"{here}.{'tool_calls' if given.get('tool_calls') else 'function_call'}")
    if isinstance(content, list):
        content, thought = _parts(content, here)
        given = {**given, "thinking": thought} if thought else given
    if content is not None or "tool_calls" not in turn:
        turn["content"] = text(content, f"{here}.content")
    thinking = _thinking(given, here)
    if thinking and role != "assistant":
        raise BadRow("wrong type", f"{here} has {thinking[0]}, and its role is {role}; only the assistant thinks")
    turn |= {"reasoning_content": thinking[1]} if thinking else {}
    for key in ("name", "tool_call_id"):
        if key in given:
            turn[key] = text(given[key], f"{here}.{key}")
    return turn | _learned(given, role, here)


def _parts(content: list[Any], here: str) -> tuple[Any, str]:
    """Content that is a list of parts, as text; and the thinking among them."""
    said, thought = [], []
    for part in content:
        match part:
            case {"type": "text" | "input_text" | "output_text", "text": value} | {"type": "refusal", "refusal": value}:
                said.append(text(value, f"{here}.content"))
            case {"type": "thinking", "thinking": value}:
                thought.append(text(value, f"{here}.content"))
            case {"type": other}:
                raise BadRow("wrong type", f"{here}.content has a part of type {other}; llmbench trains on text")
            case _:
                return content, ""
    return "".join(said), "".join(thought)


def _thinking(message: Turn, here: str) -> tuple[str, str] | None:
    """The thinking of a turn and the key under which it is, whichever of the known ones.

    Raises:
        BadRow: two of them that differ, or thinking that is encrypted.
    """
    given = [(key, text(message[key], f"{here}.{key}")) for key in _THINKING if message.get(key)]
    if len({value for _, value in given}) > 1:
        raise BadRow("two kinds of thinking", f"{here} has {' and '.join(key for key, _ in given)}, which differ; keep one")
    if given:
        return given[0]
    details = message.get("reasoning_details")
    if not details:
        return None
    if not isinstance(details, list) or not all(isinstance(one, dict) for one in details):
        raise BadRow("wrong type", f"{here}.reasoning_details should be a list of objects, not {kind(details)}")
    found = [one.get("text") or one.get("summary") for one in details]
    if not all(isinstance(value, str) for value in found):
        raise BadRow("wrong type", f"{here}.reasoning_details has a part without text or summary; remove it")
    return "reasoning_details", text("".join(map(str, found)), f"{here}.reasoning_details")


def _learned(message: Turn, role: str, here: str) -> Turn:
    """What a turn says of whether it is learned: `weight` 0 or 1, or `train` true or false."""
    given = {}
    for key in _LEARNED:
        if key in message:
            if message[key] not in (0, 1):
                known = "0 (do not train this turn) or 1" if key == "weight" else "true or false"
                raise BadRow("wrong type", f"{here}.{key} should be {known}, not {message[key]!r}")
            given[key] = int(message[key])
    if len(set(given.values())) > 1:
        raise BadRow("wrong type", f"{here} has {' and '.join(given)}, which contradict each other; keep one")
    if not given:
        return {}
    key, value = next(iter(given.items()))
    if value and role != "assistant" and key != "weight":
        raise BadRow(
            "wrong type",
            f"{here}.{key} marks a {role} turn as trained, but only assistant turns are trained; remove it, or set "
            f"data.train_on=all to train every token",
        )
    return {"weight": value}


def shared(value: Any, name: str) -> list[Turn]:
    """ShareGPT's from/value as turns; a function call becomes a tool call.

    Raises:
        BadRow: what is wrong with them.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _parsed(value, name)
    if not isinstance(value, list) or not value:
        raise BadRow("wrong type", f"{name} should be a list of {{from, value}}, not {kind(value)}")
    turns: list[Turn] = []
    for i, one in enumerate(value):
        here = f"{name}[{i}]"
        if isinstance(one, dict) and "role" in one:
            raise BadRow("wrong type", f"{here} has role/content; write columns: {{messages: {name}}}")
        if not isinstance(one, dict) or "value" not in one:
            raise BadRow("wrong type", f"{here} should be {{from, value}}, not {kind(one)}")
        role = _FROM.get(str(one.get("from")).lower())
        if role is None:
            known = ", ".join(_FROM)
            raise BadRow("unknown role", f"{here}.from should be one of {known}, not {one.get('from')!r}")
        kept = {key: item for key, item in one.items() if item is not None and key not in ("from", "value")}
        if role == "call":
            calls = _parsed(text(one["value"], f"{here}.value"), f"{here}.value")
            kept |= {"tool_calls": calls if isinstance(calls, list) else [calls]}
        else:
            kept["content"] = text(one["value"], f"{here}.value")
        kept = {key: item for key, item in kept.items() if key in _KEYS}
        turns.append(message({"role": "assistant" if role == "call" else role} | kept, here))
    return turns


def transcript(value: str, name: str) -> list[Turn] | None:
    """The turns of a text that is a dialogue as hh-rlhf writes it, `\\n\\nHuman: ... \\n\\nAssistant: ...`; None of another.

    A last `Assistant:` with nothing behind it asks for the answer and is no turn.
    """
    parts = _SPOKEN.split(value)
    if len(parts) < 5 or parts[0].strip() or parts[1] != "Human" or "Assistant" not in parts[1::2]:
        return None
    said = [(speaker, words.strip()) for speaker, words in zip(parts[1::2], parts[2::2], strict=True)]
    if said[-1] == ("Assistant", ""):
        said.pop()
    return [{"role": _FROM[speaker.lower()], "content": text(words, name)} for speaker, words in said]


def answering(prompt: Any, answer: Any) -> Any:
    """An answer without the space that parts it from a dialogue as text, whose last word is `Assistant:`."""
    spoken = isinstance(prompt, str) and isinstance(answer, str) and transcript(prompt, "prompt") is not None
    return answer.lstrip(" ") if spoken else answer


def without_reasoning(turns: list[Turn]) -> list[Turn]:
    """The turns without their thinking."""
    return [{key: value for key, value in turn.items() if key != "reasoning_content"} for turn in turns]


def _calls(value: Any, here: str) -> list[dict[str, Any]]:
    """Tool calls in OpenAI's form, the arguments as an object."""
    if isinstance(value, str):
        value = _parsed(value, here)
    if not isinstance(value, list):
        raise BadRow("wrong type", f"{here} should be a list, not {kind(value)}")
    result = []
    for call in value:
        function = call.get("function", call) if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"].strip():
            raise BadRow("wrong type", f"{here}: a call is {{name, arguments}} or {{function: {{name, arguments}}}}")
        name = function["name"]
        others = sorted({str(key) for one in (call, function) for key in one if one[key] is not None} - _CALL_KEYS)
        if others:
            raise BadRow("unknown keys", f"{here}: the call of {name} has {', '.join(others)}; a call is {{name, arguments}}")
        arguments = function.get("arguments", function.get("parameters"))
        if isinstance(arguments, str):
            arguments = _parsed(arguments, f"{here}: the arguments of {name}") if arguments.strip() else {}
        if arguments is None:
            arguments = {}
        if not isinstance(arguments, dict):
            raise BadRow("wrong type", f"{here}: the arguments of {name} should be an object, not {kind(arguments)}")
        made = {"type": "function", "function": {"name": name, "arguments": arguments}}
        result.append(made | ({"id": call["id"]} if isinstance(call.get("id"), str) else {}))
    return result


def tools(value: Any) -> list[dict[str, Any]] | None:
    """Tool definitions in OpenAI's form; a column of JSON text is read.

    Raises:
        BadRow: what is wrong with them.
    """
    if isinstance(value, str):
        value = _parsed(value, "tools") if value.strip() else None
    if not value:
        return None
    if isinstance(value, list):
        value = [_parsed(tool, "tools") if isinstance(tool, str) else tool for tool in value]
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise BadRow("wrong type", f"tools should be a list of definitions, not {kind(value)}")
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in value]


def _parsed(value: str, here: str) -> Any:
    try:
        return parse(value)
    except ValueError as error:
        raise BadRow("not valid JSON", f"{here}: not valid JSON: {error}") from error


def text(value: Any, name: str) -> str:
    """Text that a tokenizer can take.

    Raises:
        BadRow: it is none.
    """
    if not isinstance(value, str):
        raise BadRow("wrong type", f"{name} should be text, not {kind(value)}")
    found = _NO_TEXT.search(value)
    if found:
        what = (
            "a NUL character"
            if found[0] == "\0"
            else f"U+{ord(found[0]):04X}, which is an unpaired surrogate or not a character"
        )
        raise BadRow("an invalid character", f"{name} holds {what}; remove it")
    return value
