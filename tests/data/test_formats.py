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
from llmbench.errors import DataError
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


def test_parts_of_the_responses_api_and_a_dialogue_as_text_are_turns(tmp_path: Path) -> None:
    asked = {"role": "user", "content": [{"type": "input_text", "text": "Who?"}]}
    for part in ({"type": "output_text", "text": "Nobody.", "annotations": []}, {"type": "refusal", "refusal": "Nobody."}):
        chat = chat_of(tmp_path, {"messages": [asked, {"role": "assistant", "content": [part]}]})
        assert said(chat) == [("user", "Who?"), ("assistant", "Nobody.")]
    row = {"prompt": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Who?\n\nAssistant:", "completion": " Nobody."}
    turns = [("user", "Hi"), ("assistant", "Hello"), ("user", "Who?"), ("assistant", "Nobody.")]
    assert said(chat_of(tmp_path, row)) == turns


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


@pytest.mark.parametrize("label", [-1, 10**6])
def test_a_label_that_is_no_token_is_named(tmp_path: Path, tokenizer: Any, label: int) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", {"input_ids": [5, 6, 7], "labels": [-100, 6, label]})
    with pytest.raises(DataError, match=rf"a.jsonl:1: labels holds {label}; the tokenizer has [\d,]+ tokens"):
        data.load(DataSpec(train=[DataSource(path=path)]), tokenizer)


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


@pytest.mark.parametrize(
    "thinking",
    [
        {"reasoning_content": "I add"},
        {"reasoning": "I add"},
        {"thinking": "I add"},
        {
            "reasoning": "I add",
            "reasoning_content": "I add",
            "reasoning_details": [{"type": "reasoning.text", "text": "other"}],
        },
        {"reasoning_details": [{"type": "reasoning.text", "text": "I "}, {"type": "reasoning.summary", "summary": "add"}]},
        {"content": [{"type": "thinking", "thinking": "I add"}, {"type": "text", "text": "Two."}]},
    ],
)
@pytest.mark.parametrize("form", ["messages", "conversations"])
def test_thinking_is_read_under_each_of_its_names(tmp_path: Path, thinking: dict[str, Any], form: str) -> None:
    answer = {"role": "assistant", "content": "Two."} | thinking
    row = {"messages": [{"role": "user", "content": "1+1?"}, answer]}
    if form == "conversations":
        if "content" in thinking:
            return
        row = {"conversations": [{"from": "human", "value": "1+1?"}, {"from": "gpt", "value": "Two."} | thinking]}
    expected = {"role": "assistant", "content": "Two.", "reasoning_content": "I add"}
    assert chat_of(tmp_path, row).messages[1] == expected
    spec = DataSpec(train=[DataSource(path=tmp_path / "rows.jsonl")], reasoning="drop")
    [[item]] = batches(spec, spec.train)
    assert isinstance(item.holds, Chat) and item.holds.messages[1] == {"role": "assistant", "content": "Two."}


@pytest.mark.parametrize("key", ["weight", "train", "training", "loss"])
@pytest.mark.parametrize("form", ["messages", "conversations"])
def test_a_turn_says_whether_it_is_learned(tmp_path: Path, tokenizer: Any, key: str, form: str) -> None:
    yes, no = (1, 0) if key == "weight" else (True, False)
    names = ("role", "content") if form == "messages" else ("from", "value")
    who = ("user", "assistant") if form == "messages" else ("human", "gpt")
    turns = [dict(zip(names, (who[i % 2], text), strict=True)) for i, text in enumerate(("a", "first", "b", "second"))]
    turns[1][key], turns[3][key] = no, yes  # type: ignore[assignment]
    path = write_jsonl(tmp_path / "a.jsonl", {form: turns})
    [row] = data.load(DataSpec(train=[DataSource(path=path)]), tokenizer).train
    assert tokenizer.decode([label for label in row["labels"] if label != -100]) == "second<|im_end|>"
    turns[3][key] = no  # type: ignore[assignment]
    write_jsonl(path, {form: turns})
    with pytest.raises(DataError, match=r"a\.jsonl:1: every turn of this row is excluded"):
        data.load(DataSpec(train=[DataSource(path=path)]), tokenizer)


def test_functions_as_they_were_before_there_were_tools(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "Oslo?"},
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
        {"role": "function", "name": "weather", "content": "rain"},
        {"role": "assistant", "content": "It rains."},
    ]
    chat = chat_of(tmp_path, {"messages": turns, "functions": [WEATHER]})
    assert chat.messages[1]["tool_calls"] == [CALLED] and chat.messages[2]["role"] == "tool"
    assert chat.tools == [{"type": "function", "function": WEATHER}]


@pytest.mark.parametrize(
    ("turn", "says"),
    [
        ({"reasoning": "a", "thinking": "b"}, r"messages\[1\] has reasoning and thinking, which differ; keep one"),
        ({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}, "has a part without text or summary"),
        ({"train": "yes"}, r"messages\[1\]\.train should be true or false, not 'yes'"),
        ({"train": True, "weight": 0}, "has weight and train, which contradict each other"),
        ({"tool_calls": [{"name": "f", "arguments": [1]}]}, "the arguments of f should be an object, not a list"),
        ({"tool_calls": [{"name": "f", "args": {}}]}, "the call of f has args; a call is"),
    ],
)
def test_a_turn_that_says_two_things_is_refused(tmp_path: Path, turn: dict[str, Any], says: str) -> None:
    row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"} | turn]}
    with pytest.raises(DataError, match=rf"rows\.jsonl:1: .*{says}"):
        chat_of(tmp_path, row)


def test_a_turn_of_the_user_s_is_not_learned_on_request(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "Hi", "train": True}, {"role": "assistant", "content": "Ho"}]}
    with pytest.raises(DataError, match=r"messages\[0\]\.train marks a user turn as trained, .* data\.train_on=all"):
        chat_of(tmp_path, row)


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_nulls_of_other_rows_are_left_out_of_what_a_table_holds(tmp_path: Path, ending: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def row(**arguments: Any) -> dict[str, Any]:
        calls = [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": arguments}}]
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": calls}]
        properties = {key: {"type": "string"} | ({"enum": ["x", None]} if key == "days" else {}) for key in arguments}
        return {"messages": turns, "tools": [{"name": "weather", "parameters": {"properties": properties}}]}

    rows = [row(city="Oslo"), row(days=[1, None])]
    table, path = pa.Table.from_pylist(rows), tmp_path / f"a.{ending}"
    if ending == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table)
    spec = DataSpec(train=[DataSource(path=path)])
    [items] = batches(spec, spec.train)
    plain = DataSpec(train=[DataSource(path=write_jsonl(tmp_path / "a.jsonl", *rows))])
    [expected] = batches(plain, plain.train)
    assert [item.holds for item in items] == [item.holds for item in expected]


def test_a_null_of_the_row_s_own_stays(tmp_path: Path) -> None:
    call = {"name": "weather", "arguments": {"city": None}}
    tool = WEATHER | {"parameters": {"properties": {"city": {"default": None}}}}
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": [call]}]
    chat = chat_of(tmp_path, {"messages": turns, "tools": [tool]})
    assert chat.messages[1]["tool_calls"][0]["function"]["arguments"] == {"city": None}
    assert chat.tools is not None and chat.tools[0]["function"] == tool
