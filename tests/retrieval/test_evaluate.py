"""Metrics against values worked out by hand."""

from __future__ import annotations

import json
from math import log2
from pathlib import Path

import pytest

from llmbench.errors import DataError
from llmbench.retrieval.evaluate import interval, ndcg_at_k, read_beir, recall_at_k

QRELS = {"q1": {"a": 2, "b": 1, "c": 0}, "q2": {"d": 1}, "unanswered": {"e": 1}, "nothing relevant": {"f": 0}}


def test_ndcg_has_linear_gain_and_counts_queries_without_an_answer() -> None:
    found = ndcg_at_k({"q1": ["x", "b", "a"], "q2": ["d"], "not judged": ["a"]}, QRELS, 10)
    assert found == {
        "q1": pytest.approx((1 / log2(3) + 2 / log2(4)) / (2 + 1 / log2(3))),
        "q2": 1.0,
        "unanswered": 0.0,
    }


def test_ndcg_looks_at_k_documents_and_counts_each_once() -> None:
    assert ndcg_at_k({"q2": ["x", "d"]}, {"q2": {"d": 1}}, 1) == {"q2": 0.0}
    assert ndcg_at_k({"q2": ["d", "d", "d"]}, {"q2": {"d": 1, "e": 1}}, 3) == {"q2": pytest.approx(1 / (1 + 1 / log2(3)))}


def test_recall_is_a_share_of_the_relevant() -> None:
    assert recall_at_k({"q1": ["a", "x", "b"]}, QRELS, 2) == {"q1": 0.5, "q2": 0.0, "unanswered": 0.0}


def test_the_interval_holds_the_mean_and_narrows_with_more_queries() -> None:
    few, many = interval([0.0, 1.0] * 10), interval([0.0, 1.0] * 1000)
    assert few[0] < many[0] < 0.5 < many[1] < few[1]
    assert few == interval([0.0, 1.0] * 10)
    assert interval([1.0, 1.0, 1.0]) == (1.0, 1.0)


def test_a_beir_folder_is_read_and_its_faults_are_told(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": 1, "title": "T", "text": "body"}) + "\n")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "?"}\n{"_id": "unjudged", "text": "?"}\n')
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n")
    found = read_beir(tmp_path)
    assert (found.corpus, found.queries, found.qrels) == ([("1", "T", "body")], {"q": "?"}, {"q": {"1": 1}})
    with pytest.raises(DataError, match=r"no such file .*dev\.tsv\. Splits there: test"):
        read_beir(tmp_path, "dev")
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq 1 1\n")
    with pytest.raises(DataError, match=r"test\.tsv:2: not query-id"):
        read_beir(tmp_path)
    (tmp_path / "queries.jsonl").write_text('{"_id": "q"}\n')
    with pytest.raises(DataError, match=r"queries\.jsonl:1: a row without"):
        read_beir(tmp_path)
