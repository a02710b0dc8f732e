from __future__ import annotations

from typing import Any

import pytest

from llmbench.compare.answers import Answer
from llmbench.compare.metrics import catalogue
from llmbench.compare.metrics import grounding as metrics
from llmbench.compare.metrics.scores import scores
from llmbench.compare.metrics.values import Tools
from llmbench.questions import Question
from llmbench.recipe import CompareRecipe, MetricSpec
from llmbench.sandbox import SandboxProcess

PATTERN = str(CompareRecipe.model_fields["abstention"].default)
HEAVY = Question("q", "How heavy is the kettle?", "The kettle weighs 300 grams.", "300 grams", "products/kettle.md")
ABSENT = Question("u", "Who designed the kettle?", "The handbook does not say.", answerable=False)
BARE = Question("b", "Why?")
PASSAGES = ({"n": 1, "source": "rag/handbook/products/lamp.md"}, {"n": 2, "source": "rag/handbook/products/kettle.md"},
            {"n": 3, "source": "rag/handbook/products/kettle.md"})  # fmt: skip


def answer(text: str, sources: tuple[dict[str, Any], ...] = PASSAGES) -> Answer:
    return Answer("q", "v", "key", text=text, sources=sources, latency=1.0, prompt_tokens=10, completion_tokens=3)


@pytest.mark.parametrize(
    ("question", "text", "expected"),
    [
        (HEAVY, "The kettle weighs 300 grams.", 1),
        (HEAVY, "  the KETTLE  weighs\n300 grams [2] .", 1),
        (HEAVY, "The kettle weighs 300 grams", 1),
        (HEAVY, "The kettle weighs 300\u00a0grams!", 1),
        (HEAVY, "It weighs 300 grams.", 0),
        (HEAVY, "", 0),
        (ABSENT, "The passages do not say who did.", 1),
        (ABSENT, "Ada Marl designed it.", 0),
        (BARE, "Because.", None),
    ],
)
def test_exact_match(question: Question, text: str, expected: float | None) -> None:
    assert metrics.exact_match(question, answer(text), PATTERN) == expected


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        ("300 grams", "It weighs 300 GRAMS.", 1),
        ("300 grams", "It weighs 1300 grams.", 0),
        ("300 grams", "It weighs 1,300 grams.", 0),
        ("300 grams", "It weighs 0.300 grams.", 0),
        ("300 grams", "It weighs 300 gramsicles.", 0),
        ("12", "It takes 12.5 days.", 0),
        ("12", "It takes 12.", 1),
        ("12", "It takes 120 days.", 0),
        ("12", "The form is AB-12.", 0),
        ("AB-12", "The form is ab-12, I think.", 1),
        ("AB-12", "The form is AB-123.", 0),
        ("AB-12", "The form is AB-12-7.", 0),
        ("red", "It comes in red.", 1),
        ("red", "It is covered.", 0),
        ("Ada Marl", "Ada  Marl leads it.", 1),
        ("4 hours", "It lasts 2 hours, 3 hours, 4 hours or 5 hours.", 0),
        ("4 hours", "It lasts 4 hours [2].", 1),
        ("4 hours", "The Model 7 lasts 4 hours.", 1),
        ("1998", "It was first sold in 1997 or 1998.", 0),
        ("AB-12", "AB-11, AB-12, AB-13", 0),
        ("12.50 crowns", "It costs 12.50 crowns.", 1),
    ],
)
def test_contains_value(value: str, text: str, expected: float) -> None:
    question = Question("q", "How long does Model 7 last?", None, value, "a.md")
    assert metrics.contains_value(question, answer(text), PATTERN) == expected


SPAN = Question("q", "How long?", None, "the Three-minute steep", "a.md", others=("3 minutes",))


@pytest.mark.parametrize(
    ("text", "em", "f1"),
    [
        ("Threeminute steep", 1, 1),  # SQuAD's own rule: punctuation goes without a space in its place
        ("A three-minute steep [2].", 1, 1),
        ("3 minutes", 1, 1),
        ("It is 3 minutes", 0, 2 * 2 / (2 + 4)),
        ("3 3 minutes", 0, 2 * 2 / (2 + 3)),
        ("steep", 0, 2 * 1 / (2 + 1)),
        ("never", 0, 0),
        ("", 0, 0),
        ("the", 0, 0),
    ],
)
def test_squad_takes_the_best_wording(text: str, em: float, f1: float) -> None:
    assert metrics.squad_em(SPAN, answer(text), PATTERN) == em
    assert metrics.squad_f1(SPAN, answer(text), PATTERN) == pytest.approx(f1)


def test_squad_counts_abstaining_where_nothing_is_told_and_leaves_out_what_is_not_known() -> None:
    for metric in (metrics.squad_em, metrics.squad_f1):
        assert metric(ABSENT, answer("The passages do not say who did."), PATTERN) == 1
        assert metric(ABSENT, answer("Ada Marl"), PATTERN) == 0
        assert metric(BARE, answer("Because."), PATTERN) is None


def test_a_value_is_retrieved_where_a_passage_holds_it_whatever_the_answer_says() -> None:
    passages = (
        {"n": 1, "source": "a.md", "text": "Boil it."},
        {"n": 2, "source": "b.md", "text": "Wait 3 minutes, or 5 for more."},
    )
    assert metrics.value_retrieved(SPAN, answer("never", passages), PATTERN) == 1
    assert metrics.value_retrieved(SPAN, answer("3 minutes", passages[:1]), PATTERN) == 0
    assert metrics.value_retrieved(SPAN, answer("3 minutes", ()), PATTERN) is None
    assert metrics.value_retrieved(ABSENT, answer("3 minutes", passages), PATTERN) is None


def test_one_of_several_wordings_is_value_enough() -> None:
    assert metrics.contains_value(SPAN, answer("Steep it for 3 minutes."), PATTERN) == 1
    assert metrics.contains_value(SPAN, answer("Steep it for 3 or 4 minutes."), PATTERN) == 0


def test_a_number_of_the_expected_answer_is_no_rival() -> None:
    question = Question("q", "How long?", "In 2 shops it takes 9 days.", "9 days", "a.md")
    assert metrics.contains_value(question, answer("It takes 9 days in 2 shops."), PATTERN) == 1


def test_a_citation_is_no_number_of_the_answer() -> None:
    assert metrics.contains_value(HEAVY, answer("It weighs [300] grams."), PATTERN) == 0


@pytest.mark.parametrize("question", [ABSENT, BARE])
def test_contains_value_is_measured_only_where_there_is_a_value(question: Question) -> None:
    assert metrics.contains_value(question, answer("300 grams"), PATTERN) is None


@pytest.mark.parametrize(
    ("text", "sources", "expected"),
    [
        ("300 grams [2].", PASSAGES, 1),
        ("300 grams [2][3].", PASSAGES, 1),
        ("300 grams [2, 3].", PASSAGES, 1),
        ("300 grams [2; 3].", PASSAGES, 1),
        (f"300 grams [{'2' * 5000}].", PASSAGES, 0),
        ("300 grams [2].", ({"n": "2", "source": "kettle.md"},), 1),
        ("300 grams [1].", PASSAGES, 0),
        ("300 grams [1][2].", PASSAGES, 0),
        ("300 grams [2][4].", PASSAGES, 0),
        ("300 grams [0].", PASSAGES, 0),
        ("300 grams.", PASSAGES, 0),
        ("300 grams [2].", (), 0),
        ("300 grams [1].", ({"n": 1, "source": "handbook/other-kettle.md"},), 0),
        ("300 grams [1].", ({"n": 1, "source": "kettle.md"},), 1),
        ("300 grams [1].", ({"title": "of another server"},), 0),
    ],
)
def test_citation(text: str, sources: tuple[dict[str, Any], ...], expected: float) -> None:
    assert metrics.citation(HEAVY, answer(text, sources), PATTERN) == expected


@pytest.mark.parametrize("question", [ABSENT, BARE])
def test_citation_is_measured_only_where_a_page_is_known(question: Question) -> None:
    assert metrics.citation(question, answer("[2]"), PATTERN) is None


@pytest.mark.parametrize(
    ("question", "text", "expected"),
    [
        (ABSENT, "The handbook does not say.", 1),
        (ABSENT, "I DON\u2019T KNOW", 1),
        (ABSENT, "It was Ada.", 0),
        (ABSENT, "", 0),
        (HEAVY, "300 grams.", 1),
        (HEAVY, "The handbook does not say.", 0),
        (HEAVY, "  ", 0),
        (BARE, "Because.", 1),
    ],
)
def test_abstention(question: Question, text: str, expected: float) -> None:
    assert metrics.abstention(question, answer(text), PATTERN) == expected


@pytest.mark.parametrize(
    ("question", "text", "expected"),
    [
        (HEAVY, "The kettle weighs 300 grams [2].", 1),
        (HEAVY, "The kettle weighs 300 grams [1].", 0),
        (HEAVY, "The kettle weighs 300 grams.", 0),
        (HEAVY, "The kettle weighs 310 grams [2].", 0),
        (HEAVY, "The handbook does not say whether it weighs 300 grams [2].", 0),
        (ABSENT, "The handbook does not say.", 1),
        (ABSENT, "It was Ada [2].", 0),
        (BARE, "Because.", None),
        (Question("v", "How heavy?", value="3"), "3 [2]", None),
    ],
)
def test_grounded_asks_for_the_whole_job(question: Question, text: str, expected: float | None) -> None:
    assert metrics.grounded(question, answer(text), PATTERN) == expected


def judged(names: list[str], *answers: Answer) -> list[dict[str, float | None]]:
    recipe = CompareRecipe.model_validate({"name": "x", "questions": {"path": __file__}, "variants": ["v"], "metrics": names})
    chosen = [*catalogue.chosen(recipe), *catalogue.ALWAYS]
    with SandboxProcess() as sandbox:
        return [scores(chosen, [(HEAVY, one)], Tools(PATTERN, sandbox))[one.place] for one in answers]


def test_cost_is_what_the_reply_told() -> None:
    (found,) = judged(["abstention"], answer("Yes."))
    assert found == {"abstention": 1, "latency": 1.0, "first_token": None, "prompt_tokens": 10.0, "completion_tokens": 3.0}


def test_tokens_of_a_server_that_counts_none_are_not_measured() -> None:
    (found,) = judged(["abstention"], Answer("q", "v", "key", text="Yes.", latency=1.0))
    assert (found["prompt_tokens"], found["completion_tokens"]) == (None, None)


def test_an_answer_that_failed_has_no_scores() -> None:
    (found,) = judged([of.__name__ for of in metrics.ALL], Answer("q", "v", "key", error="broke off"))
    assert set(found.values()) == {None}
    assert len(found) == 12


def test_every_metric_has_a_definition_to_print() -> None:
    names = [*MetricSpec.model_fields, *(one.name for one in catalogue.ALWAYS)]
    assert [name for name in names if len(catalogue.definition(name)) < 40] == []
