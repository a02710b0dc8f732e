from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench import compare
from llmbench.compare import table
from llmbench.compare.grid import Grid, find
from llmbench.errors import DataError, EndpointError, LlmbenchError, RecipeError
from llmbench.recipe import CompareRecipe

Document = Callable[..., CompareRecipe]


def test_only_adapter_and_rag_together_are_good(fake: Any, document: Document) -> None:
    result = compare.run(document(), endpoint=fake)
    shares = {variant: one.mean for variant, one in result.estimates["grounded"].items()}
    assert shares == {"base": 0.0, "base-rag": 0.0, "adapter": 0.0, "adapter-rag": 1.0}
    assert result.headline == "grounded"
    assert result.grid == Grid("base", "base-rag", "adapter", "adapter-rag")
    assert result.interaction is not None
    assert result.interaction.mean == 1.0
    assert result.verdict.startswith("adapter-rag answers right more often than base: +100.0 points [")
    assert result.verdict.endswith("p < 0.001, n = 16. It is ahead of every other variant too.")
    assert {kind: of["adapter-rag"].n for kind, of in result.kinds.items()} == {"answerable": 12, "unanswerable": 4}


def test_citation_and_value_are_told_apart(fake: Any, document: Document) -> None:
    result = compare.run(document(), endpoint=fake)
    assert result.estimates["contains_value"]["base-rag"].mean == 1.0
    assert result.estimates["citation"]["base-rag"].mean == 0.0
    assert result.estimates["citation"]["adapter"].mean == 0.0  # it cites [1], but was given no passages
    assert result.estimates["contains_value"]["base"].n == 12


def test_what_is_written_can_be_loaded(fake: Any, document: Document) -> None:
    result = compare.run(document(), endpoint=fake)
    assert sorted(path.name for path in result.folder.iterdir() if path.name != ".lock") == [
        "answers.jsonl", "recipe.yaml", "report.html", "summary.json",
    ]  # fmt: skip
    assert compare.load("kettles") == result
    assert [one.name for one in compare.every()] == ["kettles"]
    row = json.loads(result.answers.read_text(encoding="utf-8").splitlines()[0])
    assert row["scores"]["grounded"] in (0.0, 1.0)


def test_another_way_to_measure_asks_nothing_again(fake: Any, document: Document) -> None:
    compare.run(document(), endpoint=fake)
    fake.asked.clear()
    result = compare.run(document("metrics=[abstention]", "abstention=Ada"), endpoint=fake)
    assert fake.asked == []
    assert result.headline == "abstention"
    assert set(result.estimates) == {"abstention", "latency", "first_token", "prompt_tokens", "completion_tokens"}


def test_fresh_asks_everything_again(fake: Any, document: Document) -> None:
    compare.run(document(), endpoint=fake)
    fake.asked.clear()
    compare.run(document(), endpoint=fake, fresh=True)
    assert len(fake.asked) == 64


def test_fewer_questions_leave_the_other_answers_for_later(fake: Any, document: Document) -> None:
    compare.run(document(), endpoint=fake)
    fake.asked.clear()
    assert len(compare.run(document("questions.limit=4"), endpoint=fake).rows) == 16
    assert len(compare.load("kettles").rows) == 16
    compare.run(document(), endpoint=fake)
    assert fake.asked == []


def test_answers_that_failed_are_counted_and_left_out(flaky: Any, document: Document) -> None:
    result = compare.run(document(), endpoint=flaky("kettle 11"))
    assert result.missing == 4
    assert result.estimates["grounded"]["adapter-rag"].n == 15
    assert "4 of 64 answers failed and are left out" in result.report.read_text(encoding="utf-8")
    assert compare.load("kettles") == result


def test_a_variant_that_never_answers_is_an_error(fake: Any, document: Document) -> None:
    calm = fake.answer

    def answer(variant: str, question: str) -> str:
        if variant == "adapter":
            raise EndpointError("http://127.0.0.1:1/v1 answered 404: gone", status=404)
        return str(calm(variant, question))

    fake.answer = answer
    with pytest.raises(EndpointError, match=r"adapter answered no question: .* answered 404: gone"):
        compare.run(document(), endpoint=fake)


def test_nobody_at_the_url_says_how_to_start_one(document: Document) -> None:
    with pytest.raises(EndpointError, match=r"No endpoint answers at http://127\.0\.0\.1:1/v1\. Start one: llmbench serve"):
        compare.run(document("endpoint.base_url=http://127.0.0.1:1/v1"))


def test_questions_that_no_wanted_metric_fits_are_told(fake: Any, tmp_path: Path, document: Document) -> None:
    recipe = document("metrics=[citation, contains_value]")
    (tmp_path / "questions.jsonl").write_text('{"id": "a", "question": "Why?"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="none of citation, contains_value can be measured"):
        compare.run(recipe, endpoint=fake)


def test_bare_questions_are_judged_by_what_fits_them(fake: Any, tmp_path: Path, document: Document) -> None:
    recipe = document("variants=[base, adapter]")
    rows = [{"id": str(i), "question": f"How heavy is kettle {i}?", "answer": "It weighs 9 grams."} for i in range(4)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    result = compare.run(recipe, endpoint=fake)
    assert result.headline == "abstention"
    assert set(result.estimates) & set(table.SHARES) == {"abstention", "exact_match"}
    assert result.verdict.startswith("No difference shown between adapter and base: +0.0 points [")
    assert "only differences above 100 points would show" in result.verdict
    assert result.kinds == {}


def test_one_variant_gets_its_share_for_a_verdict(fake: Any, document: Document) -> None:
    result = compare.run(document("variants=[adapter-rag]"), endpoint=fake)
    assert result.verdict == "adapter-rag answers right in 100.0% [80.6, 100.0] of 16 questions."
    assert result.differences == ()


def test_the_f1_of_squad_is_a_mean_with_its_own_statistics(fake: Any, tmp_path: Path, document: Document) -> None:
    result = compare.run(document("metrics=[squad_f1, squad_em]"), endpoint=fake)
    assert result.headline == "squad_f1"
    of = result.estimates["squad_f1"]
    assert 0 < of["adapter-rag"].mean < 1
    assert of["adapter-rag"].low <= of["adapter-rag"].mean <= of["adapter-rag"].high
    assert "shares more words with the value than" in result.verdict or "No difference shown" in result.verdict
    page = result.report.read_text(encoding="utf-8")
    assert "SQuAD F1" in page and "bootstrap where a question counts between 0 and 1" in page
    alone = compare.run(document("metrics=[squad_f1]", "variants=[adapter-rag]"), endpoint=fake)
    assert alone.verdict.startswith("adapter-rag has SQuAD F1 ")


def test_it_runs_where_an_event_loop_runs_already_as_in_a_notebook(fake: Any, document: Document) -> None:
    async def cell() -> compare.Comparison:
        return compare.run(document("questions.limit=4"), endpoint=fake)

    assert len(asyncio.run(cell()).rows) == 16


def test_a_comparison_in_use_is_refused(fake: Any, document: Document) -> None:
    from llmbench import workspace

    recipe = document()
    with (
        workspace.lock(workspace.comparisons() / "kettles", "comparison"),
        pytest.raises(LlmbenchError, match="comparison kettles is in use by process"),
    ):
        compare.run(recipe, endpoint=fake)


def test_an_unknown_comparison_names_those_there_are(fake: Any, document: Document) -> None:
    compare.run(document(), endpoint=fake)
    with pytest.raises(LlmbenchError, match=r"no finished comparison pots \(there are: kettles\)"):
        compare.load("pots")


def test_a_summary_of_another_version_does_not_hide_the_others(fake: Any, document: Document) -> None:
    compare.run(document(), endpoint=fake)
    compare.run(document("name=pots"), endpoint=fake).summary.write_text('{"questions": []}', encoding="utf-8")
    assert [one.name for one in compare.every()] == ["kettles"]
    with pytest.raises(LlmbenchError, match=r"summary\.json cannot be read"):
        compare.load("pots")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("abstention=(", "abstention: not a regular expression"),
        ("variants=[base, base]", "variants: base stands there twice"),
        ("metrics=[ground]", "metrics"),
        ("questions.path=none.jsonl", "no such file none.jsonl"),
    ],
)
def test_a_faulty_recipe_is_refused(document: Document, override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        document(override)


def test_a_grid_takes_one_adapter_and_one_pipeline() -> None:
    def entry(adapter: Any, rag: Any) -> dict[str, Any]:
        return {"adapter": adapter, "rag": rag}

    good = {"a": entry({"id": 1}, "h"), "b": entry(None, None), "c": entry({"id": 1}, None), "d": entry(None, "h")}
    assert find(good) == Grid(base="b", base_rag="d", adapter="c", adapter_rag="a")
    assert find(good | {"c": entry({"id": 2}, None)}) is None
    assert find(good | {"d": entry(None, "other")}) is None
    assert find(good | {"d": entry(None, None)}) is None
    assert find(good | {"e": entry(None, None)}) is None
    assert find({name: {"id": name} for name in "abcd"}) is None


def test_markdown_has_the_verdict_the_grid_and_the_pairs(fake: Any, document: Document) -> None:
    result = compare.run(document(), endpoint=fake)
    text = table.markdown(result)
    assert text.startswith(
        f"**{result.verdict}**\n\n| Right and cited | without RAG | with RAG |\n| --- | --- | --- |\n| Base | 0.0%"
    )
    assert "| adapter-rag - base-rag | +100.0 points |" in text
    assert text.endswith("16 questions. Brackets are 95% intervals. Differences are paired by question.")
