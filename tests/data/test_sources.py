"""Where rows may come from."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.data.conftest import talk, write_jsonl

from llmbench import data
from llmbench.errors import DataError
from llmbench.recipe import DataSource, DataSpec

PAIR = {"prompt": "a", "completion": "b"}


def places(source: DataSource) -> list[str]:
    return [Path(place).name for place, _ in data.rows(source)]


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_arrow_files_and_streams(tmp_path: Path, kind: str) -> None:
    import pyarrow as pa

    path = tmp_path / "a.arrow"
    table = pa.Table.from_pylist([PAIR, PAIR])
    make = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as file, make(file, table.schema) as writer:
        writer.write_table(table)
    assert list(data.rows(DataSource(path=path))) == [(f"{path}: row 1", PAIR), (f"{path}: row 2", PAIR)]


def test_a_file_that_is_no_arrow_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.feather"
    path.write_bytes(b"no arrow")
    with pytest.raises(DataError, match=r"a\.feather: not a valid Arrow file"):
        list(data.rows(DataSource(path=path)))


def test_a_folder_and_a_pattern_are_read_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    write_jsonl(tmp_path / "b.jsonl", PAIR)
    write_jsonl(tmp_path / "more" / "a.jsonl", PAIR)
    write_jsonl(tmp_path / ".hidden.jsonl", PAIR)
    (tmp_path / "c.csv").write_text("prompt,completion\na,b\n", encoding="utf-8")
    (tmp_path / "LICENSE").write_text("no rows", encoding="utf-8")
    assert places(DataSource(path=tmp_path)) == ["b.jsonl:1", "c.csv:2", "a.jsonl:1"]
    assert places(DataSource(path=tmp_path / "[a-z]*.jsonl")) == ["b.jsonl:1"]
    with pytest.raises(ValidationError, match="no file matches"):
        DataSource(path=tmp_path / "*.parquet")


OWN = """
def several(row):
    return [{"prompt": question, "completion": row["answer"]} for question in row["questions"]]

def broken(row):
    return {"prompt": row["question"]}

def nothing(row):
    if row["answer"] == "4":
        return {"prompt": "kept", "completion": row["answer"]}
"""


def test_a_function_of_the_users_makes_rows(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "a.jsonl", {"questions": ["2 + 2?", "1 + 3?"], "answer": "4"}, {"questions": [], "answer": "5"}
    )
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")

    def source(name: str, **more: Any) -> DataSource:
        return DataSource(path=path, formatting=f"{tmp_path}/own.py:{name}", **more)

    made = list(data.rows(source("several", limit=2)))
    assert made == [(f"{path}:1", {"prompt": question, "completion": "4"}) for question in ("2 + 2?", "1 + 3?")]
    with pytest.raises(DataError, match=r"a\.jsonl:2: several of .*own\.py returned nothing; it should return a row"):
        list(data.rows(source("several")))
    with pytest.raises(DataError, match=r"a\.jsonl:1: broken failed at .*own\.py:6 \(KeyError: 'question'\)"):
        list(data.rows(source("broken")))
    with pytest.raises(ValidationError, match="defines no function other"):
        source("other")
    with pytest.raises(ValidationError, match="leave out columns"):
        source("several", columns={"prompt": "question"})


def test_rows_that_formatting_leaves_out_are_counted(tmp_path: Path, tokenizer: Any) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", {"answer": "4"}, {"answer": "5"})
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    source = DataSource(path=path, formatting=f"{tmp_path}/own.py:nothing")
    with pytest.raises(DataError, match=r"a\.jsonl:2: nothing of .* returned nothing.* data\.bad_rows=skip"):
        data.load(DataSpec(train=[source]), tokenizer)
    report = data.load(DataSpec(train=[source], bad_rows="skip"), tokenizer).train_report
    assert (report.rows_in, report.rows, [row.reason for row in report.skipped]) == (2, 1, ["formatting gave no row"])


def test_a_folder_without_data_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="is a folder with no file that llmbench reads"):
        list(data.rows(DataSource(path=tmp_path)))


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "a.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE faq (question TEXT, answer TEXT)")
        connection.executemany("INSERT INTO faq VALUES (?, ?)", [("Who?", "Me."), ("When?", "Now.")])
    connection.close()
    return path


def test_the_rows_of_a_query(database: Path) -> None:
    query = "SELECT question AS prompt, upper(answer) AS completion FROM faq ORDER BY question"
    rows = list(data.rows(DataSource(path=database, query=query)))
    assert rows[0] == (f"{database}: row 1", {"prompt": "When?", "completion": "NOW."})


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (None, "is a database. Add query: SELECT ... next to its path. Tables: faq"),
        ("SELECT x FROM faq", "the query failed: no such column: x"),
        ("SELECT question, answer AS question FROM faq", "the query names the column question twice. Rename one with AS"),
        ("DELETE FROM faq", "Only SELECT is permitted"),
        ("SELECT 1; DROP TABLE faq", "You can only execute one statement at a time"),
        ("ATTACH 'other.db' AS other", "Only SELECT is permitted"),
        ("PRAGMA writable_schema = 1", "Only SELECT is permitted"),
        ("SELECT load_extension('x')", "the query failed: "),
    ],
)
def test_a_query_can_only_read(database: Path, query: str | None, message: str) -> None:
    before = database.read_bytes()
    with pytest.raises(DataError) as caught:
        list(data.rows(DataSource(path=database, query=query)))
    assert message in str(caught.value)
    assert database.read_bytes() == before


def test_rows_under_a_field_and_rows_by_key(tmp_path: Path) -> None:
    listed, keyed = tmp_path / "a.json", tmp_path / "b.json"
    listed.write_text('{"version": 1, "data": [{"prompt": "a", "completion": "b"}]}', encoding="utf-8")
    keyed.write_text('{"x1": {"prompt": "a", "completion": "b"}}', encoding="utf-8")
    assert places(DataSource(path=listed, field="data")) == ["a.json: row 1"]
    assert places(DataSource(path=keyed)) == ["b.json: x1"]
    with pytest.raises(DataError, match=r"has no field rows\. There are: version, data"):
        list(data.rows(DataSource(path=listed, field="rows")))


def test_latin_1_and_tabs(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes("prompt\tcompletion\ncafé, noir\tü\n".encode("latin-1"))
    assert list(data.rows(DataSource(path=path, encoding="latin-1"))) == [
        (f"{path}:2", {"prompt": "café, noir", "completion": "ü"})
    ]
    lines = tmp_path / "a.jsonl"
    lines.write_bytes('{"prompt": "é", "completion": "ü"}\n'.encode("latin-1"))
    assert next(iter(data.rows(DataSource(path=lines, encoding="latin-1"))))[1]["prompt"] == "é"
    with pytest.raises(ValidationError, match="Python has no encoding latin-99"):
        DataSource(path=path, encoding="latin-99")


def test_a_hub_data_set_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"data set nobody/nothing: not in the cache, and .* cannot be reached"):
        list(data.rows(DataSource(dataset="nobody/nothing")))


def mixed(folder: Path, tokenizer: Any, **settings: Any) -> tuple[list[tuple[int, int]], data.Rows]:
    few = write_jsonl(folder / "few.jsonl", *[talk(f"few {i}", "yes") for i in range(4)])
    many = write_jsonl(folder / "many.jsonl", *[talk(f"many {i}", "no") for i in range(16)])
    sources = [DataSource(path=few, weight=3), DataSource(path=many, weight=1)]
    found = data.load(DataSpec(train=sources, **settings), tokenizer, seed=settings.pop("seed", 1))
    return list(zip(found.train["source"], found.train["row"], strict=True)), found


def test_sources_are_mixed_by_weight(tmp_path: Path, tokenizer: Any) -> None:
    rows, found = mixed(tmp_path, tokenizer)
    assert len(rows) == found.train_report.rows == 20
    assert [sum(source == i for source, _ in rows) for i in range(2)] == [15, 5]
    assert sorted({rows.count((0, row)) for row in range(1, 5)}) == [3, 4]
    assert rows == mixed(tmp_path, tokenizer)[0]
    notes = " ".join(found.train_report.notes)
    assert "few.jsonl: 75% of the rows: 15, each of its 4 is used 3.75 times" in notes
    assert "many.jsonl: 25% of the rows: 5 of its 16, the rest are left out" in notes


def test_held_out_rows_are_never_among_the_repeated_ones(tmp_path: Path, tokenizer: Any) -> None:
    rows, found = mixed(tmp_path, tokenizer, eval_fraction=0.2)
    assert found.eval is not None
    apart = set(zip(found.eval["source"], found.eval["row"], strict=True))
    assert len(apart) == 4 and not apart & set(rows)


def test_weights_belong_to_all_sources_or_to_none(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", PAIR)
    with pytest.raises(ValidationError, match="train: give a weight to every source or to none"):
        DataSpec(train=[DataSource(path=path, weight=1), DataSource(path=path)])
