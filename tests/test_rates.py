"""A learning rate that is too high for a model's size is said; the bundled recipes' own are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmbench import assets
from llmbench.estimate import rates
from llmbench.recipe import TrainRecipe, load

SIZES = {"0.6B": (1024, 3072, 28), "8B": (4096, 12288, 36)}


def model(folder: Path, size: str) -> Path:
    """A folder with the configuration and a header of the weights of a Qwen3 of that size, and none of the weights."""
    hidden, intermediate, layers = SIZES[size]
    config = {
        "model_type": "qwen3", "hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": layers,
        "num_attention_heads": 16, "vocab_size": 151936,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    many = {"0.6B": 600, "8B": 8000}[size]
    header = json.dumps({"all": {"dtype": "BF16", "shape": [many, 1_000_000], "data_offsets": [0, 0]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    return folder


@pytest.mark.parametrize(
    ("size", "overrides", "start"),
    [
        ("0.6B", [], "0.0002"),
        ("8B", [], "0.0002"),
        ("8B", ["training.learning_rate=2e-4"], None),
        ("8B", ["training.learning_rate=2e-4", "lora=null"], "2e-05"),
    ],
)
def test_a_rate_is_judged_by_the_size_of_the_model(tmp_path: Path, size: str, overrides: list[str], start: str | None) -> None:
    said = rates.high(load("recipes/sft-lora.yaml", TrainRecipe, overrides), model(tmp_path, size))
    assert (start is None) == (said == [])
    if start is not None:
        assert said[0].endswith(f"Start with training.learning_rate={start}") and size in said[0].replace(
            "600M", "0.6B"
        ).replace("8.0B", "8B")


@pytest.mark.parametrize(("rate", "said"), [("1e-4", True), ("2e-5", False)])
def test_judged_answers_are_learned_at_a_tenth(tmp_path: Path, rate: str, said: bool) -> None:
    document = load("recipes/dpo.yaml", TrainRecipe, [f"training.learning_rate={rate}"])
    assert bool(rates.high(document, model(tmp_path, "8B"))) is said


@pytest.mark.parametrize("name", ["sft-lora", "qlora", "dpo", "kto", "orpo", "reward"])
def test_a_bundled_recipe_suits_the_bundled_model(name: str) -> None:
    assert rates.high(load(f"recipes/{name}.yaml", TrainRecipe), Path(assets.model_folder("llmbench/tiny"))) == []


@pytest.mark.parametrize(
    ("overrides", "start"),
    [
        (["training.learning_rate=10"], "0.0002"),
        (["training.learning_rate=0.5", "lora=null"], "2e-05"),
        (["training.learning_rate=10", "training.optim=muon"], "0.0002"),
        (["training.learning_rate=50", "adapter.type=ia3", "lora=null"], "0.02"),
        (["training.learning_rate=1", "adapter.type=ia3", "lora=null"], None),
        (["training.learning_rate=0.5", "training.optim=sgd"], None),
        (["training.learning_rate=0.05"], None),
    ],
)
def test_a_rate_that_suits_no_model_is_said_of_the_smallest_too(overrides: list[str], start: str | None) -> None:
    document = load("recipes/sft-lora.yaml", TrainRecipe, overrides)
    for folder in (Path(assets.model_folder("llmbench/tiny")), None):
        said = rates.high(document, folder)
        assert len(said) == (start is not None)
        assert start is None or said[0].endswith(f"training.learning_rate={start}")
