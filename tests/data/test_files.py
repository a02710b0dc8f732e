"""Every format a row may come in, and every way in which it may be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench.data import sources
from llmbench.data.items import batches
from llmbench.errors import DataError
from llmbench.recipe import DataSource, DataSpec

TURNS = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": 'Élise,\n"she" said.'}]
Read = Callable[..., Any]


def read_file(path: Path, **settings: Any) -> Any:
    """The conversations of a file and their places."""
    spec = DataSpec(train=[DataSource(path=path, **settings)])
    items = [item for batch in batches(spec, spec.train) for item in batch]
    return [item.holds.messages for item in items], [item.place for item in items]  # type: ignore[union-attr]


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def fault(path: Path, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_file(path, **settings)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{path}", path.name)


def write_csv(path: Path, *rows: list[str]) -> Path:
    import csv

    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_messages_as_jsonl(tmp_path: Path) -> None:
    rows, places = read_file(jsonl(tmp_path / "a.jsonl", {"messages": TURNS}, {"messages": TURNS, "id": 3}))
    assert rows == [TURNS, TURNS]
    assert places == [f"{tmp_path}/a.jsonl:1", f"{tmp_path}/a.jsonl:2"]


def test_blank_lines_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\ufeff" + json.dumps({"messages": TURNS}) + "\n\n" + json.dumps({"messages": TURNS}), encoding="utf-8")
    assert read_file(path)[1] == [f"{path}:1", f"{path}:3"]


def test_messages_as_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"messages": TURNS}]), encoding="utf-8")
    assert read_file(path)[0] == [TURNS]


def test_messages_as_a_json_string_in_csv(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ["id", "messages"], ["1", json.dumps(TURNS)])
    assert read_file(path)[0] == [TURNS]


def test_messages_as_parquet(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([{"messages": TURNS}, {"messages": TURNS}]), path)
    rows, places = read_file(path)
    assert rows == [TURNS, TURNS]
    assert places[1] == f"{path}: row 2"


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
def test_prompt_and_completion_become_two_turns(tmp_path: Path, ending: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = {"prompt": "Who?", "completion": "Me."}
    path = tmp_path / f"a.{ending}"
    match ending:
        case "jsonl":
            jsonl(path, row)
        case "json":
            path.write_text(json.dumps([row]), encoding="utf-8")
        case "csv":
            write_csv(path, list(row), list(row.values()))
        case "parquet":
            pq.write_table(pa.Table.from_pylist([row]), path)
    assert read_file(path)[0] == [[{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]]


def test_prompt_and_completion_may_be_turns_already(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"prompt": TURNS[:1], "completion": TURNS[1:]})
    assert read_file(path)[0] == [TURNS]


def test_columns_are_renamed(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ["text", "label"], ["I lost my card", "lost_card"])
    rows, _ = read_file(path, columns={"prompt": "text", "completion": "label"})
    assert [turn["content"] for turn in rows[0]] == ["I lost my card", "lost_card"]


def test_columns_change_places(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text('{"prompt": "p", "completion": "c", "id": 7}\n')
    renamed = {"prompt": "completion", "completion": "prompt", "text": "prompt"}
    [(_, row)] = sources.rows(DataSource(path=tmp_path / "d.jsonl", columns=renamed))
    assert row == {"prompt": "c", "completion": "p", "text": "p", "id": 7}


def test_the_limit_takes_the_first_rows(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", *[{"prompt": str(i), "completion": "x"} for i in range(9)])
    assert [row[0]["content"] for row in read_file(path, limit=2)[0]] == ["0", "1"]


def test_places_count_the_lines_of_a_csv_with_fields_of_several_lines(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ["prompt", "completion"], ["a\nb", "c"], ["d", "e"])
    assert read_file(path)[1] == [f"{path}:2", f"{path}:4"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": TURNS[:1]}, "a.jsonl:1: no assistant turn, so this row has nothing to train on"),
        ({"messages": []}, "a.jsonl:1: messages is an empty list"),
        ({"messages": "Who?"}, "a.jsonl:1: messages should be a list of {role, content}, not a string"),
        ({"messages": ["Who?"]}, "a.jsonl:1: messages[0] should be {role, content}, not a string"),
        ({"messages": [{"role": "bot", "content": ""}]}, "a.jsonl:1: messages[0].role should be one of system, "),
        ({"messages": [{"role": "user", "content": 3}]}, "a.jsonl:1: messages[0].content should be text, not a number"),
        ({"messages": [{"role": "user", "content": None}]}, "a.jsonl:1: messages[0].content should be text, not null"),
        ({"messages": [{"from": "human", "value": "x"}]}, "a.jsonl:1: messages[0] has from/value (ShareGPT); write columns: {"),
        ({"messages": [TURNS[1] | {"tool_calls": [1]}]}, "a.jsonl:1: messages[0].tool_calls: a call is {name, arguments} or"),
        ({"messages": [TURNS[1] | {"audio": "x"}]}, "a.jsonl:1: messages[0] has audio, which llmbench cannot"),
        ({"messages": [TURNS[1] | {"weight": 2}]}, "weight should be 0 (do not train this turn) or 1, not 2"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": " "}]}, "a.jsonl:1: assistant turn 2 is empty"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": "a\0b"}]}, "messages[1].content holds a NUL character"),
        ({"prompt": 3, "completion": "x"}, "a.jsonl:1: prompt should be text or a list of messages, not a number"),
        ({"prompt": "x"}, "It looks like prompt_completion without its completion."),
        ({"conversations": []}, "a.jsonl:1: conversations should be a list of {from, value}"),
        ({"conversations": [{"from": "cat", "value": "x"}]}, "conversations[0].from should be one of human, user, gpt"),
        ({"conversations": [{"from": "function_call", "value": "{"}]}, "conversations[0].value: not valid JSON"),
        ({"instruction": "a", "output": "b", "history": ["x"]}, "history should be a list of [question, answer] pairs"),
        ({"instruction": "a"}, "It looks like alpaca without its output."),
        ({"chosen": "a", "rejected": "b"}, "It looks like preferences, which needs method: dpo"),
        (
            {"prompt": "a", "completion": "b", "label": True},
            "needs method: kto. To train on all of them, write format: pr",
        ),
        (
            {"prompt": "a", "completion": "b", "text": "c", "messages": TURNS},
            "It fits messages and prompt_completion: write fo",
        ),
        ({"text": "a", "label": "b"}, "write columns: {prompt: text, completion: label} next to its path, or format: text"),
        ({"Question": "a", "LONG_ANSWER": "b"}, "write columns: {prompt: Question, completion: LONG_ANSWER} next to its path."),
        ({"a": "b"}, 'columns are a (first row: {"a": "b"})'),
        ({"a": "b"}, "Name yours with columns: {prompt: ..., completion: ...}."),
        ({"input_ids": [1, 2], "labels": [1]}, "labels has 1 numbers and input_ids 2"),
        ([1], "a.jsonl:1: a row is an object with columns, not a list"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, row: Any, message: str) -> None:
    assert message in fault(jsonl(tmp_path / "a.jsonl", row))


def test_the_first_bad_row_is_shown_and_the_others_counted(tmp_path: Path) -> None:
    bad = {"messages": TURNS[:1]}
    message = fault(jsonl(tmp_path / "a.jsonl", {"messages": TURNS}, bad, {"messages": TURNS}, bad, bad))
    assert message.startswith("a.jsonl:2: no assistant turn")
    assert "(2 more rows" in message


def test_a_later_row_without_the_columns_is_named(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", {"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": None})
    assert fault(path).startswith("a.jsonl:2: completion missing, which format prompt_completion needs")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", "", "a.jsonl: has no rows; llmbench reads"),
        ("a.json", "", "a.json: has no rows;"),
        ("a.json", "[]", "a.json: has no rows;"),
        ("a.csv", "prompt,completion\n", "a.csv: has no rows;"),
        ("a.jsonl", '{"prompt": "a", "completion": "b"}\n{"messages": [', "a.jsonl:2: not valid JSON"),
        ("a.jsonl", '[\n{"messages": []}\n]', "a.jsonl:1: not valid JSON"),
        ("a.json", '{"prompt": "a"}\n{"prompt": "b"}', "Name it .jsonl."),
        (
            "a.json",
            '{"rows": []}',
            "a.json:1: a .json file holds a list of rows, not an object. Its rows may be under rows: write field: rows",
        ),
        ("a.csv", "prompt,completion\na\n", "a.csv:2: 1 fields where the first line names 2 columns"),
        ("a.csv", 'prompt,completion\na,"b', "a.csv:2: not valid CSV"),
        ("a.csv", 'messages\n"[{bad"\n', "a.csv:2: messages is not valid JSON"),
        ("a.parquet", "no parquet", "a.parquet: not a valid Parquet file"),
        ("a.xlsx", "x", "a.xlsx: .xlsx files are not read."),
        ("a", "x", "a: its name has no extension that says what it holds."),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    assert message in fault(path)


def test_text_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("prompt,completion\ncafé,x\n".encode("latin-1"))
    assert "a.csv:2: is not UTF-8 text (byte 0xe9 at column 4). Write encoding: latin-1" in fault(path)
    assert read_file(path, encoding="latin-1")[0][0][0]["content"] == "café"


def test_a_column_to_rename_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", ["text", "label"], ["a", "b"])
    assert "a.csv:2: has no column query to use as prompt. Available: text, label." in fault(path, columns={"prompt": "query"})


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "txt"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named_and_read_when_the_recipe_says_so(tmp_path: Path, ending: str, encoding: str) -> None:
    text = {"csv": "text\nHi", "tsv": "text\nHi", "json": '[{"text": "Hi"}]', "jsonl": '{"text": "Hi"}', "txt": "Hi"}[ending]
    path = tmp_path / f"a.{ending}"
    path.write_bytes(text.encode(encoding))
    assert f"a.{ending}: is UTF-16, not UTF-8. Write encoding: {encoding} next" in fault(path)
    [(_, values)] = sources.rows(DataSource(path=path, encoding=encoding))
    assert values == {"text": "Hi"}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "prompt;completion\nHi, you;Hello\n", ":1: its columns are separated by semicolons, not commas: save it"),
        ("a.csv", "prompt\tcompletion\nHi\tHello\n", ":1: its columns are separated by tabs, not commas: name it .tsv"),
        ("a.tsv", "prompt,completion\nHi,Hello\n", ":1: its columns are separated by commas, not tabs: name it .csv"),
        ("a.csv", "prompt,completion,completion\nHi,A,B\n", ":1: the column completion is there twice"),
        ("a.json", '{"prompt": ["a", "b"], "completion": ["c", "d"]}', ": holds columns, each with all its values, not rows"),
        ("a.json", '{"prompt": {"0": "a"}, "completion": {"0": "c"}}', ": holds columns, each with all its values, not rows"),
        ("a.json", '{"features": [], "rows": [{"text": "a"}]}', "write field: rows next to its path"),
        ("a.json", '{"prompt": "a", "completion": "b"}', "If the object is the only row, put it in"),
        ("a", "{}", ": its name has no extension that says what it holds"),
    ],
)
def test_a_file_in_another_form_is_an_error_that_says_which(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert said in fault(path)


def test_columns_without_a_name_may_repeat(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,completion,,\nHi,Hello,,\n")
    [(_, values)] = sources.rows(DataSource(path=path))
    assert values == {"prompt": "Hi", "completion": "Hello", "": ""}


def test_a_list_on_one_line_or_an_object_over_several_is_a_fault_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('[{"text": "a"}, {"text": "b"}]\n{\n"text": "c"}\n')
    found = [row.fault.detail for row in sources.read(DataSource(path=path)) if row.fault is not None]
    assert "the line holds a list of rows; name the file .json" in found[0]
    assert "Each row should be on one line" in found[1]
