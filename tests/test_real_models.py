"""The recipes for published models: each is checked against its model's config.json, without weights, as `check` does it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tests.real_models import CONFIGS

from llmbench import architecture, estimate, recipe
from llmbench.estimate import shapes
from llmbench.hardware import Machine
from llmbench.recipe import TrainRecipe
from llmbench.recipe.combination import refusals
from llmbench.recipe.servability import servability

ROOT = Path(__file__).resolve().parents[1]
GPU = Machine("cuda", 8, 64 * 2**30, bfloat16=True, gpu="one GPU", gpu_memory=48 * 2**30)
CHARACTERS = 4
"""Of a token of these models, in English text."""


def real() -> dict[str, TrainRecipe]:
    """The bundled recipes of models that are not bundled, by their names."""
    found = {path.stem: recipe.load_any(path) for path in sorted((ROOT / "recipes").glob("*.yaml"))}
    return {
        name: document
        for name, document in found.items()
        if isinstance(document, TrainRecipe) and re.fullmatch(r"[\w-]+/[\w.-]+", document.model.model_name_or_path)
        if document.model.model_name_or_path != "llmbench/tiny"
    }


RECIPES = real()
each = pytest.mark.parametrize("name", sorted(RECIPES))


def lengths(document: TrainRecipe) -> np.ndarray:
    """Tokens of the rows, by their characters."""
    source = document.data.train[0]
    if source.lessons is not None:
        counts = [source.lessons.characters / CHARACTERS] * source.lessons.conversations
    else:
        assert source.path is not None
        share = 0.6 if document.method in ("dpo", "orpo", "reward") else 1.0  # the prompt and one of two answers
        counts = [share * len(line) / CHARACTERS for line in source.path.read_text(encoding="utf-8").splitlines()]
    rows: np.ndarray = np.minimum(np.array(counts).astype(int) + 8, document.data.max_length)
    return rows


def test_five_families_and_every_kind_of_training_have_one() -> None:
    families = {str(CONFIGS[one.model.model_name_or_path]["model_type"]) for one in RECIPES.values()}
    assert families == {"qwen3", "llama", "gemma3_text", "phi3"}
    assert {one.method for one in RECIPES.values()} == {"sft", "pretrain", "dpo", "kto", "reward"}
    assert any(one.lora is None and one.method == "sft" for one in RECIPES.values())
    assert any(one.quantization is not None for one in RECIPES.values())


@each
def test_its_model_can_be_trained_so(name: str) -> None:
    document = RECIPES[name]
    config = CONFIGS[document.model.model_name_or_path]
    assert architecture.refusal(config, attn_implementation="auto", judge=document.method == "reward") is None
    assert refusals(document, config) == []
    assert document.data.max_length <= config["max_position_embeddings"]


@each
def test_its_first_lines_say_what_it_takes(name: str) -> None:
    document = RECIPES[name]
    text = (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    told = re.search(r"# Memory: ([\d.]+) GB of GPU memory\. Time: (under a minute|(\d+) minutes?) on one GPU\.", text)
    assert told is not None
    found = shapes.of(None, CONFIGS[document.model.model_name_or_path])
    need = estimate.estimate(document, found, estimate.work(document, lengths(document), 0.3), GPU)
    assert float(told[1]) == pytest.approx(need.peak / 1e9, rel=0.02)
    assert need.peak < GPU.gpu_memory
    minutes = need.seconds / 60
    assert minutes < 1 if told[3] is None else float(told[3]) == pytest.approx(minutes, abs=0.5)


@each
def test_what_vllm_will_not_serve_is_said_in_its_comments(name: str) -> None:
    text = (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    assert bool(servability(RECIPES[name])) == (
        "cannot be served as an adapter" in text or "must be merged to be served" in text
    )


@each
def test_a_gated_model_is_said_to_be_one(name: str) -> None:
    text = (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    owner = RECIPES[name].model.model_name_or_path.partition("/")[0]
    assert ("The model is gated" in text) == (owner in ("meta-llama", "google"))
