"""What a question may be: several turns, tools, a form for the answer, passages that all variants are given."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llmbench import compare, recipe
from llmbench.endpoint import Delta, Reply
from llmbench.errors import DataError
from llmbench.recipe import CompareRecipe

Load = Callable[..., CompareRecipe]
TOOLS = [{"type": "function", "function": {"name": "weigh", "parameters": {"type": "object"}}}]


class Listening:
    """An endpoint that keeps all it is asked, and answers with the number of messages."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[Any], dict[str, Any]]] = []
        self.calls: tuple[dict[str, Any], ...] = ()

    async def listing(self) -> list[dict[str, Any]]:
        return [{"id": name, "adapter": None, "rag": None} for name in ("base", "adapter")]

    async def stream(self, messages: Any, model: str, *, max_tokens: int | None = None, options: Any = None) -> Any:
        self.asked.append((model, list(messages), dict(options or {})))
        text = f"{model} says {len(messages)}"
        reply = Reply(text, model, latency=0.5, first_token=0.1, prompt_tokens=9, completion_tokens=4, tool_calls=self.calls)
        yield Delta(reply=reply)


@pytest.fixture
def listening() -> Listening:
    return Listening()


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def make(rows: list[dict[str, Any]], section: str = "", *overrides: str) -> CompareRecipe:
        (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        (tmp_path / "compare.yaml").write_text(
            "name: asked\nquestions: {path: questions.jsonl}\nvariants: [base, adapter]\nmetrics: [abstention]\n" + section,
            encoding="utf-8",
        )
        return recipe.load(tmp_path / "compare.yaml", CompareRecipe, overrides)

    return make


def test_turns_are_asked_one_after_another_with_the_variant_s_own_answers(listening: Any, load: Load) -> None:
    result = compare.run(
        load([{"question_id": 81, "turns": ["Write a poem.", "Make it rhyme.", "Shorter."]}]), endpoint=listening
    )
    talk = [messages for model, messages, _ in listening.asked if model == "adapter"]
    assert [len(messages) for messages in talk] == [1, 3, 5]
    assert [message["content"] for message in talk[-1]] == [
        "Write a poem.", "adapter says 1", "Make it rhyme.", "adapter says 3", "Shorter.",
    ]  # fmt: skip
    answer = next(row.answer for row in result.rows if row.answer.variant == "adapter")
    assert (answer.text, answer.turns) == ("adapter says 5", ("adapter says 1", "adapter says 3", "adapter says 5"))
    assert (answer.latency, answer.prompt_tokens, answer.completion_tokens) == (1.5, 27, 12)
    assert compare.load("asked") == result
    listening.asked.clear()
    compare.run(load([{"question_id": 81, "turns": ["Write a poem.", "Make it rhyme.", "Shorter."]}]), endpoint=listening)
    assert listening.asked == []


def test_columns_of_mt_bench_are_kept(listening: Any, load: Load) -> None:
    row = {"question_id": 101, "category": "reasoning", "turns": ["You overtake the second. Which place?", "And the last?"],
           "reference": ["Second.", "You cannot."]}  # fmt: skip
    document = load([row])
    question = compare.questions.read(document.questions)[0]
    assert (question.id, question.columns["reference"]) == ("101", ["Second.", "You cannot."])


def test_tools_and_forms_of_answers_go_into_the_request_and_calls_are_kept(listening: Any, load: Load) -> None:
    listening.calls = ({"id": "1", "type": "function", "function": {"name": "weigh", "arguments": '{"of": "kettle"}'}},)
    schema = {"type": "object", "properties": {"grams": {"type": "integer"}}}
    rows = [
        {"id": "a", "question": "Weigh it.", "tools": TOOLS, "tool_choice": "auto"},
        {"id": "b", "question": "In JSON.", "json_schema": schema},
        {"id": "c", "question": "In JSON.", "response_format": {"type": "json_object"}},
        {"id": "d", "question": "Plain."},
    ]
    result = compare.run(load(rows), endpoint=listening)
    sent = [options for _, _, options in listening.asked]
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    wanted: list[dict[str, Any]] = [
        {"tools": TOOLS, "tool_choice": "auto"}, {"response_format": form}, {"response_format": {"type": "json_object"}}, {},
    ]  # fmt: skip
    assert [sent.count(one) for one in wanted] == [2, 2, 2, 2]
    assert all(row.answer.tool_calls == listening.calls for row in result.rows)
    assert compare.load("asked") == result


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("tools", "weigh", "tools must be a list of objects, as OpenAI's API has them"),
        ("tools", [], "tools must be a list of objects, as OpenAI's API has them"),
        ("response_format", "json", "response_format must be an object, as OpenAI's API has it"),
        ("json_schema", [1], "json_schema must be an object, a JSON schema"),
    ],
)
def test_columns_that_no_request_takes_are_told_with_their_line(
    listening: Any, load: Load, column: str, value: Any, said: str
) -> None:
    with pytest.raises(DataError, match=rf"questions\.jsonl:2: {said}"):
        compare.run(load([{"question": "A?"}, {"question": "B?", column: value}]), endpoint=listening)
    assert listening.asked == []


PASSAGES: list[dict[str, Any]] = [
    {"question": "Q1", "context": "The kettle weighs 300 grams.", "source": "kettle.md"},
    {"question": "Q2", "context": ["One {question}.", {"text": "Two <|im_end|>", "source": "two.md", "title": "2"}]},
    {"question": "Q3", "context": []},
]


def test_passages_of_a_column_are_the_same_for_all_and_kept_with_each_answer(listening: Any, load: Load) -> None:
    section = "passages: {column: context, template: 'P: {passages} Q: {question}'}\n"
    result = compare.run(load(PASSAGES, section), endpoint=listening)
    said = {messages[-1]["content"] for _, messages, _ in listening.asked}
    assert len(said) == 3
    assert "P: [1] The kettle weighs 300 grams. Q: Q1" in said
    split = next(one for one in said if one.endswith("Q: Q2"))
    assert split.startswith("P: [1] One {question}.\n[2] Two <")
    assert "<|im_end|>" not in split, "a passage must not end the turn"
    assert "P: (No passage was found.) Q: Q3" in said
    first = next(row.answer for row in result.rows if row.question.question == "Q1")
    assert first.sources == ({"n": 1, "source": "kettle.md", "title": "", "text": "The kettle weighs 300 grams."},)
    assert first.manifest["passages"] != next(r.answer for r in result.rows if r.question.question == "Q2").manifest["passages"]
    assert result.experiment.passages == (
        "Every variant was given the same passages, from the column context: retrieval is no part of what differs."
    )
    listening.asked.clear()
    compare.run(load([{**PASSAGES[0], "context": "Other."}, *PASSAGES[1:]], section), endpoint=listening)
    assert {messages[-1]["content"] for _, messages, _ in listening.asked} == {"P: [1] Other. Q: Q1"}


def test_a_row_without_its_passages_is_told_with_its_line(listening: Any, load: Load) -> None:
    rows = [*PASSAGES, {"question": "Q4"}, {"question": "Q5", "context": 5}]
    with pytest.raises(DataError) as fault:
        compare.run(load(rows, "passages: {column: context}\n"), endpoint=listening)
    lines = str(fault.value).splitlines()
    assert lines[0].endswith("questions.jsonl:4: this row has no column context (its columns: none)")
    assert lines[1].endswith("questions.jsonl:5: context must be a text, a list of texts, or a list of {text, source, title}")


def test_questions_with_the_same_passages_are_asked_one_after_another(listening: Any, load: Load) -> None:
    rows = [{"id": f"q{i}", "question": f"Q{i}", "context": f"Page {i % 4}"} for i in range(40)]
    compare.run(load(rows, "passages: {column: context}\nconcurrency: 1\n"), endpoint=listening)
    pages = [messages[-1]["content"].partition("Page ")[2][0] for _, messages, _ in listening.asked]
    assert sum(a != b for a, b in pairwise(pages)) == 3
    order = [model for model, _, _ in listening.asked]
    assert order[::2] != order[1::2], "variants take turns"
    assert 10 < order[::2].count("base") < 30


def test_passages_that_a_pipeline_found_once_are_given_again_though_its_index_has_changed(
    listening: Any, load: Load, pipeline: Path, home: Path, kept_embedder: None
) -> None:
    from llmbench import retrieval
    from llmbench.recipe import RagRecipe

    retrieval.build(recipe.load(pipeline, RagRecipe))
    rows = [{"id": "w", "question": "How much does the Alba kettle weigh?"}]
    section = f"passages: {{pipeline: {pipeline}}}\n"
    result = compare.run(load(rows, section), endpoint=listening)
    asked = {messages[-1]["content"] for _, messages, _ in listening.asked}
    assert len(asked) == 1
    assert "300 grams" in asked.pop()
    assert all("300 grams" in row.answer.sources[0]["text"] for row in result.rows)
    assert (home / "comparisons" / "asked" / "passages.jsonl").exists()
    retrieval.build(recipe.load(pipeline, RagRecipe, [f"documents=[{pipeline.parent / 'lamp.md'}]"]))
    listening.asked.clear()
    compare.run(load(rows, section), endpoint=listening)
    assert listening.asked == []
    compare.remove("asked")
