"""Asking ends as soon as a confidence sequence decides, and says what that saved."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench.compare import load, run
from llmbench.compare.verdict import promised
from llmbench.recipe import CompareRecipe

Doc = Callable[..., CompareRecipe]
PLAN = "preregistration={metric: contains_value, margin: 0.1, baseline: base-rag, candidate: %s, stop: sequential}"


@pytest.fixture
def many(tmp_path: Path, document: Doc) -> Doc:
    """150 questions on 150 pages, or `pages` of them."""

    def load(*overrides: str, pages: int = 150, count: int = 150) -> CompareRecipe:
        document()
        rows = [
            {"id": f"q{i}", "question": f"How heavy is kettle {i}?", "value": "300 grams", "source": f"{i % pages}.md"}
            for i in range(count)
        ]
        (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return document("variants=[base-rag, adapter-rag, base]", "metrics=[contains_value]", *overrides)

    return load


def test_a_candidate_that_answers_alike_is_found_fine_before_all_is_asked(fake: Any, many: Doc) -> None:
    found = run(many(PLAN % "adapter-rag"), endpoint=fake)
    stop = found.stopping
    assert stop is not None and stop["decided"] == "not inferior"
    assert stop["low"] > -0.1 and stop["n"] <= stop["asked"] < stop["planned"] == 150
    assert len(found.questions) == stop["asked"] and found.missing == 0
    assert len(fake.asked) == 3 * stop["asked"], "every question that was begun was put to every variant"
    assert stop["tokens"] == 13 * len(fake.asked) and stop["saved"] == pytest.approx(1 - stop["asked"] / 150)
    words = promised(found)[-1]
    assert "questions. Bounds that hold at every moment: adapter-rag - base-rag +0.0 points [" in words
    assert (
        "adapter-rag is not worse than base-rag by 0.1 or more." in words
        and "% of the tokens were saved" in words
        and " %" not in words
    )
    assert load("kettles").stopping == stop and load("kettles").deviations == ()


def test_the_same_command_again_decides_the_same_and_asks_nothing(fake: Any, many: Doc) -> None:
    first = run(many(PLAN % "adapter-rag"), endpoint=fake)
    fake.asked.clear()
    assert run(many(PLAN % "adapter-rag"), endpoint=fake).stopping == first.stopping
    assert fake.asked == []


def test_a_candidate_that_is_worse_is_found_soon(fake: Any, many: Doc) -> None:
    found = run(many(PLAN % "base"), endpoint=fake)
    assert found.stopping is not None
    assert found.stopping["decided"] == "worse" and found.stopping["high"] < -0.1
    assert found.stopping["asked"] < 40


def test_pages_are_asked_whole_and_count_as_one(fake: Any, many: Doc) -> None:
    found = run(many(PLAN % "base", "concurrency=1", pages=30), endpoint=fake)
    assert found.stopping is not None
    assert found.stopping["n"] == 5 * found.stopping["pages"]
    order = list(dict.fromkeys(question for _, question in fake.asked))
    pages = [int(question.removeprefix("How heavy is kettle ").rstrip("?")) % 30 for question in order]
    assert all(len(set(pages[i : i + 5])) == 1 for i in range(0, len(pages) - 4, 5))
    assert pages != sorted(pages)


def test_too_few_questions_decide_nothing_and_all_are_asked(fake: Any, many: Doc) -> None:
    found = run(many(PLAN % "adapter-rag", count=12, pages=12), endpoint=fake)
    assert found.stopping is not None
    assert (found.stopping["decided"], found.stopping["asked"], found.stopping["saved"]) == (None, 12, 0.0)
    assert promised(found)[-1].startswith("All 12 questions were asked.")
    assert "they do not decide about a margin of 0.1." in promised(found)[-1]


def test_a_question_that_fails_is_passed_over(flaky: Callable[[str], Any], many: Doc) -> None:
    found = run(many(PLAN % "adapter-rag"), endpoint=flaky("kettle 7"))
    assert found.stopping is not None and found.stopping["decided"] == "not inferior"
