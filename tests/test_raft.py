"""Rows to train on: the prompts that are served, answers that their passages warrant, and nothing taught that was not shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from llmbench import recipe as recipes
from llmbench import retrieval
from llmbench.compare.answers import Answer
from llmbench.compare.metrics import grounding as metrics
from llmbench.message import text_of
from llmbench.questions import Question
from llmbench.raft import ABSTENTION, Kind, Left, Row, rows
from llmbench.recipe import CompareRecipe, RagRecipe
from llmbench.retrieval import Retriever

PATTERN = str(CompareRecipe.model_fields["abstention"].default)
LAMP = Question("lamp", "What is the Borin lamp made of?", "The Borin lamp is made of brass.", "brass", "lamp.md")
MOON = Question("moon", "How far is the moon from the kettle?", answerable=False)


@pytest.fixture(scope="module")
def retriever(pipeline: Path, common_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Retriever]:
    """Over the session's three pages, two of which are handed on; one for all tests, which only search."""
    recipe = recipes.load(pipeline, RagRecipe)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(tmp_path_factory.mktemp("raft")))
        patch.setenv("LLMBENCH_CACHE", str(common_cache))
        retrieval.build(recipe)
        found = Retriever.open(recipe)
    with found:
        yield found


def made(retriever: Retriever, *questions: Question, withhold: float = 0, **options: Any) -> list[Row | Left]:
    return list(rows(retriever, questions, withhold=withhold, **options))


def said(row: Row | Left) -> str:
    assert isinstance(row, Row)
    return text_of(row.messages[-1])


def test_a_row_is_the_prompt_that_is_served_and_the_answer_with_its_passage(retriever: Retriever) -> None:
    [row] = made(retriever, LAMP)
    assert isinstance(row, Row) and (row.id, row.kind) == ("lamp", "answered")
    served = retriever.ground([{"role": "user", "content": LAMP.question}])
    assert list(row.messages[:-1]) == served.messages
    assert row.messages[-1] == {"role": "assistant", "content": "The Borin lamp is made of brass [1]."}
    assert row.to_json() == {"id": "lamp", "kind": "answered", "messages": list(row.messages)}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, "brass [1]"),
        ("Of brass!", "Of brass [1]!"),
        ("真鍮です。", "真鍮です [1]。"),
        ("Brass?..", "Brass [1]?.."),
        ("Of brass [3].", "Of brass [1]."),
        ("Brass [1, 2]", "Brass [1]"),
    ],
)
def test_the_citation_stands_before_the_full_stop_and_alone(retriever: Retriever, answer: str | None, expected: str) -> None:
    question = Question("lamp", LAMP.question, answer, "brass", "lamp.md")
    assert said(made(retriever, question)[0]) == expected
    assert said(made(retriever, question, cite=False)[0]) == expected.replace(" [1]", "")


@pytest.mark.parametrize("value", ["300 grams and costs 40 euros.", "40 euros", "It weighs 300 grams"])
def test_a_values_own_full_stop_stays_with_it(retriever: Retriever, value: str) -> None:
    question = Question("k", "What does the Alba kettle weigh and cost?", None, value, "kettle.md")
    [row] = made(retriever, question)
    assert said(row) == f"{value} [1]"
    sources = retriever.ground([{"role": "user", "content": question.question}]).sources
    assert metrics.grounded(question, Answer("k", "taught", "", said(row), sources), PATTERN) == 1


def test_what_is_taught_counts_as_right_in_a_comparison(retriever: Retriever) -> None:
    questions = (LAMP, MOON, Question("k", "What does the Alba kettle weigh?", None, "300 grams", "kettle.md"))
    found = made(retriever, *questions)
    assert len(found) == 3
    for question, row in zip(questions, found, strict=True):
        sources = retriever.ground([{"role": "user", "content": question.question}]).sources
        answer = Answer(question.id, "taught", "", said(row), sources)
        assert metrics.grounded(question, answer, PATTERN) == 1
    [lamp] = made(retriever, LAMP, withhold=1)
    assert metrics.abstains(Answer("lamp", "taught", "", said(lamp)), PATTERN)


def test_a_withheld_document_is_not_in_the_prompt_and_the_answer_abstains(retriever: Retriever) -> None:
    [row] = made(retriever, LAMP, withhold=1)
    assert isinstance(row, Row) and row.kind == "withheld" and said(row) == ABSTENTION
    prompt = row.messages[0]["content"]
    assert "brass" not in prompt and "Borin lamp is made" not in prompt and "[2]" in prompt and LAMP.question in prompt
    assert said(made(retriever, LAMP, withhold=1, abstention="Not stated.")[0]) == "Not stated."


def test_what_is_not_found_or_not_there_is_not_taught_as_known(retriever: Retriever) -> None:
    lost = Question("lost", "Who is Cora's brother?", None, "Dorian", "family.md")
    found = made(retriever, MOON, lost)
    assert [(row.kind, said(row)) for row in found if isinstance(row, Row)] == [
        ("unanswerable", ABSTENTION),
        ("not found", ABSTENTION),
    ]
    assert made(retriever, lost, not_found=False) == [Left("lost", "the search found no correct passage")]


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (Question("a", "What is the lamp made of?", "Of tin.", "tin", "lamp.md"), "no passage of it contains the value"),
        (Question("a", "How heavy is the lamp?", None, "300 grams", "lamp.md"), "only passages of other pages contain"),
        (Question("a", "How heavy is the lamp?"), "its value is unknown"),
        (Question("a", "Is the lamp heavy?", None, "yes"), "names no source"),
        (Question("a", "\u200b", None, "brass"), "is empty"),
    ],
)
def test_what_cannot_be_told_right_from_wrong_makes_no_row(retriever: Retriever, question: Question, reason: str) -> None:
    [left] = made(retriever, question)
    assert isinstance(left, Left) and reason in left.reason


def test_without_a_source_any_passage_that_holds_the_value_is_right(retriever: Retriever) -> None:
    question = Question("k", "How many days does a refund take?", None, "two weeks", None, others=("14 days",))
    [row] = made(retriever, question)
    assert said(row) == "two weeks [1]"


def test_which_questions_are_withheld_hangs_on_each_alone(retriever: Retriever) -> None:
    questions = [Question(f"q{i}", LAMP.question, None, "brass", "lamp.md") for i in range(200)]
    kinds = {row.id: row.kind for row in made(retriever, *questions, withhold=0.15) if isinstance(row, Row)}
    withheld = {identity for identity, kind in kinds.items() if kind == "withheld"}
    assert 15 <= len(withheld) <= 45 and set(kinds.values()) <= set(get_args(Kind))
    some = made(retriever, *questions[50:60], withhold=0.15)
    assert [row.kind for row in some if isinstance(row, Row)] == [kinds[f"q{i}"] for i in range(50, 60)]
    other = {
        row.id for row in made(retriever, *questions, withhold=0.15, seed=1) if isinstance(row, Row) and row.kind == "withheld"
    }
    assert other != withheld
