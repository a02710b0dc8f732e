"""What is promised before the first answer is kept, and what comes otherwise is told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench.compare import load, remove, run
from llmbench.compare.preregistration import FILE
from llmbench.compare.verdict import promised
from llmbench.errors import EndpointError, LlmbenchError, RecipeError
from llmbench.recipe import CompareRecipe

Doc = Callable[..., CompareRecipe]
PLAN = "preregistration={metric: grounded, margin: 0.1, baseline: base, candidate: adapter-rag}"


def file(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / "comparisons" / "kettles" / FILE


def test_it_is_written_before_the_first_answer_and_never_again(tmp_path: Path, fake: Any, document: Doc) -> None:
    calm = fake.answer

    def answer(variant: str, question: str) -> str:
        assert file(tmp_path).exists(), "an answer came before the promise"
        return str(calm(variant, question))

    fake.answer = answer
    found = run(document(PLAN), endpoint=fake)
    assert found.deviations == () and promised(found)[1:] == ["No deviation from it."]
    written = json.loads(file(tmp_path).read_text(encoding="utf-8"))
    assert (written["plan"]["metric"], written["plan"]["margin"], written["answers"]) == ("grounded", "0.1", 0)
    assert len(written["plan"]["questions"]) == 16 and len(written["hash"]) == 64
    assert found.preregistration == written
    before = file(tmp_path).read_bytes()
    run(document(PLAN.replace("0.1", "0.2")), endpoint=fake)
    again = run(document(PLAN), endpoint=fake, fresh=True)
    assert again.deviations == ("It was started over once (--fresh), and 64 answers were thrown away.",)
    assert file(tmp_path).read_bytes() == before
    assert load("kettles").preregistration == written | {"restarts": [64]}
    remove("kettles")
    assert not file(tmp_path).parent.exists()


def test_an_endpoint_that_is_not_there_leaves_no_promise(tmp_path: Path, fake: Any, document: Doc) -> None:
    fake.entries = []
    with pytest.raises(EndpointError):
        run(document(PLAN), endpoint=fake)
    assert not file(tmp_path).exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([PLAN.replace("grounded", "abstention")], "The primary metric is abstention; registered was grounded."),
        ([PLAN.replace("0.1", "0.2")], "The margin is 0.2; registered was 0.1."),
        ([PLAN.replace("margin: 0.1", "margin: 0.1, alpha: 0.1")], "Alpha is 0.1; registered was 0.05."),
        ([PLAN, "statistics.confidence=0.9"], "Intervals are those of alpha 0.1; the recipe registers 0.05."),
        (
            [PLAN.replace("candidate: adapter-rag", "candidate: adapter")],
            "The candidate is adapter; registered was adapter-rag.",
        ),
        ([PLAN, "questions.limit=8"], "The questions were changed: 8 removed (q1, q11, q3, ...)."),
        (
            [PLAN.replace("margin: 0.1", "margin: 0.1, exclude: [{ids: [q3], reason: misprint}]")],
            "The exclusions were changed: 1 question is left out now.",
        ),
        ([], "The recipe has no preregistration any more."),
    ],
)
def test_what_comes_otherwise_is_told(fake: Any, document: Doc, changes: list[str], told: str) -> None:
    run(document(PLAN), endpoint=fake)
    found = run(document(*changes), endpoint=fake)
    assert told in found.deviations
    assert f"Deviation: {told}" in promised(found)
    assert told in load("kettles").deviations
    assert told.split(";")[0] in found.report.read_text(encoding="utf-8")


def test_a_promise_that_comes_after_answers_says_so(fake: Any, document: Doc) -> None:
    run(document(), endpoint=fake)
    assert run(document(PLAN), endpoint=fake).deviations == ("It was registered when 64 answers were there already.",)


def test_answers_that_are_missing_and_edits_of_the_file_are_told(
    tmp_path: Path, flaky: Callable[[str], Any], document: Doc
) -> None:
    found = run(document(PLAN), endpoint=flaky("kettle 3"))
    assert found.deviations == ("8 answers are missing, although all questions were to be answered.",)
    text = file(tmp_path).read_text(encoding="utf-8")
    file(tmp_path).write_text(text.replace('"margin": "0.1"', '"margin": "0.4"'), encoding="utf-8")
    found = run(document(PLAN), endpoint=flaky("no such word"))
    assert f"{FILE} was edited after it was written: its hash is another." in found.deviations
    file(tmp_path).write_text("{}", encoding="utf-8")
    with pytest.raises(LlmbenchError, match=r"preregistration\.json cannot be read"):
        run(document(PLAN), endpoint=flaky("no such word"))


def test_a_changed_question_is_told_by_its_id(tmp_path: Path, fake: Any, document: Doc) -> None:
    run(document(PLAN), endpoint=fake)
    recipe = document(PLAN)
    text = recipe.questions.path.read_text(encoding="utf-8")
    recipe.questions.path.write_text(text.replace("How heavy is kettle 5?", "What does kettle 5 weigh?"), encoding="utf-8")
    assert run(recipe, endpoint=fake).deviations == ("The questions were changed: 1 changed (q5).",)


def test_questions_are_left_out_with_a_reason(fake: Any, document: Doc) -> None:
    left = "{ids: [q3, u0], reason: misprint}, {column: answerable, values: [false], reason: other}"
    found = run(document(f"preregistration={{metric: grounded, exclude: [{left}]}}"), endpoint=fake)
    assert found.excluded == {"q3": "misprint", "u0": "misprint", "u1": "other", "u2": "other", "u3": "other"}
    assert len(found.questions) == 11 and not any("kettle 3" in question for _, question in fake.asked)
    assert "2 questions were left out: misprint" in promised(found)


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ("{metric: bleu}", "bleu is not measured"),
        ("{metric: grounded, baseline: best}", "there is no variant best in the recipe"),
        ("{metric: grounded, margin: 2%}", "lies between 0 and 1. Write 0.02 for 2 points"),
        ("{metric: grounded, margin: 2}", "Write 0.02 for 2 points, not 2."),
        (
            "{metric: latency, margin: 10%, baseline: base, candidate: adapter, stop: sequential}",
            "no bound is known for latency",
        ),
        ("{metric: grounded, exclude: [{ids: [q99], reason: gone}]}", "no question has the id q99"),
        ("{metric: grounded, exclude: [{column: language, values: [de], reason: other}]}", "no question has language de"),
        ("{metric: grounded, exclude: [{column: split, values: [test], reason: all}]}", "leaves no question"),
    ],
)
def test_a_promise_that_cannot_be_kept_is_refused_before_anything_is_asked(
    fake: Any, document: Doc, plan: str, told: str
) -> None:
    with pytest.raises(RecipeError, match=re.escape(told)):
        run(document(f"preregistration={plan}"), endpoint=fake)
    assert fake.asked == []
