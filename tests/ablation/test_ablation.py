"""`llmbench ablate`: conditions of a recipe, the figures over seeds, and trainings that are not repeated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llmbench import runs
from llmbench.ablation import ablate, conditions, plan, seeds_needed
from llmbench.ablation.conditions import Condition
from llmbench.ablation.figures import measured
from llmbench.ablation.page import page
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError, RecipeError, RunError


@pytest.fixture
def document(tmp_path: Path, home: Path) -> Path:
    """A recipe of two steps with a rank and a warm-up of its own, over two files."""
    for name in ("rows", "more"):
        rows = [{"prompt": f"What is item {i} of {name}?", "completion": f"It is {i * 7 % 10}."} for i in range(8)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = tmp_path / "my.yaml"
    path.write_text(
        "name: mine\n"
        "data: {train: [{path: rows.jsonl}, {path: more.jsonl}], eval: [{path: more.jsonl}]}\n"
        "lora: {r: 4, use_rslora: true}\n"
        "training: {max_steps: 2, logging_steps: 1, warmup_steps: 0, learning_rate: 0.003}\n",
        encoding="utf-8",
    )
    return path


def test_conditions_leave_keys_out_and_change_values(document: Path) -> None:
    found = conditions(
        document,
        ["training.max_steps=3"],
        ["lora.use_rslora", "data.train.1"],
        ["lora.r=16", "lora=null training.learning_rate=1e-5"],
    )
    assert [one.name for one in found] == [
        "full", "without lora.use_rslora", "without data.train.1", "lora.r=16", "lora=null training.learning_rate=1e-5",
    ]  # fmt: skip
    full, plain, less, larger, whole = (one.values for one in found)
    assert all(one.values["training"]["max_steps"] == 3 for one in found)
    assert full["lora"]["use_rslora"] is True and "use_rslora" not in plain["lora"]
    assert len(less["data"]["train"]) == 1 and len(full["data"]["train"]) == 2
    assert larger["lora"]["r"] == 16 and whole["lora"] is None and whole["training"]["learning_rate"] == 1e-5


@pytest.mark.parametrize(
    ("without", "change", "words"),
    [
        (["lora.use_rslra"], [], "has no use_rslra there. Did you mean use_rslora?"),
        (["data.train.7"], [], "has no 7 there"),
        (["training.seed"], [], "training.seed tells the runs of an ablation apart"),
        ([], ["name=other"], "name tells the runs of an ablation apart"),
        ([], ["lora.r=8 'x"], "a quotation mark is not closed"),
        ([], ["lora.r=4"], "the recipe says that already"),
        ([], ["lora.r=8", "lora.r=8"], "lora.r=8 is listed twice"),
    ],
)
def test_conditions_that_vary_nothing_are_refused(document: Path, without: list[str], change: list[str], words: str) -> None:
    with pytest.raises(RecipeError) as error:
        conditions(document, [], without, change)
    assert words in str(error.value)


def test_a_key_whose_default_is_what_the_recipe_says_is_refused(document: Path) -> None:
    with pytest.raises(RunError, match=r"without lora\.lora_dropout changes nothing: the recipe is that of full"):
        plan(conditions(document, [], ["lora.lora_dropout"], []), "mine", 2)


def test_names_of_runs_are_short_unique_and_seed_by_seed(document: Path, home: Path) -> None:
    long = "training.learning_rate=0.00001 training.weight_decay=0.1 lora.r=32"
    planned = plan(conditions(document, [], ["lora.r"], [long]), "a" * 60, 2)
    names = [one.recipe.name for one in planned]
    assert len(set(names)) == 6 and max(map(len, names)) <= 64
    assert [(one.seed, one.condition) for one in planned[:3]] == [(42, "full"), (42, "without lora.r"), (42, long)]
    assert [one.recipe.training.seed for one in planned] == [42, 42, 42, 43, 43, 43]
    assert not home.exists(), "a plan writes nothing"


def figures(values: dict[str, list[float]], *, headline: str = "held-out loss") -> Any:
    of = {name: dict(enumerate(found)) for name, found in values.items()}
    names = {name: {seed: f"{name}-{seed}" for seed in found} for name, found in of.items()}
    seeds = tuple(range(max(map(len, values.values()))))
    return measured("mine", headline, seeds, names, {headline: of}, {}, drawn=False)


def test_differences_are_paired_by_seed_so_that_what_a_seed_does_falls_out() -> None:
    noise = [0.0, 1.0, -1.0, 2.0, -2.0, 3.0, 0.5]
    jitter = [0.01, -0.01, 0.02, -0.02, 0.0, 0.01, -0.01]
    found = figures({"full": noise, "worse": [a + 0.3 + b for a, b in zip(noise, jitter, strict=True)]})
    [one] = found.differences["held-out loss"]
    assert (one.a, one.b, one.n) == ("worse", "full", 7) and 0.27 < one.low < one.mean < one.high < 0.33 and one.p_holm < 0.05
    full, worse = (found.estimates["held-out loss"][name] for name in ("full", "worse"))
    assert full.high > worse.low, "the means alone, with their intervals, tell nothing"


def test_more_conditions_need_more_seeds_and_the_correction_counts_them() -> None:
    assert [seeds_needed(n) for n in (1, 2, 3, 5)] == [6, 7, 7, 8]
    values = {"full": [0.0] * 6, "a": [1.0, 1.1, 0.9, 1.0, 1.2, 0.8]}
    assert figures(values).differences["held-out loss"][0].p_holm < 0.05
    two = figures(values | {"b": [0.1, -0.1, 0.2, -0.2, 0.1, -0.1]})
    assert min(one.p_holm for one in two.differences["held-out loss"]) > 0.05
    assert any("6 seeds cannot show a difference with 2 comparisons" in note and "--seeds 7" in note for note in two.notes)
    assert not any("cannot show" in note for note in figures(values).notes)


def test_one_seed_has_means_and_neither_intervals_nor_differences() -> None:
    found = figures({"full": [1.0], "a": [2.0]})
    assert found.estimates["held-out loss"] == {"full": None, "a": None} and found.differences["held-out loss"] == ()
    assert "<script" not in page(found)


def test_a_page_escapes_what_it_is_given() -> None:
    html = page(figures({"full": [1.0, 2.0], "<img src=x>": [2.0, 3.5]}))
    assert "<img src=x>" not in html and "&lt;img src=x&gt;" in html and "llmbench ablation" in html


@pytest.fixture
def trained(document: Path) -> list[Condition]:
    """Two conditions, trained with two seeds each."""
    found = conditions(document, [], ["lora.use_rslora"], [])
    ablate(plan(found, "mine", 2), "mine")
    return found


def test_what_is_finished_is_not_trained_again(
    trained: list[Condition], document: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmbench import training

    summary = json.loads((home / "ablations" / "mine" / "summary.json").read_text(encoding="utf-8"))
    assert summary["headline"] == "held-out loss" and summary["seeds"] == [42, 43]
    assert (home / "ablations" / "mine" / "report.html").exists() and len(runs.every()) == 4
    values = summary["values"]["held-out loss"]
    assert values["full"] != values["without lora.use_rslora"]
    run = runs.open_run("mine-full-s42")
    assert values["full"]["42"] == run.status["eval_loss"]

    real, names = training.train, []

    def train(recipe: Any, run: Any, **more: Any) -> None:
        names.append(run.name)
        if run.name.startswith("mine-without"):
            raise LlmbenchError("no more room")
        real(recipe, run, **more)

    monkeypatch.setattr(training, "train", train)
    found = ablate(plan(trained, "mine", 3), "mine")
    assert names == ["mine-full-s44", "mine-without-lora-use-rslora-s44"]
    assert found.failed == {"mine-without-lora-use-rslora-s44": "no more room"}
    assert found.differences["held-out loss"][0].n == 2 and len(found.values["held-out loss"]["full"]) == 3

    (document.parent / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n', encoding="utf-8")
    with pytest.raises(RunError, match="Run mine-full-s42 is finished, but was trained on something else: data: "):
        ablate(plan(trained, "mine", 2), "mine")


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["ablate", *arguments])


def test_the_verb_prints_the_plan_and_the_tables(trained: list[Condition], document: Path, home: Path) -> None:
    asked = (str(document), "--without", "lora.use_rslora", "--seeds", "2", "--name", "mine")
    planned = typed(*asked, "--dry-run")
    assert "0 of 4 runs to train." in planned.stdout and "2 seeds cannot show a difference" in planned.stderr
    done = typed(*asked)
    assert done.exit_code == 0, done.output
    assert "held-out loss" in done.stdout and "without lora.use_rslora" in done.stdout and "p (Holm)" in done.stdout
    assert str(home / "ablations" / "mine" / "report.html") in done.stdout
    found = json.loads(typed(*asked, "--json").stdout)
    assert found["conditions"] == ["full", "without lora.use_rslora"] and found["failed"] == {}


def test_nothing_to_vary_is_an_error(document: Path) -> None:
    error = typed(str(document)).exception
    assert isinstance(error, RecipeError) and "Say what to vary" in str(error)
