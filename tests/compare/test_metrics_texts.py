"""Metrics with settings, by hand-worked cases and hostile ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbench.compare import metrics
from llmbench.compare.answers import Answer
from llmbench.compare.metrics import Tools, quantities
from llmbench.compare.metrics.overlap import distance
from llmbench.errors import DataError, LlmbenchError, RecipeError
from llmbench.questions import Question
from llmbench.recipe import CompareRecipe, load_text
from llmbench.sandbox import SandboxProcess

BOMB = "(a+)+$"
LONG = "word " * 200_000


def recipe(*asked: Any, folder: Path | None = None, **more: Any) -> CompareRecipe:
    document = {"name": "x", "questions": {"path": __file__}, "variants": ["v"], "metrics": list(asked)} | more
    return load_text(json.dumps(document), (folder or Path(__file__).parent) / "compare.yaml", CompareRecipe)


def judged(asked: Any, *cases: tuple[Question, str], notes: list[str] | None = None, **more: Any) -> list[float | None]:
    """One metric's scores of answers, checked as a comparison checks its questions."""
    made = recipe(asked, **more)
    chosen = metrics.chosen(made)
    if not chosen[0].measure.is_amount:  # which no comparison has alone
        metrics.check(chosen, [question for question, _ in cases], Path("questions.jsonl"))
    pairs = [(question, Answer(str(i), "v", "", text=text)) for i, (question, text) in enumerate(cases)]
    with SandboxProcess() as sandbox:
        tools = Tools(made.abstention, sandbox, tuple(question for question, _ in cases))
        found = metrics.scores(chosen, pairs, tools)
    if notes is not None:
        notes += tools.notes
    return [found[answer.place][chosen[0].name] for _, answer in pairs]


def about(**columns: Any) -> Question:
    known = {key: columns.pop(key) for key in ("answer", "value", "source") if key in columns and isinstance(columns[key], str)}
    return Question("q", "What?", place="questions.jsonl:1", columns=columns, **known)


@pytest.mark.parametrize(
    ("asked", "question", "text", "expected"),
    [
        ({"exact_match": {"strict": True}}, about(answer="Tea."), " Tea.\n", 1),
        ({"exact_match": {"strict": True}}, about(answer="Tea."), "tea.", 0),
        ({"exact_match": {"expected": "right"}}, about(right=["tea", "chai"]), "Chai!", 1),
        ({"contains": {"texts": ["Tea", "hot"]}}, about(), "some TEA", 1),
        ({"contains": {"texts": ["Tea", "hot"], "every": True}}, about(), "some TEA", 0),
        ({"contains": {"texts": ["Tea"], "ignore_case": False}}, about(), "some TEA", 0),
        ({"contains": {"texts": ["Tea"], "absent": True}}, about(), "coffee", 1),
        ("contains", about(value="tea"), "", 0),
        ({"regex": r"^\d+$"}, about(), "42", 1),
        ({"regex": {"pattern": "^b", "flags": "im"}}, about(), "a\nB", 1),
        ({"regex": {"pattern": "sorry", "absent": True}}, about(), "fine", 1),
        ({"regex": {"pattern": r"####\s*(\d+)", "group": 1}}, about(answer="72"), "#### 4\n#### 72", 1),
        ({"regex": {"pattern": r"####\s*(\d+)", "group": 1}}, about(answer="72"), "72", 0),
        ({"regex": {"pattern": r"####\s*(\d+)", "group": 1}}, about(answer="x"), "", 0),
        ({"length_within": {"least": 2, "most": 3}}, about(), "a b c", 1),
        ({"length_within": {"least": 2, "most": 3}}, about(), "a", 0),
        ({"length_within": {"most": 4, "unit": "characters"}}, about(), "a b c", 0),
        ("length", about(), LONG, 200_000),
        ("refusal", about(), "I\u2019m sorry, but I can't help with that.", 1),
        ("refusal", about(), "", 1),
        ("refusal", about(), "The kettle weighs 300 grams.", 0),
        ({"refusal": {"pattern": "nein"}}, about(), "NEIN danke", 1),
        ("repetition", about(), "a b c d e", 0),
        ({"repetition": {"n": 1}}, about(), "a a a a", 0.75),
        ("repetition", about(), "", 0),
        ("repetition", about(), LONG, 1 - 1 / 199_997),
        ("edit_similarity", about(answer="kitten"), "sitting", 1 - 3 / 7),
        ("edit_similarity", about(answer="kitten"), "", 0),
        ({"rouge": {"type": "rouge1"}}, about(answer="police killed the gunman"), "police kill the gunman", 0.75),
        ("rouge", about(answer="police killed the gunman"), "the gunman police killed", 0.5),
        ("rouge", about(answer="police killed the gunman"), "", 0),
    ],
)
def test_metrics_of_a_text(asked: Any, question: Question, text: str, expected: float | None) -> None:
    assert judged(asked, (question, text)) == [pytest.approx(expected) if expected is not None else None]


@pytest.mark.parametrize(
    ("right", "text", "settings", "expected"),
    [
        ("...so 24.\n#### 72", "She sold 24 and 48: 72 in all.", {}, 1),
        ("#### 1,234", "It is $1234.", {}, 1),
        ("72", "#### 72\nThat is 5 more than 67", {}, 1),
        ("72", r"so \boxed{72} at 5 %", {}, 1),
        ("0.75", r"\boxed{\frac{3}{4}}", {}, 1),
        ("1.5", "1 1/2 cups", {}, 1),
        ("-3", "It is \u22123.", {}, 1),
        ("5", "3-5", {}, 1),
        ("0.12", "12%", {}, 1),
        ("12", "12 percent, or 12 %", {}, 1),
        ("3.14", "3.1", {"tolerance": 0.05}, 1),
        ("3.14", "3.0", {"tolerance": 0.05}, 0),
        ("200", "203", {"tolerance": 0.02, "relative": True}, 1),
        ("200", "205", {"tolerance": 0.02, "relative": True}, 0),
        ("150 grams", "It weighs 0.15 kg.", {"unit": True}, 1),
        ("150 grams", "It weighs 150 kg.", {"unit": True}, 0),
        ("150 grams", "It weighs 150.", {"unit": True}, 0),
        ("150 grams", "It weighs 150.", {}, 1),
        ("90 minutes", "1.5 hours", {"unit": True}, 1),
        ("40 euros", "\u20ac40", {"unit": True}, 1),
        ("7", "first 3, then 7", {"pick": "only"}, 0),
        ("7", "7, yes 7", {"pick": "only"}, 1),
        ("3", "first 3, then 7", {"pick": "first"}, 1),
        ("7", "no idea", {}, 0),
        ("7", "", {}, 0),
        ("7", "1/0", {}, 0),
        ("7", "9" * 100_000, {}, 0),
        ("7", "version 1.2.7", {}, 0),
        ("7", "1e999999", {}, 0),
        ("2000000", "2e6", {}, 1),
    ],
)
def test_numbers(right: str, text: str, settings: dict[str, Any], expected: float) -> None:
    assert judged({"numeric": settings}, (about(answer=right), text)) == [expected]


def test_questions_without_a_right_answer_are_not_measured() -> None:
    known, unknown = about(right=["tea", "chai"], value="tea"), about(right=None)
    assert judged({"exact_match": {"expected": "right"}}, (unknown, "Chai!"), (known, "Chai!")) == [None, 1]
    assert judged("contains", (unknown, "tea"), (known, "")) == [None, 0]


def test_numbers_of_json_columns_and_what_is_none() -> None:
    assert judged({"numeric": {"expected": "n"}}, (about(n=[1, 2.5]), "2.5"), (about(n=True and 1), "x")) == [1, 0]
    with pytest.raises(DataError, match=r"questions.jsonl:1: numeric: one number is expected, and '2 of 7' has 2"):
        judged("numeric", (about(answer="2 of 7"), "2"))
    with pytest.raises(DataError, match=r"numeric: a number is expected, not true or false"):
        judged({"numeric": {"expected": "n"}}, (about(n=False), "2"))
    with pytest.raises(DataError, match=r"questions.jsonl: numeric reads the column m, which no row has \(columns: n\)"):
        judged({"numeric": {"expected": "m"}}, (about(n=1), "2"))
    assert [one.value for one in quantities.found("a1 b2.3.4 x-5 (6) 7,000 -8")] == [5, 6, 7000, -8]


OPTIONS = ["Paris", "London", "New York", "York"]


@pytest.mark.parametrize(
    ("right", "text", "expected"),
    [
        ("A", "A", 1), ("A", "(a)", 1), (0, "A.", 1), ("Paris", "A) Paris", 1), ("A", "The answer is A.", 1),
        ("B", "Answer: **B**", 1), ("B", r"\boxed{B}", 1), ("D", "It is New York.", 0), ("New York", "It is New York.", 1),
        ("York", "York", 1), ("A", "Paris or London", 1), ("A", "Either London or Paris", 0), ("A", "A dog barks", 0), ("A",
        "", 0),
        ("B", "The answer is not A but the answer is B", 1), ("E", "E", None), (["A", "B"], "B", 1), ("A", "I think so", 0),
    ],
)  # fmt: skip
def test_choices(right: Any, text: str, expected: float | None) -> None:
    question = about(options=OPTIONS, key=right)
    if expected is None:
        with pytest.raises(DataError, match=r"the right answer 'E' is not one of A, B, C, D or its text"):
            judged({"choice": {"expected": "key"}}, (question, text))
        return
    assert judged({"choice": {"expected": "key"}}, (question, text)) == [expected]


def test_choices_without_options_and_by_probability() -> None:
    assert judged("choice", (about(answer="C"), "The correct answer is C"), (about(answer="C"), "c")) == [1, 1]
    made = recipe({"choice_probability": {"expected": "key"}})
    question = about(options=OPTIONS, key="B")
    openings = {" A": -1.0986122886681098, "B": -0.6931471805599453, "The": -2.0, "\u2581C": float("-inf")}
    answers = [Answer("0", "v", "", text="B", openings=openings), Answer("1", "v", "", text="B")]
    with SandboxProcess() as sandbox:
        found = metrics.scores(metrics.chosen(made), [(question, one) for one in answers], Tools("x", sandbox))
    assert [found[one.place]["choice_probability"] for one in answers] == [pytest.approx(0.6), None]


SCHEMA = {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}, "n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("asked", "right", "text", "expected"),
    [
        ("json_valid", None, '{"a": 1}', 1), ("json_valid", None, '```json\n{"a": 1}\n```', 1),
        ("json_valid", None, "{'a': 1}", 0),
        ("json_valid", None, 'Here: {"a": 1}', 0), ("json_valid", None, "[NaN]", 0), ("json_valid", None, "", 0),
        ("json_valid", None, "[" * 100_000 + "]" * 100_000, 0), ("json_valid", None, "9" * 10_000, 0),
        ({"json_schema": {"schema": SCHEMA}}, None, 'Sure: {"city": "Rome", "n": 2} ok', 1),
        ({"json_schema": {"schema": SCHEMA}}, None, '{"city": 3}', 0), ({"json_schema": {"schema": SCHEMA}}, None, "Rome", 0),
        ({"json_schema": {"column": "form"}}, None, '{"city": 3}', 0),
        ("json_equal", '{"a": 1, "b": [1, 2]}', '{"b": [1, 2], "a": 1.0}', 1),
        ("json_equal", '{"a": 1, "b": [1, 2]}', '{"b": [2, 1], "a": 1}', 0),
        ({"json_equal": {"ignore_order": True}}, '{"a": 1, "b": [1, 2]}', '{"b": [2, 1], "a": 1}', 1),
        ("json_equal", '{"a": 1}', '{"a": true}', 0), ("json_equal", '{"a": null}', '{"a": null}', 1),
        ({"json_equal": {"tolerance": 0.1}}, '{"a": 1}', '{"a": 1.05}', 1),
        ("json_fields", '{"a": 1, "b": 2, "c": "x", "d": 0}', '{"a": 1, "b": 3, "c": "x"}', 0.5),
        ({"json_fields": {"fields": ["c.0", "a"], "ignore_case": True}}, '{"a": 1, "c": ["X"]}', '{"a": 2, "c": ["x"]}', 0.5),
        ("json_fields", '{"a": 1}', "none", 0),
    ],
)  # fmt: skip
def test_json(asked: Any, right: Any, text: str, expected: float) -> None:
    question = about(form=SCHEMA) if right is None else about(answer=right)
    assert judged(asked, (question, text)) == [pytest.approx(expected)]


def test_faults_of_json_are_told_with_their_place() -> None:
    with pytest.raises(DataError, match=r"questions.jsonl:1: json_schema: not a JSON schema"):
        judged({"json_schema": {"column": "form"}}, (about(form={"type": "objekt"}), "{}"))
    with pytest.raises(DataError, match=r"questions.jsonl:1: json_equal: the right answer 'Rome' is not valid JSON"):
        judged("json_equal", (about(answer="Rome"), "{}"))
    with pytest.raises(DataError, match=r"json_fields: the right answer has no field b.c"):
        judged({"json_fields": {"fields": ["b.c"]}}, (about(answer='{"b": 1}'), "{}"))


CALL = {"name": "weather", "arguments": {"city": "Rome", "days": 2}}


@pytest.mark.parametrize(
    ("settings", "text", "expected"),
    [
        ({}, json.dumps(CALL), 1),
        (
            {},
            json.dumps([{"type": "function", "function": {"name": "weather", "arguments": '{"days": 2, "city": "Rome"}'}}]),
            1,
        ),
        ({}, f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>", 1),
        ({}, f"<tool_call>{json.dumps(CALL)}</tool_call><tool_call>broken</tool_call>", 0),
        ({}, json.dumps({"name": "weather", "arguments": {"city": "Rome"}}), 0),
        ({}, json.dumps([CALL, CALL]), 0),
        ({"arguments": "names"}, '{"name": "weather"}', 1),
        ({"arguments": "subset"}, json.dumps({"name": "weather", "arguments": {"city": "Rome", "days": 2, "x": 1}}), 1),
        ({}, "It is sunny in Rome.", 0),
        ({}, "", 0),
    ],
)
def test_tool_calls(settings: dict[str, Any], text: str, expected: float) -> None:
    assert judged({"tool_calls": settings}, (about(tool_calls=[CALL]), text)) == [expected]


def test_an_answer_that_should_call_no_tool() -> None:
    question = about(tool_calls=[])
    assert judged("tool_calls", (question, "Good morning."), (question, json.dumps(CALL))) == [1, 0]
    with pytest.raises(DataError, match=r"tool_calls is not a list of \{name, arguments\}"):
        judged("tool_calls", (about(tool_calls=[{"nom": "x"}]), ""))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(json.dumps(CALL["arguments"]), 1.0), ('{"city": "Rome"}', 0.0), ('{"city": "Ro', 0.0)],
    ids=["right", "one is missing", "cut off"],
)
def test_calls_that_the_endpoint_gives_are_the_ones_that_count(arguments: str, expected: float) -> None:
    made = recipe("tool_calls")
    given = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    question, answer = (
        about(tool_calls=[CALL]),
        Answer("q", "v", "", text=json.dumps(CALL | {"name": "no"}), tool_calls=(given,)),
    )
    with SandboxProcess() as sandbox:
        found = metrics.scores(metrics.chosen(made), [(question, answer)], Tools(made.abstention, sandbox, (question,)))
    assert found[answer.place]["tool_calls"] == expected


def test_citations_by_spans() -> None:
    question = about(spans=[{"source": "a.md", "start": 0, "end": 10}, {"source": "b.md", "start": 5, "end": 9}])
    passages = (
        {"n": 1, "source": "docs/a.md", "start": 8, "end": 20}, {"n": 2, "source": "docs/b.md", "start": 9, "end": 20},
        {"n": 3, "source": "docs/c.md", "start": 0, "end": 9},
    )  # fmt: skip
    texts = {"Yes [1].": (0.5, 1), "Yes [1][2][3].": (0.5, 1 / 3), "Yes [1][7].": (0.5, 0.5), "Yes.": (0, 0), "": (0, 0)}
    chosen = metrics.chosen(recipe("citation_recall", "citation_precision"))
    for text, expected in texts.items():
        answer = Answer("q", "v", "", text=text, sources=passages)
        with SandboxProcess() as sandbox:
            found = metrics.scores(chosen, [(question, answer)], Tools("x", sandbox))[answer.place]
        assert (found["citation_recall"], found["citation_precision"]) == pytest.approx(expected)
    with pytest.raises(DataError, match=r"citation_recall: spans must be a list of {source, start, end}"):
        judged("citation_recall", (about(spans=[{"source": "a.md", "start": 9, "end": 3}]), ""))


def test_a_pattern_without_end_is_given_up_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbench.compare.metrics.texts.SECONDS", 0.3)
    notes: list[str] = []
    found = judged({"regex": {"pattern": BOMB, "as": "tail"}}, (about(), "a" * 40 + "b"), (about(), "aaa"), notes=notes)
    assert found == [None, 1]
    assert notes == ["tail: 1 answer takes more time or memory to judge than allowed, and is left out."]


def test_a_function_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def near(answer, known):\n    return None if not answer else 1.0 if known['level'] == 3 else 0.25\n"
        "def broken(answer, known):\n    return known['no']\n"
        "def wild(answer, known):\n    return 7\n"
    )
    cases = [(about(level=3), "x"), (about(level=1), "x"), (about(level=1), "")]
    assert judged({"metric": "mine.py:near"}, *cases, folder=tmp_path) == [1.0, 0.25, None]
    assert judged({"metric": {"function": "mine.py:near", "at_least": 0.5}}, *cases, folder=tmp_path) == [1, 0, None]
    (measure,) = (one.measure for one in metrics.chosen(recipe({"metric": "mine.py:near"}, folder=tmp_path)))
    assert (measure.name, measure.label, len(measure.sha256 or "")) == ("near", "Near", 64)
    with pytest.raises(LlmbenchError, match=r"mine.py:4: broken failed on the answer of v to q \(KeyError: 'no'\)"):
        judged({"metric": "mine.py:broken"}, (about(level=3), "x"), folder=tmp_path)
    with pytest.raises(LlmbenchError, match=r"wild returned 7 for the answer of v to q; it should return a number of 0 to 1"):
        judged({"metric": "mine.py:wild"}, (about(level=3), "x"), folder=tmp_path)
    with pytest.raises(RecipeError, match=r"mine.py defines no function nera"):
        recipe({"metric": "mine.py:nera"}, folder=tmp_path)


def test_a_function_that_was_changed_is_told(fake: Any, document: Any, tmp_path: Path) -> None:
    from llmbench import compare

    (tmp_path / "mine.py").write_text("def near(answer, known):\n    return 1.0\n")
    asked = f"metrics=[{{metric: '{tmp_path}/mine.py:near'}}]"
    assert not any("changed" in note for note in compare.run(document(asked), endpoint=fake).notes)
    assert not any("changed" in note for note in compare.run(document(asked), endpoint=fake).notes)
    (tmp_path / "mine.py").write_text("def near(answer, known):\n    return 0.5\n")
    fake.asked.clear()
    result = compare.run(document(asked), endpoint=fake)
    assert result.estimates["near"]["base"].mean == 0.5
    assert fake.asked == []
    told = "near was changed since this comparison was last measured: its file is another one now."
    assert [note for note in result.notes if "changed" in note] == [told]


def test_a_comparison_that_could_judge_nothing_asks_nothing(fake: Any, document: Any) -> None:
    from llmbench import compare

    with pytest.raises(DataError, match=r"length says nothing of right or wrong. Add a metric that does"):
        compare.run(document("metrics=[length]"), endpoint=fake)
    assert fake.asked == []


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["numerik"], "metrics[0]: 'numerik' is no metric. Did you mean numeric?"),
        (
            ["numeric", {"numeric": {}}],
            "numeric is listed twice. Give one of them another name: `numeric: {as: numeric_2, ...}`",
        ),
        (
            [{"regex": {"as": "latency", "pattern": "a"}}],
            "latency is what is always measured. Give regex another name with `as:`",
        ),
        ([{"regex": {"patern": "a"}}], "metrics[0].regex.patern is not a field. Did you mean pattern?"),
        ([{"json_schema": {}}], "metrics[0].json_schema: give one of schema, path and column"),
        (["sql"], "metrics[0].sql: give one of database and column"),
        ([["numeric"]], "metrics[0]: a metric is a name, or one name with its settings"),
    ],
)
def test_faults_of_settings_are_one_line_each(asked: list[Any], message: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipe(*asked)
    assert message in str(error.value).splitlines()[-1]


def test_settings_come_back_from_the_resolved_recipe() -> None:
    asked = ["exact_match", {"numeric": {"tolerance": 0.5, "as": "near"}}, {"json_schema": {"schema": {"type": "object"}}}]
    made = recipe(*asked)
    again = recipe(*made.model_dump(mode="json")["metrics"])
    assert again.metrics == made.metrics
    assert again.metric_names == ["exact_match", "near", "json_schema"]
    assert "Settings: `tolerance: 0.5`." in metrics.chosen(made)[1].measure.definition


@pytest.mark.parametrize(("a", "b", "expected"), [("", "", 0), ("a", "", 1), ("flaw", "lawn", 2), ("ab" * 500, "ba" * 500, 2)])
def test_distance(a: str, b: str, expected: int) -> None:
    assert distance(a, b) == distance(b, a) == expected


@pytest.mark.parametrize(
    "name", ["json_valid", "refusal", "repetition", "length", "rouge", "edit_similarity", "contains", "label"]
)
def test_a_megabyte_and_control_characters_are_judged_like_any_text(name: str) -> None:
    question = about(answer="a word")
    found = judged(name, (question, LONG), (question, "\x00\ufffd\u202e" * 5), (question, ""))
    assert all(value is not None for value in found)
