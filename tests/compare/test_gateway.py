"""A comparison over the real gateway with the real vLLM behind it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from llmbench import compare, recipe
from llmbench.endpoint import HttpEndpoint
from llmbench.errors import LlmbenchError
from llmbench.message import Message
from llmbench.recipe import CompareRecipe

QUESTIONS = [
    {"id": "weight", "question": "How much does the Alba kettle weigh?", "value": "300 grams", "source": "kettle.md"},
    {"id": "price", "question": "How much does the Alba kettle cost?", "value": "40 euros", "source": "kettle.md"},
    {"id": "made", "question": "What is the Borin lamp made of?", "value": "brass", "source": "lamp.md"},
    {"id": "who", "question": "Who designed the Borin lamp?", "answerable": False},
]


@pytest.fixture
def document(tmp_path: Path, endpoint: Any) -> CompareRecipe:
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)), encoding="utf-8")
    text = (
        "name: real\nquestions: {path: questions.jsonl}\nvariants: [base, adapter, base-rag, adapter-rag]\n"
        f"endpoint: {{base_url: '{endpoint.base_url}'}}\nmax_tokens: 24\nconcurrency: 4\n"
    )
    (tmp_path / "compare.yaml").write_text(text, encoding="utf-8")
    return recipe.load(tmp_path / "compare.yaml", CompareRecipe)


def test_a_real_comparison_from_questions_to_report(document: CompareRecipe, endpoint: Any) -> None:
    result = compare.run(document)
    assert result.missing == 0
    assert result.grid is not None
    assert (result.grid.base, result.grid.adapter_rag) == ("base", "adapter-rag")
    assert len(result.rows) == 16
    for row in result.rows:
        given = row.answer
        assert given.prompt_tokens > 0
        assert 0 < given.completion_tokens <= 24
        assert (given.first_token is None) == (given.text == "")  # a model may end its turn at once
        assert 0 < (given.first_token or given.latency) <= given.latency
        assert len(given.sources) == (2 if given.variant.endswith("rag") else 0)
    found = next(row.answer for row in result.rows if row.answer.cell == ("weight", "base-rag"))
    assert any("300 grams" in source["text"] for source in found.sources)
    assert result.report.exists()
    assert compare.load("real") == result


def test_what_is_recorded_is_what_the_endpoint_answers(document: CompareRecipe, endpoint: Any) -> None:
    # Of the base, which is sure of its words; it was asked in one batch with the adapter, here it is asked alone.
    rows = compare.run(document).rows
    recorded = {row.answer.variant: row.answer.text for row in rows if row.question.id == "made"}

    async def direct(variant: str) -> str:
        async with HttpEndpoint(endpoint.base_url) as client:
            question: list[Message] = [{"role": "user", "content": "What is the Borin lamp made of?"}]
            return (await client.chat(question, variant, max_tokens=24)).text

    assert asyncio.run(direct("base")) == recorded["base"]
    assert asyncio.run(direct("base-rag")) == recorded["base-rag"]


def test_the_second_time_no_model_is_asked(document: CompareRecipe) -> None:
    told: list[compare.Tally] = []
    first = compare.run(document)
    again = compare.run(document, progress=told.append)
    assert told == [compare.Tally(done=16, wanted=16, kept=16, failed=0)]
    assert again.rows == first.rows
    assert again.estimates == first.estimates
    assert again.differences == first.differences


@pytest.mark.parametrize("kind", ["letters", "reasons", "rubric"])
def test_a_real_model_judges_and_labels_say_how_poorly(tmp_path: Path, endpoint: Any, kind: str) -> None:
    from llmbench.compare.calibrate import calibrate
    from llmbench.compare.judging import labels

    rows = [{"id": f"q{i}", "question": f"How much does kettle {i} weigh?", "value": f"{300 + i} grams"} for i in range(12)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    ways: dict[str, dict[str, Any]] = {
        "letters": {"reasons": False},
        "reasons": {"max_tokens": 60},
        "rubric": {"kind": "rubric", "reasons": False},
    }
    written = {
        "name": "really", "questions": {"path": "questions.jsonl"}, "variants": ["base", "adapter"], "max_tokens": 24,
        "endpoint": {"base_url": endpoint.base_url}, "judge": {"model": "base", **ways[kind]}, "metrics": ["judge", "length"],
    }  # fmt: skip
    (tmp_path / "compare.yaml").write_text(json.dumps(written), encoding="utf-8")
    if kind == "reasons":  # The bundled model never comes to the end of its reason.
        with pytest.raises(LlmbenchError, match="nothing that the judge replied could be read"):
            compare.run(recipe.load(tmp_path / "compare.yaml", CompareRecipe))
        return
    found = compare.run(recipe.load(tmp_path / "compare.yaml", CompareRecipe))
    assert found.judges is not None
    assert found.judges["failed"] == 0
    assert found.judges["own"] == {"base": ["base"]}
    if kind == "letters":
        assert found.judges["by_probability"] > 0
    assert found.verdict.startswith("In the judge's opinion, unchecked, ")
    people = tmp_path / "labels.jsonl"
    pairs = [{"question": row["id"], "a": "base", "b": "adapter", "winner": "ab"[i % 2]} for i, row in enumerate(rows)]
    single = [
        {"question": row["id"], "variant": v, "label": 1 + i % 5} for i, row in enumerate(rows) for v in ("base", "adapter")
    ]
    people.write_text("\n".join(map(json.dumps, single if kind == "rubric" else pairs)), encoding="utf-8")
    checked = calibrate("really", lambda comparison: labels.read(people, comparison))
    assert checked.judges is not None
    notes = checked.judges["calibration"]["notes"]
    assert any("kappa is below 0.4" in note for note in notes)
    assert checked.verdict.startswith("By ")


def test_the_probability_of_a_choice_is_asked_for(tmp_path: Path, endpoint: Any) -> None:
    row = {"id": "q", "question": "Which letter comes first?", "options": ["A", "B", "The"], "answer": "A"}
    (tmp_path / "questions.jsonl").write_text(json.dumps(row), encoding="utf-8")
    written = {
        "name": "choices", "questions": {"path": "questions.jsonl"}, "variants": ["base", "base-rag"], "max_tokens": 4,
        "endpoint": {"base_url": endpoint.base_url}, "metrics": ["choice", "choice_probability"],
    }  # fmt: skip
    (tmp_path / "compare.yaml").write_text(json.dumps(written), encoding="utf-8")
    for one in compare.run(recipe.load(tmp_path / "compare.yaml", CompareRecipe)).rows:
        assert len(one.answer.openings) >= 20 and all(value <= 0 for value in one.answer.openings.values())
        found = one.scores["choice_probability"]
        assert found is not None and 0 <= found <= 1
