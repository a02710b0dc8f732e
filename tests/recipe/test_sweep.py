from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from llmbench import recipe
from llmbench.errors import RecipeError
from llmbench.recipe import SweepRecipe

GOOD: dict[str, Any] = {"name": "a", "recipe": "bundled://recipes/sft-lora.yaml", "space": {"lora.r": [8, 16]}}


def load(tmp_path: Path, *overrides: str, **fields: Any) -> SweepRecipe:
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **fields}, sort_keys=False))
    return recipe.load(path, SweepRecipe, overrides)


def test_the_bundled_sweep_fits_its_recipe() -> None:
    spec = recipe.load("recipes/sweep.yaml", SweepRecipe)
    assert isinstance(recipe.load_any("recipes/sweep.yaml"), SweepRecipe)
    assert list(spec.space) == ["training.learning_rate", "lora.r", "lora.use_rslora"]
    assert spec.confirm is not None and not spec.minimizes


def test_nested_and_dotted_keys_are_the_same(tmp_path: Path) -> None:
    dotted = load(tmp_path, space={"lora.r": [8], "training.learning_rate": {"low": 1.0, "high": 2.0}})
    nested = load(tmp_path, space={"lora": {"r": [8]}, "training": {"learning_rate": {"low": 1.0, "high": 2.0}}})
    assert dotted.space == nested.space
    assert load(tmp_path, "overrides.training.max_steps=3").overrides == {"training.max_steps": 3}
    assert load(tmp_path, "space.lora.r=[1, 2]").space["lora.r"].choices == [1, 2]


def test_the_direction_follows_from_the_objective_unless_it_is_given(tmp_path: Path) -> None:
    assert load(tmp_path).minimizes
    assert load(tmp_path, objective="eval_perplexity").minimizes
    assert not load(tmp_path, objective="eval_exact_match").minimizes
    assert not load(tmp_path, direction="maximize").minimizes


def test_workers_are_the_gpus_unless_they_are_given(tmp_path: Path) -> None:
    assert (load(tmp_path).workers, load(tmp_path, gpus=[0, 1]).workers, load(tmp_path, gpus=[0, 1], parallel=1).workers) == (
        1,
        2,
        1,
    )
    assert load(tmp_path, gpus=[0, 1]).gpus == ["0", "1"]


def test_a_range_with_steps_has_its_last_value(tmp_path: Path) -> None:
    space = load(tmp_path, space={"a": {"low": 0.0, "high": 0.3, "step": 0.1}, "b": {"low": 4, "high": 9, "step": 2}}).space
    assert (space["a"].values, space["b"].values) == ([0.0, 0.1, 0.2, 0.3], [4, 6, 8])
    assert space["b"].whole and not space["a"].whole


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"space": {}}, "space"),
        ({"space": {"lora.r": {"low": 8}}}, "needs a list of choices, or low and high"),
        ({"space": {"lora.r": {"low": 8, "high": 8}}}, "8 is not below 8"),
        ({"space": {"lora.r": {"low": 0, "high": 8, "log": True}}}, "log needs a low above 0"),
        ({"space": {"lora.r": {"low": 1, "high": 8, "log": True, "step": 1}}}, "log and step do not go together"),
        ({"space": {"lora.r": {"choices": [1], "low": 1}}}, "give choices, or low and high, not both"),
        ({"space": {"lora.r": [8, 8]}}, "8 is listed twice"),
        ({"space": {"name": ["a", "b"]}}, "space: name is set by the sweep itself"),
        ({"space": {"training.seed": [1, 2]}}, "space: training.seed is set by the sweep itself"),
        ({"overrides": {"lora.r": 8}}, "overrides: lora.r is searched"),
        ({"space": {"lora.r": {"choices": [8], "when": {"lora.use_dora": True}}}}, "which is not a setting listed before it"),
        ({"sampler": "grid", "space": {"lora.lora_dropout": {"low": 0.0, "high": 0.5}}}, "sampler grid needs a list"),
        ({"gpus": [0], "parallel": 2}, "2 trainings and 1 gpus"),
        ({"confirm": {"seeds": 2}}, "give rows .* or questions"),
        ({"confirm": {"rows": 0.1, "questions": "bundled://rag/questions.jsonl"}}, "give rows .* or questions"),
        ({"confirm": {"rows": 0.1}, "space": {"data.train.0.path": ["a.jsonl"]}}, "could be trained on"),
        ({"objective": "grounded"}, "objective: grounded is not a figure of a training's evaluations"),
        ({"name": "a" * 51}, "name: at most 50 characters"),
        ({"sample": "tpe"}, "Did you mean sampler"),
        ({"recipe": "none.yaml"}, "none.yaml"),
    ],
)
def test_what_does_not_go_together_is_one_line(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as told:
        load(tmp_path, **fields)
    assert len(str(told.value).splitlines()) == 1


def test_a_sweep_is_no_training_recipe() -> None:
    with pytest.raises(RecipeError, match="is a recipe for `llmbench sweep`, not for `llmbench train`"):
        recipe.load("recipes/sweep.yaml", recipe.TrainRecipe)
