from __future__ import annotations

from typing import Any

import pytest

from llmbench.compare.verdict import amount, interval, pair_sentence, signed, verdict
from llmbench.statistics import Difference, Estimate, p_value


def pair(a: str, b: str, mean: float, p: float, **changes: Any) -> Difference:
    values: dict[str, Any] = {
        "metric": "grounded", "low": mean - 0.09, "high": mean + 0.09, "n": 80, "a_only": 9, "b_only": 1, "p": p, "p_holm": p,
        "detectable": 0.12,
    }  # fmt: skip
    return Difference(a=a, b=b, mean=mean, **values | changes)


def shares(**means: float) -> dict[str, Estimate]:
    return {name: Estimate(mean, mean - 0.1, mean + 0.1, 80) for name, mean in means.items()}


def test_a_difference_that_is_shown() -> None:
    found = pair_sentence(pair("adapter-rag", "base-rag", 0.31, 0.00001), 0.05)
    assert found == "adapter-rag is correct more often than base-rag: +31.0 points [22.0, 40.0], p < 0.001, n = 80."


def test_the_better_one_is_named_first_whichever_way_the_pair_is_written() -> None:
    found = pair_sentence(pair("base", "adapter", -0.31, 0.012), 0.05)
    assert found == "adapter is correct more often than base: +31.0 points [22.0, 40.0], p = 0.012, n = 80."


def test_no_difference_says_what_would_have_shown() -> None:
    found = pair_sentence(pair("adapter", "base", 0.04, 0.3), 0.05)
    assert found == (
        "No difference shown between adapter and base: +4.0 points [-5.0, 13.0], p = 0.300. "
        "80 questions can only detect differences above 12 points."
    )


def test_too_few_questions_are_said_to_be() -> None:
    found = pair_sentence(pair("adapter", "base", 0.5, 1.0, n=4, detectable=None), 0.05)
    assert found.endswith("p = 1.000. 4 questions are too few to detect any difference.")


def test_holms_p_decides_not_the_plain_one() -> None:
    assert pair_sentence(pair("a", "b", 0.2, 0.02, p_holm=0.12), 0.05).startswith("No difference shown between a and b")


def test_slower_is_said_in_seconds() -> None:
    one = pair("adapter", "base", 0.42, 0.001, metric="latency", low=0.31, high=0.5)
    assert pair_sentence(one, 0.05) == "adapter takes longer than base: +0.42 s [0.31, 0.50], p = 0.001, n = 80."


def test_the_verdict_sets_the_best_against_the_next_best() -> None:
    pairs = [pair("b", "a", 0.2, 0.001), pair("c", "a", 0.6, 0.0001), pair("c", "b", 0.4, 0.0001)]
    found = verdict("grounded", shares(a=0.1, b=0.3, c=0.7), pairs, 0.05)
    assert found.startswith("c is correct more often than b: +40.0 points")
    assert found.endswith("It is ahead of a too.")


def test_a_best_one_that_is_not_shown_to_be_says_whom_it_beats() -> None:
    pairs = [pair("b", "a", 0.5, 0.001), pair("c", "a", 0.6, 0.0001), pair("c", "b", 0.1, 0.2)]
    found = verdict("grounded", shares(a=0.1, b=0.6, c=0.7), pairs, 0.05)
    assert found.startswith("No difference shown between c and b")
    assert found.endswith("c is ahead of a.")


def test_variants_without_shared_questions_are_not_compared() -> None:
    assert (
        verdict("grounded", shares(a=0.1, b=0.6), [], 0.05)
        == "b and a have too few answered questions in common to be compared."
    )


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        ("grounded", 0.85, "85.0%"), ("latency", 0.0123, "0.012 s"), ("latency", 1.234, "1.23 s"), ("latency", 83.21, "83.2 s"),
        ("prompt_tokens", 117.25, "117.2"),
    ],
)  # fmt: skip
def test_amounts(metric: str, value: float, expected: str) -> None:
    assert amount(metric, value) == expected


def test_there_is_no_negative_zero() -> None:
    assert signed("grounded", -0.0001) == "+0.0 points"
    assert interval("grounded", -0.0001, 0.1) == "[0.0, 10.0]"


def test_p_values() -> None:
    assert (p_value(0.0004), p_value(0.0431)) == ("p < 0.001", "p = 0.043")
