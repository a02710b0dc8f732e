"""What a row means: the six formats of training rows, told by their columns, and each as one of three things to tokenise."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from llmbench.data.files import Row, kind
from llmbench.data.messages import BadRow, answering, messages, shared, text, tools, transcript, without_reasoning
from llmbench.errors import DataError
from llmbench.recipe import DataSource, Format

__all__ = ["READS", "BadRow", "Chat", "Text", "Tokens", "converted", "detect"]

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
        raise DataError(f"{row.place}: {_seen(row)}. It looks like preferences, which needs method: dpo, orpo or reward.")
    found = [name for name, columns in _COLUMNS.items() if name not in ("text", "tokenized") and have >= set(columns)]
    if "input_ids" in have and have & set(_MASKS):
        found.append("tokenized")
    if not found and "text" in have and row.values.keys() <= _BESIDE_TEXT:
        found = ["text"]
    if isinstance(row.values.get("label"), bool) and found:
        raise DataError(
            f"{row.place}: {_seen(row)}. It looks like answers labelled good or bad, which needs method: kto. To train on "
            f"all of them, write format: {found[0]} next to its path."
        )
    if len(found) > 1:
        raise DataError(f"{row.place}: {_seen(row)}. It fits {' and '.join(found)}: write format: {found[0]} next to its path.")
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
        return f"It looks like prompt_completion; write columns: {{{line}}} next to its path{also}."
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


def converted(values: dict[str, Any], format: Format, *, reasoning: bool = True) -> Chat | Text | Tokens:
    """What a row of a format holds; without `reasoning` without the thinking of its turns.

    Raises:
        BadRow: what is wrong with it.
    """
    missing = [name for name in _COLUMNS[format] if values.get(name) is None]
    if missing and not (format == "tokenized" and missing == ["labels"]):
        raise BadRow("a column is missing", f"{' and '.join(missing)} missing, which format {format} needs")
    match format:
        case "messages":
            turns = messages(values["messages"], "messages")
        case "sharegpt":
            turns = _system(values) + shared(values["conversations"], "conversations")
        case "alpaca":
            turns = _system(values) + _instruction(values)
        case "prompt_completion":
            prompt, completion = values["prompt"], answering(values["prompt"], values["completion"])
            turns = _system(values) + _side(prompt, "prompt", "user") + _side(completion, "completion", "assistant")
        case "text":
            return Text(text(values["text"], "text"))
        case "tokenized":
            return _tokens(values)
    return _chat(turns if reasoning else without_reasoning(turns), values)


def _chat(turns: list[dict[str, Any]], values: dict[str, Any]) -> Chat:
    """Turns that hold something to learn, with the row's tools."""
    if not any(turn["role"] == "assistant" for turn in turns):
        raise BadRow("no assistant turn", "no assistant turn, so this row has nothing to train on")
    for number, turn in enumerate(turns, 1):
        said = turn["content"] or turn.get("reasoning_content") or ""
        if turn["role"] == "assistant" and not said.strip() and not turn.get("tool_calls"):
            raise BadRow(
                "an assistant turn is empty", f"assistant turn {number} is empty, which would teach the model to say nothing"
            )
    defined = values.get("tools") or values.get("functions")
    return Chat(turns, tools(defined))


def _system(values: dict[str, Any]) -> list[dict[str, Any]]:
    system = values.get("system")
    return [{"role": "system", "content": text(system, "system")}] if system else []


def _instruction(values: dict[str, Any]) -> list[dict[str, Any]]:
    """An Alpaca row: earlier turns, the instruction with its input below it, and the output."""
    turns = []
    history = values.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise BadRow("wrong type", "history should be a list of [question, answer] pairs")
    for i, (question, answer) in enumerate(history):
        turns.append({"role": "user", "content": text(question, f"history[{i}]")})
        turns.append({"role": "assistant", "content": text(answer, f"history[{i}]")})
    asked = text(values["instruction"], "instruction")
    if values.get("input"):
        asked = f"{asked}\n{text(values['input'], 'input')}"
    return [
        *turns,
        {"role": "user", "content": asked},
        {"role": "assistant", "content": text(values["output"], "output")},
    ]


def _side(value: Any, name: str, role: str) -> list[dict[str, Any]]:
    """A prompt or completion: text is one turn, a list is turns already."""
    if isinstance(value, list):
        return messages(value, name)
    if not isinstance(value, str):
        raise BadRow("wrong type", f"{name} should be text or a list of messages, not {kind(value)}")
    return transcript(value, name) or [{"role": role, "content": text(value, name)}]


def _tokens(values: dict[str, Any]) -> Tokens:
    """Token ids with their labels, or with a mask of what is learned."""
    ids = _numbers(values["input_ids"], "input_ids")
    name = next((name for name in _MASKS if values.get(name) is not None), None)
    if name is None:
        raise BadRow("a column is missing", f"{', '.join(_MASKS)}: input_ids needs one of them")
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
