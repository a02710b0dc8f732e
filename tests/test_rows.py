"""The same file of rows is understood the same way as training data and as documents, but for what 017-rows.md names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmbench import rows
from llmbench.data.files import read_file
from llmbench.errors import DataError
from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading.rows import batches


def trained(path: Path) -> list[tuple[int, Any]]:
    """Each row's line and text, or what is wrong with it."""
    return [(row.number, row.fault.detail if row.fault else row.values["text"]) for row in read_file(path)]


def indexed(path: Path) -> list[tuple[int, Any]]:
    found = [entry for batch in batches(path, {"text": "text"}, 10**6) for entry in batch]
    return [(entry["line"], entry.get("broken") or entry["text"]) for entry in found]


def saved(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", b"\xef\xbb\xbftext,n\nx,1\n", [(2, "x")]),
        ("a.csv", b"text,n\n\n\nx,1\n", [(4, "x")]),
        ("a.csv", b"\ntext,n\nx,1\n", [(3, "x")]),
        ("a.csv", b"text,n\n,\nx,1\n,\n", [(3, "x")]),
        ("a.csv", b'text,n\n"x\n\ny",1\nz,2\n', [(2, "x\n\ny"), (5, "z")]),
        ("a.csv", b"text,n\r\nx,1\r\ny,2\r\n", [(2, "x"), (3, "y")]),
        ("a.csv", b"text,n\nx\ny,2\n", [(2, "1 fields where the first line names 2 columns"), (3, "y")]),
        ("a.csv", b"text,n\n" + b"x" * 200_000 + b",1\n", [(2, "x" * 200_000)]),
        ("a.tsv", b"text\tn\nx, y\t1\n", [(2, "x, y")]),
        ("a.jsonl", b'\xef\xbb\xbf{"text": "x"}\n\n \n{"text": "y"}\n', [(1, "x"), (4, "y")]),
        ("a.jsonl", b'{"text": "x"}\n\xef\xbb\xbf{"text": "y"}\n', [(1, "x"), (2, "y")]),
    ],
)
def test_rows_have_the_same_lines_and_values(
    tmp_path: Path, name: str, content: bytes, expected: list[tuple[int, str]]
) -> None:
    path = saved(tmp_path, name, content)
    assert trained(path) == expected
    assert indexed(path) == expected


def test_only_a_line_feed_ends_a_line_of_json(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jsonl", '{"text": "x\u2028y"}\n{"text": "z"}'.encode())
    assert [line for line, _ in trained(path)] == [line for line, _ in indexed(path)] == [1, 2]


def test_spaces_around_the_name_of_a_column_count_in_training_alone(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.csv", b"text , n\nx,1\n")
    assert [row.values for row in read_file(path)] == [{"text ": "x", " n": "1"}]
    [[entry]] = batches(path, {"text": "text"}, 100)
    assert (entry["text"], entry["metadata"]) == ("x", {"n": 1})


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named_by_both(tmp_path: Path, name: str, encoding: str) -> None:
    text = '{"text": "x"}\n' if name == "a.jsonl" else "text\nx\n"
    path = saved(tmp_path, name, text.encode(encoding))
    with pytest.raises(DataError, match="is UTF-16, not UTF-8"):
        trained(path)
    with pytest.raises(Unreadable, match="rows in UTF-16; save the file as UTF-8"):
        indexed(path)


def test_a_column_that_is_there_twice_is_refused_for_training_and_kept_apart_for_documents(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.csv", b"text,note,note,,\nx,a,b,,\n")
    with pytest.raises(DataError, match=r"a\.csv:1: the column note is there twice"):
        trained(path)
    [[entry]] = batches(path, {"text": "text"}, 100)
    assert entry["metadata"] == {"note": "a", "note 2": "b"}


def test_excels_own_first_line_names_the_delimiter_of_documents(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.csv", b"sep=;\r\ntext;n\r\nx, y;1\r\n")
    assert indexed(path) == [(3, "x, y")]
    with pytest.raises(DataError, match=r"separated by semicolons, not commas"):
        trained(path)


def test_a_row_of_parquet_whose_text_is_not_utf_8_leaves_the_others(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    column = pyarrow.array([b"x", b"\xff", b"z"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    path = tmp_path / "a.parquet"
    assert indexed(path) == [(1, "x"), (2, "not UTF-8"), (3, "z")]
    assert [number for number, _ in trained(path)] == [1, 2, 3]
    assert trained(path)[1][1].startswith("its text is not UTF-8")


def test_a_line_beyond_the_bound_is_left_out_and_the_next_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jsonl", b'{"text": "' + b"x" * (17 * 2**20) + b'"}\n{"text": "y"}\n')
    assert indexed(path) == [(1, "longer than 16 MiB"), (2, "y")]


def test_names_that_repeat_get_a_number() -> None:
    assert rows.distinct(["a", "a 2", "a", "", "", "a"]) == ["a", "a 2", "a 3", "", "", "a 4"]
