"""Judged questions are read from each form that people have them in; what is left out is counted, what is broken is told."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from llmbench.errors import DataError
from llmbench.retrieval.evaluation import corpus, read, read_qrels, read_run, write_run


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": 1, "title": "T", "text": "body"}) + "\n")
    (tmp_path / "queries.jsonl").write_text(
        '{"_id": "q", "text": "?"}\n{"_id": "unjudged", "text": "?"}\n{"_id": "barren", "text": "?"}\n'
    )
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\nbarren\t1\t0\nlost\t1\t1\n")
    return tmp_path


def test_a_beir_folder_is_read_and_what_is_left_out_is_counted(beir: Path) -> None:
    found = read(beir)
    assert (found.queries, found.qrels) == ({"q": "?"}, {"q": {"1": 1}})
    assert (found.unjudged, found.nothing_relevant, found.unknown) == (1, 1, 1)
    assert found.name == f"{beir.name}/test"
    assert list(corpus(beir)) == [("1", "T", "body")]


def test_the_only_split_is_taken_and_a_wrong_one_is_told(beir: Path) -> None:
    with pytest.raises(DataError, match=r"no such file .*dev\.tsv\. Splits there: test"):
        read(beir, "dev")
    (beir / "qrels" / "test.tsv").rename(beir / "qrels" / "train.tsv")
    assert read(beir).name.endswith("/train")
    (beir / "qrels" / "dev.tsv").write_text("q\t1\t1\n")
    with pytest.raises(DataError, match=r"test\.tsv\. Splits there: dev, train"):
        read(beir)
    assert read(beir, "dev").qrels == {"q": {"1": 1}}, "a file without a heading loses no line"


def test_faults_are_told_with_file_and_line(beir: Path) -> None:
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq 1 1\n")
    with pytest.raises(DataError, match=r"test\.tsv:2: not query-id"):
        read(beir)
    (beir / "queries.jsonl").write_text('{"_id": "q"}\n')
    with pytest.raises(DataError, match=r"queries\.jsonl:1: a row without"):
        read(beir)
    (beir / "queries.jsonl").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"queries\.jsonl:1: nested too deeply"):
        read(beir)
    (beir / "corpus.jsonl").unlink()
    with pytest.raises(DataError, match="no such file"):
        list(corpus(beir))
    with pytest.raises(DataError, match="no such file or folder"):
        read(beir / "nowhere")


def test_queries_that_are_documents_are_known(beir: Path) -> None:
    assert read(beir).identical == []
    (beir / "qrels" / "test.tsv").write_text("q\tq\t1\nq\t1\t1\n")
    assert read(beir).identical == ["q"]


def test_trec_judgements_beside_queries(tmp_path: Path) -> None:
    (tmp_path / "queries.tsv").write_text("301\tinternational crime\n302\tpolio\n")
    (tmp_path / "qrels.txt").write_text("301 0 FT1 2\n301 0 FT2 0\n302 0 FT3 0\n")
    found = read(tmp_path)
    assert (found.queries, found.qrels) == ({"301": "international crime"}, {"301": {"FT1": 2, "FT2": 0}})
    assert found.nothing_relevant == 1
    (tmp_path / "qrels.txt").write_text("301 0 FT1\n")
    with pytest.raises(DataError, match=r"qrels\.txt:1: not `query 0 document grade`"):
        read(tmp_path)
    (tmp_path / "qrels.dev.txt").write_text("301 0 FT1 1\n")
    with pytest.raises(DataError, match="not one file of TREC judgements"):
        read(tmp_path)
    assert read(tmp_path, "dev").qrels == {"301": {"FT1": 1}}


def test_a_question_file_has_its_sources_as_judgements(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    rows = [
        {"id": "a", "question": "How heavy?", "source": "lamp.md", "split": "eval"},
        {"id": "b", "question": "Where?", "source": ["lamp.md", "kettle.md"], "split": "eval"},
        {"id": "c", "question": "Why?", "answerable": False, "split": "eval"},
        {"id": "d", "question": "Who?", "split": "eval"},
        {"id": "e", "question": "When?", "source": "hours.txt", "split": "train"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read(path, "eval")
    assert found.qrels == {"a": {"lamp.md": 1}, "b": {"lamp.md": 1, "kettle.md": 1}}
    assert (found.unanswerable, found.unjudged, found.name) == (1, 1, "questions.jsonl/eval")
    assert len(read(path).queries) == 3
    with pytest.raises(DataError, match=r"no question has split 'test' \(splits in the file: eval, train\)"):
        read(path, "test")
    path.write_text('{"id": "c", "question": "Why?", "answerable": false}\n')
    with pytest.raises(DataError, match="no query is left"):
        read(path)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = {"q1": [f"d{i}" for i in range(1000, 0, -1)], "q2": ["b", "a", "b"]}
    path = tmp_path / "run.txt"
    write_run(path, run, "fused")
    assert read_run(path) == {"q1": run["q1"], "q2": ["b", "a"]}
    scores = [float(line.split()[4]) for line in path.read_text().splitlines() if line.startswith("q1 ")]
    assert all(np_float32(a) > np_float32(b) for a, b in itertools.pairwise(scores)), "trec_eval reads single precision"
    assert path.read_text().splitlines()[0].split() == ["q1", "Q0", "d1000", "1", "1.000000000", "fused"]


def np_float32(value: float) -> float:
    import numpy as np

    return float(np.float32(value))


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"question": " "}, "question is empty"),
        ({"question": None}, "question is missing"),
        ({"question": "what?", "source": {"a": 1}}, 'source must be text, not {"a": 1}'),
        ({"question": "what?", "source": [""]}, "source is empty"),
    ],
)
def test_a_question_without_words_or_with_a_source_that_is_no_name_is_told_with_its_line(
    tmp_path: Path, row: dict[str, Any], told: str
) -> None:
    path = tmp_path / "asked.jsonl"
    path.write_text(json.dumps({"id": 7, "source": "a.md"} | row) + "\n")
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}:1: ") as caught:
        read(path)
    assert told in str(caught.value)


def test_what_the_format_cannot_hold_is_written_otherwise(tmp_path: Path) -> None:
    assert write_run(tmp_path / "blank.txt", {"q": ["my file.md", "b"]}, "fused") is True
    assert read_run(tmp_path / "blank.txt") == {"q": ["my%20file.md", "b"]}
    (tmp_path / "run.txt").write_text("q Q0 d 1 high tag\n")
    with pytest.raises(DataError, match=r"run\.txt:1: not `query Q0"):
        read_run(tmp_path / "run.txt")
    with pytest.raises(DataError, match="no such file"):
        read_qrels(tmp_path / "none")
