"""Files whose rows are documents."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmbench.recipe import ColumnsSpec, SourceSpec
from llmbench.retrieval.documents import Document, Unreadable
from llmbench.retrieval.reading import File, Reading, read, read_all, walk

from .files import saved


def readings(path: Path, columns: ColumnsSpec | None = None, metadata: dict[str, Any] | None = None) -> list[Reading]:
    place = SourceSpec(path=path, columns=columns or ColumnsSpec(), metadata=metadata or {})
    found = walk([place])
    assert found.skipped == []
    return list(read_all(found.files))


def documents(found: list[Reading]) -> list[Document]:
    return [document for reading in found for document in reading.documents]


BEIR = (
    '{"_id": "d1", "title": "Kettle", "text": "It boils.", "metadata": {}}\n{"_id": "d2", "title": "", "text": "It glows."}\n'
)


def test_a_beir_corpus_works_as_it_is(tmp_path: Path) -> None:
    found = documents(readings(saved(tmp_path, "corpus.jsonl", BEIR.encode())))
    assert [(d.source, d.title, d.text) for d in found] == [
        ("corpus.jsonl#d1", "Kettle", "It boils."),
        ("corpus.jsonl#d2", "", "It glows."),
    ]
    assert [d.line(0) for d in found] == [1, 2]
    assert all(len(d.id) == 64 for d in found)


def test_columns_are_chosen_joined_and_kept_as_metadata(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.csv", b"key;head;body;year;note\r\n7;H;B;2024;\r\n8;I;C;2025;n\r\n")
    found = documents(readings(path, ColumnsSpec(id="key", text=["head", "body"], title="head"), {"set": "x"}))
    assert [(d.source, d.text, d.title) for d in found] == [("a.csv#7", "H\nB", "H"), ("a.csv#8", "I\nC", "I")]
    assert [d.metadata for d in found] == [{"year": 2024, "set": "x"}, {"year": 2025, "note": "n", "set": "x"}]
    assert [d.line(0) for d in found] == [2, 3]


def test_a_row_has_the_same_id_wherever_it_stands(tmp_path: Path) -> None:
    first = documents(readings(saved(tmp_path, "a.jsonl", b'{"text": "a", "id": 1}\n')))
    second = documents(readings(saved(tmp_path, "b.jsonl", b'\n\n{"id": 1, "text": "a"}\n{"id": 1, "text": "b"}\n')))
    assert first[0].id == second[0].id != second[1].id


def test_broken_rows_are_told_by_line_and_the_others_are_read(tmp_path: Path) -> None:
    lines = ['{"text": "one"}', "{broken", "[1]", '{"other": 1}', '{"text": " "}', "\xff", "[" * 100_000, '{"text": "last"}']
    (*some, last) = readings(saved(tmp_path, "a.jsonl", "\n".join(lines).encode("latin-1")))
    assert [d.text for d in documents(some)] == ["one", "last"]
    assert last.last and not last.documents
    assert last.failure is not None and last.failure.startswith("6 rows left out: line 2: not JSON")
    assert "line 4: no column text or contents (it has other)" in last.failure


def test_csv_rows_of_another_length_are_told(tmp_path: Path) -> None:
    found = readings(saved(tmp_path, "a.csv", b'id,text\n1,"a\nb"\n2\n3,c\n'))
    assert [(d.text, d.line(0)) for d in documents(found)] == [("a\nb", 2), ("c", 5)]
    assert found[-1].failure == "1 row left out: line 4: 1 fields where the first line names 2 columns"


def test_a_large_file_comes_in_several_readings(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jsonl", "".join(json.dumps({"id": n, "text": "word " * 20}) + "\n" for n in range(2000)).encode())
    found = readings(path)
    assert len(found) > 4
    assert [reading.last for reading in found] == [False] * (len(found) - 1) + [True]
    assert [d.source for d in documents(found)] == [f"a.jsonl#{n}" for n in range(2000)]
    assert max(len(reading.documents) for reading in found) <= 256


def test_reading_rows_may_stop_at_any_time(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jsonl", b'{"text": "x"}\n' * 50_000)
    stream: Iterator[Reading] = read_all([File(path, "a.jsonl", SourceSpec(path=path, columns=ColumnsSpec()))])
    assert next(stream).documents
    stream.close()  # type: ignore[attr-defined]


def test_a_json_list_is_rows_too_and_parquet_is_read_in_batches(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    assert [d.text for d in documents(readings(saved(tmp_path, "a.json", b'[{"text": "one"}, {"text": "two"}]')))] == [
        "one",
        "two",
    ]
    table = pyarrow.table({"_id": ["a", "b"], "text": ["one", "two"], "year": [2024, 2025]})
    parquet.write_table(table, tmp_path / "a.parquet")
    found = documents(readings(tmp_path / "a.parquet"))
    assert [(d.source, d.text, d.metadata) for d in found] == [
        ("a.parquet#a", "one", {"year": 2024}),
        ("a.parquet#b", "two", {"year": 2025}),
    ]
    (broken,) = readings(saved(tmp_path, "b.parquet", b"PAR1 nothing"))
    assert broken.failure is not None and "broken Parquet" in broken.failure


def test_a_file_of_rows_is_no_single_document(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.csv", b"text\nx\n")
    with pytest.raises(Unreadable, match="file of rows"):
        read(File(path, "a.csv", SourceSpec(path=path, columns=ColumnsSpec())))


def test_what_no_database_can_hold_is_cleaned_or_left_out(tmp_path: Path) -> None:
    row = b'{"id": "a\\ud800\\u0000b", "text": "x", "note": "half \\ud83d", "big": 1e999, "huge": 99999999999999999999}\n'
    (found,) = documents(readings(saved(tmp_path, "a.jsonl", row)))
    assert (found.source, found.metadata) == ("a.jsonl#a b", {"note": "half  "})


def test_cells_of_csv_are_what_json_reads_them_as(tmp_path: Path) -> None:
    cells = {
        "2025": 2025,
        "-0.5": -0.5,
        "1e3": 1000.0,
        "true": True,
        "007": "007",
        "1.": "1.",
        "1e999": "1e999",
        "9" * 19: "9" * 19,
    }
    path = saved(tmp_path, "a.csv", "\n".join(["id,text,v", *(f"x,words,{cell}" for cell in cells)]).encode())
    values = [d.metadata["v"] for d in documents(readings(path))]
    assert values == list(cells.values()) and list(map(type, values)) == list(map(type, cells.values()))


def test_parquet_keeps_dates_decimals_and_lists(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    row = {
        "text": "x",
        "day": date(2026, 1, 2),
        "price": Decimal("4.50"),
        "tags": ["a", "b"],
        "at": datetime(2026, 1, 2, 3),
        "o": {"a": 1},
    }
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet")
    (found,) = documents(readings(tmp_path / "a.parquet"))
    assert found.metadata == {"day": "2026-01-02", "price": 4.5, "tags": ["a", "b"], "at": "2026-01-02T03:00:00"}
    (found,) = documents(readings(tmp_path / "a.parquet", ColumnsSpec(metadata=["o"])))
    assert found.metadata == {} and found.warnings == ("its column o holds what cannot be filtered by",)


def test_a_column_that_no_row_has_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jsonl", b'{"text": "x", "year": 1}\n{"text": "y", "team": "z"}\n{\n')
    assert (readings(path, ColumnsSpec(metadata=["year", "team"]))[-1].failure or "").startswith("1 row left out: line 3")
    failure = readings(path, ColumnsSpec(metadata=["yaer", "team"]))[-1].failure or ""
    assert failure.endswith("; no row has a column yaer, which columns.metadata names")


def test_columns_called_as_a_documents_own_fields_are_told_once(tmp_path: Path) -> None:
    path = saved(tmp_path, "a.jsonl", b'{"text": "x", "source": "web"}\n{"text": "y", "source": "web"}\n')
    first, second = documents(readings(path))
    assert first.warnings == ("filter its field source as metadata.source, since every document already has a source",)
    assert second.warnings == () and second.metadata == {"source": "web"}
