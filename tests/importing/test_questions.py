"""Tests of promptfoo and samples of OpenAI Evals as question files, which a comparison then reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from llmbench.cli.main import cli
from llmbench.compare import metrics
from llmbench.compare.questions import read
from llmbench.errors import RecipeError
from llmbench.importing import ImportedQuestions, questions
from llmbench.recipe import CompareRecipe, load_text

CONFIG = """
description: A kettle's tests
prompts:
  - "Answer in {{language}}: {{question}}"
  - file://prompt.py
  - "{% if x %}Hi{% endif %} {{question}}"
providers: [openai:chat:base]
defaultTest:
  vars: {language: English}
  assert:
    - {type: not-icontains, value: as an AI}
    - {type: latency, threshold: 2000}
tests:
  - description: weight
    vars: {question: "How heavy is it?", weight: 300 grams}
    assert:
      - {type: contains, value: "{{weight}}"}
      - {type: contains-any, value: [g, grams]}
      - {type: regex, value: "\\\\d+ grams"}
      - {type: javascript, value: "output.length < 10"}
      - {type: llm-rubric, value: is polite}
  - vars: {question: ["Who made it?", "Who sold it?"], id: 7}
    assert:
      - {type: equals, value: Ada, weight: 2}
      - {type: equals, value: {name: Ada}}
      - {type: is-json, value: {type: object, required: [name]}}
      - {type: frobnicate}
      - {type: python, value: file://check.py}
"""


def made(tmp_path: Path, text: str, name: str = "promptfooconfig.yaml") -> ImportedQuestions:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return questions(tmp_path / name)


def recipe_of(tmp_path: Path, found: ImportedQuestions) -> CompareRecipe:
    """The recipe that the import proposes, over the file that it writes."""
    (tmp_path / "questions.jsonl").write_text(found.jsonl, encoding="utf-8")
    text = "name: x\nvariants: [a]\n" + found.recipe("questions.jsonl")
    return load_text(text, tmp_path / "compare.yaml", CompareRecipe)


def test_a_configuration_becomes_questions_that_a_comparison_reads(tmp_path: Path) -> None:
    (tmp_path / "prompt.py").write_text("raise SystemExit('run')")
    found = made(tmp_path, CONFIG)
    assert [row["prompt"] for row in found.rows] == [
        "Answer in English: How heavy is it?", "Answer in English: Who made it?", "Answer in English: Who sold it?",
    ]  # fmt: skip
    assert found.rows[0]["contains"] == ["300 grams"]
    assert found.rows[1]["var_id"] == 7
    recipe = recipe_of(tmp_path, found)
    asked = read(recipe.questions)
    chosen = metrics.chosen(recipe)
    metrics.check(chosen, asked, recipe.questions.path)
    assert recipe.metric_names == [
        "not_icontains", "contains", "contains_any", "regex", "equals", "equals_json", "json_form",
    ]  # fmt: skip
    left = {(one.what, one.where) for one in found.not_mapped}
    assert left >= {
        ("latency", "test 1 (weight)"), ("javascript", "test 1 (weight)"), ("llm-rubric", "test 1 (weight)"),
        ("frobnicate", "test 2"), ("python", "test 2"), ("equals.weight", "test 2"), ("file://prompt.py", "prompt 2"),
    }  # fmt: skip


def test_what_it_judges_is_what_promptfoo_would(tmp_path: Path) -> None:
    from llmbench.compare.answers import Answer
    from llmbench.sandbox import SandboxProcess

    found = made(tmp_path, CONFIG)
    recipe = recipe_of(tmp_path, found)
    first, second, _ = read(recipe.questions)
    answers = [(first, "It weighs 300 grams."), (first, "As an AI I weigh 300."), (second, "Ada"), (second, '{"name": "Ada"}')]
    pairs = [(question, Answer(str(i), "v", "", text=text)) for i, (question, text) in enumerate(answers)]
    with SandboxProcess() as sandbox:
        scores = metrics.scores(metrics.chosen(recipe), pairs, metrics.Tools(recipe.abstention, sandbox))
    rows = [{name: scores[answer.place][name] for name in recipe.metric_names} for _, answer in pairs]
    assert list(rows[0].values()) == [1, 1, 1, 1, None, None, None]
    assert list(rows[1].values()) == [0, 0, 1, 0, None, None, None]
    assert list(rows[2].values()) == [1, None, None, None, 1, 0, 0]
    assert list(rows[3].values()) == [1, None, None, None, 0, 1, 1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tests.yaml", "- vars: {question: 'Who?'}\n  assert: [{type: equals, value: Ada}]\n"),
        ("tests.json", '[{"vars": {"question": "Who?"}, "assert": [{"type": "equals", "value": "Ada"}]}]'),
        ("tests.csv", "question,__expected\nWho?,Ada\n"),
        ("tests.csv", "question,__expected\nWho?,equals: Ada\n"),
        ("one.yaml", "tests: file://tests.csv\nprompts: '{{question}}'\n"),
    ],
)
def test_forms_of_a_file(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "tests.csv").write_text("question,__expected\nWho?,Ada\n")
    found = made(tmp_path, text, name)
    assert [(row["prompt"], row["equals"]) for row in found.rows] == [("Who?", "Ada")]
    assert list(found.metrics) == [{"exact_match": {"expected": "equals", "strict": True, "as": "equals"}}]


def test_samples_of_evals(tmp_path: Path) -> None:
    rows = [
        {
            "input": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}],
            "ideal": ["4", "four"],
            "id": 9,
        },
        {"input": "Who?", "ideal": "Ada", "level": 3},
        {"item": {"question": "Why?", "answer": "Tea"}, "sample": {}},
        {"input": [{"role": "user", "content": [{"type": "image_url"}]}], "ideal": "x"},
    ]
    found = made(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "samples.jsonl")
    recipe = recipe_of(tmp_path, found)
    asked = read(recipe.questions)
    assert [one.wordings for one in asked] == [("4", "four"), ("Ada",), ("Tea",)]
    assert asked[0].conversation == (("system", "Be brief."), ("user", "2+2?"))
    assert (asked[0].columns["sample_id"], asked[1].columns["level"]) == (9, 3)
    assert {one.what for one in found.not_mapped} == {"input", "class"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "prompts: [x]\n", "it has no tests. Name a promptfoo configuration with `tests`, or a list of tests."),
        ("a.yaml", "tests: file://tests.js\n", "tests: file://tests.js is not a YAML, JSON or CSV file, and code is"),
        ("a.yaml", "tests: [{vars: {x: 1}}]\n", "no question can be made of it (vars: do not say what is asked"),
        ("a.yaml", "tests: !!python/object/apply:os.system ['true']\n", "the tag !!python/object/apply:os.system is not read"),
        ("a.jsonl", '{"input": "x"}\n[1]\n', "a.jsonl:2: a sample is a JSON object, not list"),
        ("a.jsonl", "{", "a.jsonl:1: not valid JSON"),
        (
            "a.yaml",
            "tests: [{vars: {q: [" + ", ".join("ab" * 60) + "], r: [" + ", ".join("a" * 120) + "]}}]\n",
            "make 14,400 questions",
        ),
        ("a.jsonl", "[" * 100_000, "nested too deeply"),
    ],
)
def test_faults_are_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        made(tmp_path, text, name)
    assert message in str(error.value) and len(str(error.value).splitlines()) == 1


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["import", *arguments])


def test_the_verb_writes_questions_and_lists_what_is_not_mapped(tmp_path: Path) -> None:
    (tmp_path / "promptfooconfig.yaml").write_text(CONFIG)
    output = tmp_path / "out" / "questions.jsonl"
    found = run(str(tmp_path / "promptfooconfig.yaml"), "--to", "questions", "-o", str(output))
    assert found.exit_code == 0, found.output
    assert "Not mapped: test 1 (weight): llm-rubric needs a judging model" in found.output
    assert f"Wrote 3 questions to {output}." in found.output
    assert yaml.safe_load(found.output.partition("In the recipe of a comparison:\n\n")[2])["questions"] == {
        "path": "questions.jsonl"
    }
    assert len(output.read_text().splitlines()) == 3
    assert "already exists" in str(
        run(str(tmp_path / "promptfooconfig.yaml"), "--to", "questions", "-o", str(output)).exception
    )
    told = json.loads(run(str(tmp_path / "promptfooconfig.yaml"), "--from", "promptfoo", "--json").output)
    assert (told["questions"], told["from"], told["output"]) == (3, "promptfoo", None)
    assert "promptfoo has tests, not trainings" in str(run("x.yaml", "--from", "promptfoo", "--to", "recipe").exception)
