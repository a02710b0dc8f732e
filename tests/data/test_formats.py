"""What each format of rows means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.data.conftest import talk, write_jsonl

from llmbench import data
from llmbench.data.formats import Chat
from llmbench.data.items import batches
from llmbench.recipe import DataSource, DataSpec

WEATHER = {"name": "weather", "parameters": {"type": "object"}}
CALLED = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}


def chat_of(folder: Path, row: dict[str, Any], **settings: Any) -> Chat:
    spec = DataSpec(train=[DataSource(path=write_jsonl(folder / "rows.jsonl", row), **settings)])
    [[item]] = batches(spec, spec.train)
    assert isinstance(item.holds, Chat)
    return item.holds


def said(chat: Chat) -> list[tuple[str, Any]]:
    return [(turn["role"], turn["content"]) for turn in chat.messages]


@pytest.mark.parametrize("arguments", [{"city": "Oslo"}, '{"city": "Oslo"}'], ids=["object", "text"])
def test_messages_with_tool_calls_take_arguments_as_object_or_text(tmp_path: Path, arguments: Any) -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": arguments}}]
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "Os"}, {"type": "text", "text": "lo?"}]},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "rain", "tool_call_id": "1"},
        {"role": "assistant", "content": "It rains."},
    ]
    chat = chat_of(tmp_path, {"messages": turns, "tools": [WEATHER]})
    assert said(chat) == [("user", "Oslo?"), ("assistant", None), ("tool", "rain"), ("assistant", "It rains.")]
    assert chat.messages[1]["tool_calls"] == [CALLED | {"id": "1"}]
    assert chat.tools == [{"type": "function", "function": WEATHER}]


def test_sharegpt_with_function_calls_and_tools_as_text(tmp_path: Path) -> None:
    turns = [
        {"from": "human", "value": "Oslo?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Oslo"}}'},
        {"from": "observation", "value": "rain"},
        {"from": "gpt", "value": "It rains."},
    ]
    chat = chat_of(tmp_path, {"conversations": turns, "tools": json.dumps([WEATHER]), "system": "Be short."})
    assert said(chat) == [
        ("system", "Be short."), ("user", "Oslo?"), ("assistant", None), ("tool", "rain"), ("assistant", "It rains."),
    ]  # fmt: skip
    assert chat.messages[2]["tool_calls"] == [CALLED]
    assert chat.tools == [{"type": "function", "function": WEATHER}]


def test_alpaca_with_input_system_and_history(tmp_path: Path) -> None:
    row = {"instruction": "Add", "input": "1, 2", "output": "3", "system": "Be short.", "history": [["Hi", "Hello"]]}
    assert said(chat_of(tmp_path, row)) == [
        ("system", "Be short."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Add\n1, 2"), ("assistant", "3"),
    ]  # fmt: skip


def test_a_format_may_be_said_where_two_fit(tmp_path: Path) -> None:
    row = talk("Hi", "Hello") | {"prompt": "a", "completion": "b"}
    assert said(chat_of(tmp_path, row, format="prompt_completion")) == [("user", "a"), ("assistant", "b")]
    assert said(chat_of(tmp_path, talk("Hi", "Ho") | {"label": True}, format="messages")) == [
        ("user", "Hi"),
        ("assistant", "Ho"),
    ]


def test_raw_text_is_learned_whole_and_ends_with_the_end_of_text(tmp_path: Path, tokenizer: Any) -> None:
    spec = DataSpec(train=[DataSource(path=write_jsonl(tmp_path / "a.jsonl", {"text": "The end"}, {"text": "x"}))])
    found = data.load(spec, tokenizer)
    assert [tokenizer.decode(row["input_ids"]) for row in found.train] == [
        "The end" + tokenizer.eos_token,
        "x" + tokenizer.eos_token,
    ]
    assert found.train["labels"][:] == found.train["input_ids"][:]


def test_long_text_is_split_where_the_recipe_says_so(tmp_path: Path, tokenizer: Any) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Once upon a time there was a lamp. " * 20, encoding="utf-8")
    found = data.load(DataSpec(train=[DataSource(path=path)], max_length=50, over_length="split"), tokenizer)
    ids = [token for row in found.train for token in row["input_ids"]]
    assert tokenizer.decode(ids) == path.read_text(encoding="utf-8") + tokenizer.eos_token
    assert {len(row) for row in found.train["input_ids"][:-1]} == {50}
    assert (found.train_report.rows_in, found.train_report.split) == (1, 1)
    assert found.train_report.length_before is not None and found.train_report.length_before.tolist() == [len(ids)]


@pytest.mark.parametrize(
    "marks",
    [{"labels": [-100, 6, 7]}, {"completion_mask": [0, 1, 1]}, {"assistant_masks": [0, 1, 1]}],
    ids=lambda m: next(iter(m)),
)
def test_ready_tokens_keep_their_labels(tmp_path: Path, tokenizer: Any, marks: dict[str, Any]) -> None:
    spec = DataSpec(train=[DataSource(path=write_jsonl(tmp_path / "a.jsonl", {"input_ids": [5, 6, 7]} | marks))])
    [row] = data.load(spec, tokenizer).train
    assert (row["input_ids"], row["labels"], row["roles"]) == ([5, 6, 7], [-100, 6, 7], [0, 3, 3])


def test_roles_source_and_row_stand_beside_each_token(tmp_path: Path, tokenizer: Any) -> None:
    system = {"role": "system", "content": "user"}
    first = write_jsonl(tmp_path / "a.jsonl", talk("Hi", "Hello"))
    second = write_jsonl(tmp_path / "b.jsonl", talk("x", "y"), {"messages": [system, *talk("Hi", "assistant")["messages"]]})
    rows = list(data.load(DataSpec(train=[DataSource(path=first), DataSource(path=second)]), tokenizer).train)
    assert [(row["source"], row["row"]) for row in rows] == [(0, 1), (1, 1), (1, 2)]
    words = {
        role: tokenizer.decode([t for t, r in zip(rows[2]["input_ids"], rows[2]["roles"], strict=True) if r == role])
        for role in (1, 2, 3)
    }
    assert words == {1: "user", 2: "Hi", 3: "assistant"}


def test_turns_of_weight_0_and_all_but_the_last_may_be_left_unlearned(tmp_path: Path, tokenizer: Any) -> None:
    row = talk("a", "first", "b", "second")
    row["messages"][3]["weight"] = 0
    path = write_jsonl(tmp_path / "a.jsonl", row)

    def learned(**settings: Any) -> str:
        [found] = data.load(DataSpec(train=[DataSource(path=path)], **settings), tokenizer).train
        return str(tokenizer.decode([label for label in found["labels"] if label != -100]))

    assert learned() == "first<|im_end|>"
    assert learned(train_on="all") == tokenizer.apply_chat_template(row["messages"], tokenize=False)
    write_jsonl(path, talk("a", "first", "b", "second"))
    assert learned(train_on="last") == "second<|im_end|>"


def test_the_template_may_come_from_the_recipe_with_its_variables(tmp_path: Path, tokenizer: Any) -> None:
    template = (
        "{% for m in messages %}{{ name + m.role + ':\n' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ name + 'assistant:\n' }}{% endif %}"
    )
    file = tmp_path / "own.jinja"
    file.write_text(template, encoding="utf-8")
    path = write_jsonl(tmp_path / "a.jsonl", talk("Hi", "Hello"))
    for chat_template in (template, str(file)):
        spec = DataSpec(train=[DataSource(path=path)], chat_template=chat_template, chat_template_kwargs={"name": "my "})
        [row] = data.load(spec, tokenizer).train
        end = tokenizer.eos_token
        assert tokenizer.decode(row["input_ids"]) == f"my user:\nHi{end}my assistant:\nHello{end}"
        assert tokenizer.decode([label for label in row["labels"] if label != -100]) == f"Hello{end}"


def test_an_answer_that_begins_inside_a_token_of_the_prompt_is_noticed(tmp_path: Path, tokenizer: Any) -> None:
    template = (
        "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    spec = DataSpec(train=[DataSource(path=write_jsonl(tmp_path / "a.jsonl", talk("Hi", "Hello")))], chat_template=template)
    report = data.load(spec, tokenizer).train_report
    assert report.merged == 1
    assert "1 answers begin inside a token of the prompt" in " ".join(report.remarks())
