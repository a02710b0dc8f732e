"""What a variant is asked: the question's turns, in the variant's own words, with the passages that all are given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llmbench.compare.passages import Frozen
from llmbench.endpoint import Message
from llmbench.errors import DataError
from llmbench.message import text_of, with_text
from llmbench.questions import Question
from llmbench.recipe import PLACEHOLDER, ComparedVariant, PromptSpec

__all__ = ["OFFERED", "AskedTurns", "check", "given", "prompted"]

_SHOWN = 10
OFFERED = ("tools", "tool_choice", "response_format", "json_schema")
"""Columns of a question that go into the request."""


@dataclass(frozen=True)
class AskedTurns:
    """What one question is to a variant: the first turn, the user's turns after it, and what the request says besides."""

    messages: tuple[Message, ...]
    further: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[dict[str, Any], ...] = ()
    """The passages in it, where all variants are given the same."""


def prompted(question: Question, spec: PromptSpec) -> AskedTurns:
    """A question in a variant's words.

    A question with the column `turns`, a list of texts as MT-Bench has it, is asked turn by turn, each with the answers before
    it; the others are asked whole.
    """
    first, *further = _turns(question)
    messages: list[Message] = [{"role": role, "content": text} for role, text in first]
    if spec.template is not None:
        last = _last_user(messages)
        said = text_of(messages[last])
        messages[last] = with_text(messages[last], _filled(spec.template, question, said))
    if spec.system is not None:
        messages = _with_system(messages, spec.system)
    return AskedTurns(tuple(messages), tuple(text for turns in further for _, text in turns), _options(question))


def given(asked: AskedTurns, frozen: Frozen, id: str) -> AskedTurns:
    """The same with the question's passages in the first turn."""
    messages = list(asked.messages)
    last = _last_user(messages)
    messages[last] = with_text(messages[last], frozen.prompt(id, text_of(messages[last])))
    if frozen.system is not None:
        messages = _with_system(messages, frozen.system)
    return replace(asked, messages=tuple(messages), sources=frozen.of[id])


def check(questions: Sequence[Question], variants: Sequence[ComparedVariant]) -> None:
    """Refuses questions that lack a column that a template names, or hold one that no request takes.

    Raises:
        DataError: each with file and line; ten are shown.
    """
    faults = []
    for question in questions:
        if fault := _fault(question):
            faults.append(f"{question.place}: {fault}")
        for variant in variants:
            missing = [name for name in _named(variant.prompt) if name != "question" and name not in question.columns]
            if missing:
                known = ", ".join(["question", *question.columns])
                faults.append(
                    f"{question.place}: the prompt of {variant.name} names {{{missing[0]}}}, which this row does not have "
                    f"(it has {known})"
                )
    if faults:
        more = [f"... and {len(faults) - _SHOWN:,} more faults"] if len(faults) > _SHOWN else []
        raise DataError("\n".join(faults[:_SHOWN] + more))


def _fault(question: Question) -> str | None:
    columns = question.columns
    tools, form, schema = columns.get("tools"), columns.get("response_format"), columns.get("json_schema")
    if tools is not None and not (isinstance(tools, list) and tools and all(isinstance(one, dict) for one in tools)):
        return "tools must be a list of objects, as OpenAI's API has them"
    if form is not None and not isinstance(form, dict):
        return "response_format must be an object, as OpenAI's API has it"
    if schema is not None and not isinstance(schema, dict):
        return "json_schema must be an object, a JSON schema"
    return None


def _named(spec: PromptSpec) -> list[str]:
    found = PLACEHOLDER.finditer(spec.template or "")
    return [name[1] for name in found if name[1] is not None]


def _filled(template: str, question: Question, said: str) -> str:
    """One pass: braces inside a value are never looked at."""

    def value(found: Any) -> str:
        if found[1] is None:
            return str(found[0][0])
        if found[1] == "question":
            return said
        given = question.columns[found[1]]
        return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)

    return PLACEHOLDER.sub(value, template)


def _turns(question: Question) -> list[tuple[tuple[str, str], ...]]:
    """What is asked at once, and after each answer."""
    turns = question.columns.get("turns")
    if isinstance(turns, list) and turns and all(isinstance(text, str) for text in turns):
        return [(("user", text),) for text in turns]
    return [question.conversation]


def _last_user(messages: Sequence[Message]) -> int:
    return max((i for i, message in enumerate(messages) if message["role"] == "user"), default=len(messages) - 1)


def _with_system(messages: list[Message], system: str) -> list[Message]:
    if messages and messages[0]["role"] in ("system", "developer"):
        return [with_text(messages[0], f"{system}\n\n{text_of(messages[0])}"), *messages[1:]]
    return [{"role": "system", "content": system}, *messages]


def _options(question: Question) -> dict[str, Any]:
    """What the question's columns put into the request."""
    given = {name: question.columns[name] for name in OFFERED if question.columns.get(name) is not None}
    schema = given.pop("json_schema", None)
    if schema is not None and "response_format" not in given:
        given["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    return given
