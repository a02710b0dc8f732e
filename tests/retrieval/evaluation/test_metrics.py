"""Measures against values worked out by hand, and against our own small implementation on random rankings."""

from __future__ import annotations

import importlib.util
from math import log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbench.errors import LlmbenchError
from llmbench.retrieval.evaluation import MEASURES, mean, measure

QRELS = {"q1": {"a": 2, "b": 1, "c": 0}, "q2": {"d": 1}, "unanswered": {"e": 1}, "nothing relevant": {"f": 0}}


def _written_out() -> Any:
    spec = importlib.util.spec_from_file_location("by_hand", Path(__file__).with_name("by_hand.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.by_hand


def test_ndcg_has_linear_gain_and_counts_queries_without_an_answer() -> None:
    found = measure({"q1": ["x", "b", "a"], "q2": ["d"], "not judged": ["a"]}, QRELS)["nDCG@10"]
    assert found == {
        "q1": pytest.approx((1 / log2(3) + 2 / log2(4)) / (2 + 1 / log2(3))),
        "q2": 1.0,
        "unanswered": 0.0,
    }


def test_a_document_counts_at_its_first_place_only() -> None:
    assert measure({"q2": ["d", "d", "d"]}, {"q2": {"d": 1, "e": 1}}, ["nDCG@3"])["nDCG@3"] == {
        "q2": pytest.approx(1 / (1 + 1 / log2(3)))
    }


def test_recall_is_a_share_of_the_relevant() -> None:
    assert measure({"q1": ["a", "x", "b"]}, QRELS, ["R@2"])["R@2"] == {"q1": 0.5, "q2": 0.0, "unanswered": 0.0}


def test_a_run_that_holds_nothing_counts_0_everywhere() -> None:
    assert {mean(values) for values in measure({"q1": []}, QRELS).values()} == {0.0}
    assert {len(values) for values in measure({}, QRELS).values()} == {3}


@pytest.mark.parametrize("seed", range(5))
def test_the_package_agrees_with_our_own_reading_of_the_formulas(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"d{i}" for i in range(150)]
    run = {f"q{i}": [str(one) for one in rng.permutation(names)[: rng.integers(0, 130)]] for i in range(40)}
    qrels = {
        f"q{i}": {str(one): int(rng.integers(-1, 4)) for one in rng.permutation(names)[: rng.integers(1, 20)]}
        for i in range(45)
    }
    found, expected = measure(run, qrels), _written_out()(run, qrels)
    assert found.keys() == expected.keys() == set(MEASURES)
    for name in MEASURES:
        assert found[name] == pytest.approx(expected[name], abs=1e-9), name


def test_a_ranking_of_equals_is_kept_as_it_is() -> None:
    """trec_eval itself would sort documents of one score by name."""
    assert measure({"q": ["b", "a"]}, {"q": {"b": 1}}, ["RR"])["RR"] == {"q": 1.0}
    assert measure({"q": ["a", "b"]}, {"q": {"b": 1}}, ["RR"])["RR"] == {"q": 0.5}


def test_an_unknown_measure_is_named() -> None:
    with pytest.raises(LlmbenchError, match="no such measure among precision"):
        measure({}, QRELS, ["precision"])
