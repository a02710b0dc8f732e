from __future__ import annotations

import asyncio
import dataclasses
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
    assert result.verdict.startswith("adapter-rag is correct more often than base: +100.0 points [")
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
        ".llmbench.json", "answers.jsonl", "recipe.yaml", "report.html", "summary.json",
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


def failing(fake: Any, *variants: str) -> Any:
    """The endpoint, with variants that fail on every question."""
    calm = fake.answer

    def answer(variant: str, question: str) -> str:
        if variant in variants:
            raise EndpointError("http://127.0.0.1:1/v1 answered 404: gone", status=404)
        return str(calm(variant, question))

    fake.answer = answer
    return fake


@pytest.mark.parametrize("gone", [("adapter",), ("base", "base-rag", "adapter")])
def test_a_variant_that_never_answers_leaves_the_others_compared(fake: Any, document: Document, gone: tuple[str, ...]) -> None:
    result = compare.run(document(), endpoint=failing(fake, *gone))
    assert result.failed == dict.fromkeys(gone, "http://127.0.0.1:1/v1 answered 404: gone")
    assert set(result.estimates["grounded"]) == {"base", "base-rag", "adapter", "adapter-rag"} - set(gone)
    assert result.missing == 16 * len(gone)
    assert f"{gone[0]} answered no question: http://127.0.0.1:1/v1 answered 404" in result.report.read_text(encoding="utf-8")
    assert compare.load("kettles") == result


@pytest.mark.parametrize("variants", ["[base]", "[base, adapter]"])
def test_nobody_who_answers_is_an_error(fake: Any, document: Document, variants: str) -> None:
    with pytest.raises(EndpointError, match=r"answered 404: gone"):
        compare.run(document(f"variants={variants}", "questions.limit=2"), endpoint=failing(fake, "base", "adapter"))


SHAPES = {
    "one question": ["questions.limit=1"],
    "two questions": ["questions.limit=2"],
    "one variant, one question": ["questions.limit=1", "variants=[base]"],
    "shares": ["metrics=[contains_value, squad_em]"],
    "scores": ["metrics=[squad_f1]", "variants=[base, adapter]"],
    "scores of one question": ["metrics=[squad_f1]", "questions.limit=1"],
    "by itself": ["statistics.cluster=none"],
    "very sure": ["statistics.confidence=0.999999"],
}


@pytest.mark.parametrize("overrides", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("says", ["", "300 grams", "no idea", "It weighs 300 grams [1].", "\ud83d cut", "\u202etxt.exe"])
def test_every_comparison_ends_with_a_report(fake: Any, document: Document, overrides: list[str], says: str) -> None:
    fake.answer = lambda variant, question: says
    result = compare.run(document(*overrides), endpoint=fake)
    assert result.report.read_text(encoding="utf-8").endswith("</html>\n")
    assert compare.load("kettles") == result
    assert result.verdict
    assert all(one.low <= one.mean <= one.high for of in result.estimates.values() for one in of.values())
    json.loads(result.summary.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_counts_and_passages_that_make_no_sense_are_not_measured(fake: Any, document: Document, monkeypatch: Any) -> None:
    stream = fake.stream

    async def odd(messages: Any, model: str, *, max_tokens: int | None = None) -> Any:
        async for delta in stream(messages, model, max_tokens=max_tokens):
            if delta.reply is not None:
                tokens: Any = {"base": float("nan"), "adapter": None}.get(model, 10**18)
                reply = dataclasses.replace(delta.reply, prompt_tokens=tokens, sources=("no passage", {"n": 1}))
                delta = dataclasses.replace(delta, reply=reply)
            yield delta

    monkeypatch.setattr(fake, "stream", odd)
    result = compare.run(document(), endpoint=fake)
    assert set(result.estimates["prompt_tokens"]) == {"base-rag", "adapter-rag"}
    assert result.report.exists()


def test_many_variants_are_compared_with_the_best_one(fake: Any, document: Document) -> None:
    names = [f"v{i}" for i in range(120)]
    fake.entries = [{"id": name} for name in names]
    fake.answer = lambda variant, question: "It weighs 300 grams." if variant == "v7" else "no idea"
    result = compare.run(document(f"variants={names}", "metrics=[contains_value]"), endpoint=fake)
    pairs = result.pairs("contains_value")
    assert len(pairs) == 119 and {one.a for one in pairs} == {"v7"}
    assert pairs[0].p == pytest.approx(2 / 2**12)
    assert pairs[0].p_holm == 1.0, "as one of 7,140 pairs it might be chance"
    assert len(table.metric_rows(result, ["contains_value"])[0]) == 21
    assert len(table.pair_rows(result, "contains_value")) == 120


def test_questions_about_one_page_count_together(fake: Any, tmp_path: Path, document: Document) -> None:
    recipe = document("variants=[base, base-rag]", "metrics=[contains_value]")
    rows = [
        {"id": f"q{i}", "question": f"How heavy is kettle {i}?", "value": "300 grams", "source": f"page{i // 6}.md"}
        for i in range(60)
    ]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    fake.answer = lambda variant, question: (
        "300 grams" if variant == "base" and int(question.split()[-1][:-1]) % 12 < 6 else "no idea"
    )
    result = compare.run(recipe, endpoint=fake)
    pair = result.pairs("contains_value")[0]
    assert pair.deff == pytest.approx(6.0, abs=0.1)  # 6.7, six of a page alike and C / (C - 1), mixed with what is assumed
    assert pair.p == pytest.approx(2 / 2**5)  # five pages differ, not thirty questions
    assert pair.high > 0
    assert result.notes == (
        "60 questions are about 10 pages, and are clustered by page. "
        "Design effect of the differences: 6.0 (1 if no two shared a page).",
    )
    alone = compare.run(
        document("variants=[base, base-rag]", "metrics=[contains_value]", "statistics.cluster=none"), endpoint=fake
    )
    assert alone.pairs("contains_value")[0].p < 1e-8
    assert alone.notes == ()


def test_nobody_at_the_url_says_how_to_start_one(document: Document) -> None:
    with pytest.raises(EndpointError, match=r"No endpoint answers at http://127\.0\.0\.1:1/v1\. Start one: llmbench serve"):
        compare.run(document("endpoint.base_url=http://127.0.0.1:1/v1"))


def test_questions_that_no_wanted_metric_fits_are_told(fake: Any, tmp_path: Path, document: Document) -> None:
    recipe = document("metrics=[citation, contains_value]")
    (tmp_path / "questions.jsonl").write_text('{"id": "a", "question": "Why?"}\n', encoding="utf-8")
    with pytest.raises(DataError, match="none of citation, contains_value can be measured"):
        compare.run(recipe, endpoint=fake)
    assert fake.asked == [], "told before anything is asked"


def test_bare_questions_are_judged_by_what_fits_them(fake: Any, tmp_path: Path, document: Document) -> None:
    recipe = document("variants=[base, adapter]")
    rows = [{"id": str(i), "question": f"How heavy is kettle {i}?", "answer": "It weighs 9 grams."} for i in range(4)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    result = compare.run(recipe, endpoint=fake)
    assert result.headline == "abstention"
    assert set(result.judging()) == {"abstention", "exact_match"}
    assert result.verdict.startswith("No difference shown between adapter and base: +0.0 points [")
    assert result.verdict.endswith("4 questions are too few to detect any difference.")
    assert result.kinds == {}


def test_one_variant_gets_its_share_for_a_verdict(fake: Any, document: Document) -> None:
    result = compare.run(document("variants=[adapter-rag]"), endpoint=fake)
    assert result.verdict == "adapter-rag is correct in 100.0% [80.6, 100.0] of 16 questions."
    assert result.differences == ()


def test_the_f1_of_squad_is_a_mean_with_its_own_statistics(fake: Any, tmp_path: Path, document: Document) -> None:
    result = compare.run(document("metrics=[squad_f1, squad_em]"), endpoint=fake)
    assert result.headline == "squad_f1"
    of = result.estimates["squad_f1"]
    assert 0 < of["adapter-rag"].mean < 1
    assert of["adapter-rag"].low <= of["adapter-rag"].mean <= of["adapter-rag"].high
    assert "shares more words with the value than" in result.verdict or "No difference shown" in result.verdict
    page = result.report.read_text(encoding="utf-8")
    assert "SQuAD F1" in page
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
    with pytest.raises(LlmbenchError, match=r"no finished comparison pots \(available: kettles\)"):
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
        ("abstention=(", "abstention=(: not a regular expression"),
        ("variants=[base, base]", "variants=[base, base]: base is listed twice"),
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
        f"**{result.verdict}**\n\n| Correct and cited | without RAG | with RAG |\n| --- | --- | --- |\n| Base | 0.0%"
    )
    assert "| adapter-rag - base-rag | +100.0 points |" in text
    assert (
        "\n16 questions. Brackets are 95% intervals. Differences are paired by question. 12 questions are about 1 page" in text
    )
