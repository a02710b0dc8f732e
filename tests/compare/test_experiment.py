"""Variants that are described or make a grid: what is asked of whom, and what is told of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench import compare, recipe
from llmbench.compare import table
from llmbench.compare.jobs import Way, jobs
from llmbench.errors import DataError, RecipeError
from llmbench.questions import Question
from llmbench.recipe import CompareRecipe

QUESTIONS: list[dict[str, Any]] = [
    {"id": f"q{i}", "question": f"How heavy is kettle {i}?", "value": "300 grams", "source": f"kettle-{i}.md", "unit": "grams"}
    for i in range(12)
]

Load = Callable[..., CompareRecipe]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes a question file and a recipe with a section more."""

    def make(section: str, rows: list[dict[str, Any]] | None = None) -> CompareRecipe:
        file = tmp_path / "questions.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows or QUESTIONS), encoding="utf-8")
        (tmp_path / "compare.yaml").write_text(
            f"name: grid\nquestions: {{path: questions.jsonl}}\nmetrics: [contains_value]\n{section}", encoding="utf-8"
        )
        return recipe.load(tmp_path / "compare.yaml", CompareRecipe)

    return make


GRID = """
factors:
  models: [base, adapter]
  prompts: [none, {name: brief, system: Be brief., template: "In {unit}: {question}"}]
"""


def test_a_grid_asks_each_level_with_each_and_names_its_cells(fake: Any, load: Load) -> None:
    result = compare.run(load(GRID), endpoint=fake)
    assert result.variants == ("base", "base+brief", "adapter", "adapter+brief")
    said = {
        (model, tuple((m["role"], m["content"]) for m in talk))
        for (model, _), talk in zip(fake.asked, fake.conversations, strict=True)
    }
    assert ("base", (("user", "How heavy is kettle 3?"),)) in said
    assert ("adapter", (("system", "Be brief."), ("user", "In grams: How heavy is kettle 3?"))) in said
    assert len(said) == 48


def test_a_fraction_of_a_grid_is_listed(load: Load) -> None:
    document = load(GRID + "  only: [{prompts: none}, {models: adapter, prompts: brief}]\n")
    assert document.names == ["base", "adapter", "adapter+brief"]


def test_a_second_run_of_a_grid_asks_nothing_and_a_changed_prompt_only_its_own(fake: Any, load: Load) -> None:
    compare.run(load(GRID), endpoint=fake)
    fake.asked.clear()
    compare.run(load(GRID), endpoint=fake)
    assert fake.asked == []
    compare.run(load(GRID.replace("Be brief.", "Be short.")), endpoint=fake)
    assert len(fake.asked) == 24


def test_a_described_variant_that_says_nothing_more_is_the_one_of_its_name(fake: Any, load: Load) -> None:
    compare.run(load("variants: [base, adapter]\n"), endpoint=fake)
    fake.asked.clear()
    compare.run(load("variants: [{name: base}, adapter]\n"), endpoint=fake)
    assert fake.asked == []


def test_a_template_that_names_a_missing_column_is_told_with_the_line(fake: Any, load: Load, tmp_path: Path) -> None:
    rows = [*QUESTIONS, {"id": "q", "question": "And this?", "value": "1"}]
    with pytest.raises(DataError) as fault:
        compare.run(load(GRID, rows), endpoint=fake)
    assert str(fault.value).splitlines()[0] == (
        f"{tmp_path / 'questions.jsonl'}:13: the prompt of base+brief names {{unit}}, which this row does not have "
        "(it has question)"
    )
    assert fake.asked == []


FAULTS = {
    "engine": ("variants: [{name: a, adapter: sft}]\n", "compare.yaml:4: variants[0].adapter: a running endpoint has its own."),
    "both": (GRID + "variants: [base]\n", "the grid makes the variants. Leave out `factors` or `variants`"),
    "neither": ("", "variants is missing. List model ids that the endpoint lists, or give `factors`"),
    "level": (GRID + "  only: [{prompts: breif}]\n", "only[0].prompts: there is no level breif (available: none, brief)"),
    "factor": (GRID + "  only: [{prompt: brief}]\n", "only[0]: prompt is no factor. Factors: models, adapters, prompts"),
    "twice": ("factors: {models: [base, base]}\n", "two levels are named base: give one of them another `name`"),
    "field": ("variants: [{name: a, promt: {}}]\n", "variants[0].promt is not a field. Did you mean prompt?"),
    "key": ("engine: auto\nengine_options: {api_key: k}\nvariants: [a]\n", "engine_options.api_key: with `engine: auto`"),
    "passages": ("variants: [a]\npassages: {}\n", "passages: give either column or pipeline"),
    "places": ("variants: [a]\npassages: {column: c, template: x}\n", "it needs {passages} and {question}"),
    "repeats": ("variants: [a]\nrepeats: 0\n", "repeats should be greater than 0, not 0"),
    "many": (f"factors: {{models: {list('abcdefghijklmnopqrstuvwxyz')}, sampling: {[{'name': str(i)} for i in range(50)]}}}\n",
             "the grid has 1,300 variants, and at most 1,000 are asked"),
}  # fmt: skip


@pytest.mark.parametrize(("section", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_what_cannot_be_asked_is_told_before_anybody_is(load: Load, section: str, said: str) -> None:
    with pytest.raises(RecipeError) as fault:
        load(section)
    assert said in str(fault.value)


def test_the_effects_of_a_grid_are_told_and_kept(fake: Any, load: Load) -> None:
    fake.answer = lambda model, question: "300 grams" if model == "adapter" and question.startswith("In") else "no idea"
    result = compare.run(load(GRID), endpoint=fake)
    effects = {table.effect_name(one): one.mean for one in result.experiment.of("contains_value")}
    assert effects == pytest.approx(
        {"model: adapter - base": 0.5, "prompt: brief - none": 0.5, "model x prompt: adapter, brief": 1.0}
    )
    assert compare.load("grid") == result
    report = result.report.read_text(encoding="utf-8")
    assert "model x prompt: adapter, brief" in report
    assert "Factors and noise" in report
    assert "| model: adapter - base | +50.0 points |" in table.markdown(result)


def test_two_by_two_of_an_endpoint_has_the_interaction_that_it_always_had(fake: Any, load: Load) -> None:
    result = compare.run(load("variants: [base, base-rag, adapter, adapter-rag]\n"), endpoint=fake)
    found = next(one for one in result.experiment.of(result.headline) if len(one.factors) == 2)
    assert result.interaction is not None
    assert (found.mean, found.low, found.high, found.n, found.deff) == (
        result.interaction.mean, result.interaction.low, result.interaction.high, result.interaction.n, result.interaction.deff,
    )  # fmt: skip
    assert result.experiment.passages.startswith("Variants with RAG searched by themselves")


class Drawing:
    """An endpoint that takes sampling, and answers by the seed it is sent."""

    def __init__(self, fake: Any) -> None:
        self.fake = fake
        self.options: list[Any] = []

    async def listing(self) -> list[dict[str, Any]]:
        return list(self.fake.entries)

    async def stream(self, messages: Any, model: str, *, max_tokens: int | None = None, options: Any = None) -> Any:
        self.options.append((model, max_tokens, dict(options or {})))
        calm, right = self.fake.answer, (options or {}).get("seed", 0) % 3 != 0
        self.fake.answer = lambda variant, question: "300 grams" if right else "no idea"
        async for delta in self.fake.stream(messages, model, max_tokens=max_tokens):
            yield delta
        self.fake.answer = calm


REPEATS = (
    "variants: [base, {name: warm, model: base, sampling: {temperature: 0.7, max_tokens: 9}}]\nrepeats: 4\nconcurrency: 1\n"
)


def test_repeats_draw_with_other_seeds_and_tell_sampling_from_questions(fake: Any, load: Load) -> None:
    drawing = Drawing(fake)
    result = compare.run(load(REPEATS), endpoint=drawing)
    assert len(drawing.options) == 12 * 2 * 4
    assert len({options["seed"] for _, _, options in drawing.options}) == 48, (
        "those of a question are the same for every variant"
    )
    assert {(most, options.get("temperature")) for _, most, options in drawing.options} == {(64, None), (9, 0.7)}
    assert len(result.rows) == 96
    assert result.estimates["contains_value"]["base"].n == 12
    noise = result.experiment.noise["contains_value"]["warm"]
    assert 0.2 < noise.flips < 0.8
    assert noise.sampling > noise.question, "all of it is drawn"
    assert compare.load("grid") == result
    drawing.options.clear()
    compare.run(load(REPEATS), endpoint=drawing)
    assert drawing.options == []


def test_a_fifth_repeat_asks_for_the_fifth_alone(fake: Any, load: Load) -> None:
    drawing = Drawing(fake)
    compare.run(load(REPEATS), endpoint=drawing)
    drawing.options.clear()
    compare.run(load(REPEATS.replace("repeats: 4", "repeats: 5")), endpoint=drawing)
    assert len(drawing.options) == 24


def test_repeats_that_draw_nothing_are_told(fake: Any, load: Load) -> None:
    fake_with_options = Drawing(fake)
    fake_with_options.fake.answer = fake.answer

    async def stream(messages: Any, model: str, *, max_tokens: int | None = None, options: Any = None) -> Any:
        async for delta in fake.stream(messages, model, max_tokens=max_tokens):
            yield delta

    fake_with_options.stream = stream  # type: ignore[method-assign]
    result = compare.run(load("variants: [base]\nrepeats: 3\n"), endpoint=fake_with_options)
    assert any("gave the same answer: at temperature 0 nothing is drawn" in note for note in result.experiment.notes)


def test_keys_of_what_older_recipes_ask_are_what_they_were() -> None:
    entry = {"id": "base", "adapter": None, "rag": None, "fingerprint": "f1", "created": 5}
    document = CompareRecipe.model_validate(
        {"name": "x", "questions": {"path": __file__}, "variants": ["base", "gpt"], "repeats": 1}
        | {"endpoint": {"base_url": "http://h/v1"}, "max_tokens": 32}
    )
    turns = (("system", "Short."), ("user", "How heavy is it?"))
    asked = [Question("q", "How heavy is it?", columns={"topic": "kettles"}), Question("t", "How heavy is it?", turns=turns)]
    ways = [Way(document.compared[0], "base", entry), Way(document.compared[1], "gpt", {"id": "gpt"})]
    keys = {(job.id, job.variant): job.key for job in jobs(document.model_copy(update={"max_tokens": 64}), asked, ways)}
    assert keys["q", "base"] == "9be10ff5ce56814b8882e51fd2681c38", "as the first version made it"
    keys = {(job.id, job.variant): job.key for job in jobs(document, asked, ways)}
    assert keys["t", "gpt"] == "e422eb589ccd2c0fd55d94f04d7fc4f9"


def test_older_answers_and_summaries_still_load(fake: Any, load: Load) -> None:
    result = compare.run(load("variants: [base, adapter]\n"), endpoint=fake)
    lines = [json.loads(line) for line in result.answers.read_text(encoding="utf-8").splitlines()]
    old = [{key: value for key, value in line.items() if key != "manifest"} for line in lines]
    result.answers.write_text("".join(json.dumps(line) + "\n" for line in old), encoding="utf-8")
    summary = json.loads(result.summary.read_text(encoding="utf-8"))
    del summary["experiment"]
    result.summary.write_text(json.dumps(summary), encoding="utf-8")
    loaded = compare.load("grid")
    assert (loaded.estimates, loaded.experiment.repeats, loaded.rows[0].answer.manifest) == (result.estimates, 1, {})
    fake.asked.clear()
    compare.run(load("variants: [base, adapter]\n"), endpoint=fake)
    assert fake.asked == []
